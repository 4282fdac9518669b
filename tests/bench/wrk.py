"""Load by `wrk`: one thread that costs microseconds a request, so that what is measured is what is loaded."""

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec

SCRIPT = Path(__file__).with_name("wrk.lua")
SEPARATOR = b"\x1e"
SLACK_SECONDS_MAX = 30.0
MISSING = "expected wrk on the PATH (Debian: apt-get install wrk)"


class Told(msgspec.Struct):
    """What wrk saw of one leg."""

    requests: int
    seconds: float
    wrong: int  # connections that broke, answers in time or not with another status than 2xx and 3xx
    p50_ms: float
    p95_ms: float
    p99_ms: float

    @property
    def per_second(self) -> float:
        """Requests answered a second."""
        return self.requests / self.seconds


def write_bodies(path: Path, bodies: Sequence[bytes]) -> None:
    """Keep what a leg sends in turns; a `#` becomes the number of the request."""
    path.write_bytes(SEPARATOR.join(bodies))


async def load(address: str, bodies: Path, *, token: str, connections: int, seconds: int) -> Told:
    """Send from keep-alive connections, each its next request once the last is answered."""
    program = shutil.which("wrk")
    assert program is not None, MISSING
    process = await asyncio.create_subprocess_exec(
        *(program, "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "5s", "-s", str(SCRIPT), address),
        env={"WRK_BODIES": str(bodies), "WRK_TOKEN": token},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(process.communicate(), seconds + SLACK_SECONDS_MAX)
    assert process.returncode == 0, said.decode(errors="replace")
    told = msgspec.json.decode(said.rstrip().rpartition(b"\n")[2], type=Told)
    assert not told.wrong, f"{told.wrong} of {told.requests} requests went wrong at {address}"
    return told
