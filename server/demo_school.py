"""The demo's made-up school: four classes of thirty, their history, and the events that keep coming."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta

from rules.evidence import EventInput
from rules.kinds import Kind
from rules.roster import Assignment, Classroom, Enrollment, EnrollmentRole, GuardianLink, School, Student

SOURCE = "demo"
LIVE_PREFIX = "live-"
SCHOOL = School("north", "North School", "Europe/Berlin")
CLASSROOMS = ("7a", "7b", "8a", "8b")
CLASS_SIZE = 30
SHOWN_CLASSROOM = "7b"  # the one that demo.json names
TEACHER, GUARDIAN, ADMIN, INTEGRATOR = "teacher-1", "guardian-1", "admin-1", "lms-1"
SUBJECT = ("math", "Mathematics")
# In the order they are taught: each comes after the one before it.
CONCEPTS = ("counting", "fractions", "decimals", "ratios", "percentages", "equations", "angles", "areas")
WORKS = 10  # per class, one a week
WEEKS_BEFORE = 8  # of history when the demo is first started
FIRST_NAMES = (
    "Ada", "Ben", "Cleo", "Dario", "Elif", "Finn", "Greta", "Hugo", "Ines", "Jonas",
    "Kira", "Leo", "Mina", "Noah", "Olga", "Paul", "Quinn", "Rosa", "Sami", "Tara",
    "Umut", "Vera", "Willi", "Xenia", "Yara", "Zeno", "Alma", "Bela", "Cora", "Dino",
)  # fmt: skip
LIVE_KINDS = ((Kind.CONTENT_VIEWED, 40), (Kind.QUIZ_ATTEMPT, 20), (Kind.SUBMISSION_CREATED, 15),
              (Kind.SUBMISSION_GRADED, 15), (Kind.CONCEPT_STARTED, 5), (Kind.CONCEPT_COMPLETED, 5))  # fmt: skip


def student_key(classroom: str, place: int) -> str:
    """The key of a class's student, counted from 1."""
    return f"{classroom}-{place:02d}"


def work_key(classroom: str, week: int) -> str:
    """The key of a class's work of a week, counted from 0."""
    return f"{classroom}-week-{week + 1:02d}"


@dataclass(frozen=True, slots=True)
class DemoSchool:
    """The school as it stood at `anchor`, the moment the demo was first started; everything follows from it."""

    anchor: datetime

    @property
    def first_day(self) -> date:
        """The Monday on which its term began."""
        day = self.anchor.date() - timedelta(weeks=WEEKS_BEFORE)
        return day - timedelta(days=day.weekday())

    @property
    def classrooms(self) -> list[Classroom]:
        return [Classroom(key, f"Class {key}", SCHOOL.key) for key in CLASSROOMS]

    @property
    def students(self) -> list[Student]:
        return [
            Student(student_key(classroom, place + 1), display_name=f"{FIRST_NAMES[place]} {classroom}")
            for classroom in CLASSROOMS
            for place in range(CLASS_SIZE)
        ]

    @property
    def enrollments(self) -> list[Enrollment]:
        taught = [Enrollment(key, TEACHER, EnrollmentRole.TEACHER, self.first_day) for key in CLASSROOMS[:2]]
        learning = [
            Enrollment(student.key.rpartition("-")[0], student.key, EnrollmentRole.STUDENT, self.first_day)
            for student in self.students
        ]
        return taught + learning

    @property
    def guardian_link(self) -> GuardianLink:
        return GuardianLink(GUARDIAN, student_key(SHOWN_CLASSROOM, 1), self._at(0, 8))

    @property
    def assignments(self) -> list[Assignment]:
        return [
            Assignment(
                work_key(classroom, week),
                classroom,
                f"Week {week + 1}: {_concept(week)}",
                due_at=self._at(week * 7 + 6, 18),
                concepts=(_concept(week),),
            )
            for classroom in CLASSROOMS
            for week in range(WORKS)
        ]

    def history(self) -> list[EventInput]:
        """All that happened up to the anchor, in the order of time."""
        found = [event for event in self._all() if event.occurred_at and event.occurred_at <= self.anchor]
        return sorted(found, key=lambda event: (event.occurred_at, event.event_id))

    def _all(self) -> Iterator[EventInput]:
        dice = random.Random("sightline demo")  # noqa: S311 - a made-up school, no secret
        for classroom in CLASSROOMS:
            for place in range(1, CLASS_SIZE + 1):
                student = student_key(classroom, place)
                ability, diligence = dice.uniform(0.4, 0.95), dice.uniform(0.6, 1.0)
                for week in range(WORKS):
                    yield from self._week(classroom, student, week, dice, ability, diligence)

    def _week(
        self, classroom: str, student: str, week: int, dice: random.Random, ability: float, diligence: float
    ) -> Iterator[EventInput]:
        work, concept = work_key(classroom, week), _concept(week)
        name = f"{work}:{student}"
        due_at = self._at(week * 7 + 6, 18)

        def event(kind: Kind, what: str, at: datetime) -> EventInput:
            return EventInput(
                event_id=f"{name}:{what}",
                source=SOURCE,
                occurred_at=at,
                student_id=student,
                classroom_id=classroom,
                concept_ids=[concept],
                type=kind.value,
            )

        # A week's work is given a week ahead; the first two on the term's first morning.
        given = event(Kind.ASSIGNMENT_ASSIGNED, "assigned", self._at(max(0, week * 7 - 7), 7))
        yield replace(given, assignment_id=work, due_at=due_at)
        # All dice are thrown in every case, so that one student's diligence does not move another's scores.
        began_at = self._at(week * 7, 9) + timedelta(seconds=dice.randrange(3600))
        done_at = self._at(week * 7 + dice.randint(0, 6), 8) + timedelta(seconds=dice.randrange(12 * 3600))
        scores = [round(min(1.0, max(0.0, dice.gauss(ability, 0.14))), 2) for _ in range(3)]
        is_quizzed, is_done = dice.random() < diligence, dice.random() < diligence
        yield replace(event(Kind.CONTENT_VIEWED, "viewed", began_at), content_id=f"video-{concept}")
        if is_quizzed:
            # Twice, so that with the week's work most students have the evidence that a sure score takes.
            for attempt, hours in ((1, 1), (2, 49)):
                quiz = event(Kind.QUIZ_ATTEMPT, f"quiz-{attempt}", began_at + timedelta(hours=hours))
                yield replace(quiz, quiz_id=f"quiz-{concept}", score=scores[attempt])
        if is_done:
            yield replace(event(Kind.SUBMISSION_CREATED, "created", done_at), assignment_id=work)
            graded = event(Kind.SUBMISSION_GRADED, "graded", done_at + timedelta(hours=2))
            yield replace(graded, assignment_id=work, submission_id=name, score=scores[0])

    def live_event(self, number: int, *, at: datetime) -> EventInput:
        """The event of this number: always the same but for its time; numbers count from 1."""
        dice = random.Random(f"sightline demo {number}")  # noqa: S311
        classroom, place = dice.choice(CLASSROOMS), dice.randint(1, CLASS_SIZE)
        week = dice.randrange(WEEKS_BEFORE)
        kind = dice.choices([kind for kind, _ in LIVE_KINDS], [weight for _, weight in LIVE_KINDS])[0]
        event_id = live_id(number)
        ability = 0.4 + 0.55 * ((place * 7 + len(classroom)) % CLASS_SIZE) / CLASS_SIZE
        score = round(min(1.0, max(0.0, dice.gauss(ability, 0.15))), 2)
        is_work = kind in (Kind.SUBMISSION_CREATED, Kind.SUBMISSION_GRADED)
        return EventInput(
            event_id=event_id,
            source=SOURCE,
            occurred_at=at,
            student_id=student_key(classroom, place),
            classroom_id=classroom,
            type=kind.value,
            concept_ids=[_concept(week)],
            assignment_id=work_key(classroom, week) if is_work else None,
            quiz_id=f"quiz-{_concept(week)}" if kind is Kind.QUIZ_ATTEMPT else None,
            content_id=f"video-{_concept(week)}" if kind is Kind.CONTENT_VIEWED else None,
            submission_id=event_id if kind is Kind.SUBMISSION_GRADED else None,
            score=score if kind in (Kind.SUBMISSION_GRADED, Kind.QUIZ_ATTEMPT, Kind.CONCEPT_COMPLETED) else None,
        )

    def _at(self, day: int, hour: int) -> datetime:
        return datetime.combine(self.first_day + timedelta(days=day), time(hour), tzinfo=UTC)


def live_id(number: int) -> str:
    """The id of a live event; bytewise order is the order of the numbers."""
    return f"{LIVE_PREFIX}{number:012d}"


def live_number(event_id: str | None) -> int:
    """The number in a live event's id; 0 where there is none yet."""
    return int(event_id.removeprefix(LIVE_PREFIX)) if event_id else 0


def _concept(week: int) -> str:
    return CONCEPTS[week % len(CONCEPTS)]
