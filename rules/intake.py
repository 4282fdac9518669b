"""What an intake must know beyond the event and the token: which facts to ask for, and what follows from them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime

from rules.access import Role, Viewer, may_record, may_void
from rules.calendar import local_date
from rules.evidence import EventInput, IntakeSettings, Kind, Problem, ProblemCode, Submission
from rules.fields import is_id, is_number
from rules.kinds import KIND_BY_NAME, SPECS, Concepts
from rules.roster import EnrollmentRole

YEAR_ONE, YEAR_LAST = 1, 9999

EventKey = tuple[str, str]
"""(source, event_id): the name of one event."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The facts that some events need; empty when the token and the events say all."""

    classrooms: frozenset[str] = frozenset()
    students: frozenset[str] = frozenset()
    pupils: frozenset[tuple[str, str]] = frozenset()  # (student, classroom)
    assignments: frozenset[str] = frozenset()
    targets: frozenset[EventKey] = frozenset()
    submissions: frozenset[EventKey] = frozenset()  # (source, submission) that a regrade names
    homes: frozenset[str] = frozenset()  # assignments whose class is asked for, with the facts about that class

    @property
    def is_nothing(self) -> bool:
        """Whether no fact is needed, and so no read."""
        roster = self.classrooms or self.students or self.pupils or self.assignments or self.homes
        return not (roster or self.targets or self.submissions)


NOTHING = Wanted()


@dataclass(frozen=True, slots=True)
class Place:
    """The viewer's time in a class: local dates, [started, ended)."""

    role: EnrollmentRole
    started: date
    ended: date | None

    def holds(self, day: date) -> bool:
        """Whether the day is one of these."""
        return self.started <= day and (self.ended is None or day < self.ended)


@dataclass(frozen=True, slots=True)
class ClassroomFacts:
    """A rostered class: its IANA zone, its newest policy, and the viewer's times in it."""

    zone: str
    extra_credit: bool
    places: tuple[Place, ...] = ()

    def has(self, role: EnrollmentRole, moments: Iterable[datetime]) -> bool:
        """Whether the viewer is in the class in this role on the local date of one of these moments."""
        days = {local_date(moment, self.zone) for moment in moments}
        return any(place.role is role and place.holds(day) for place in self.places for day in days)


@dataclass(frozen=True, slots=True)
class Target:
    """A recorded event that a correction speaks of; `classroom` is "" where it names none."""

    student: str
    classroom: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What the roster and the log say about the wanted keys; unknown keys are absent."""

    classrooms: Mapping[str, ClassroomFacts] = field(default_factory=dict)
    students: frozenset[str] = frozenset()
    pupils: frozenset[tuple[str, str]] = frozenset()  # those who are, were or will be students of the class
    concepts: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)  # by (classroom, assignment)
    targets: Mapping[EventKey, Target] = field(default_factory=dict)
    submissions: Mapping[EventKey, tuple[Target, ...]] = field(default_factory=dict)  # one for each student and class
    homes: Mapping[str, str] = field(default_factory=dict)  # the class of each assignment asked for


NO_FACTS = Facts()
NO_SETTINGS = IntakeSettings()


def is_trusted(viewer: Viewer) -> bool:
    """Whether the viewer records for anyone in the tenant, also for whom no roster names yet (C7)."""
    return viewer.has(Role.ADMIN, Role.INTEGRATOR)


def wanted_of(events: Iterable[EventInput], viewer: Viewer) -> Wanted:
    """The facts that these events need, each once; keys that name nothing are left out, validation refuses them."""
    classrooms: set[str] = set()
    students: set[str] = set()
    pupils: set[tuple[str, str]] = set()
    assignments: set[str] = set()
    targets: set[EventKey] = set()
    submissions: set[EventKey] = set()
    is_bound_to_roster = not is_trusted(viewer)
    if not is_bound_to_roster:  # of most of a machine's events nothing need be known
        events = [given for given in events if given.classroom_id and (not given.concept_ids or _exceeds_scale(given))]
        if not events:
            return NOTHING
    for given in events:
        classroom = given.classroom_id if is_id(given.classroom_id) else None
        if classroom and _may_need_filling(given):
            assignments.add(given.assignment_id or "")
        if classroom and (is_bound_to_roster or _exceeds_scale(given)):
            classrooms.add(classroom)
        if not is_bound_to_roster:
            continue
        student = given.student_id if given.student_id is not None else viewer.key
        if is_id(student):
            students.add(student)
            pupils.update([(student, classroom)] if classroom else [])
        if given.target_source is not None and is_id(given.target_source) and is_id(given.target_event_id):
            targets.add((given.target_source, given.target_event_id or ""))
        elif given.target_source is not None and is_id(given.target_source) and is_id(given.submission_id):
            submissions.add((given.target_source, given.submission_id or ""))
    return Wanted(
        frozenset(classrooms),
        frozenset(students),
        frozenset(pupils),
        frozenset(assignments),
        frozenset(targets),
        frozenset(submissions),
    )


def _may_need_filling(given: EventInput) -> bool:
    """Whether the concepts may come from the known assignment."""
    if given.concept_ids or not is_id(given.assignment_id):
        return False
    kind = KIND_BY_NAME.get(given.type or Kind.SUBMISSION_GRADED)
    return kind is not None and SPECS[kind].concepts is Concepts.SOME_OR_KNOWN


def _exceeds_scale(given: EventInput) -> bool:
    """Whether the score may be extra credit, which the class must allow."""
    scale = 1 if given.max_score is None else given.max_score
    return given.score is not None and is_number(given.score) and is_number(scale) and given.score > scale


def settings_for(given: EventInput, viewer: Viewer, facts: Facts, *, now: datetime) -> IntakeSettings:
    """What class and assignment say about the event; a class that is not the viewer's says what an unknown one does."""
    classroom = given.classroom_id or ""
    found = facts.classrooms.get(classroom)
    if not is_trusted(viewer) and not (found and _is_in(found, viewer, _moments(given.occurred_at, now))):
        return NO_SETTINGS
    concepts = facts.concepts.get((classroom, given.assignment_id or ""), ())
    if found is None and not concepts:
        return NO_SETTINGS
    return IntakeSettings(extra_credit=found.extra_credit if found else False, assignment_concepts=concepts)


def refusals_of(
    submission: Submission, given: EventInput, viewer: Viewer, facts: Facts, *, now: datetime
) -> list[Problem]:
    """Why the facts forbid a valid event: one answer for what is another's and for what is not there (C7)."""
    if is_trusted(viewer):
        return []
    event = submission.event
    found = facts.classrooms.get(event.classroom)
    taught = found is not None and _teaches(found, viewer, now)
    enrolled = not event.classroom or (found is not None and _learns(found, viewer, _moments(event.occurred_at, now)))
    scored = given.score is not None
    if not may_record(viewer, event.kind, student=event.student, scored=scored, taught=taught, enrolled=enrolled):
        return [not_found("classroomId", "expected a class of your own")]
    if not _is_known(given, event.student, event.classroom, taught=taught, facts=facts):
        return [not_found("studentId", "expected a student of a class of your own")]
    if event.kind is Kind.EVENT_VOIDED:
        target = (event.target_source or "", event.target_event_id or "")
        return [] if may_void_target(target, viewer, facts, now=now) else [TARGET_NOT_FOUND]
    if event.kind is Kind.SUBMISSION_REGRADED:
        meant = targets_of(event.target_source, event.target_event_id, event.submission, facts)
        if any(target.student != event.student for target in meant):
            meant = ()
        return [] if may_regrade_targets(meant, viewer, facts, now=now) else [TARGET_NOT_FOUND]
    return []


def targets_of(source: str | None, event_id: str | None, submission: str | None, facts: Facts) -> tuple[Target, ...]:
    """What is known of what a regrade names."""
    if event_id is not None:
        target = facts.targets.get((source or "", event_id))
        return (target,) if target else ()
    return facts.submissions.get((source or "", submission or ""), ())


def may_regrade_targets(targets: tuple[Target, ...], viewer: Viewer, facts: Facts, *, now: datetime) -> bool:
    """Whether the viewer may regrade all of this; teachers only the known work of one student in classes they teach."""
    rooms = [facts.classrooms.get(target.classroom) for target in targets]
    taught = bool(rooms) and all(room is not None and _teaches(room, viewer, now) for room in rooms)
    return may_void(viewer, taught=taught and len({target.student for target in targets}) == 1)


def may_correct_classroom(classroom: str, viewer: Viewer, facts: Facts, *, now: datetime) -> bool:
    """Whether the viewer may excuse or reopen work of this class."""
    found = facts.classrooms.get(classroom)
    return may_void(viewer, taught=found is not None and _teaches(found, viewer, now))


def may_void_target(key: EventKey, viewer: Viewer, facts: Facts, *, now: datetime) -> bool:
    """Whether the viewer may void the event of this key; teachers only what belongs to a class they teach today."""
    target = facts.targets.get(key)
    found = facts.classrooms.get(target.classroom) if target else None
    return may_void(viewer, taught=found is not None and _teaches(found, viewer, now))


def not_found(name: str, message: str) -> Problem:
    """The one refusal for foreign and unknown alike."""
    return Problem(ProblemCode.NOT_FOUND, (name,), message)


TARGET_NOT_FOUND = not_found("targetEventId", "expected an event of a class that you teach today")


def _is_known(given: EventInput, student: str, classroom: str, *, taught: bool, facts: Facts) -> bool:
    """Whether the roster knows the student: a teacher's, by the class; one's own, by name."""
    if taught:
        # What a teacher tells about a quiz or an error names no student, and so is no claim about one.
        return given.student_id is None or (student, classroom) in facts.pupils
    return student in facts.students


def _moments(occurred_at: object, now: datetime) -> list[datetime]:
    """A student's activity may arrive after they left the class, or be of a time before they joined."""
    # The ends of the calendar have no local date; validation refuses them.
    if isinstance(occurred_at, datetime) and occurred_at.tzinfo is not None and YEAR_ONE < occurred_at.year < YEAR_LAST:
        return [now, occurred_at]
    return [now]


def _is_in(found: ClassroomFacts, viewer: Viewer, moments: Iterable[datetime]) -> bool:
    moments = list(moments)
    return _teaches(found, viewer, moments[0]) or _learns(found, viewer, moments)


def _teaches(found: ClassroomFacts, viewer: Viewer, now: datetime) -> bool:
    """Today, whenever the event happened: whoever left the class may no longer write into its past."""
    return viewer.has(Role.TEACHER) and found.has(EnrollmentRole.TEACHER, [now])


def _learns(found: ClassroomFacts, viewer: Viewer, moments: Iterable[datetime]) -> bool:
    return viewer.has(Role.STUDENT) and found.has(EnrollmentRole.STUDENT, moments)
