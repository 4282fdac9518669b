"""An example at work: a process whose lines are read as they come."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from server.settings import TABLE

LINE_SECONDS_MAX = 60.0  # a slow machine, never a wait on a fast one


@dataclass(slots=True)
class Program:
    """A process and what it has said so far."""

    process: asyncio.subprocess.Process
    lines: list[str] = field(default_factory=list)

    async def line(self, *words: str) -> str:
        """Read on until a line holds all the words, and return it."""
        async with asyncio.timeout(LINE_SECONDS_MAX):
            while True:
                line = await self._read()
                assert line is not None, f"it ended, without {words}: {self.lines} {await self._complaint()}"
                if all(word in line for word in words):
                    return line

    async def ended(self) -> tuple[int, str]:
        """Wait for its end: exit status, and what it said on standard error."""
        async with asyncio.timeout(LINE_SECONDS_MAX):
            while await self._read() is not None:
                pass
            complaint = await self._complaint()
            return await self.process.wait(), complaint

    def kill(self) -> None:
        """End it as a power cut does."""
        self.process.send_signal(signal.SIGKILL)

    async def _read(self) -> str | None:
        assert self.process.stdout is not None
        raw = await self.process.stdout.readline()
        if raw:
            self.lines.append(raw.decode().rstrip("\n"))
        return self.lines[-1] if raw else None

    async def _complaint(self) -> str:
        assert self.process.stderr is not None
        return (await self.process.stderr.read()).decode()


@asynccontextmanager
async def started(*words: str, folder: Path, **environment: str) -> AsyncIterator[Program]:
    """A program in a folder, ended at the latest with the block; it knows no setting of this machine."""
    ours = {row.name for row in TABLE}
    kept = {name: value for name, value in os.environ.items() if name not in ours and "proxy" not in name.lower()}
    process = await asyncio.create_subprocess_exec(
        *words, cwd=folder, env=kept | environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        yield Program(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
