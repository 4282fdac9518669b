"""The plan of a crash run: from one seed, which events are sent, what is broken, and when."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import cycle, islice

CLASSES_PER_STEP = 4  # each step works in classes of its own that no later step visits: traffic there would heal
STUDENTS_PER_CLASS = 6
SHARED_STUDENTS = 2  # of them, sit in the next class of the step too
CONCEPTS = ("fractions", "ratios")
LAST_EVENT_SECONDS = 0.030  # a fault comes this soon after the last event
FREEZE_SECONDS = (2.0, 4.0)
CUT_SECONDS = (0.1, 0.4)  # a sender comes back every 0.05 s, so the same keys are cut more than once
REQUEST_EVENTS_MAX = 4


class Fault(StrEnum):
    """What is broken."""

    KILL_WORKER = "kill -9 worker"
    KILL_API = "kill -9 api"
    FREEZE_WORKER = "freeze worker"
    FREEZE_API = "freeze api"
    STOP_POSTGRES = "postgres immediate stop"
    KILL_POSTGRES = "kill -9 postgres"
    FLUSH_VALKEY = "valkey flush"
    KILL_VALKEY = "kill -9 valkey"
    FREEZE_VALKEY = "freeze valkey"
    FREEZE_POSTGRES = "freeze postgres"
    RESET_API = "reset apis from postgres"
    RESET_WORKER = "reset workers from postgres"
    RESET_CLIENTS = "reset clients from apis"
    CUT_ANSWERS = "cut answers of apis"  # the work is done, and the client never hears of it
    CUT_API_COMMITS = "cut commits of apis"  # Postgres has committed, and the api never hears of it
    CUT_WORKER_COMMITS = "cut commits of workers"
    END_API = "SIGTERM api"
    END_WORKER = "SIGTERM worker"


REDIS_FAULTS = frozenset({Fault.FLUSH_VALKEY, Fault.KILL_VALKEY, Fault.FREEZE_VALKEY})
POSTGRES_FAULTS = frozenset({Fault.STOP_POSTGRES, Fault.KILL_POSTGRES, Fault.FREEZE_POSTGRES})
FREEZES = frozenset({Fault.FREEZE_WORKER, Fault.FREEZE_API, Fault.FREEZE_VALKEY, Fault.FREEZE_POSTGRES})
CUTS = frozenset({Fault.CUT_ANSWERS, Fault.CUT_API_COMMITS, Fault.CUT_WORKER_COMMITS})
ALWAYS = (  # in every run, however short: at least one of each kind, the quick ones all
    Fault.KILL_WORKER,
    Fault.KILL_API,
    Fault.FREEZE_WORKER,
    Fault.STOP_POSTGRES,
    Fault.FLUSH_VALKEY,
    Fault.RESET_API,
    Fault.RESET_WORKER,
    Fault.RESET_CLIENTS,
    Fault.CUT_ANSWERS,
    Fault.CUT_API_COMMITS,
    Fault.CUT_WORKER_COMMITS,
    Fault.END_WORKER,
)
OTHERS = tuple(fault for fault in Fault if fault not in ALWAYS)


class Aim(StrEnum):
    """Which moment of the last events is hit."""

    ACKNOWLEDGED = "after the last answer"  # the fold is just beginning
    IN_FLIGHT = "between answers"  # requests wait for their commit
    FOLDED = "at the first commit of a fold"  # its message to the subscribers is not sent yet


AIMS = {  # of the faults that not every moment suits
    Fault.KILL_API: (Aim.ACKNOWLEDGED, Aim.IN_FLIGHT),
    Fault.END_API: (Aim.ACKNOWLEDGED, Aim.IN_FLIGHT),
    Fault.RESET_API: (Aim.ACKNOWLEDGED, Aim.IN_FLIGHT),
    Fault.CUT_ANSWERS: (Aim.IN_FLIGHT,),
    Fault.CUT_API_COMMITS: (Aim.IN_FLIGHT,),
    Fault.CUT_WORKER_COMMITS: (Aim.ACKNOWLEDGED,),
}


@dataclass(frozen=True, slots=True)
class Said:
    """One event; `minute` counts from the start of the run's day, so that two runs of a seed say the same."""

    event_id: str
    kind: str
    student: str
    classroom: str
    assignment: str
    minute: int
    score: float | None = None
    submission: str | None = None


Request = tuple[Said, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """One burst and the fault that ends it. Each lane is one sender's requests, sent one after the other."""

    no: int
    fault: Fault
    aim: Aim
    victim: int  # which of the api or worker processes
    share: float  # of the requests that are answered before a fault that does not wait for all
    delay_seconds: float  # from that answer to the fault
    hold_seconds: float  # of a freeze, or of cuts
    lanes: tuple[tuple[Request, ...], ...]

    @property
    def line(self) -> str:
        """The step in one line."""
        hold = f" for {self.hold_seconds:.1f} s" if self.hold_seconds else ""
        requests = sum(len(lane) for lane in self.lanes)
        return (
            f"{self.no:2d}. {self.fault.value} {self.victim}{hold}, {self.aim.value} + {self.delay_seconds * 1000:.0f} "
            f"ms ({requests} requests, {sum(len(r) for lane in self.lanes for r in lane)} events)"
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is decided by dice."""

    seed: int
    steps: tuple[Step, ...]

    @property
    def classes(self) -> list[str]:
        """Every class, in the order of use."""
        return [class_of(step.no, place) for step in self.steps for place in range(CLASSES_PER_STEP)]

    @property
    def text(self) -> str:
        """The plan as it is printed when a run fails."""
        head = f"seed {self.seed}, {len(self.steps)} faults: python -m tests.chaos --seed {self.seed}"
        return "\n".join([f"{head} --faults {len(self.steps)}", *(step.line for step in self.steps)])


def class_of(step: int, place: int) -> str:
    """The key of a step's class."""
    return f"c{step:02d}-{place}"


def members_of(step: int, place: int) -> list[str]:
    """The students of a class: its own, and the first of the class before (in a ring), who sit in two classes."""
    own = [f"s{step:02d}-{place}-{number}" for number in range(STUDENTS_PER_CLASS - SHARED_STUDENTS)]
    before = (place - 1) % CLASSES_PER_STEP
    return own + [f"s{step:02d}-{before}-{number}" for number in range(SHARED_STUDENTS)]


def plan_of(seed: int, faults: int) -> Plan:
    """Throw all dice of a run."""
    dice = random.Random(seed)
    kinds = list(islice(_kinds(dice, faults), faults))
    return Plan(seed, tuple(_step(dice, no, fault) for no, fault in enumerate(kinds)))


def _kinds(dice: random.Random, faults: int) -> Iterator[Fault]:
    """What is broken, in order: a short run has all of ALWAYS, a long one each kind about as often."""
    first = [*ALWAYS, *dice.sample(OTHERS, k=min(len(OTHERS), max(0, faults - len(ALWAYS))))]
    dice.shuffle(first)
    yield from first
    for _ in cycle([None]):
        again = list(Fault)
        dice.shuffle(again)
        yield from again


def _step(dice: random.Random, no: int, fault: Fault) -> Step:
    # Half come at once: an answer that was given before its commit is caught there or nowhere.
    delay = 0.0 if dice.random() < 0.5 else dice.uniform(0, LAST_EVENT_SECONDS)
    return Step(
        no=no,
        fault=fault,
        aim=dice.choice(AIMS.get(fault, tuple(Aim))),
        victim=dice.randrange(2),
        share=dice.uniform(0.4, 0.9),
        delay_seconds=delay,
        hold_seconds=_hold(dice, fault),
        lanes=tuple(_lane(dice, no, place) for place in range(CLASSES_PER_STEP)),
    )


def _hold(dice: random.Random, fault: Fault) -> float:
    if fault in FREEZES:
        return dice.uniform(*FREEZE_SECONDS)
    return dice.uniform(*CUT_SECONDS) if fault in CUTS else 0.0


def _lane(dice: random.Random, step: int, place: int) -> tuple[Request, ...]:
    """All that happens in one class: work is assigned, handed in, graded, graded again, and some is sent twice."""
    classroom, said = class_of(step, place), list[Said]()
    for student in members_of(step, place):
        said += _work_of(dice, student, classroom)
    minutes = {one.event_id: one.minute for one in said}
    # In order for the most part: later events that come first make the fold start anew.
    said.sort(key=lambda one: minutes[one.event_id] + dice.choice((0, 0, 0, 200)))
    said += dice.sample(said, k=2)  # a producer that was not sure
    requests = []
    while said:
        size = dice.randint(1, REQUEST_EVENTS_MAX)
        requests.append(tuple(said[:size]))
        said = said[size:]
    return tuple(requests)


def _work_of(dice: random.Random, student: str, classroom: str) -> Iterator[Said]:
    start = dice.randrange(60)
    for number in range(dice.randint(1, 3)):
        item = f"{classroom}-w{number}"

        def say(what: str, minute: int, *, item: str = item, **more: object) -> Said:
            return Said(f"{what}-{item}-{student}", kind=_KINDS[what], student=student, classroom=classroom,
                        assignment=item, minute=start + minute, **more)  # type: ignore[arg-type]  # fmt: skip

        yield say("assign", 10 * number)
        if dice.random() < 0.7:
            yield say("grade", 10 * number + 5, score=dice.randrange(101) / 100, submission=f"{item}-{student}")
            if dice.random() < 0.2:
                again = dice.randrange(101) / 100
                yield say("again", 10 * number + 7, score=again, submission=f"{item}-{student}")


_KINDS = {"assign": "ASSIGNMENT_ASSIGNED", "grade": "SUBMISSION_GRADED", "again": "SUBMISSION_GRADED"}


def event_count(steps: Sequence[Step]) -> int:
    """Different events of these steps."""
    return len({said.event_id for step in steps for lane in step.lanes for request in lane for said in request})
