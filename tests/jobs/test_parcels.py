"""Events that ride in their outbox rows are, to the last field, what the log says, and so is what is said of them."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from string import ascii_letters, digits
from typing import Any

import asyncpg
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from db import facts, outbox
from db.facts import LoggedEvent
from db.live import Live
from db.outbox import SHARDS, Claimed, Waiting
from db.parcels import PARCEL_BYTES_MAX, unpacked
from db.pool import Connection, Pool, tenant_transaction
from rules.evidence import CORRECTION_KINDS, Kind, LearningEvent
from tests.jobs.test_drain import COUNTS, NOW, mill_of
from tests.laws.world import INSTANTS, RATIOS, histories, law, voids_of
from tests.support.corrections import corrections, regrade
from tests.support.events import Mill, graded
from tests.support.tenants import fresh_tenant

pytestmark = pytest.mark.feature("000-08", "000-11")

# No words: what people are called must not be found in any log of the run (tests/support/privacy.py).
LETTERS = st.characters(exclude_categories=["Cs", "Cc"], exclude_characters=ascii_letters + digits)
TEXTS = st.text(LETTERS, min_size=1, max_size=12)
YEARS = (datetime(1970, 1, 1), datetime(2099, 12, 31))  # noqa: DTZ001 - the dice want them bare
MOMENTS = st.datetimes(*YEARS, timezones=st.just(UTC))
MAYBE_TEXT = st.none() | TEXTS
PLAIN_KINDS = sorted(set(Kind) - CORRECTION_KINDS)
INT_MAX = 2**31 - 1

ALL_SORTS = st.builds(
    LearningEvent,
    source=TEXTS,
    event_id=TEXTS,
    kind=st.sampled_from(sorted(Kind)),
    occurred_at=MOMENTS,
    student=TEXTS,
    classroom=st.just("") | TEXTS,
    revision=st.integers(0, INT_MAX),
    assignment=MAYBE_TEXT,
    quiz=MAYBE_TEXT,
    concepts=st.lists(TEXTS, max_size=4, unique=True).map(tuple),
    ratio=st.none() | st.integers(0, INT_MAX),
    submission=MAYBE_TEXT,
    due_at=st.none() | MOMENTS,
    time_spent_ms=st.none() | st.integers(0, INT_MAX),
    target_source=MAYBE_TEXT,
    target_event_id=MAYBE_TEXT,
)


async def claimed(connection: Connection, tenant: int) -> list[Claimed]:
    """All events that wait."""
    rows = [row for shard in range(SHARDS) for row in await outbox.claim(connection, tenant, shard, limit=5_000)]
    return [row for row in rows if row.kind is Waiting.EVENT]


async def forget(connection: Connection, tenant: int) -> None:
    """Let nothing wait that nobody folds."""
    await connection.execute("delete from outbox where tenant = $1", tenant)


async def logged(connection: Connection, tenant: int) -> dict[int, LearningEvent]:
    """The events of the log by position, as a fold without parcels reads them."""
    rows = [replace(row, packed=None) for row in await claimed(connection, tenant)]
    return {entry.seq: entry.event for entry in await facts.claimed_events(connection, tenant, rows)}


async def marked(connection: Connection, tenant: int, rows: Sequence[Claimed]) -> list[LoggedEvent]:
    return sorted(await facts.claimed_events(connection, tenant, rows), key=lambda entry: entry.seq)


@law(examples=25)
@given(events=st.lists(ALL_SORTS, min_size=1, max_size=30, unique_by=lambda event: (event.source, event.event_id)))
async def test_what_rides_in_a_row_is_what_the_log_says(events: list[LearningEvent], pool: Pool, live: Live) -> None:
    mill = Mill.of(pool, await fresh_tenant(pool), live, now=NOW)

    await mill.record(*events)

    async with tenant_transaction(pool, mill.tenant) as connection:
        rows = await claimed(connection, mill.tenant)
        stored = await logged(connection, mill.tenant)
        await forget(connection, mill.tenant)
    assert len(rows) == len(stored) == len(events)
    for row in rows:
        event = stored[row.seq]
        assert unpacked(row) == (None if event.kind in CORRECTION_KINDS else event)


@pytest.mark.parametrize("kind", PLAIN_KINDS)
async def test_every_kind_rides_and_comes_out_with_every_field_set_and_with_none(
    pool: Pool, live: Live, kind: Kind
) -> None:
    mill = Mill.of(pool, await fresh_tenant(pool), live, now=NOW)
    at = datetime(2026, 3, 29, 1, 0, 0, 1, tzinfo=UTC)
    bare = LearningEvent("lms", "bare", kind, at, "s1")
    full = LearningEvent(
        "ქართული 🎓", "完全", kind, at, "élève\u2028", "7b", 3, "hw", "q", ("ε", "δ"), 1_250_000, "sub",
        datetime(2026, 3, 30, 22, 59, 59, 999_999, tzinfo=UTC), 1, "other", "target",
    )  # fmt: skip

    await mill.record(bare, full)

    async with tenant_transaction(pool, mill.tenant) as connection:
        events = [unpacked(row) for row in await claimed(connection, mill.tenant)]
        await forget(connection, mill.tenant)
    assert sorted(events, key=repr) == sorted([bare, full], key=repr)


def _other_layout(parcel: bytes) -> bytes:
    return msgspec.msgpack.encode([2, *msgspec.msgpack.decode(parcel)[1:]])


def _one_field_more(parcel: bytes) -> bytes:
    return msgspec.msgpack.encode([*msgspec.msgpack.decode(parcel), None])


def _one_field_less(parcel: bytes) -> bytes:
    return msgspec.msgpack.encode(msgspec.msgpack.decode(parcel)[:-1])


@pytest.mark.feature("X-38")
@pytest.mark.parametrize(
    "changed", [_other_layout, _one_field_more, _one_field_less, lambda _: b"", lambda _: b"\xc1", lambda _: None]
)
async def test_what_another_release_packed_or_did_not_pack_is_read_from_the_log(
    pool: Pool, live: Live, database_url: str, changed: Any
) -> None:
    mill = await mill_of(pool, live)
    await mill.record(graded("e1", "s1", 0.5), graded("e2", "s1", 0.75, at=1))
    owner = await asyncpg.connect(database_url)
    try:
        statement = "select seq, packed from outbox where tenant = $1 order by seq limit 1"
        row = await owner.fetchrow(statement, mill.tenant)
        assert row is not None
        statement = "update outbox set packed = $3 where tenant = $1 and seq = $2"
        await owner.execute(statement, mill.tenant, row["seq"], changed(row["packed"]))
    finally:
        await owner.close()

    async with tenant_transaction(pool, mill.tenant) as connection:
        rows = sorted(await claimed(connection, mill.tenant), key=lambda row: row.seq)
        assert [unpacked(row) for row in rows] == [None, graded("e2", "s1", 0.75, at=1)]
        found = await marked(connection, mill.tenant, rows)
    assert [entry.event for entry in found] == [graded("e1", "s1", 0.5), graded("e2", "s1", 0.75, at=1)]
    await mill.fold()
    assert await mill.rows(COUNTS) == [("s1", "", 2), ("s1", "7b", 2)]


async def test_an_event_that_would_swell_its_row_does_not_ride_and_is_folded_all_the_same(
    pool: Pool, live: Live
) -> None:
    mill = await mill_of(pool, live)
    concepts = tuple(sorted(f"{n:02d}-{'x' * 60}" for n in range(50)))
    await mill.record(graded("e1", "s1", 0.5, concepts=concepts), graded("e2", "s2", 0.5))

    [small, large] = sorted(await mill.rows("select packed from outbox where tenant = $1"), key=lambda row: not row[0])

    assert large == (None,)
    assert 0 < len(small[0]) <= PARCEL_BYTES_MAX
    await mill.fold()
    counts = await mill.rows("select count(*) from standing where tenant = $1 and student = 's1' and count = 1")
    assert counts == [(100,)]


@pytest.mark.feature("X-01", "X-02", "X-03", "X-04", "X-05", "000-09")
@law(examples=40)
@given(data=st.data())
async def test_what_is_said_of_events_that_ride_is_what_is_said_of_them_in_the_log(
    data: st.DataObject, pool: Pool, live: Live
) -> None:
    """Whether they are few or many: voids, regrades, excuses, second grades and dead letters, before and after."""
    mill = Mill.of(pool, await fresh_tenant(pool), live, now=NOW)
    events = data.draw(histories(at_least=6, at_most=14))
    told = data.draw(st.one_of(st.just([]), corrections(events, moments=INSTANTS, ratios=RATIOS)))
    out = data.draw(st.lists(st.sampled_from(events), unique_by=lambda event: event.event_id, max_size=2))
    dead = data.draw(st.lists(st.sampled_from(events), unique_by=lambda event: event.event_id, max_size=2))
    await mill.record(*data.draw(st.permutations([*events, *told, *voids_of(out)])))
    few = data.draw(st.sampled_from([0, facts.FEW_EVENTS]))

    async with tenant_transaction(pool, mill.tenant) as connection:
        await connection.executemany(
            "insert into dead_letter (tenant, source, event_id, seq, student, classroom, error, at) "
            "values ($1, $2, $3, 0, '', '', '', now())",
            [(mill.tenant, event.source, event.event_id) for event in dead],
        )
        rows = await claimed(connection, mill.tenant)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(facts, "FEW_EVENTS", few)
            riding = await marked(connection, mill.tenant, rows)
        stored = await marked(connection, mill.tenant, [replace(row, packed=None) for row in rows])
        await forget(connection, mill.tenant)
    assert {row.seq for row in rows if row.packed is not None} == {
        entry.seq for entry in stored if entry.event.kind not in CORRECTION_KINDS
    }
    assert riding == stored


@pytest.mark.feature("X-01", "X-02")
@pytest.mark.parametrize("few", [0, facts.FEW_EVENTS])
async def test_a_correction_that_is_committed_while_a_fold_waits_for_its_locks_is_seen(
    pool: Pool, live: Live, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    """The rows were claimed before it, and what is said of their events is asked after."""
    monkeypatch.setattr(facts, "FEW_EVENTS", few)
    mill = await mill_of(pool, live)
    first, second = graded("e1", "s1", 0.5), graded("e2", "s1", 0.75, at=1)
    await mill.record(first, second)

    async with tenant_transaction(pool, mill.tenant) as connection:
        rows = await claimed(connection, mill.tenant)
        await mill.record(*voids_of([first]), regrade("r1", second, 900_000, NOW))
        found = await marked(connection, mill.tenant, rows)
        await forget(connection, mill.tenant)

    assert [(entry.event, entry.is_out, entry.is_revised) for entry in found] == [
        (first, True, False), (second, False, True),
    ]  # fmt: skip
