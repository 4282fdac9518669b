"""Real classes replayed: the rows of OULAD (docs/data, CC BY 4.0) as roster, work and events of this product."""

from __future__ import annotations

import csv
import zlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import chain
from pathlib import Path

from rules.evidence import EventInput
from rules.kinds import Kind
from rules.roster import Assignment, AssignmentKind, Classroom, Enrollment, EnrollmentRole, School, Student

DATA = Path(__file__).parents[1] / "docs" / "data"
SOURCE = "oulad"
SCHOOL = School("oulad", "Open University", "Europe/London")
START_BY_TERM = {"B": (2, 1), "J": (10, 1)}  # OULAD's presentations begin in February (B) and October (J)
TUTOR_MARKED, COMPUTER_MARKED = "TMA", "CMA"
KIND_NAMES = {TUTOR_MARKED: "tutor-marked work", COMPUTER_MARKED: "computer-marked quiz"}
DAY_BEGINS, DAY_SECONDS = time(8), 12 * 3600  # the data knows days only; work is handed in from 8:00 to 20:00
MARKING = timedelta(hours=1)  # from submission to mark: OULAD does not say, and a mark must come after its work
WEEK = timedelta(days=7)


class WrongData(Exception):
    """The data folder cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Work:
    """One assignment of a class; `due` is the last day it counts as in time."""

    key: str
    concept: str
    kind: str  # TMA or CMA
    due: date


@dataclass(frozen=True, slots=True)
class Stay:
    """One student's registration; `until` is the first day they were no longer registered."""

    student: str
    since: date
    until: date | None


@dataclass(frozen=True, slots=True)
class Row:
    """One graded piece of work; `score` is a fraction in [0, 1]."""

    key: str
    day: date
    student: str
    work: Work
    score: float


@dataclass(frozen=True, slots=True)
class Course:
    """One class with all its rows, in the order of the data."""

    key: str  # e.g. BBB-2013J
    works: tuple[Work, ...]
    stays: tuple[Stay, ...]
    rows: tuple[Row, ...]

    @property
    def module(self) -> str:
        """The subject, e.g. BBB."""
        return self.key.partition("-")[0]

    @property
    def day_zero(self) -> date:
        """The first day of the course, from its name: the data's days count from there."""
        term = self.key.partition("-")[2]
        return date(int(term[:4]), *START_BY_TERM[term[4]])


def read_courses(folder: Path = DATA) -> dict[str, Course]:
    """All classes of the data by their keys. Raises WrongData."""
    try:
        works: dict[str, dict[str, Work]] = defaultdict(dict)
        for line in _lines(folder / "oulad_assignments.csv"):
            work = Work(line["assignment_id"], line["standard_id"], line["kind"], date.fromisoformat(line["due"]))
            works[line["class_id"]][work.key] = work
        stays = defaultdict(list)
        for line in _lines(folder / "oulad_enrolments.csv"):
            until = date.fromisoformat(line["unregistered"]) if line["unregistered"] else None
            stays[line["class_id"]].append(Stay(line["user_id"], date.fromisoformat(line["registered"]), until))
        rows = defaultdict(list)
        for line in _lines(folder / "oulad_graded.csv"):
            row_work = works[line["class_id"]][line["item_id"]]
            row = Row(line["row_id"], date.fromisoformat(line["ts"]), line["user_id"], row_work, float(line["score"]))
            rows[line["class_id"]].append(row)
    except (OSError, KeyError, ValueError) as why:
        raise WrongData(f"{folder} does not hold the OULAD files as docs/data/README.md has them: {why!r}") from why
    return {key: Course(key, tuple(works[key].values()), tuple(stays[key]), tuple(rows[key])) for key in sorted(works)}


def _lines(path: Path) -> Iterator[dict[str, str]]:
    with path.open(newline="") as file:
        yield from csv.DictReader(file)


def shift_to_week(course: Course, today: date, week: int) -> timedelta:
    """How far to move the course so that `today` lies in its week `week`, counted from 1; weekdays stay weekdays."""
    distance = today - (course.day_zero + (week - 1) * WEEK)
    return (distance // WEEK) * WEEK


@dataclass(frozen=True, slots=True)
class Replay:
    """One course, moved in time: what to keep in the roster and what to record."""

    course: Course
    shift: timedelta = timedelta()

    @property
    def classroom(self) -> Classroom:
        return Classroom(self.course.key, f"{self.course.key} (OULAD)", SCHOOL.key)

    @property
    def subject(self) -> tuple[str, str]:
        """Key and name."""
        return self.course.module, f"Module {self.course.module}"

    @property
    def concepts(self) -> list[tuple[str, str]]:
        """Keys and names."""
        kinds = {work.concept: work.kind for work in self.course.works}
        return [(key, f"{self.course.module} {KIND_NAMES[kind]}") for key, kind in sorted(kinds.items())]

    @property
    def students(self) -> list[Student]:
        return [Student(stay.student) for stay in self.course.stays]

    def enrollments(self, *, today: date | None = None) -> list[Enrollment]:
        """Who is in the class when; with `today`, nobody has left on a later day yet."""
        return [self._enrollment(stay, today) for stay in self.course.stays]

    def _enrollment(self, stay: Stay, today: date | None) -> Enrollment:
        started = stay.since + self.shift
        ended = None if stay.until is None else max(stay.until + self.shift, started)
        if today is not None and ended is not None and ended > today:
            ended = None
        return Enrollment(self.course.key, stay.student, EnrollmentRole.STUDENT, started, ended)

    @property
    def assignments(self) -> list[Assignment]:
        return [self._assignment(work) for work in self.course.works]

    def _assignment(self, work: Work) -> Assignment:
        kind = AssignmentKind.QUIZ if work.kind == COMPUTER_MARKED else AssignmentKind.ASSIGNMENT
        number = 1 + sorted(w.due for w in self.course.works if w.kind == work.kind).index(work.due)
        title = f"{KIND_NAMES[work.kind].capitalize()} {number}"
        return Assignment(work.key, self.course.key, title, kind, self._due(work), concepts=(work.concept,))

    def _due(self, work: Work) -> datetime:
        """The end of the last day."""
        return datetime.combine(work.due + timedelta(days=1), time(), tzinfo=UTC) + self.shift

    def events(self) -> list[EventInput]:
        """All that happened in the class, in the order of time: work assigned, handed in, marked."""
        found = chain(self._assigned(), chain.from_iterable(map(self.events_of, self.course.rows)))
        return sorted(found, key=lambda event: (event.occurred_at, event.event_id))

    def _assigned(self) -> Iterator[EventInput]:
        for stay in self.course.stays:
            first_day = max(self.course.day_zero, stay.since) + self.shift
            for work in self.course.works:
                yield EventInput(
                    event_id=f"{work.key}:{stay.student}:assigned",
                    source=SOURCE,
                    occurred_at=datetime.combine(first_day, time(6), tzinfo=UTC),
                    student_id=stay.student,
                    classroom_id=self.course.key,
                    assignment_id=work.key,
                    concept_ids=[work.concept],
                    type=Kind.ASSIGNMENT_ASSIGNED.value,
                    due_at=self._due(work),
                )

    def moment_of(self, row: Row) -> datetime:
        """When a row's work was handed in: its day, at a time of day that is always the same for the row."""
        seconds = zlib.crc32(row.key.encode()) % DAY_SECONDS
        return datetime.combine(row.day, DAY_BEGINS, tzinfo=UTC) + timedelta(seconds=seconds) + self.shift

    def events_of(self, row: Row, *, at: datetime | None = None) -> list[EventInput]:
        """What one graded row says: handed in and marked, or a quiz attempt; `at` stamps it now."""
        moment = at or self.moment_of(row)
        if row.work.kind == COMPUTER_MARKED:
            return [self._event(row, Kind.QUIZ_ATTEMPT, "attempt", moment, row.score)]
        marked = moment if at else moment + MARKING
        return [
            self._event(row, Kind.SUBMISSION_CREATED, "created", moment, None),
            self._event(row, Kind.SUBMISSION_GRADED, "graded", marked, row.score),
        ]

    def _event(self, row: Row, kind: Kind, what: str, moment: datetime, score: float | None) -> EventInput:
        return EventInput(
            event_id=f"{row.key}:{what}",
            source=SOURCE,
            occurred_at=moment,
            student_id=row.student,
            classroom_id=self.course.key,
            assignment_id=row.work.key,
            concept_ids=[row.work.concept],
            score=score,
            type=kind.value,
            submission_id=row.key,
        )
