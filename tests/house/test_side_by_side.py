"""A process and a schema of neighbouring releases: which of them works with which, and what a migration may do."""

import re
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import httpx
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy.exc import DBAPIError

from db import migrate as migrate_module
from db.live import Live
from db.migrate import Schema, make_partitions, migrate, newest_revision, schema_of
from db.pool import open_pool
from db.wake import Waker
from jobs.replay import drift
from server.app import Api
from server.embedded import EmbeddedServers
from server.engine import Means
from server.observing import Observing
from server.settings import Settings
from tests.jobs.test_drain import COUNTS, NOW, mill_of
from tests.support.events import graded
from tests.support.station import SETTINGS

pytestmark = pytest.mark.feature("X-38")

NEXT = f"{int(newest_revision()) + 1:04d}"
_numbers = count(1)
MIGRATION = """
from alembic import op
revision, down_revision, branch_labels, depends_on = "{revision}", "{down}", None, None
{says}
def upgrade() -> None:
    op.execute("alter table outbox add column newer text default 'x' not null")
    op.execute("alter table event add column newer integer")
"""
MIGRATIONS = Path(migrate_module.__file__).parent / "migrations"
# An index may go: older code then finds the same rows another way. A unique one guards, and is a constraint here.
NARROWS = re.compile(
    r"\b(drop (table|column|constraint|function)|rename|alter column|set not null|truncate)\b", re.IGNORECASE
)


@pytest.fixture
async def fresh_url(servers: EmbeddedServers) -> str:
    """A database of its own at our newest revision."""
    owner = await asyncpg.connect(servers.addresses.database_url)
    name = f"releases_{next(_numbers)}"
    await owner.execute(f"create database {name}")
    await owner.close()
    url = urlunsplit(urlsplit(servers.addresses.database_url)._replace(path=f"/{name}"))
    await migrate(url)
    await make_partitions(url, first_day=NOW.date(), months=2)
    return url


@pytest.fixture
async def owner(fresh_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(fresh_url)
    yield connection
    await connection.close()


def with_next_release(folder: Path, monkeypatch: pytest.MonkeyPatch, *, says: str) -> None:
    """Put a migration of the next release behind ours."""
    text = MIGRATION.format(revision=NEXT, down=newest_revision(), says=says)
    folder.joinpath(f"{NEXT}_next.py").write_text(text)
    ours = migrate_module._config

    def config() -> Config:
        both = ours()
        both.set_main_option("path_separator", "newline")
        both.set_main_option("version_locations", f"{MIGRATIONS / 'versions'}\n{folder}")
        return both

    monkeypatch.setattr(migrate_module, "_config", config)


@pytest.mark.parametrize(
    ("schema", "serves"),
    [
        (Schema(), False),
        (Schema("0004", None), False),
        (Schema("0005", None), True),
        (Schema("0005", "0006"), True),  # its own, whatever it says
        (Schema("0006", "0005"), True),
        (Schema("0007", "0004"), True),
        (Schema("0007", "0006"), False),
        (Schema("0006", None), False),
    ],
)
def test_a_process_works_with_its_own_schema_and_with_newer_ones_that_say_so(schema: Schema, serves: bool) -> None:
    assert schema.serves("0005") is serves


@pytest.mark.parametrize(
    ("says", "status"), [('oldest_code = "{ours}"', 200), ("", 503), ('oldest_code = "{next}"', 503)]
)
async def test_on_the_schema_of_the_next_release_our_processes_are_ready_record_and_fold(
    fresh_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, live: Live, redis_url: str, says: str, status: int
) -> None:
    ours = newest_revision()
    with monkeypatch.context() as patch:
        with_next_release(tmp_path, patch, says=says.format(ours=ours, next=NEXT))
        await migrate(fresh_url)
    pool, waker = await open_pool(fresh_url), Waker(redis_url)
    try:
        settings = Settings.read(SETTINGS)
        api = Api(settings, Means(pool, live, waker, lambda: NOW), Observing(settings, None))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(api.app), base_url="http://api") as client:
            answer = await client.get("/ready")
        mill = await mill_of(pool, live)
        await mill.recorded_and_folded([graded("e1", "s1", 0.5)])
        counts = await mill.rows(COUNTS)
        found = await drift(pool, mill.tenant, now=NOW)
    finally:
        await waker.aclose()
        await pool.close()

    assert (answer.status_code, counts, found) == (status, [("s1", "", 1), ("s1", "7b", 1)], [])


async def test_before_its_own_migration_a_process_is_not_ready(owner: asyncpg.Connection) -> None:
    assert await schema_of(owner) == Schema(newest_revision(), "0004")

    await owner.execute("update alembic_version set version_num = '0004'")
    await owner.execute("alter table alembic_version drop column oldest_code")  # as the first release made it

    assert await schema_of(owner) == Schema("0004", None)
    assert not (await schema_of(owner)).serves(newest_revision())
    await owner.execute("drop table alembic_version")
    assert await schema_of(owner) == Schema()


async def test_a_migration_gives_up_behind_a_long_transaction_instead_of_blocking_intake(
    fresh_url: str, owner: asyncpg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = newest_revision()
    with_next_release(tmp_path, monkeypatch, says='oldest_code = "0005"')
    monkeypatch.setattr(migrate_module, "STATEMENT_LOCK_SECONDS", 0.2)
    async with owner.transaction():
        await owner.execute("select count(*) from outbox")  # holds its lock until the transaction ends

        with pytest.raises(DBAPIError, match="lock timeout"):
            await migrate(fresh_url)

    assert await schema_of(owner) == Schema(ours, "0004")
    await migrate(fresh_url)
    assert await schema_of(owner) == Schema(NEXT, "0005")


def test_every_migration_since_says_from_which_release_on_code_works_with_it_and_takes_nothing_away() -> None:
    scripts = ScriptDirectory.from_config(migrate_module._config())
    for revision in scripts.walk_revisions():
        if revision.revision < "0005":
            continue
        assert revision.module.oldest_code <= revision.down_revision, revision.revision
        text = "".join(path.read_text() for path in MIGRATIONS.glob(f"{revision.revision}_*.sql"))
        assert NARROWS.findall(text) == [], revision.revision
