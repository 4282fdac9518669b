"""The simulator: a made-up school whose events a seed decides, with the faults that real senders have."""

from __future__ import annotations

import asyncio
import random
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from itertools import islice
from time import monotonic

from rules.evidence import EventInput
from rules.kinds import Kind
from server.sender import BATCH_EVENTS_MAX, Service

SOURCE = "simulator"
START = datetime(2025, 9, 1, 8, tzinfo=UTC)  # of simulated time, so that a second run of a seed sends the same events
STEP = timedelta(seconds=7)  # simulated time from one event to the next
CLASS_SIZE = 30
STUDENTS_MAX = 10_000
ITEMS = 20  # pieces of work per class
CONCEPTS = (
    "counting",
    "fractions",
    "decimals",
    "ratios",
    "percentages",
    "angles",
    "areas",
    "volumes",
    "graphs",
    "data",
)
AHEAD_EVENTS = 50  # how far a held-back event or a repetition may come after its place
LATE_DAYS_MAX = 14
KINDS = (
    (Kind.CONTENT_VIEWED, 30),
    (Kind.SUBMISSION_CREATED, 20),
    (Kind.SUBMISSION_GRADED, 25),
    (Kind.QUIZ_ATTEMPT, 15),
    (Kind.CONCEPT_STARTED, 5),
    (Kind.CONCEPT_COMPLETED, 5),
)
BATCHES_PER_SECOND = 10
IN_FLIGHT_MAX = 4


@dataclass(frozen=True, slots=True)
class Mix:
    """What a seed is asked to send: shares are fractions in [0, 1] of the events."""

    seed: int
    students: int = 60
    duplicates: float = 0.02
    reorder: float = 0.05
    late: float = 0.02

    @property
    def prefix(self) -> str:
        """Begins every event id: other settings make other events, so their ids must differ too."""
        said = ascii((self.students, self.duplicates, self.reorder, self.late))
        return f"sim-{self.seed}-{zlib.crc32(said.encode()):08x}-"


def student_key(number: int) -> str:
    """The key of a made-up student, counted from 0."""
    return f"sim-s{number:05d}"


def classroom_of(number: int) -> str:
    """The class of a student: thirty to a class."""
    return f"sim-c{number // CLASS_SIZE:03d}"


def item_key(classroom: str, item: int) -> str:
    """The key of a class's piece of work."""
    return f"{classroom}-w{item:02d}"


def events(mix: Mix) -> Iterator[EventInput]:
    """The endless stream of a seed: the same events in the same order, every time.

    Each event has a place of its own; `reorder` of them are held back by up to AHEAD_EVENTS places, `duplicates` come
    again, unchanged, within as many, and `late` happened days before their neighbours.
    """
    # The waiting ones, by the place at which they are sent; the number keeps the order of equals.
    waiting: list[tuple[int, int, int, EventInput]] = []
    for number, event, held, repeated in _planned(mix):
        heappush(waiting, (number + held, 0, number, event))
        if repeated:
            heappush(waiting, (number + held + repeated, 1, number, event))
        while waiting and waiting[0][0] <= number:
            yield heappop(waiting)[3]


def _planned(mix: Mix) -> Iterator[tuple[int, EventInput, int, int]]:
    """(number, event, places it is held back, places to its repetition or 0), in the order of simulated time."""
    dice = random.Random(f"sightline:{mix.prefix}")  # noqa: S311 - a simulation, no secret
    number = 0
    while True:
        event = _event(mix, number, dice)
        is_held, is_repeated, is_late = (dice.random() < share for share in (mix.reorder, mix.duplicates, mix.late))
        held, repeated, days = (dice.randint(1, AHEAD_EVENTS), dice.randint(1, AHEAD_EVENTS), dice.random())
        if is_late:
            early = timedelta(seconds=int(timedelta(days=1 + days * (LATE_DAYS_MAX - 1)).total_seconds()))
            assert event.occurred_at is not None
            event = replace(event, occurred_at=event.occurred_at - early)
        yield number, event, held if is_held else 0, repeated if is_repeated else 0
        number += 1


def _event(mix: Mix, number: int, dice: random.Random) -> EventInput:
    student = dice.randrange(mix.students)
    classroom = classroom_of(student)
    item = dice.randrange(ITEMS)
    # Ability is the student's own and lasts: scores differ between students more than between days.
    ability = random.Random(f"ability:{mix.seed}:{student}").uniform(0.35, 0.95)  # noqa: S311
    score = round(min(1.0, max(0.0, dice.gauss(ability, 0.15))), 2)
    kind = dice.choices([kind for kind, _ in KINDS], [weight for _, weight in KINDS])[0]
    concept = CONCEPTS[item % len(CONCEPTS)]
    event_id = f"{mix.prefix}{number:09d}"
    about = EventInput(
        event_id=event_id,
        source=SOURCE,
        occurred_at=START + number * STEP,
        student_id=student_key(student),
        classroom_id=classroom,
        type=kind.value,
    )
    if kind is Kind.CONTENT_VIEWED:
        return replace(about, content_id=f"video-{concept}", concept_ids=[concept])
    if kind in (Kind.CONCEPT_STARTED, Kind.CONCEPT_COMPLETED):
        return replace(about, concept_ids=[concept], score=score if kind is Kind.CONCEPT_COMPLETED else None)
    work = replace(about, assignment_id=item_key(classroom, item), concept_ids=[concept])
    if kind is Kind.SUBMISSION_CREATED:
        return work
    return replace(work, score=score, submission_id=event_id if kind is Kind.SUBMISSION_GRADED else None)


# ---------------------------------------------------------------- sending


async def enroll(service: Service, mix: Mix) -> None:
    """Make the school that the events speak of; running it again changes nothing."""
    names = sorted({classroom_of(number) for number in range(mix.students)})
    await service.save(
        "saveCatalog",
        {
            "subjects": [{"key": "sim-math", "name": "Mathematics"}],
            "concepts": [{"key": key, "name": key.capitalize(), "subjectId": "sim-math"} for key in CONCEPTS],
        },
    )
    await service.save("saveSchool", {"key": "sim-school", "name": "Simulated school"})
    for name in names:
        await service.save("saveClassroom", {"key": name, "name": f"Class {name}", "schoolId": "sim-school"})
        for item in range(ITEMS):
            work = {"key": item_key(name, item), "classroomId": name, "title": f"Work {item + 1}"}
            await service.save("saveAssignment", {**work, "conceptIds": [CONCEPTS[item % len(CONCEPTS)]]})
    for number in range(mix.students):
        await service.save("saveStudent", {"key": student_key(number)})
        place = {"classroomId": classroom_of(number), "personId": student_key(number)}
        await service.save("saveEnrollment", {**place, "role": "STUDENT", "startsOn": START.date().isoformat()})


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast and how long: `rate` events per second, until `events` are sent or `seconds` have passed."""

    rate: float
    events: int | None = None
    seconds: float | None = None

    @property
    def batch(self) -> int:
        """Events per request: about ten requests a second, never more than the service takes."""
        return max(1, min(BATCH_EVENTS_MAX, round(self.rate / BATCHES_PER_SECOND)))


async def send(service: Service, stream: Iterator[EventInput], pace: Pace, *, stop: asyncio.Event) -> None:
    """Send the stream at its pace and print the counts every second; ends early when `stop` is set."""
    started = monotonic()
    printer = asyncio.create_task(_print_every_second(service, started))
    slots = asyncio.Semaphore(IN_FLIGHT_MAX)
    sent = 0
    try:
        async with asyncio.TaskGroup() as sending:
            limited = islice(stream, pace.events)
            while not stop.is_set() and (pace.seconds is None or monotonic() - started < pace.seconds):
                batch = list(islice(limited, pace.batch))
                if not batch:
                    break
                await slots.acquire()
                sending.create_task(_send_batch(service, batch, slots))
                sent += len(batch)
                await _wait(started + sent / pace.rate - monotonic(), stop)
    finally:
        printer.cancel()
    print(_line(service, started), flush=True)


async def _send_batch(service: Service, batch: Sequence[EventInput], slots: asyncio.Semaphore) -> None:
    try:
        await service.record(batch)
    finally:
        slots.release()


async def _wait(seconds: float, stop: asyncio.Event) -> None:
    if seconds > 0:
        try:
            async with asyncio.timeout(seconds):
                await stop.wait()
        except TimeoutError:
            return


async def _print_every_second(service: Service, started: float) -> None:
    while True:
        await asyncio.sleep(1)
        print(_line(service, started), flush=True)


def _line(service: Service, started: float) -> str:
    elapsed = monotonic() - started
    rate = service.tally.total / elapsed if elapsed else 0.0
    example = f"; first refusal: {service.tally.first_error}" if service.tally.first_error else ""
    return f"{elapsed:6.1f} s  {service.tally.line()}  {rate:.0f} events/s{example}"
