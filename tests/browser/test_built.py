"""The built page is what its source builds, and small."""

import asyncio
import gzip
import shutil
from pathlib import Path

import pytest

PAGES = Path(__file__).parents[2] / "server" / "pages"
SOURCE, BUILT = PAGES / "source", PAGES / "built"
PACKED_BYTES_MAX = 200_000  # of the first load
LEFT_OUT = "LEFT OUT: building the live page again; `make pages` needs Node 20 or newer and its packages"
is_prepared = shutil.which("node") is not None and (SOURCE / "node_modules/.ready").exists()


def built() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(BUILT.iterdir())}


def test_the_first_load_is_small() -> None:
    packed = sum(len(gzip.compress(content)) for content in built().values())

    assert packed <= PACKED_BYTES_MAX


@pytest.mark.skipif(not is_prepared, reason=LEFT_OUT)
async def test_the_built_files_are_those_of_the_source(tmp_path: Path) -> None:
    node = await asyncio.create_subprocess_exec(
        *("node", "build.mjs", str(tmp_path)),
        cwd=SOURCE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await node.communicate()

    assert node.returncode == 0, said.decode()
    assert {path.name: path.read_bytes() for path in sorted(tmp_path.iterdir())} == built()
