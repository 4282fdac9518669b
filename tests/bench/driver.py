"""Starts load processes, tells them when, and reads what they saw."""

import asyncio
import os
import sys
from itertools import count
from pathlib import Path

import msgspec

from tests.bench.figures import PROJECT
from tests.bench.orders import Job, Seen

PREPARE_SECONDS_MAX = 120.0
DONE_SECONDS_MAX = 600.0
_numbers = count(1)


class Load:
    """One load process; it ends by itself when its job is done, or when we are gone."""

    def __init__(self, process: asyncio.subprocess.Process, out: Path) -> None:
        self._process = process
        self._out = out

    @classmethod
    async def start(cls, folder: Path, job: Job) -> "Load":
        """Start it and wait until it has prepared everything; `job.out` is ours to choose."""
        number = next(_numbers)
        path, out = folder / f"job-{number}.json", folder / f"seen-{number}.json"
        job.out = str(out)
        path.write_bytes(msgspec.json.encode(job))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.bench.load", str(path)),
            cwd=PROJECT,
            env=os.environ,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        said = await asyncio.wait_for(process.stdout.readline(), PREPARE_SECONDS_MAX)
        assert said == b"ready\n", f"expected a load that is ready, it said {said!r}"
        return cls(process, out)

    async def tell(self) -> None:
        """Go on to the next step of the job."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"go\n")
        await self._process.stdin.drain()

    async def seen(self) -> Seen:
        """Wait for the end of the job."""
        status = await asyncio.wait_for(self._process.wait(), DONE_SECONDS_MAX)
        assert status == 0, f"a load ended with {status}"
        return msgspec.json.decode(self._out.read_bytes(), type=Seen)
