"""What an operator sees across tenants: depth, age and months, cheap however much waits, and never a key."""

from datetime import date, datetime, timedelta

import asyncpg
import pytest

from db.backlog import backlog
from db.pool import Pool
from tests.rows.district import NOW, open_district

AGES = "select count(*) from outbox"


async def owner_of(database_url: str) -> asyncpg.Connection:
    return await asyncpg.connect(database_url)


@pytest.mark.feature("003-49")
async def test_depth_and_age_are_those_of_all_tenants(pool: Pool, database_url: str) -> None:
    first, second = await open_district(pool), await open_district(pool)
    long_ago = datetime(2001, 1, 1, tzinfo=NOW.tzinfo)
    before = (await backlog(pool, now=NOW)).depth
    await first.wait(1, "s1", received_at=NOW)
    await second.wait(1, "s1", received_at=long_ago)
    await second.wait(2, "s2", received_at=NOW)

    seen = await backlog(pool, now=NOW)

    assert (seen.depth - before, seen.oldest) == (3, long_ago)
    for district in (first, second):
        await district.run("delete from outbox where tenant = $1")


@pytest.mark.feature("003-21")
async def test_months_ahead_are_counted_up_to_the_first_gap(pool: Pool, database_url: str) -> None:
    owner = await owner_of(database_url)
    await owner.fetchval("select make_event_partitions($1, 3)", date(2041, 1, 1))
    await owner.fetchval("select make_event_partitions($1, 1)", date(2041, 5, 1))

    ahead = [
        (await backlog(pool, now=datetime(2041, month, 31 if month != 2 else 28, tzinfo=NOW.tzinfo))).months_ahead
        for month in (1, 2, 3)
    ]

    assert ahead == [2, 1, 0]
    for part in ("event_2041_01", "event_2041_02", "event_2041_03", "event_2041_05"):
        await owner.execute(f"drop table {part}")
    await owner.close()


@pytest.mark.feature("003-49")
async def test_a_long_backlog_is_not_counted_row_by_row_and_its_age_is_found_by_index(
    pool: Pool, database_url: str
) -> None:
    owner = await owner_of(database_url)
    try:
        async with owner.transaction():
            await owner.execute(
                "insert into outbox (tenant, shard, lane, occurred_at, seq, kind, received_at) "
                "select 7, n % 16, 0, $1, n, 'EVENT', $1 from generate_series(1, 30000) n",
                NOW - timedelta(days=9000),
            )
            body = await owner.fetchval("select prosrc from pg_proc where proname = 'oldest_waiting'")
            await owner.execute("set local enable_seqscan = off; set local enable_sort = off")
            plan = "\n".join(row[0] for row in await owner.fetch(f"explain {body}"))
            counted = await owner.fetchval("select queue_depth(20000)")
            raise _Undo
    except _Undo:
        pass
    await owner.close()

    assert counted >= 20_000
    assert plan.count("outbox_by_seq") == 2
    assert ("Seq Scan" in plan, "Sort" in plan) == (False, False)


class _Undo(Exception):
    """Ends the transaction without keeping anything of it."""


async def test_only_the_processes_and_the_owner_may_ask(database_url: str) -> None:
    owner = await owner_of(database_url)

    may = await owner.fetch(
        "select p.proname, has_function_privilege('sightline_app', p.oid, 'execute') as app, "
        "coalesce(bool_or(a.grantee = 0), false) as anyone from pg_proc p "
        "left join lateral aclexplode(p.proacl) a on true "
        "where p.proname in ('queue_depth', 'oldest_waiting', 'partitions_ahead') group by 1, 2 order by 1"
    )
    await owner.close()

    assert [tuple(row) for row in may] == [
        ("oldest_waiting", True, False), ("partitions_ahead", True, False), ("queue_depth", True, False)
    ]  # fmt: skip
