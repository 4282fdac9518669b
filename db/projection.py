"""The views: what one student's work adds up to, loaded for a batch of views at once and saved where it differs."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol

import msgspec
from msgspec.structs import astuple

from db.pool import Connection
from rules.classroom import EMPTY_VIEW, CountedScore, OpenItem, View, Work
from rules.outcome import ViewState
from rules.skill import Standing

ViewKey = tuple[str, str]  # (student, classroom); classroom "" is the view over all classes

TEXTS_MAX = 32_768  # of some 500 bytes each: 16 MB a process

_open_items = msgspec.json.Decoder(tuple[OpenItem, ...])
_recent = msgspec.json.Decoder(tuple[CountedScore, ...])

VIEW_VALUES = """v.last_occurred_at, v.last_revision, v.last_source, v.last_event_id, v.assigned, v.graded, v.submitted,
    v.score_sum, v.score_count, v.last_active_at, v.open_items, v.recent"""

# Each row wanted is looked up by itself (lateral, and `offset 0` so that it stays so): where the tables were never
# analyzed, or when they were empty, the planner takes a tenant for small and reads all of it for every batch.
VIEWS = f"""
select v.student, v.classroom, {VIEW_VALUES}
from unnest($2::text[], $3::text[]) as w (student, classroom)
cross join lateral (
    select * from view_state s where s.tenant = $1 and s.classroom = w.classroom and s.student = w.student offset 0
) v
"""  # noqa: S608 - composed of constants above

# A view that is continued wants named rows, one that is replayed wants all: two joins, for with one condition for both
# the planner falls back to an index that reads a whole class for each row wanted (measured: 20 times slower). Both
# indexes of standings begin with these columns, in two orders, so whichever it takes leads to the rows themselves.
_STANDING_COLUMNS = """s.student, s.classroom, s.concept, s.count, s.earlier_sum, s.newest, s.successes,
    s.quiz_attempts, s.score, s.last_evidence_at, s.mastered_at, s.rank, s.claimed_at, s.best, s.latest,
    s.time_spent_ms, s.last_accessed_at, s.policy_version"""

STANDINGS = f"""
select {_STANDING_COLUMNS}
from unnest($2::text[], $3::text[], $4::text[]) as w (student, classroom, concept)
cross join lateral (
    select * from standing k
    where k.tenant = $1 and k.student = w.student and k.classroom = w.classroom and k.concept = w.concept offset 0
) s
union all
select {_STANDING_COLUMNS}
from unnest($5::text[], $6::text[]) as w (student, classroom)
cross join lateral (
    select * from standing k
    where k.tenant = $1 and k.student = w.student and k.classroom = w.classroom offset 0
) s
"""  # noqa: S608 - composed of constants above

_WORK_COLUMNS = """k.student, k.classroom, k.item, k.is_assigned, k.is_excused, k.due_at, k.assigned_source,
    k.assigned_event_id, k.submitted_at, k.counted, k.counted_occurred_at, k.counted_revision, k.counted_source,
    k.counted_event_id"""

WORKS = f"""
select {_WORK_COLUMNS}
from unnest($2::text[], $3::text[], $4::text[]) as w (student, classroom, item)
cross join lateral (
    select * from work s
    where s.tenant = $1 and s.student = w.student and s.classroom = w.classroom and s.item = w.item
    offset 0
) k
union all
select {_WORK_COLUMNS}
from unnest($5::text[], $6::text[]) as w (student, classroom)
cross join lateral (
    select * from work s where s.tenant = $1 and s.student = w.student and s.classroom = w.classroom offset 0
) k
"""  # noqa: S608 - composed of constants above

SAVE_VIEWS = """
insert into view_state (
    tenant, student, classroom, last_occurred_at, last_revision, last_source, last_event_id, assigned, graded,
    submitted, score_sum, score_count, last_active_at, open_items, recent, class_change)
select $1, w.* from unnest(
    $2::text[], $3::text[], $4::timestamptz[], $5::int[], $6::text[], $7::text[], $8::int[], $9::int[], $10::int[],
    $11::bigint[], $12::int[], $13::timestamptz[], $14::json[], $15::json[], $16::bigint[]) as w
on conflict (tenant, classroom, student) do update set
    last_occurred_at = excluded.last_occurred_at, last_revision = excluded.last_revision,
    last_source = excluded.last_source, last_event_id = excluded.last_event_id, assigned = excluded.assigned,
    graded = excluded.graded, submitted = excluded.submitted, score_sum = excluded.score_sum,
    score_count = excluded.score_count, last_active_at = excluded.last_active_at, open_items = excluded.open_items,
    recent = excluded.recent, class_change = excluded.class_change
"""

DROP_VIEWS = """
delete from view_state v using unnest($2::text[], $3::text[]) as w (student, classroom)
where v.tenant = $1 and v.classroom = w.classroom and v.student = w.student
"""

# A row that `is_overall` too is saved twice: as the class's, and as the student's over all classes ("").
SAVE_STANDINGS = """
insert into standing (
    tenant, student, classroom, concept, count, earlier_sum, newest, successes, quiz_attempts, score,
    last_evidence_at, mastered_at, rank, claimed_at, best, latest, time_spent_ms, last_accessed_at, policy_version,
    class_change, student_change)
select $1, w.student, case when a.is_again then '' else w.classroom end, w.concept, w.count, w.earlier_sum, w.newest,
    w.successes, w.quiz_attempts, w.score, w.last_evidence_at, w.mastered_at, w.rank, w.claimed_at, w.best, w.latest,
    w.time_spent_ms, w.last_accessed_at, w.policy_version, case when a.is_again then 0 else w.class_change end,
    w.student_change
from unnest(
    $2::text[], $3::text[], $4::text[], $5::int[], $6::bigint[], $7::int[], $8::int[], $9::int[], $10::int[],
    $11::timestamptz[], $12::timestamptz[], $13::smallint[], $14::timestamptz[], $15::int[], $16::int[],
    $17::bigint[], $18::timestamptz[], $19::int[], $20::bigint[], $21::bigint[], $22::bool[]
) as w (
    student, classroom, concept, count, earlier_sum, newest, successes, quiz_attempts, score, last_evidence_at,
    mastered_at, rank, claimed_at, best, latest, time_spent_ms, last_accessed_at, policy_version, class_change,
    student_change, is_overall)
cross join (values (false), (true)) as a (is_again)
where w.is_overall or not a.is_again
on conflict (tenant, student, classroom, concept) do update set
    count = excluded.count, earlier_sum = excluded.earlier_sum, newest = excluded.newest,
    successes = excluded.successes, quiz_attempts = excluded.quiz_attempts, score = excluded.score,
    last_evidence_at = excluded.last_evidence_at, mastered_at = excluded.mastered_at, rank = excluded.rank,
    claimed_at = excluded.claimed_at, best = excluded.best, latest = excluded.latest,
    time_spent_ms = excluded.time_spent_ms, last_accessed_at = excluded.last_accessed_at,
    policy_version = excluded.policy_version, class_change = excluded.class_change,
    student_change = excluded.student_change
"""

SAVE_WORKS = """
insert into work (
    tenant, student, classroom, item, is_assigned, is_excused, due_at, assigned_source, assigned_event_id,
    submitted_at, counted, counted_occurred_at, counted_revision, counted_source, counted_event_id)
select $1, w.* from unnest(
    $2::text[], $3::text[], $4::text[], $5::bool[], $6::bool[], $7::timestamptz[], $8::text[], $9::text[],
    $10::timestamptz[], $11::int[], $12::timestamptz[], $13::int[], $14::text[], $15::text[]) as w
on conflict (tenant, student, classroom, item) do update set
    is_assigned = excluded.is_assigned, is_excused = excluded.is_excused, due_at = excluded.due_at,
    assigned_source = excluded.assigned_source, assigned_event_id = excluded.assigned_event_id,
    submitted_at = excluded.submitted_at, counted = excluded.counted,
    counted_occurred_at = excluded.counted_occurred_at, counted_revision = excluded.counted_revision,
    counted_source = excluded.counted_source, counted_event_id = excluded.counted_event_id
"""

DROP_WORKS = """
delete from work k using unnest($2::text[], $3::text[], $4::text[]) as w (student, classroom, item)
where k.tenant = $1 and k.student = w.student and k.classroom = w.classroom and k.item = w.item
"""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which views to load; `items` and `concepts` None means all of a view's rows (it will be replayed)."""

    items: Mapping[ViewKey, set[str] | None]
    concepts: Mapping[ViewKey, set[str] | None]


class Stored(Protocol):
    """A view as it is stored, with rows of it; None is a row that does not exist."""

    @property
    def view(self) -> View: ...
    @property
    def works(self) -> Mapping[str, Work | None]: ...
    @property
    def standings(self) -> Mapping[str, Standing | None]: ...


@dataclass(slots=True)
class Moves:
    """The rows that a batch of folds changed, gathered in key order for one set-based save."""

    views: list[tuple[ViewKey, View]] = field(default_factory=list)
    dropped_views: list[ViewKey] = field(default_factory=list)
    works: list[tuple[ViewKey, Work]] = field(default_factory=list)
    dropped_works: list[tuple[ViewKey, str]] = field(default_factory=list)
    standings: list[tuple[ViewKey, Standing]] = field(default_factory=list)
    students: set[str] = field(default_factory=set)  # in whose views anything changed
    unstamped: set[str] = field(default_factory=set)  # classes of which a view lost a stamp, or has none

    def compare(self, key: ViewKey, before: Stored, after: ViewState, *, is_replay: bool) -> None:
        """Gather what differs; views come in key order.

        `after` may hold only what was touched, but for a replay: rows that it no longer has are dropped, standings to
        an empty row. A vanished standing stays as an empty row (and reads as NO_DATA), for a live stream must tell that
        the evidence is gone. A view whose standings alone moved is saved, too: live streams find them by its stamp.
        """
        standings, saved_works, saved_standings = after.standings, before.works, before.standings
        is_moved = after.view != before.view
        if is_replay:
            dropped = [(key, item) for item in sorted(saved_works.keys() - after.works.keys())]
            self.dropped_works += dropped
            is_moved = is_moved or bool(dropped)
            gone = saved_standings.keys() - standings.keys()
            standings = {**standings, **{concept: Standing(concept) for concept in gone}}
        for item in sorted(after.works):
            if (work := after.works[item]) != saved_works.get(item):
                self.works.append((key, work))
                is_moved = True
        so_far = len(self.standings)
        for concept in sorted(standings):
            if (standing := standings[concept]) != saved_standings.get(concept):
                self.standings.append((key, standing))
        has_news = len(self.standings) > so_far
        if after.view != EMPTY_VIEW:
            if has_news or after.view != before.view:
                self.views.append((key, after.view))
        else:
            if before.view != EMPTY_VIEW:
                self.dropped_views.append(key)
            if has_news or before.view != EMPTY_VIEW:
                self.unstamped.add(key[1])
        if is_moved or has_news:
            self.students.add(key[0])


def view_of(values: Sequence[Any]) -> View:
    """Read the values of VIEW_VALUES, in their order."""
    occurred_at, revision, source, event_id, *rest = values
    assigned, graded, submitted, score_sum, score_count, last_active_at, open_items, recent = rest
    return View(
        None if occurred_at is None else (occurred_at, revision, source, event_id),
        assigned,
        graded,
        submitted,
        score_sum,
        score_count,
        last_active_at,
        _open_items_of(open_items),
        _recent_of(recent),
    )


# A class is assessed again with each batch, and most of its members' texts are those of the last time.
@lru_cache(maxsize=TEXTS_MAX)
def _open_items_of(text: str) -> tuple[OpenItem, ...]:
    return _open_items.decode(text)


@lru_cache(maxsize=TEXTS_MAX)
def _recent_of(text: str) -> tuple[CountedScore, ...]:
    return _recent.decode(text)


async def views(connection: Connection, tenant: int, keys: Iterable[ViewKey]) -> dict[ViewKey, View]:
    """Load these views; one that is not stored yet is empty."""
    wanted = list(keys)
    found = dict.fromkeys(wanted, EMPTY_VIEW)
    for row in await connection.fetch(VIEWS, tenant, [key[0] for key in wanted], [key[1] for key in wanted]):
        found[row["student"], row["classroom"]] = view_of(row[2:])
    return found


def _spread(wanted: Mapping[ViewKey, Collection[str] | None]) -> tuple[list[str], ...]:
    """Parallel columns: student, classroom and name of each named row; student and classroom of each whole view."""
    named = [(*key, name) for key, names in wanted.items() if names is not None for name in names]
    whole = [key for key, names in wanted.items() if names is None]
    return (
        [student for student, _, _ in named],
        [classroom for _, classroom, _ in named],
        [name for _, _, name in named],
        [student for student, _ in whole],
        [classroom for _, classroom in whole],
    )


async def standings(
    connection: Connection, tenant: int, wanted: Mapping[ViewKey, Collection[str] | None]
) -> dict[ViewKey, dict[str, Standing]]:
    """Load the standings wanted, by view and concept."""
    found: dict[ViewKey, dict[str, Standing]] = {key: {} for key in wanted}
    for row in await connection.fetch(STANDINGS, tenant, *_spread(wanted)):
        student, classroom, *values = row
        standing = Standing(*values)
        found[student, classroom][standing.concept] = standing
    return found


async def works(
    connection: Connection, tenant: int, wanted: Mapping[ViewKey, Collection[str] | None]
) -> dict[ViewKey, dict[str, Work]]:
    """Load the work wanted, by view and item."""
    found: dict[ViewKey, dict[str, Work]] = {key: {} for key in wanted}
    for row in await connection.fetch(WORKS, tenant, *_spread(wanted)):
        student, classroom, *values = row
        work = work_of(values)
        found[student, classroom][work.item] = work
    return found


def work_of(values: Sequence[Any]) -> Work:
    """Read the values of _WORK_COLUMNS after student and classroom, in their order."""
    item, is_assigned, is_excused, due_at, source, event_id, submitted_at, counted, counted_at, *counted_by = values
    return Work(
        item,
        is_assigned,
        is_excused,
        due_at,
        None if source is None else (source, event_id),
        submitted_at,
        counted,
        None if counted_at is None else (counted_at, *counted_by),
    )


async def save(
    connection: Connection,
    tenant: int,
    moves: Moves,
    *,
    class_changes: Mapping[str, int],
    student_changes: Mapping[str, int],
) -> None:
    """Save what moved, each kind set-based and in key order, views and standings stamped with the change numbers."""
    if moves.views:
        view_rows = (_view_row(key, view, class_changes.get(key[1], 0)) for key, view in moves.views)
        await connection.execute(SAVE_VIEWS, tenant, *_columns(view_rows))
    if moves.dropped_views:
        await connection.execute(DROP_VIEWS, tenant, *_columns(moves.dropped_views))
    if moves.works:
        await connection.execute(SAVE_WORKS, tenant, *_columns(_work_row(key, work) for key, work in moves.works))
    if moves.dropped_works:
        await connection.execute(DROP_WORKS, tenant, *_columns((*key, item) for key, item in moves.dropped_works))
    if moves.standings:
        keys, standings, are_overall = paired(moves.standings)
        await connection.execute(
            SAVE_STANDINGS,
            tenant,
            [student for student, _ in keys],
            [classroom for _, classroom in keys],
            *_columns(map(astuple, standings)),  # their fields in the order of the columns
            [class_changes.get(classroom, 0) for _, classroom in keys],
            [student_changes[student] for student, _ in keys],
            are_overall,
        )


def paired(moved: Sequence[tuple[ViewKey, Standing]]) -> tuple[list[ViewKey], list[Standing], list[bool]]:
    """Keys, standings, and whether each is its student's over all classes, too: such a pair goes out as one.

    Most students have their evidence of a concept from one class alone, and what came of it is made once
    (`rules.outcome.Beside`). What an event costs a worker is mostly its columns.
    """
    overall = {(key[0], standing.concept): standing for key, standing in moved if not key[1]}
    keys: list[ViewKey] = []
    standings: list[Standing] = []
    are_overall: list[bool] = []
    for key, standing in moved:
        if key[1]:
            place = (key[0], standing.concept)
            is_overall = overall.get(place) is standing
            if is_overall:
                del overall[place]
            keys.append(key)
            standings.append(standing)
            are_overall.append(is_overall)
    alone = [(student, "") for student, _ in overall]
    return keys + alone, [*standings, *overall.values()], are_overall + [False] * len(alone)


def _columns(rows: Iterable[Sequence[Any]]) -> list[tuple[Any, ...]]:
    return list(zip(*rows, strict=True))


def _view_row(key: ViewKey, view: View, class_change: int) -> tuple[Any, ...]:
    last = view.last or (None, None, None, None)
    return (
        *key,
        *last,
        view.assigned,
        view.graded,
        view.submitted,
        view.score_sum,
        view.score_count,
        view.last_active_at,
        msgspec.json.encode(view.open_items).decode() if view.open_items else "[]",
        msgspec.json.encode(view.recent).decode() if view.recent else "[]",
        class_change,
    )


def _work_row(key: ViewKey, work: Work) -> tuple[Any, ...]:
    return (
        *key,
        work.item,
        work.is_assigned,
        work.is_excused,
        work.due_at,
        *(work.assigned_by or (None, None)),
        work.submitted_at,
        work.counted,
        *(work.counted_place or (None, None, None, None)),
    )
