"""Child processes of the demo: kept running while it runs, and gone when it is gone."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from server.processes import Stopped

log = logging.getLogger("sightline.children")

RESTART_SECONDS_FIRST = 0.2
RESTART_SECONDS_MAX = 5.0
RESTARTS_IN_A_ROW_MAX = 8  # about 20 s of trying, then it is given up with what it said last
HEALTHY_SECONDS = 10.0  # alive that long: the next death starts with the short delay again
LOG_BYTES_MAX = 10_000_000  # a log starts anew above this size
ROOT = Path(__file__).parents[1]


def with_log_of_its_own(environment: Mapping[str, str], name: str) -> Mapping[str, str]:
    """The environment with a LOG_FILE named after one child: two that turn the same file lose each other's lines."""
    given = environment.get("LOG_FILE", "").strip()
    if not given:
        return environment
    file = Path(given)
    return {**environment, "LOG_FILE": str(file.with_name(f"{file.stem}-{name}{file.suffix}"))}


@dataclass(slots=True)
class Child:
    """One `python -m server …` that is started again when it dies."""

    name: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    log_path: Path
    process: asyncio.subprocess.Process | None = field(default=None, init=False)

    async def keep(self) -> None:
        """Run it for ever, until cancelled. Raises Stopped when it dies again and again."""
        deaths = 0
        while True:
            started = monotonic()
            await self._start()
            assert self.process is not None
            code = await self.process.wait()
            deaths = 1 if monotonic() - started > HEALTHY_SECONDS else deaths + 1
            if deaths > RESTARTS_IN_A_ROW_MAX:
                raise Stopped(f"{self.name} died {deaths} times in a row, last with {code}: {self._last_line()}")
            delay = min(RESTART_SECONDS_FIRST * 2 ** (deaths - 1), RESTART_SECONDS_MAX)
            log.warning("child.died name=%s code=%s restart_seconds=%s", self.name, code, delay)
            await asyncio.sleep(delay)

    async def end(self, *, seconds: float) -> None:
        """Ask it to stop and wait; kill it when it takes longer. Harmless when it is gone."""
        process = self.process
        if process is None or process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), seconds)
        except TimeoutError:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _start(self) -> None:
        with suppress(FileNotFoundError):
            if self.log_path.stat().st_size > LOG_BYTES_MAX:
                self.log_path.unlink()
        with self.log_path.open("ab") as output:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "server", *self.arguments),
                cwd=ROOT,
                env=dict(with_log_of_its_own(self.environment, self.name)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C reaches the demo alone, which stops its children in order
            )

    def _last_line(self) -> str:
        with suppress(OSError):
            lines = self.log_path.read_text(errors="replace")[-2_000:].strip().splitlines()
            return f"{lines[-1] if lines else 'it said nothing'} (see {self.log_path})"
        return f"see {self.log_path}"
