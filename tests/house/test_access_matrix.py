"""Walls (003-29, law 6): every operation and every node, asked by everyone, for what is theirs and what is not.

One table says who may use what; a root field, a guarded field or a node type without a line in it fails. What lies
outside a viewer's reach must answer exactly like what does not exist, and a refused mutation must change no row.
"""

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from db.live import Live
from db.pool import Pool, tenant_transaction
from db.recorder import Recorder
from db.tables import TENANT_TABLES
from graph import nodes
from graph.answers import Answer
from graph.documents import Documents
from graph.nodes import global_id
from graph.request import Engine, begin
from graph.risk import node_key_of
from graph.schema import schema
from rules.access import FIELD_ROLES, INTEGRATOR_SCOPES, Role, Scope, Viewer
from tests.house.test_schema import ROOTS, operations
from tests.rows.district import NOW, TODAY, District, open_district
from tests.rows.office import Bell
from tests.rows.reading import decoded

pytestmark = [pytest.mark.feature("003-29")]

EXPIRY = datetime(2099, 1, 1, tzinfo=UTC)
DOCUMENTS = Documents(schema)
FORBIDDEN = "FORBIDDEN"


# ---------------------------------------------------------------- who and what


@dataclass(frozen=True)
class Target:
    """Keys that belong together: one student, in one class, of one school, with one piece of work and one event."""

    student: str
    classroom: str
    school: str
    assignment: str
    event: str
    job: str
    subject: str = "maths"
    concept: str = "fractions"

    @property
    def keys(self) -> tuple[str, ...]:
        return (
            self.student,
            self.classroom,
            self.school,
            self.assignment,
            self.event,
            self.job,
            self.subject,
            self.concept,
            global_id("RiskFlag", node_key_of((self.classroom, self.student, "INACTIVE"))),
        )


TARGETS = {
    "own": Target("ada", "7b", "north", "work7", "told7", "job7"),
    "same school, other class": Target("cid", "8a", "north", "work8", "told8", "job8"),
    "other school": Target("dan", "9c", "south", "work9", "told9", "job9"),
    "other tenant": Target("xan", "xclass", "xschool", "workx", "toldx", "jobx", "xsubject", "xconcept"),
    "nowhere": Target("noone", "noclass", "noschool", "nowork", "nottold", "nojob", "nosubject", "noconcept"),
}
HERE = [TARGETS[name] for name in ("own", "same school, other class", "other school")]
THERE = [TARGETS["other tenant"]]


@dataclass(frozen=True)
class Person:
    """Somebody with a token. `teaches` and `attends` are classes of today, `follows` children with active consent."""

    key: str
    roles: frozenset[Role]
    scopes: frozenset[Scope] = frozenset()
    sources: frozenset[str] | None = None
    teaches: frozenset[str] = frozenset()
    attends: frozenset[str] = frozenset()
    follows: frozenset[str] = frozenset()
    is_stranger: bool = False  # of the other tenant

    @property
    def tenant_wide(self) -> bool:
        return bool(self.roles & {Role.ADMIN, Role.INTEGRATOR})

    @property
    def home(self) -> list[Target]:
        return THERE if self.is_stranger else HERE

    def admitted(self, operation: str) -> bool:
        """Whether the table lets the roles and scopes in at all."""
        letters, scopes = TABLE[operation].who, TABLE[operation].scopes
        if any(LETTERS[letter] in self.roles for letter in letters if letter != "I"):
            return True
        return "I" in letters and Role.INTEGRATOR in self.roles and bool(self.scopes & scopes)

    def leads(self, classroom: str) -> bool:
        """Whether the class is theirs as staff."""
        return classroom in self.teaches or (self.tenant_wide and classroom in {each.classroom for each in self.home})

    def is_in(self, classroom: str) -> bool:
        return classroom in self.attends or self.leads(classroom)

    def sees(self, student: str) -> bool:
        if self.tenant_wide:
            return student in STUDENTS_THERE if self.is_stranger else student in STUDENTS_HERE
        is_self = Role.STUDENT in self.roles and student == self.key
        return is_self or student in self.follows or any(student in CLASSES[each] for each in self.teaches)


LETTERS = {"S": Role.STUDENT, "G": Role.GUARDIAN, "T": Role.TEACHER, "A": Role.ADMIN, "I": Role.INTEGRATOR}
CLASSES = {"7b": {"ada", "bob"}, "8a": {"cid"}, "9c": {"dan"}, "xclass": {"xan"}}
STUDENTS_HERE, STUDENTS_THERE = {"ada", "bob", "cid", "dan"}, {"xan"}


def person(key: str, letters: str, **more: Any) -> Person:
    sets: dict[str, Any] = {name: frozenset(value) if isinstance(value, set) else value for name, value in more.items()}
    return Person(key, frozenset(LETTERS[letter] for letter in letters), **sets)


def machine(*scopes: Scope, **more: Any) -> Person:
    return person("sis", "I", scopes=set(scopes), **more)


PEOPLE = {
    "student": person("ada", "S", attends={"7b"}),
    "classmate": person("bob", "S", attends={"7b"}),
    "guardian": person("gina", "G", follows={"ada"}),
    "guardian, revoked": person("rex", "G"),
    "teacher": person("tess", "T", teaches={"7b"}),
    "co-teacher": person("colin", "T", teaches={"7b"}),
    "former teacher": person("fern", "T"),
    "coming teacher": person("neil", "T"),
    "teacher of another class": person("olga", "T", teaches={"8a"}),
    "teacher's key without the role": person("tess", "SG"),
    "admin": person("head", "A"),
    "machine: read": machine(Scope.READ),
    "machine: ingest": machine(Scope.INGEST),
    "machine: ingest, bound": machine(Scope.INGEST, sources={"other"}),
    "machine: roster": machine(Scope.ROSTER),
    "machine: webhooks": machine(Scope.WEBHOOKS),
    "machine without scope": machine(),
    "nobody": person("head", ""),
    "teacher of another tenant": person("tess", "T", is_stranger=True),
    "admin of another tenant": person("head", "A", is_stranger=True),
    "machine of another tenant": machine(*Scope, is_stranger=True),
}
assert PEOPLE["teacher of another tenant"].teaches == frozenset()  # xclass is taught by xeno: tess is a namesake


# ---------------------------------------------------------------- the table


Reach = Callable[[Person, Target], bool]


def anyone(_who: Person, _what: Target) -> bool:
    return True


def student(who: Person, what: Target) -> bool:
    return who.sees(what.student)


def member(who: Person, what: Target) -> bool:
    return who.is_in(what.classroom)


def staff(who: Person, what: Target) -> bool:
    return who.leads(what.classroom)


def school(who: Person, what: Target) -> bool:
    return any(who.is_in(each.classroom) for each in who.home if each.school == what.school)


def known(who: Person, what: Target) -> bool:
    """In the tenant's catalog."""
    return any(each.concept == what.concept for each in who.home)


def told(who: Person, what: Target) -> bool:
    """An event of the tenant, of a source that the token may look at."""
    return who.sources is None and any(each.event == what.event for each in who.home)


OWNERS = {"job7": "tess", "job8": "olga", "job9": "sis", "jobx": "head"}


def follower(who: Person, what: Target) -> bool:
    """Whoever asked for the job, and admins."""
    is_own = OWNERS.get(what.job) == who.key
    return any(each.job == what.job for each in who.home) and (is_own or Role.ADMIN in who.roles)


def own_activity(who: Person, what: Target) -> bool:
    """Admins and machines tell of anyone, also of whom no roster knows yet; others of themselves or their class."""
    is_self = Role.STUDENT in who.roles and who.key == what.student and what.classroom in who.attends
    is_taught = what.classroom in who.teaches and what.student in CLASSES.get(what.classroom, ())
    return (who.tenant_wide and who.sources is None) or is_self or is_taught


def taught_or_wide(who: Person, what: Target) -> bool:
    """A void may come before what it voids, from those who may tell of anyone."""
    return (who.tenant_wide and who.sources is None) or what.classroom in who.teaches


ANY = frozenset(Scope)
INGEST, ROSTER, READ = (frozenset({scope}) for scope in (Scope.INGEST, Scope.ROSTER, Scope.READ))
NONE: frozenset[Scope] = frozenset()


@dataclass(frozen=True)
class Line:
    """Who may use an operation (letters of the Operations index), a machine's scopes (any one), and for whose data."""

    who: str
    scopes: frozenset[Scope]
    reach: Reach
    ask: str  # a query's selection with $keys in %(name)s; a mutation's input comes from INPUTS


QUERIES = {
    "viewer": Line("SGTAI", ANY, anyone, "viewer { key roles tenant { key } }"),
    "viewer.classrooms": Line("ST", NONE, anyone, "classrooms { nodes { key name } }"),
    "viewer.children": Line("G", NONE, anyone, "children { nodes { key displayName } }"),
    "tenant": Line("SGTAI", ANY, anyone, "tenant { key name zone }"),
    "tenant.jobs": Line("TAI", READ, anyone, "jobs { nodes { key requestedBy } }"),
    "tenant.driftReports": Line("A", NONE, anyone, "driftReports { nodes { classroomId } }"),
    "service": Line("SGTAI", ANY, anyone, "service { status version }"),
    "catalog": Line("SGTAI", READ, anyone, "catalog { nodes { key concepts { nodes { key } } } }"),
    "concept": Line("SGTAI", READ, known, 'concept(id: "%(concept)s") { key name subject { key } }'),
    "node": Line("SGTAI", READ, student, 'node(id: "%(student_node)s") { id ... on Student { displayName } }'),
    "nodes": Line("SGTAI", READ, anyone, 'nodes(ids: ["%(student_node)s", "%(classroom_node)s"]) { id }'),
    "student": Line("SGTAI", READ, student, 'student(id: "%(student)s") { key displayName zone }'),
    "student.mastery": Line("SGTAI", READ, student, 'mastery(conceptIds: ["fractions"]) { nodes { state } }'),
    "student.assignments": Line("SGTAI", READ, student, "assignments { nodes { assignmentId classroomId } }"),
    "student.progress": Line("SGTAI", READ, student, "progress { concepts { mastered } }"),
    "student.conceptProgress": Line("SGTAI", READ, student, 'conceptProgress(conceptId: "fractions") { status }'),
    "student.timeline": Line("SGTAI", READ, student, "timeline { nodes { eventId classroomId } }"),
    "student.trends": Line("SGTAI", READ, student, "trends { state snapshots { score } }"),
    "student.riskFlags": Line("TAI", READ, student, "riskFlags { nodes { studentId classroomId } }"),
    "classroom": Line("STAI", READ, member, 'classroom(id: "%(classroom)s") { key name school { key } }'),
    "classroom.dashboard": Line(
        "TA", NONE, staff, "dashboard { atRisk { nodes { studentId } } recentActivity { nodes { studentId } } }"
    ),
    "classroom.rollup": Line("TAI", READ, staff, "rollup { activeStudents }"),
    "classroom.roster": Line("TAI", READ, staff, "roster { nodes { personId displayName } }"),
    "classroom.assignments": Line("STAI", READ, member, "assignments { nodes { key } }"),
    "classroom.mastery": Line("TAI", READ, staff, "mastery { nodes { studentId displayName } }"),
    "classroom.concepts": Line("STAI", READ, member, "concepts { nodes { key } }"),
    "classroom.riskFlags": Line("TAI", READ, staff, "riskFlags { nodes { studentId } }"),
    "classroom.policy": Line("TAI", READ, staff, "policy { version }"),
    "school": Line("STAI", READ, school, 'school(id: "%(school)s") { key name }'),
    "school.classrooms": Line("TAI", READ, school, "classrooms { nodes { key } }"),
    "ingestion": Line("AI", INGEST | READ, anyone, "ingestion { __typename }"),
    "ingestion.backlog": Line("AI", INGEST | READ, anyone, "backlog { depth }"),
    "ingestion.conflicts": Line("AI", INGEST | READ, anyone, "conflicts { nodes { eventId } }"),
    "ingestion.unrostered": Line("AI", INGEST | READ, anyone, "unrostered { nodes { eventId studentId } }"),
    "ingestion.deadLetters": Line("AI", INGEST | READ, anyone, "deadLetters { nodes { eventId studentId } }"),
    "ingestion.waitingCorrections": Line("AI", INGEST | READ, anyone, "waitingCorrections { nodes { eventId } }"),
    "ingestion.event": Line(
        "AI", INGEST | READ, told, 'event(source: "lms", eventId: "%(event)s") { studentId classroomId }'
    ),
}
MUTATIONS = {
    "recordEvent": Line("STAI", INGEST, own_activity, "status"),
    "recordEvents": Line("TAI", INGEST, own_activity, "results { status errors { code field message } }"),
    "voidEvent": Line("TAI", INGEST, taught_or_wide, "status"),
    "regradeSubmission": Line("TAI", INGEST, taught_or_wide, "status"),
    "excuseAssignment": Line("TAI", INGEST, taught_or_wide, "results { status errors { code field message } }"),
    "reopenAssignment": Line("TAI", INGEST, taught_or_wide, "results { status errors { code field message } }"),
    "saveCatalog": Line("AI", ROSTER, anyone, "subjectCount"),
    "saveSchool": Line("AI", ROSTER, anyone, "school { key }"),
    "saveStudent": Line("AI", ROSTER, anyone, "student { key displayName }"),
    "saveClassroom": Line("AI", ROSTER, anyone, "classroom { key }"),
    "saveAssignment": Line("TAI", ROSTER, staff, "assignment { key }"),
    "saveEnrollment": Line("AI", ROSTER, staff, "enrollment { personId }"),
    "linkGuardian": Line("AI", ROSTER, student, "student { key }"),
    "updateClassroomPolicy": Line("TA", NONE, staff, "policy { version }"),
    "recompute": Line("TAI", ROSTER, staff, "job { state }"),
    "verifyProjection": Line("TA", NONE, staff, "job { state }"),
    "cancelJob": Line("SGTAI", ANY, follower, "job { state }"),
    "replayDeadLetters": Line("AI", INGEST, told, "count"),
    "discardDeadLetters": Line("A", NONE, told, "count"),
    "resolveConflict": Line("A", NONE, told, "event { eventId }"),
}
SUBSCRIPTIONS = {
    "eventRecorded": Line("TA", NONE, staff, 'eventRecorded(classroomId: "%(classroom)s") { kind }'),
    "dashboardChanged": Line("TA", NONE, staff, 'dashboardChanged(classroomId: "%(classroom)s") { kind }'),
    "riskFlagChanged": Line("TAI", READ, staff, 'riskFlagChanged(classroomId: "%(classroom)s") { kind }'),
    "jobProgressed": Line("SGTAI", READ, follower, 'jobProgressed(jobId: "%(job)s") { kind }'),
    "masteryChanged": Line("SGTAI", READ, student, 'masteryChanged(studentId: "%(student)s") { kind }'),
}
CLASS_MASTERY = Line("SGTAI", READ, staff, 'masteryChanged(classroomId: "%(classroom)s") { kind }')
WITHOUT_POSITION = {"recompute", "verifyProjection", "cancelJob"}  # they write nothing to the log
TABLE = {**QUERIES, **MUTATIONS, **SUBSCRIPTIONS}
NODES: dict[str, tuple[Reach, Callable[[Target], str]]] = {
    "Student": (student, lambda what: what.student),
    "Classroom": (member, lambda what: what.classroom),
    "School": (school, lambda what: what.school),
    "Assignment": (member, lambda what: what.assignment),
    "RiskFlag": (staff, lambda what: node_key_of((what.classroom, what.student, "INACTIVE"))),
    "Subject": (known, lambda what: what.subject),
    "Concept": (known, lambda what: what.concept),
    "Job": (follower, lambda what: what.job),
}
_fresh = count(1)
INPUTS: dict[str, Callable[[Target], dict[str, Any]]] = {
    "recordEvent": lambda what: _viewing(what),
    "recordEvents": lambda what: {"events": [_viewing(what)]},
    "voidEvent": lambda what: {"source": "lms", "eventId": what.event, "reason": "sent twice"},
    "regradeSubmission": lambda what: {"source": "lms", "eventId": what.event, "score": 0.5, "reason": "misread"},
    "excuseAssignment": lambda what: _of_item(what),
    "reopenAssignment": lambda what: _of_item(what),
    "saveCatalog": lambda what: {"subjects": [{"key": what.subject, "name": "Renamed"}]},
    "saveSchool": lambda what: {"key": what.school, "name": "Renamed"},
    "saveStudent": lambda what: {"key": what.student, "displayName": "Renamed"},
    "saveClassroom": lambda what: {"key": what.classroom, "name": "Renamed"},
    "saveAssignment": lambda what: {
        "key": f"work{next(_fresh)}",
        "classroomId": what.classroom,
        "title": "New",
        "conceptIds": [what.concept],
    },
    "saveEnrollment": lambda what: {
        "classroomId": what.classroom,
        "personId": f"new{next(_fresh)}",
        "role": "TEACHER",
        "startsOn": "2026-01-07",
    },
    "linkGuardian": lambda what: {
        "guardianId": f"new{next(_fresh)}",
        "studentId": what.student,
        "consentAt": "2026-03-01T00:00:00Z",
    },
    "updateClassroomPolicy": lambda what: {"classroomId": what.classroom, "minEvidence": 1 + next(_fresh) % 100},
    "recompute": lambda what: {"scope": "CLASSROOM", "classroomId": what.classroom},
    "verifyProjection": lambda what: {"classroomId": what.classroom},
    "cancelJob": lambda what: {"jobId": what.job},
    "replayDeadLetters": lambda what: {"events": [{"source": "lms", "eventId": what.event}]},
    "discardDeadLetters": lambda what: {"events": [{"source": "lms", "eventId": what.event}], "reason": "noise"},
    "resolveConflict": lambda what: {"source": "lms", "eventId": what.event, "choice": "KEEP_FIRST"},
}


def _of_item(what: Target) -> dict[str, Any]:
    return {"assignmentId": what.assignment, "studentIds": [what.student], "reason": "was ill"}


def _viewing(what: Target) -> dict[str, Any]:
    return {
        "type": "CONTENT_VIEWED",
        "contentId": "film",
        "studentId": what.student,
        "classroomId": what.classroom,
    }


# ---------------------------------------------------------------- the world


@dataclass
class World:
    """Two tenants whose keys differ, but for the keys of their people."""

    here: District
    there: District
    engine: Engine
    bell: Bell = field(default_factory=Bell)

    def viewer(self, who: Person) -> Viewer:
        tenant = (self.there if who.is_stranger else self.here).tenant
        return Viewer(tenant, who.key, who.roles, EXPIRY, who.scopes, who.sources)

    async def ask(self, who: Person, text: str, variables: dict[str, Any] | None = None) -> Answer:
        context = begin(self.engine, self.viewer(who), "test")
        return decoded(await DOCUMENTS.execute(DOCUMENTS.plan(text, None), variables or {}, context))

    async def first_message(self, who: Person, text: str) -> Answer:
        context = begin(self.engine, self.viewer(who), "test")
        async with aclosing(DOCUMENTS.subscribe(DOCUMENTS.plan(text, None), {}, context)) as answers:
            return await anext(answers)

    async def rows(self, district: District) -> dict[str, list[str]]:
        """Every row of a tenant, by table."""
        async with tenant_transaction(district.pool, district.tenant, read_only=True) as connection:
            return {
                table: sorted(
                    str(tuple(row))
                    for row in await connection.fetch(
                        f'select * from "{table}" where tenant = $1',  # noqa: S608 - names of our own
                        district.tenant,
                    )
                )
                for table in TENANT_TABLES
            }


async def furnish(district: District, targets: list[Target], teachers: dict[str, str]) -> None:
    """A student, a piece of work, a flag, an event and a teacher for each class."""
    for subject, concept in {(each.subject, each.concept) for each in targets}:
        await district.put("subject", subject=subject, name=subject)
        await district.put("concept", concept=concept, subject=subject, name=concept)
    for key in sorted({each.school for each in targets}):
        await district.school(key)
    for each in targets:
        await district.classroom(each.classroom, school=each.school)
        await district.enroll(each.student, each.classroom)
        await district.person(each.student, f"Name of {each.student}")
        await district.assignment(each.assignment, each.classroom, concepts=[each.concept])
        await district.flag(each.student, "INACTIVE", 2, classroom=each.classroom)
        await district.event(each.event, each.student, classroom=each.classroom)
        await district.put(
            "job", job=each.job, kind="VERIFY", scope="CLASSROOM", classroom=each.classroom, state="RUNNING",
            requested_by=OWNERS[each.job], created_at=NOW, beat_at=EXPIRY,
        )  # fmt: skip
        await district.put(
            "dead_letter", source="lms", event_id=each.event, seq=1, student=each.student, classroom=each.classroom,
            error="ZeroDivisionError", at=NOW,
        )  # fmt: skip
        await district.put(
            "conflict", source="lms", event_id=each.event, sent_hash=b"b", stored_hash=b"a", seq=1, first_at=NOW,
            last_at=NOW,
        )  # fmt: skip
        if each.classroom in teachers:
            await district.teach(teachers[each.classroom], each.classroom)


async def open_world(pool: Pool, live: Any) -> World:
    here, there = await open_district(pool), await open_district(pool)
    await furnish(here, HERE, {"7b": "tess", "8a": "olga"})
    await furnish(there, THERE, {"xclass": "xeno"})
    await here.enroll("bob", "7b")
    await here.teach("colin", "7b")
    await here.teach("fern", "7b", ended=TODAY)
    await here.teach("neil", "7b", started=datetime(2026, 3, 12, tzinfo=UTC).date())
    await here.guard("gina", "ada")
    await here.guard("rex", "ada", revoked_at=NOW)
    bell = Bell()
    wake: Any = bell
    recorder = Recorder(pool, clock=lambda: NOW, wake=wake, live=wake)
    engine = Engine(clock=lambda: NOW, pool=pool, recorder=recorder, wake=wake, live=live or wake)
    return World(here, there, engine, bell)


@pytest_asyncio.fixture(scope="module")
async def world(pool: Pool, live: Live) -> AsyncIterator[World]:
    """One world for all that only reads."""
    yield await open_world(pool, live)


@pytest_asyncio.fixture
async def own_world(pool: Pool) -> World:
    """A world that the test may change."""
    return await open_world(pool, None)


def worded(text: str, what: Target) -> str:
    keys = {name: getattr(what, name) for name in Target.__dataclass_fields__}
    named = {f"{name}_node": global_id(name.capitalize(), keys[name]) for name in ("student", "classroom", "school")}
    return text % {**keys, **named}


def document(operation: str, what: Target) -> str:
    """The query of one line: a field of an object is asked for alone, below its root."""
    root, _dot, below = operation.partition(".")
    text = QUERIES[operation].ask
    if below:
        head = QUERIES[root].ask.partition("{")[0]
        text = f"{head} {{ {text} }}"
    return f"{{ {worded(text, what)} }}"


def blind(answer: Answer, what: Target) -> str:
    """An answer without the keys that were asked for: nothing else may tell one absence from another."""
    errors = [{**error, "locations": None} for error in answer.errors]  # columns move with the length of a key
    text = json.dumps({"data": answer.data, "errors": errors}, sort_keys=True)
    for name in ("student", "classroom", "school"):
        text = text.replace(global_id(name.capitalize(), getattr(what, name)), "*")
    for key in sorted(what.keys, key=len, reverse=True):
        text = text.replace(key, "*")
    return text


def foreign_students(who: Person) -> Iterator[str]:
    yield from (each for each in STUDENTS_HERE | STUDENTS_THERE if not who.sees(each))


def everyone_and_everything() -> Iterator[tuple[str, Person, str, Target]]:
    for name, who in PEOPLE.items():
        for place, what in TARGETS.items():
            yield name, who, place, what


# ---------------------------------------------------------------- the tests


def test_every_operation_and_every_node_has_a_line_in_the_table() -> None:
    names = {name for name, _field, _root in operations()}

    assert TABLE.keys() == names
    assert NODES.keys() == nodes._loaders.keys()
    assert MUTATIONS.keys() == INPUTS.keys()
    for root, lines in zip(ROOTS.values(), (QUERIES, MUTATIONS, SUBSCRIPTIONS), strict=True):
        assert root is not None
        assert {name for name in lines if "." not in name} == root.fields.keys()


def test_the_rules_say_what_the_table_says() -> None:
    told_roles = {name: frozenset(LETTERS[letter] for letter in TABLE[name].who) for name in FIELD_ROLES}
    told_scopes = {name: TABLE[name].scopes for name in INTEGRATOR_SCOPES}

    assert told_roles == FIELD_ROLES
    assert told_scopes == INTEGRATOR_SCOPES


def expected_of(operation: str, who: Person, what: Target) -> str:
    """What the table says: `data`, `null`, or the path of the refusal."""
    root, _dot, below = operation.partition(".")
    if not who.admitted(root):
        return f"{FORBIDDEN} {root}"
    if not TABLE[root].reach(who, what):
        return "null"
    if not below:
        return "data"
    if not who.admitted(operation):
        return f"{FORBIDDEN} {operation}"
    if not TABLE[operation].reach(who, what):
        # An object within reach whose field is not: one that has arguments of its own answers like an unknown one.
        return "null below" if TABLE[operation].reach is told else f"{FORBIDDEN} {operation}"
    return "data"


def found_in(operation: str, answer: Answer) -> str:
    root, _dot, below = operation.partition(".")
    if answer.errors:
        (error,) = answer.errors
        path = ".".join(map(str, error["path"]))
        assert answer.data is not None
        assert answer.data[root] is None or answer.data[root][below] is None  # and nothing was returned beside it
        return f"{error['extensions']['code']} {path}"
    assert answer.data is not None
    if answer.data[root] is None:
        return "null"
    return "null below" if below and answer.data[root][below] is None else "data"


@pytest.mark.parametrize("operation", QUERIES)
async def test_a_query_shows_each_viewer_what_is_theirs_and_nothing_of_others(world: World, operation: str) -> None:
    found: dict[tuple[str, str], str] = {}
    expected: dict[tuple[str, str], str] = {}
    absences: dict[tuple[str, str], set[str]] = {}
    for name, who, place, what in everyone_and_everything():
        answer = await world.ask(who, document(operation, what))

        found[name, place] = found_in(operation, answer)
        expected[name, place] = expected_of(operation, who, what)
        shown = json.dumps(answer.body)
        assert [key for key in foreign_students(who) if f'"{key}"' in shown] == []
        if expected[name, place] != "data":
            absences.setdefault((name, expected[name, place]), set()).add(blind(answer, what))

    assert found == expected
    assert {case: answers for case, answers in absences.items() if len(answers) != 1} == {}


@pytest.mark.parametrize("kind", NODES)
async def test_a_node_is_there_for_those_who_may_see_it_and_unknown_to_all_others(world: World, kind: str) -> None:
    reach, key_of = NODES[kind]
    one = "query ($id: ID!) { node(id: $id) { id __typename } nodes(ids: [$id]) { id __typename } }"
    for name, who, place, what in everyone_and_everything():
        id = global_id(kind, key_of(what))

        answer = await world.ask(who, one, {"id": id})

        if not who.admitted("node"):
            assert (name, answer.codes, answer.data) == (name, {FORBIDDEN}, {"node": None, "nodes": None})
            continue
        # The names of a catalog are the tenant's own; another tenant's are as unknown as any.
        is_there = who.sees(what.student) if kind == "Student" else reach(who, what)
        seen = {"id": id, "__typename": kind} if is_there else None
        assert (name, place, answer.body) == (name, place, {"data": {"node": seen, "nodes": [seen]}})


def outcome_of(operation: str, answer: Answer) -> str:
    """FORBIDDEN at the door, REFUSED in the payload, or DONE."""
    if answer.errors:
        assert answer.codes == {FORBIDDEN}
        return FORBIDDEN
    assert answer.data is not None
    payload = answer.data[operation]
    errors = payload["errors"] + [error for result in payload.get("results", ()) for error in result["errors"]]
    if errors:
        assert payload.get("status", "REJECTED") == "REJECTED"
        assert payload.get("seq") is None
    return "REFUSED" if errors else "DONE"


async def mutate(world: World, operation: str, who: Person, what: Target) -> Answer:
    stem = operation[0].upper() + operation[1:]
    seq = "" if operation in WITHOUT_POSITION else "seq"
    wants = f"errors {{ code field message }} {seq} {MUTATIONS[operation].ask}"
    text = f"mutation Go($input: {stem}Input!) {{ {operation}(input: $input) {{ {wants} }} }}"
    sent = INPUTS[operation](what)
    if who.roles & {Role.INTEGRATOR} and operation.startswith("record"):
        for event in sent.get("events", [sent]):
            event.update(source="lms", eventId=f"told{next(_fresh)}", occurredAt="2026-03-11T09:00:00Z")
    return await world.ask(who, text, {"input": sent})


@pytest.mark.parametrize("operation", MUTATIONS)
async def test_a_mutation_works_within_reach_and_changes_nothing_outside(own_world: World, operation: str) -> None:
    world, line = own_world, MUTATIONS[operation]
    cells = list(everyone_and_everything())
    within = [cell for cell in cells if cell[1].admitted(operation) and line.reach(cell[1], cell[3])]
    before = await world.rows(world.here), await world.rows(world.there)

    absences: dict[str, set[str]] = {}
    for cell in cells:
        if cell in within:
            continue
        name, who, place, what = cell
        answer = await mutate(world, operation, who, what)
        expected = "REFUSED" if who.admitted(operation) else FORBIDDEN
        assert (name, place, outcome_of(operation, answer)) == (name, place, expected)
        absences.setdefault(name, set()).add(blind(answer, what))

    assert (await world.rows(world.here), await world.rows(world.there)) == before
    assert (world.bell.marked, world.bell.announced) == ([], [])
    assert {name: answers for name, answers in absences.items() if len(answers) != 1} == {}

    for is_stranger, other in ((False, world.there), (True, world.here)):
        untouched = await world.rows(other)
        for name, who, place, what in within:
            if who.is_stranger is is_stranger:
                answer = await mutate(world, operation, who, what)
                assert (name, place, outcome_of(operation, answer)) == (name, place, "DONE")
        assert await world.rows(other) == untouched


@pytest.mark.parametrize("line", [*SUBSCRIPTIONS.values(), CLASS_MASTERY], ids=[*SUBSCRIPTIONS, "class mastery"])
async def test_a_subscription_opens_within_reach_and_is_refused_alike_everywhere_else(world: World, line: Line) -> None:
    operation = line.ask.partition("(")[0]
    for name, who, place, what in everyone_and_everything():
        text = f"subscription {{ {worded(line.ask, what)} }}"

        answer = await world.first_message(who, text)

        if who.admitted(operation) and line.reach(who, what):
            assert (name, place, answer.errors) == (name, place, ())
        else:
            refused = await world.first_message(who, f"subscription {{ {worded(line.ask, TARGETS['nowhere'])} }}")
            assert (name, place, answer.codes, answer.data) == (name, place, {FORBIDDEN}, None)
            assert blind(answer, what) == blind(refused, TARGETS["nowhere"])


# ---------------------------------------------------------------- the second net


@pytest.mark.parametrize("table", TENANT_TABLES)
async def test_a_statement_that_forgets_its_tenant_sees_no_other(world: World, table: str) -> None:
    here = world.here
    async with tenant_transaction(here.pool, here.tenant) as connection:
        seen = await connection.fetch(f'select distinct tenant from "{table}"')  # noqa: S608 - names of our own

    assert {row["tenant"] for row in seen} <= {here.tenant}


async def test_no_row_can_be_planted_in_another_tenant(world: World) -> None:
    plant = "insert into school (tenant, school, name) values ($1::bigint * 0 + $2, 'planted', '')"

    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
        await world.here.run(plant, world.there.tenant)


@pytest.mark.feature("000-06")
@pytest.mark.parametrize("table", ["event", "event_key"])
async def test_the_processes_may_add_to_the_log_and_never_change_it(world: World, table: str) -> None:
    before = await world.rows(world.here)

    for change in (f"update {table} set seq = seq", f"delete from {table}", f"truncate {table}"):  # noqa: S608 - tables of ours
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with tenant_transaction(world.here.pool, world.here.tenant) as connection:
                await connection.execute(change)

    assert await world.rows(world.here) == before


@pytest.mark.feature("000-06")
async def test_no_partition_of_the_log_is_a_way_around(world: World) -> None:
    async with tenant_transaction(world.here.pool, world.here.tenant) as connection:
        parts = await connection.fetch(
            """select c.oid::regclass::text as name, has_table_privilege(c.oid, 'update') or
                has_table_privilege(c.oid, 'delete') or has_table_privilege(c.oid, 'truncate') as can_change
            from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = 'event'::regclass"""
        )

    assert len(parts) > 0
    assert [part["name"] for part in parts if part["can_change"]] == []
