"""What a worker still knows of the classes and students it folded last, so that the next fold need not read it again.

A class's row and a student's row carry a change number each. Whoever changes a view, its work or its standings, or a
flag, holds the row's lock and counts the number up in the same transaction, in any process and of either release. So
what was known under a number is what is stored as long as the locked row still says that number; any other number means
that somebody else was there, and all of that row's is read again. Roster, assignments and time are no part of that
number: what changes them leaves a touch, and a class for which one waits or waited, or whose day has ended, is read
again.
"""

from collections import OrderedDict
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import Generic, Protocol, TypeVar

from db.assessment import Counters, FlagKey, StoredFlag, StudentLock
from db.fold_level import Era
from db.projection import ViewKey
from rules.calendar import local_date
from rules.classroom import ClassFacts, Member, View, Work
from rules.outcome import ViewState
from rules.skill import Standing

CLASS_ROWS_MAX = 100_000  # of 250 to 450 bytes each (measured): 45 MB a process at most
STUDENT_ROWS_MAX = 50_000


@dataclass(slots=True)
class Known:
    """A view as it is stored, with the rows of it that were asked for; None is a row that does not exist."""

    view: View
    works: dict[str, Work | None] = field(default_factory=dict)
    standings: dict[str, Standing | None] = field(default_factory=dict)

    @property
    def state(self) -> ViewState:
        """The view with all of its rows, which must be known."""
        return ViewState(
            self.view,
            {item: work for item, work in self.works.items() if work is not None},
            {concept: standing for concept, standing in self.standings.items() if standing is not None},
        )

    def follow(self, before: ViewState | None, after: ViewState) -> None:
        """Take over what a fold made of the view, as it is saved (`db.projection.Moves.compare`).

        `before` is the whole of it where it was rebuilt, else None.
        """
        self.view = after.view
        self.works.update(after.works)
        self.standings.update(after.standings)
        if before is not None:
            self.works.update(dict.fromkeys(before.works.keys() - after.works.keys()))
            self.standings.update({name: Standing(name) for name in before.standings.keys() - after.standings.keys()})

    @property
    def rows(self) -> int:
        """How much of memory it takes."""
        return 1 + len(self.view.open_items) + len(self.works) + len(self.standings)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an assessment reads beside policy and clock: as stored, on the local day `today`."""

    facts: ClassFacts
    today: date
    roster_moment: datetime | None  # when the set of active enrolments next changes by itself
    flags: dict[FlagKey, StoredFlag]


@dataclass(slots=True)
class KnownClass:
    """A class as its last fold left it."""

    counters: Counters
    views: dict[str, Known] = field(default_factory=dict)  # by student, as far as they were folded
    surroundings: Surroundings | None = None
    _rows_around: int = 0

    def surround(self, around: Surroundings) -> None:
        """Know what was just read around the class. How much that is, is counted here, and not at each fold."""
        facts = around.facts
        open_items = sum(len(member.view.open_items) for member in facts.members)
        self._rows_around = len(facts.due_by_item) + len(facts.members) + open_items + len(around.flags)
        self.surroundings = around

    @property
    def rows(self) -> int:
        """How much of memory it takes."""
        around = 0 if self.surroundings is None else self._rows_around
        return 1 + around + sum(known.rows for known in self.views.values())


@dataclass(slots=True)
class KnownStudent:
    """A student whom the roster knows, with the view over all classes."""

    change_no: int
    overall: Known | None = None

    @property
    def rows(self) -> int:
        """How much of memory it takes."""
        return 1 if self.overall is None else self.overall.rows


class _Sized(Protocol):
    @property
    def rows(self) -> int: ...


S = TypeVar("S", bound=_Sized)


class Shelf(Generic[S]):
    """What is known by (tenant, key), at most so many rows of it: what was not used for longest goes first."""

    def __init__(self, rows_max: int) -> None:
        self._rows_max = rows_max
        self._kept: OrderedDict[tuple[int, str], tuple[S, int]] = OrderedDict()
        self._rows = 0

    def __contains__(self, key: tuple[int, str]) -> bool:
        return key in self._kept

    def take(self, key: tuple[int, str]) -> S | None:
        """What is known, which is the caller's alone from now on: what is not put back is forgotten."""
        known, rows = self._kept.pop(key, (None, 0))
        self._rows -= rows
        return known

    def put(self, key: tuple[int, str], known: S) -> None:
        """Keep it, in place of what another fold may have put there, unless it alone is more than may be kept."""
        self.take(key)
        if (rows := known.rows) > self._rows_max:
            return  # all others would go for it, at each fold
        self._kept[key] = (known, rows)
        self._rows += rows
        while self._rows > self._rows_max:
            self._rows -= self._kept.popitem(last=False)[1][1]

    def forget(self, tenant: int) -> None:
        """Forget all of a tenant."""
        for key in [key for key in self._kept if key[0] == tenant]:
            self.take(key)

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()
        self._rows = 0


class Memory:
    """What one worker process knows; used by its folds only, between their locks and their commits."""

    def __init__(self, *, class_rows_max: int = CLASS_ROWS_MAX, student_rows_max: int = STUDENT_ROWS_MAX) -> None:
        self.classes: Shelf[KnownClass] = Shelf(class_rows_max)
        self.students: Shelf[KnownStudent] = Shelf(student_rows_max)
        self.server_began: datetime | None = None
        self._eras: dict[int, Era] = {}  # by tenant

    def recall(self, tenant: int, era: Era) -> "Recall":
        """Begin a fold's use of it, in the tenant's era as the fold's own transaction sees it.

        Another server than before may be one that never heard of the last commits (a restored backup, a standby that
        was promoted), and so may a tenant that was restored: change numbers say nothing about what is known.
        """
        if era.server_began != self.server_began:
            self.classes.clear()
            self.students.clear()
            self._eras.clear()
            self.server_began = era.server_began
        elif era != self._eras.get(tenant):
            self.classes.forget(tenant)
            self.students.forget(tenant)
        self._eras[tenant] = era
        return Recall(self, tenant, era)

    def is_in(self, tenant: int, era: Era) -> bool:
        """Whether this is still the era that was met last."""
        return self._eras.get(tenant) == era


@dataclass(slots=True)
class Recall:
    """What is known of the rows that one fold has locked; the fold's alone until it is kept, forgotten if it is not."""

    memory: Memory
    tenant: int
    era: Era
    classes: dict[str, KnownClass] = field(default_factory=dict)
    students: dict[str, KnownStudent] = field(default_factory=dict)
    _folded: dict[str, dict[str, View]] = field(default_factory=dict)  # by class and student

    def unseen_classrooms(self, classrooms: Iterable[str]) -> list[str]:
        """Those of these classes that may have no row to lock yet; a row that was locked once is never deleted."""
        return [key for key in classrooms if (self.tenant, key) not in self.memory.classes]

    def unseen_students(self, students: Iterable[str]) -> list[str]:
        """Those of these students who may have no row to lock yet."""
        return [key for key in students if (self.tenant, key) not in self.memory.students]

    def begin(
        self, counters: Mapping[str, Counters], locked: Mapping[str, StudentLock], *, touched: Container[str]
    ) -> None:
        """Take what is known of the locked rows and still holds; of touched classes nothing does."""
        for classroom, now in counters.items():
            known = self.memory.classes.take((self.tenant, classroom))
            is_sound = known is not None and known.counters == now and classroom not in touched
            self.classes[classroom] = known if known is not None and is_sound else KnownClass(now)
        for student, lock in locked.items():
            kept = self.memory.students.take((self.tenant, student))
            if kept is not None and kept.change_no <= lock.change_no:  # less of a row that was made again
                if kept.change_no != lock.change_no:
                    kept.change_no, kept.overall = lock.change_no, None
                self.students[student] = kept

    def doubt(self, classrooms: Iterable[str]) -> None:
        """Read again what is around these known classes: a touch of them waits, claimed by another fold or by none.

        What changed roster or assignments recorded events beside the touch, and this fold may hold those.
        """
        for classroom in classrooms:
            self.classes[classroom].surroundings = None

    def meet(self, students: Iterable[str], locked: Mapping[str, StudentLock]) -> None:
        """Begin to know these students, whom the roster knows: it forgets nobody."""
        self.students.update((student, KnownStudent(locked[student].change_no)) for student in students)

    def known(self, key: ViewKey) -> Known | None:
        """What is known of a view of a student whom the roster knows."""
        student, classroom = key
        return self.classes[classroom].views.get(student) if classroom else self.students[student].overall

    def learn(self, key: ViewKey, view: View) -> Known:
        """Begin to know a view that was read."""
        student, classroom = key
        known = Known(view)
        if classroom:
            self.classes[classroom].views[student] = known
        else:
            self.students[student].overall = known
        return known

    def follow(self, key: ViewKey, known: Known, before: ViewState | None, after: ViewState) -> None:
        """Take over what the fold made of a view; `before` as `Known.follow` takes it."""
        known.follow(before, after)
        if key[1]:
            self._folded.setdefault(key[1], {})[key[0]] = after.view

    def surroundings(self, classroom: str, *, zone: str, now: datetime) -> Surroundings | None:
        """What an assessment of the class reads, with the views of this fold; None where it must be read again."""
        known = self.classes[classroom]
        found = known.surroundings
        if found is None or found.facts.zone != zone or found.today != local_date(now, zone):
            return None
        if views := self._folded.get(classroom):
            members = tuple(
                one if (view := views.get(one.student)) is None
                else Member(one.student, one.enrolled_on_ms, one.zone, view)
                for one in found.facts.members
            )  # fmt: skip
            known.surroundings = found = replace(found, facts=replace(found.facts, members=members))
        return found

    def number(self, counters: Mapping[str, Counters], student_changes: Mapping[str, int]) -> None:
        """Note the numbers under which the fold saves; a class that it does not number is forgotten."""
        self.classes = {key: known for key, known in self.classes.items() if key in counters}
        for classroom, known in self.classes.items():
            known.counters = counters[classroom]
        for student, change_no in student_changes.items():
            self.students[student].change_no = change_no

    def keep(self) -> None:
        """Hand back what is known; call it after the commit, and never before.

        Unless another drain has met a new era meanwhile: that commit may be none of it.
        """
        if not self.memory.is_in(self.tenant, self.era):
            return
        for classroom, known in self.classes.items():
            self.memory.classes.put((self.tenant, classroom), known)
        for student, kept in self.students.items():
            self.memory.students.put((self.tenant, student), kept)
