"""The public suites and clients of the GraphQL protocols, in Node, against a real api process on real servers."""

import asyncio
import json
import os
import shutil
import sys
from itertools import count
from pathlib import Path

import pytest

from db.pool import Pool
from server.settings import TABLE
from tests.rows.district import District
from tests.support.tenants import fresh_tenant

HERE = Path(__file__).parent
LINT = HERE / "lint"
ROOT = HERE.parents[1]
PEER = ROOT / "tests" / "bench" / "peer"  # what the bench `peers` runs in Node, pinned the same way
SECRET = "a conformance secret of more than thirty-two bytes"
LEFT_OUT = "LEFT OUT: the public GraphQL suites in Node; `make conformance` runs them (Node 20 or newer)"


def is_prepared() -> bool:
    """Whether Node and the pinned packages are here: the file is made once both installations are whole."""
    return shutil.which("node") is not None and all(
        (folder / "node_modules/.ready").exists() for folder in (HERE, LINT)
    )


if_prepared = pytest.mark.skipif(not is_prepared(), reason=LEFT_OUT)


def environment(tenant: int, **settings: str) -> dict[str, str]:
    """What a suite and the api that it starts are told, without any setting of this machine."""
    ours = {row.name for row in TABLE}
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    told = {"SIGHTLINE_PYTHON": sys.executable, "SIGHTLINE_ROOT": str(ROOT), "SIGHTLINE_TENANT": str(tenant)}
    return kept | told | {"JWT_SECRET": SECRET} | settings


async def assert_passes(suite: Path, told: dict[str, str]) -> None:
    """Run one file of tests in Node, and show what it said where it fails."""
    node = await asyncio.create_subprocess_exec(
        *("node", "--test", "--test-reporter=spec", suite.name),
        cwd=suite.parent,
        env=told,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        said, _ = await node.communicate()
    finally:
        if node.returncode is None:
            node.kill()  # the api that it started ends with it
            await node.wait()
    assert node.returncode == 0, said.decode()


@if_prepared
@pytest.mark.parametrize("suite", sorted(path.name for path in HERE.glob("*.test.js")))
async def test_a_public_suite_passes(
    suite: str, pool: Pool, database_url: str, redis_url: str, open_folder: Path
) -> None:
    district = District(pool, await fresh_tenant(pool), count(1))
    await district.classroom("7b")
    await district.enroll("s1")
    await district.teach("t1")
    settings = {"DATABASE_URL": database_url, "REDIS_URL": redis_url, "DATA_DIR": str(open_folder)}

    await assert_passes(HERE / suite, environment(district.tenant, **settings))


@if_prepared
@pytest.mark.parametrize("suite", sorted(path.name for path in LINT.glob("*.test.js")))
async def test_the_schema_is_as_the_public_tools_for_schemas_want_it(suite: str) -> None:
    await assert_passes(LINT / suite, environment(0))


@pytest.mark.parametrize("folder", [HERE, LINT, PEER], ids=lambda folder: folder.name)
def test_every_package_is_pinned_by_its_hash_and_no_address_is_named(folder: Path) -> None:
    text = (folder / "package-lock.json").read_text()
    wanted = json.loads((folder / "package.json").read_text())["dependencies"]
    packages = {name: package for name, package in json.loads(text)["packages"].items() if name}

    assert [name for name, package in packages.items() if not package["integrity"].startswith("sha512-")] == []
    assert {name: packages[f"node_modules/{name}"]["version"] for name in wanted} == wanted
    assert "resolved" not in text
    assert "://" not in (folder / ".npmrc").read_text()
