"""Reads among writes: 80 % reads at a fixed rate, and how long a read waits; the highest rate at which p95 holds.

Each operation is an HTTP request of its own at its moment, over 64 keep-alive connections: every fifth is a
`recordEvent` of an integrator, the others are in turns what a class page asks (rates, students at risk, recent
activity), what a student page asks (mastery and progress), and the newest page of the student's timeline, each as the
class's teacher, over 40 classes of 30 students whose log holds 24,000 events. A wait is counted from the moment at
which the request was due until its answer is read, so that a sender that is held up hides nothing. Every answer is
looked at: one with an error ends the bench.

A ladder of rates up to 4,170 operations a second is climbed on one service; a step whose reads have a p95 of 100 ms or
more is tried once more, for one stall of the machine is not the service's rate, and then ends the climb. One api
process answers, one worker folds, and the client, whose requests are prepared before, shares their two cores. CPU of a
read is what api and Postgres used while reads of one kind alone were asked, on a service that folds nothing meanwhile,
divided by their number.
"""

from dataclasses import asdict, dataclass
from itertools import chain

from rules.access import Role
from tests.bench.driver import Load
from tests.bench.figures import Figures, claim, milliseconds
from tests.bench.orders import MIX, READS, Job, Seen
from tests.bench.school import SPREAD, settle, teacher_of, token_of
from tests.bench.service import Service, spent

TENANT = 1
ASKED = 4_170
STEPS = {"small": (40, 80), "full": (100, 200, 300, 400, 500, 600, 800, 1_000, 1_250, 1_600, 2_000, 3_000, ASKED)}
SECONDS = {"small": 2, "full": 8}
FILLED = {"small": 1, "full": 6}  # batches of 1,000 of each of 4 senders, before
LIMIT_MS = 100.0
TRIES_MAX = 2
ALONE_PER_SECOND = 40
RECENT = 25_000_000


@dataclass(frozen=True, slots=True)
class Step:
    """One rate, measured."""

    per_second: int
    reads: dict[str, float]
    writes: dict[str, float]
    by_kind: dict[str, dict[str, float]]
    cpu_share_of_a_core: dict[str, float]

    @property
    def is_in_time(self) -> bool:
        """Whether the reads were."""
        return self.reads["p95"] < LIMIT_MS


async def run(size: str) -> Figures:
    """Climb, then ask each kind of read alone."""
    async with Service() as service:
        bench = Mixed(service, SECONDS[size])
        await settle(service.connection, TENANT, SPREAD)
        await bench.fill(FILLED[size])
        steps = await bench.climb(STEPS[size])
        alone = {kind: await bench.alone(kind) for kind in READS}
        service.check(may_warn=True)
        version = await service.postgres_version()
    held = [step for step in steps if step.is_in_time]
    best = max(held, key=lambda step: step.per_second, default=steps[0])
    rate = best.per_second if held else 0
    return {
        "postgres": version,
        "claims": [
            claim("operations a second at which p95 of the reads is below 100 ms", rate, least=ASKED),
            claim(f"p95 of a read at {best.per_second:,}/s", best.reads["p95"], unit="ms", limit=LIMIT_MS),
            claim(f"p50 of a read at {best.per_second:,}/s", best.reads["p50"], unit="ms"),
            claim(f"p95 of recordEvent at {best.per_second:,}/s", best.writes["p95"], unit="ms"),
            *(
                claim(f"CPU of one {kind} read", ", ".join(f"{part} {used}" for part, used in cpu.items()), unit="us")
                for kind, cpu in alone.items()
            ),
        ],
        "steps": [asdict(step) for step in steps],
        "cpu_microseconds_per_read": alone,
    }


class Mixed:
    """The loads of one service; each begins where the one before it ended."""

    def __init__(self, service: Service, seconds: int) -> None:
        self._service = service
        self._seconds = seconds
        self._next = RECENT

    async def fill(self, batches: int) -> None:
        """Put something there to read."""
        load = await self._load("send", "filled", lanes=4, batch=1_000, requests=batches)
        await load.tell()
        await load.seen()
        await self._service.until_folded(TENANT)
        await self._service.connection.execute("analyze")  # as autovacuum would have done on a table this old

    async def climb(self, rates: tuple[int, ...]) -> list[Step]:
        """Step by step, until one is twice too slow."""
        steps: list[Step] = []
        for rate in rates:
            for _ in range(TRIES_MAX):
                steps.append(await self._step(rate))
                if steps[-1].is_in_time:
                    break
            else:
                break
        return steps

    async def _step(self, rate: int) -> Step:
        before = self._service.cpu_seconds()
        seen = await self._mixed(rate, list(MIX))
        cpu = spent(before, self._service.cpu_seconds())
        await self._service.until_folded(TENANT)
        reads = list(chain.from_iterable(waits for kind, waits in seen.by_kind.items() if kind in READS))
        return Step(
            per_second=rate,
            reads=milliseconds(reads),
            writes=milliseconds(seen.by_kind["recordEvent"]),
            by_kind={kind: milliseconds(waits) for kind, waits in seen.by_kind.items()},
            cpu_share_of_a_core={part: round(used / (seen.ended - seen.started), 3) for part, used in cpu.items()},
        )

    async def alone(self, kind: str) -> dict[str, float]:
        """Microseconds of CPU that one read of a kind costs api and Postgres."""
        before = self._service.cpu_seconds()
        await self._mixed(ALONE_PER_SECOND, [kind])
        cpu = spent(before, self._service.cpu_seconds())
        count = ALONE_PER_SECOND * self._seconds
        return {part: round(cpu[part] / count * 1e6) for part in ("api", "postgres")}

    async def _mixed(self, per_second: int, mix: list[str]) -> Seen:
        load = await self._load("mix", "mixed", mix=mix, requests=per_second * self._seconds, per_second=per_second)
        await load.tell()
        return await load.seen()

    async def _load(self, kind: str, name: str, **more: object) -> Load:
        tokens = {c: token_of(TENANT, Role.TEACHER, teacher_of(c)) for c in SPREAD.classrooms}
        job = Job(
            kind=kind,
            out="",
            port=self._service.port,
            shape=(SPREAD.classes, SPREAD.students),
            tokens={"": token_of(TENANT, Role.INTEGRATOR, "lms"), **tokens},
            name=name,
            first=self._next,
        )
        for field, value in more.items():
            setattr(job, field, value)
        self._next += job.requests * job.batch
        return await Load.start(self._service.folder, job)
