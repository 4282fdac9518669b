"""How fresh an answer is, and waiting until it is fresh enough."""

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest

from db.freshness import BY_INDEX, FRESHNESS, WITHHELD_MAX
from db.outbox import Touch, Waiting, touch
from db.pool import Pool, tenant_transaction
from rules.access import Role
from tests.jobs.test_plans import scans
from tests.rows.district import NOW, District, open_district
from tests.rows.reading import Reader

SECOND = timedelta(seconds=1)
FRESH = """query ($minSeq: Seq) { student(id: "ada", minSeq: $minSeq) { key asOf { seq time withheld } lagMs } }"""


async def with_ada(pool: Pool) -> District:
    district = await open_district(pool)
    await district.enroll("ada")
    return district


def told(seq: int, time: str = "2026-03-11T09:30:00Z", withheld: int = 0, lag_ms: int = 0) -> dict[str, Any]:
    """The answer about Ada."""
    return {"student": {"key": "ada", "asOf": {"seq": str(seq), "time": time, "withheld": withheld}, "lagMs": lag_ms}}


@pytest.mark.feature("X-22")
async def test_a_tenant_whose_events_are_all_counted_is_fresh_as_of_its_head_and_now(pool: Pool) -> None:
    district = await with_ada(pool)
    empty = await Reader(pool, district.tenant).data(FRESH)

    await district.event("e1", "ada")
    await district.event("e2", "ada")

    assert empty == told(0)
    assert await Reader(pool, district.tenant).data(FRESH) == told(2)


@pytest.mark.feature("X-22")
async def test_the_oldest_waiting_event_bounds_position_time_and_lag(pool: Pool) -> None:
    district = await with_ada(pool)
    await district.event("e1", "ada")
    await district.event("e2", "ada")
    await district.event("e3", "ada")
    await district.wait(3, "ada", received_at=NOW - 2 * SECOND)
    await district.wait(2, "ada", received_at=NOW - 3 * SECOND)

    data = await Reader(pool, district.tenant).data(FRESH)

    assert data == told(1, "2026-03-11T09:29:57Z", lag_ms=3_000)


@pytest.mark.feature("X-22")
async def test_a_roster_change_that_waits_holds_the_position_but_is_no_lag(pool: Pool) -> None:
    district = await with_ada(pool)
    async with tenant_transaction(pool, district.tenant) as connection:
        await touch(connection, district.tenant, [Touch(Waiting.TOUCH_STUDENT, "ada")], now=NOW - 5 * SECOND)

    assert await Reader(pool, district.tenant).data(FRESH) == told(0, "2026-03-11T09:29:55Z")


@pytest.mark.feature("X-22")
async def test_an_event_received_by_a_faster_clock_is_no_negative_lag(pool: Pool) -> None:
    district = await with_ada(pool)
    await district.event("e1", "ada")
    await district.wait(1, "ada", received_at=NOW + SECOND)

    assert (await Reader(pool, district.tenant).data(FRESH))["student"]["lagMs"] == 0


@pytest.mark.feature("X-22")
async def test_events_set_aside_are_counted_and_hold_nothing_up(pool: Pool) -> None:
    district = await with_ada(pool)
    for event_id in ("dead", "lost"):
        await district.event(event_id, "ada")
    await district.put(
        "dead_letter", source="lms", event_id="dead", seq=1, student="ada", classroom="7b", error="boom", at=NOW
    )
    await district.put(
        "unrostered", seq=2, source="lms", event_id="lost", student="ada", classroom="x", received_at=NOW
    )

    assert await Reader(pool, district.tenant).data(FRESH) == told(2, withheld=2)


@pytest.mark.feature("X-22")
async def test_what_is_set_aside_is_counted_up_to_a_bound(pool: Pool) -> None:
    """A bad day's tens of thousands are not read for each answer."""
    district = await with_ada(pool)
    await district.run(
        "insert into dead_letter (tenant, source, event_id, seq, student, classroom, error, at) "
        "select $1, 'lms', 'e' || n, n, 'ada', '', 'boom', now() from generate_series(1, 5000) n"
    )

    async with tenant_transaction(pool, district.tenant, read_only=True, settings=BY_INDEX) as connection:
        plan = await connection.fetch(f"explain (analyze, timing off, format json) {FRESHNESS}", district.tenant)
    rows = [scan["Actual Rows"] for scan in scans(json.loads(plan[0][0])[0]["Plan"])]

    assert max(rows) == WITHHELD_MAX
    assert await Reader(pool, district.tenant).data(FRESH) == told(0, withheld=WITHHELD_MAX)


@pytest.mark.feature("X-22")
async def test_a_position_that_is_reached_answers_at_once(pool: Pool) -> None:
    district = await with_ada(pool)
    await district.event("e1", "ada")
    reader = Reader(pool, district.tenant)

    assert await reader.data(FRESH, minSeq="1") == told(1)
    assert await reader.data(FRESH, minSeq=0) == told(1)
    assert reader.statements == 1  # the point and the student, read at once


@pytest.mark.feature("X-22")
async def test_a_position_that_is_counted_while_we_wait_answers_with_it(pool: Pool) -> None:
    district = await with_ada(pool)
    await district.event("e1", "ada", is_waiting=True)
    reader = Reader(pool, district.tenant)

    asked = asyncio.create_task(reader.data(FRESH, minSeq=1))
    while not reader.polls:  # noqa: ASYNC110 - the poll itself is what must be seen
        await asyncio.sleep(0)
    await district.run("delete from outbox where tenant = $1")

    assert await asked == told(1)


@pytest.mark.feature("X-22")
async def test_a_position_that_is_not_counted_in_time_is_stale_with_the_present_point(pool: Pool) -> None:
    district = await with_ada(pool)
    await district.event("e1", "ada", is_waiting=True)

    answer = await Reader(pool, district.tenant).ask(FRESH, minSeq=1)

    assert answer.data == {"student": None}
    assert [error["extensions"] for error in answer.errors] == [
        {
            "code": "STALE",
            "field": ["minSeq"],
            "asOf": {"seq": "0", "time": "2026-03-11T09:30:00Z", "withheld": 0},
        }
    ]


@pytest.mark.feature("X-22")
async def test_a_position_beyond_the_log_is_stale(pool: Pool) -> None:
    district = await with_ada(pool)

    answer = await Reader(pool, district.tenant).ask(FRESH, minSeq="9223372036854775807")

    assert (answer.data, answer.codes) == ({"student": None}, {"STALE"})


@pytest.mark.feature("X-22")
@pytest.mark.parametrize("value", [-1, "-1", "1e3", 1.5, True, "", "9223372036854775808", 2**80, {}])
async def test_a_position_that_no_log_could_have_is_refused(pool: Pool, value: object) -> None:
    answer = await Reader(pool, 1).ask(FRESH, minSeq=value)

    assert (answer.is_executed, answer.codes) == (False, {"BAD_INPUT"})


@pytest.mark.feature("X-22")
async def test_the_point_is_read_before_the_fields_and_once_for_all_of_them(pool: Pool) -> None:
    district = await with_ada(pool)
    await district.enroll("bob")
    reader = Reader(pool, district.tenant)

    await reader.data('{ a: student(id: "ada") { asOf { seq } } b: student(id: "bob") { lagMs } }')

    assert len(reader.asked) == 2  # the point, then both students together
    assert "tenant_head" in next(iter(reader.asked))


@pytest.mark.feature("X-22")
async def test_waiting_holds_no_connection(pool: Pool) -> None:
    district = await with_ada(pool)
    await district.event("e1", "ada", is_waiting=True)
    readers = [Reader(pool, district.tenant, "ada", {Role.STUDENT}) for _ in range(30)]  # three times the pool

    answers = await asyncio.gather(*(reader.ask(FRESH, minSeq=1) for reader in readers))

    assert {code for answer in answers for code in answer.codes} == {"STALE"}


@pytest.mark.feature("X-22")
async def test_the_point_is_found_by_index_when_a_backlog_came_after_the_plan(pool: Pool) -> None:
    district = await with_ada(pool)
    async with tenant_transaction(pool, district.tenant) as connection:
        await connection.execute(
            "insert into outbox (tenant, shard, lane, occurred_at, seq, kind, student, received_at) "
            "select $1, n % 16, 0, $2, n, 'EVENT', 'ada', $2 from generate_series(1, 20000) n",
            district.tenant,
            NOW,
        )

    async with tenant_transaction(pool, district.tenant, read_only=True) as connection:
        await connection.execute(BY_INDEX)
        plan = "\n".join(row[0] for row in await connection.fetch(f"explain {FRESHNESS}", district.tenant))

    assert "outbox_by_seq" in plan
    assert "Sort" not in plan
