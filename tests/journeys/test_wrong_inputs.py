"""A bad day at the door: everything wrong that strangers send, each with its one answer, and nothing of it kept."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import httpx
import pytest
import pytest_asyncio

from db.live import Live
from db.pool import Pool
from rules.access import Role, Scope
from server.identity import mint
from tests.rows.district import NOW
from tests.support.events import Mill
from tests.support.intake import RECORD, RECORD_MANY, SECRET, VOID, Door, Intake, intake_served

INTERNALS = ("Traceback", "asyncpg", "postgres", "Postgres", "site-packages", ".py", "/work", "select ", "insert ")
FAR = "318857-05-20T17:46:39Z"


@dataclass
class Day:
    """One tenant's day: what was rightly sent to it, and another tenant beside it."""

    ours: Intake
    theirs: Intake
    valid: list[str] = field(default_factory=list)

    async def good(self, event_id: str) -> None:
        """One right event between the wrong ones."""
        payload = await self.ours.record(**grade(event_id))
        assert payload["status"] == "ACCEPTED", payload
        self.valid.append(event_id)


@pytest_asyncio.fixture(scope="module")
async def door(pool: Pool, live: Live, redis_url: str) -> AsyncIterator[Door]:
    async with intake_served(pool, live, redis_url) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module")
async def day(door: Door) -> Day:
    begun = Day(await door.tenant(), await door.tenant())
    await begun.theirs.district.classroom("their-class")
    await begun.theirs.district.enroll("their-pupil", "their-class")
    await begun.theirs.record(**grade("their-event", classroomId="their-class", studentId="their-pupil"))
    await begun.good("first")
    return begun


def grade(event_id: str = "wrong", **more: Any) -> dict[str, Any]:
    """A right event, but for what is changed."""
    return {
        "source": "lms", "eventId": event_id, "occurredAt": "2026-03-11T08:00:00Z", "studentId": "s1",
        "classroomId": "7b", "assignmentId": f"hw-{event_id}", "conceptIds": ["fractions"], "score": 0.8,
        "type": "SUBMISSION_GRADED", **more,
    }  # fmt: skip


def plain(kind: str, **more: Any) -> dict[str, Any]:
    """A change to an event of another type, without score or work."""
    return {"type": kind, "score": None, "assignmentId": None, **more}


def is_clean(response: httpx.Response) -> bool:
    """Whether an answer shows nothing of the house and blames nobody but the sender."""
    return response.status_code < 500 and not any(word in response.text for word in INTERNALS)


def nested(depth: int) -> Any:
    """An object in an object in an object."""
    value: Any = 1
    for _ in range(depth):
        value = {"rubric": value}
    return value


EXERCISE = {"totalExercises": 4, "completedExercises": 2, "difficulty": "beginner"}
ANSWER = {"quizId": "q", "questionId": "q1", "answer": "4", "timeSpentMs": 1, "attemptNumber": 1}
TARGET = {"targetSource": "lms", "targetEventId": "first"}
LATER = (NOW + timedelta(minutes=15, microseconds=1)).isoformat()

# (what is wrong, how a right event is changed, the one problem told)
EVENTS: list[tuple[str, dict[str, Any], str, str]] = [
    ("no event id from a machine", {"eventId": None}, "REQUIRED", "eventId"),
    ("an empty event id", {"eventId": ""}, "BAD_ID", "eventId"),
    ("an event id of 129 characters", {"eventId": "x" * 129}, "TOO_LONG", "eventId"),
    ("an event id of 100,000 characters", {"eventId": "x" * 100_000}, "TOO_LONG", "eventId"),
    ("a line break in an id", {"eventId": "a\nb"}, "BAD_ID", "eventId"),
    ("DEL in an id", {"eventId": "a\x7f"}, "BAD_ID", "eventId"),
    ("a blank before an id", {"eventId": " a"}, "BAD_ID", "eventId"),
    ("no source from a machine", {"source": None}, "REQUIRED", "source"),
    ("an empty source", {"source": ""}, "BAD_ID", "source"),
    ("a person's source", {"source": "user:s1"}, "FORBIDDEN", "source"),
    ("the service's own source", {"source": "sightline"}, "FORBIDDEN", "source"),
    ("a source of 129 characters", {"source": "x" * 129}, "TOO_LONG", "source"),
    ("no student", {"studentId": None}, "REQUIRED", "studentId"),
    ("a student with a no-break space", {"studentId": "\u00a0s1"}, "BAD_ID", "studentId"),
    ("no time", {"occurredAt": None}, "REQUIRED", "occurredAt"),
    ("a time in words", {"occurredAt": "yesterday"}, "BAD_TIMESTAMP", "occurredAt"),
    ("an empty time", {"occurredAt": ""}, "BAD_TIMESTAMP", "occurredAt"),
    ("a time without offset", {"occurredAt": "2026-03-11T08:00:00"}, "BAD_TIMESTAMP", "occurredAt"),
    ("a date alone", {"occurredAt": "2026-03-11"}, "BAD_TIMESTAMP", "occurredAt"),
    ("30 February", {"occurredAt": "2026-02-30T08:00:00Z"}, "BAD_TIMESTAMP", "occurredAt"),
    ("an offset of 99 hours", {"occurredAt": "2026-03-11T08:00:00+99:00"}, "BAD_TIMESTAMP", "occurredAt"),
    ("full-width digits", {"occurredAt": "\uff12\uff10\uff12\uff16-03-11T08:00:00Z"}, "BAD_TIMESTAMP", "occurredAt"),
    ("the year 0", {"occurredAt": "0000-01-01T00:00:00Z"}, "BAD_TIMESTAMP", "occurredAt"),
    ("the year 1", {"occurredAt": "0001-01-01T00:00:00Z"}, "BAD_TIMESTAMP", "occurredAt"),
    ("the year 1 before the calendar", {"occurredAt": "0001-01-01T00:00:00+14:00"}, "BAD_TIMESTAMP", "occurredAt"),
    ("the end of 1969", {"occurredAt": "1969-12-31T23:59:59Z"}, "BAD_TIMESTAMP", "occurredAt"),
    ("the year 9999", {"occurredAt": "9999-12-31T23:59:59Z"}, "FUTURE_TIMESTAMP", "occurredAt"),
    ("the year 9999 after the calendar", {"occurredAt": "9999-12-31T23:59:59-14:00"}, "FUTURE_TIMESTAMP", "occurredAt"),
    ("the year 318857", {"occurredAt": FAR}, "BAD_TIMESTAMP", "occurredAt"),
    ("15 minutes and a microsecond ahead", {"occurredAt": LATER}, "FUTURE_TIMESTAMP", "occurredAt"),
    ("a due date in the year 318857", {"dueAt": FAR}, "BAD_TIMESTAMP", "dueAt"),
    ("an unknown type", {"type": "GRADED_MAYBE"}, "UNKNOWN_TYPE", "type"),
    ("an empty type", {"type": ""}, "UNKNOWN_TYPE", "type"),
    ("a type in lower case that is no alias", {"type": "submission_graded"}, "UNKNOWN_TYPE", "type"),
    ("nothing that says the type", {"type": None, "score": None, "conceptIds": None}, "REQUIRED", "type"),
    ("a score below 0", {"score": -0.001}, "SCORE_OUT_OF_RANGE", "score"),
    ("a score above 1", {"score": 1.001}, "SCORE_OUT_OF_RANGE", "score"),
    ("a score in percent without its scale", {"score": 80}, "SCORE_OUT_OF_RANGE", "score"),
    ("11 points of 10", {"score": 11, "maxScore": 10}, "SCORE_OUT_OF_RANGE", "score"),
    ("the largest float", {"score": 1.7e308}, "SCORE_OUT_OF_RANGE", "score"),
    ("a scale of 0", {"maxScore": 0}, "OUT_OF_RANGE", "maxScore"),
    ("a negative scale", {"maxScore": -10}, "OUT_OF_RANGE", "maxScore"),
    ("a scale beyond reason", {"maxScore": 1e300}, "OUT_OF_RANGE", "maxScore"),
    ("a grade without score", {"score": None}, "SCORE_REQUIRED", "score"),
    ("assigned work with a score", {"type": "ASSIGNMENT_ASSIGNED"}, "SCORE_NOT_ALLOWED", "score"),
    ("a submission with a score", {"type": "SUBMISSION_CREATED"}, "SCORE_NOT_ALLOWED", "score"),
    ("a grade without class", {"classroomId": None}, "REQUIRED", "classroomId"),
    ("a grade without work", {"assignmentId": None}, "REQUIRED", "assignmentId"),
    ("a grade without concepts", {"conceptIds": None}, "REQUIRED", "conceptIds"),
    ("an empty list of concepts", {"conceptIds": []}, "REQUIRED", "conceptIds"),
    ("51 concepts", {"conceptIds": [f"c{n}" for n in range(51)]}, "TOO_MANY", "conceptIds"),
    ("an empty concept", {"conceptIds": ["a", ""]}, "BAD_ID", "conceptIds.1"),
    ("two concepts started at once", plain("CONCEPT_STARTED", conceptIds=["a", "b"]), "TOO_MANY", "conceptIds"),
    ("a day and a millisecond spent", plain("CONCEPT_STARTED", timeSpentMs=86_400_001), "OUT_OF_RANGE", "timeSpentMs"),
    ("time given back", plain("CONCEPT_STARTED", timeSpentMs=-1), "OUT_OF_RANGE", "timeSpentMs"),
    (
        "no exercises",
        plain("EXERCISE_COMPLETED", **{**EXERCISE, "totalExercises": 0}),
        "OUT_OF_RANGE",
        "totalExercises",
    ),
    (
        "more exercises done than set",
        plain("EXERCISE_COMPLETED", **{**EXERCISE, "completedExercises": 5}),
        "OUT_OF_RANGE",
        "completedExercises",
    ),
    (
        "an unknown difficulty",
        plain("EXERCISE_COMPLETED", **{**EXERCISE, "difficulty": "hard"}),
        "OUT_OF_RANGE",
        "difficulty",
    ),
    ("a quality of nothing", plain("QUALITY_ASSESSED"), "REQUIRED", "codeQuality"),
    ("a quality above 1", plain("QUALITY_ASSESSED", correctness=1.5), "OUT_OF_RANGE", "correctness"),
    ("help to oneself", plain("PEER_HELP", helperId="s1", helpedId="s1"), "OUT_OF_RANGE", "helpedId"),
    ("content without a name", plain("CONTENT_VIEWED"), "REQUIRED", "contentId"),
    ("attempt number 0", plain("ANSWER_SUBMITTED", **{**ANSWER, "attemptNumber": 0}), "OUT_OF_RANGE", "attemptNumber"),
    ("an answer like a book", plain("ANSWER_SUBMITTED", **{**ANSWER, "answer": "x" * 4_001}), "TOO_LONG", "answer"),
    ("51 tags", {"rubricTags": ["t"] * 51}, "TOO_MANY", "rubricTags"),
    ("an app nobody registered", {"app": "MINECRAFT"}, "UNKNOWN_APP", "app"),
    ("metadata in words", {"metadata": "none"}, "BAD_METADATA", "metadata"),
    ("metadata in a list", {"metadata": [1]}, "BAD_METADATA", "metadata"),
    ("17 KiB of metadata", {"metadata": {"device": "x" * 17 * 1024}}, "BAD_METADATA", "metadata"),
    ("metadata six levels deep", {"metadata": nested(6)}, "BAD_METADATA", "metadata"),
    ("metadata 400 levels deep", {"metadata": nested(400)}, "BAD_METADATA", "metadata"),
    ("1,001 values of metadata", {"metadata": {"rubric": [0] * 1_001}}, "BAD_METADATA", "metadata"),
    ("an integer that JSON readers round", {"metadata": {"wordCount": 2**53}}, "BAD_METADATA", "metadata"),
    ("a device that is a number", {"metadata": {"device": 7}}, "BAD_METADATA", "metadata.device"),
    ("a void without reason", plain("EVENT_VOIDED", **TARGET), "REQUIRED", "reason"),
    ("a void with a blank reason", plain("EVENT_VOIDED", **TARGET, reason=" "), "REQUIRED", "reason"),
    ("a void of nothing", plain("EVENT_VOIDED", targetSource="lms", reason="x"), "REQUIRED", "targetEventId"),
    ("a regrade without score", plain("SUBMISSION_REGRADED", **TARGET, reason="x"), "SCORE_REQUIRED", "score"),
    (
        "an excuse without reason",
        plain("ASSIGNMENT_EXCUSED", classroomId="7b", assignmentId="hw"),
        "REQUIRED",
        "reason",
    ),
]


@pytest.mark.feature("000-03", "000-04", "000-05", "001-02", "003-15", "004-08", "C2", "C5", "C6")
@pytest.mark.parametrize(("changed", "code", "path"), [row[1:] for row in EVENTS], ids=[row[0] for row in EVENTS])
async def test_a_wrong_event_is_rejected_with_its_problem(
    day: Day, changed: dict[str, Any], code: str, path: str
) -> None:
    response = await day.ours.post(RECORD, {"input": grade(**changed)})

    payload = response.json()["data"]["recordEvent"]
    assert (response.status_code, is_clean(response)) == (200, True)
    assert (payload["status"], payload["event"], payload["seq"]) == ("REJECTED", None, None)
    assert [(error["code"], ".".join(error["field"])) for error in payload["errors"]] == [(code, path)]


@pytest.mark.feature("003-59")
async def test_all_wrong_events_in_one_batch_leave_the_right_one_among_them(day: Day) -> None:
    wrong = [grade(**changed) for _, changed, _, _ in EVENTS]
    events = [*wrong[:40], grade("among-the-wrong"), *wrong[40:]]

    payload = await day.ours.told(RECORD_MANY, {"events": events})

    day.valid.append("among-the-wrong")
    statuses = [result["status"] for result in payload["results"]]
    assert (statuses.pop(40), set(statuses), len(statuses)) == ("ACCEPTED", {"REJECTED"}, len(EVENTS))
    assert [result["errors"][0]["code"] for result in payload["results"] if result["errors"]] == [
        code for _, _, code, _ in EVENTS
    ]


def said(**changed: Any) -> bytes:
    """The body of a recordEvent whose variables hold a changed event."""
    return json.dumps({"query": RECORD, "variables": {"input": grade(**changed)}}).encode()


def raw(old: str, new: str) -> bytes:
    """The same body with a piece of its JSON text replaced."""
    body = said().decode()
    assert old in body
    return body.replace(old, new).encode()


def document(text: str) -> bytes:
    """The body of a request without variables."""
    return json.dumps({"query": text}).encode()


def literal(**changed: str) -> bytes:
    """A recordEvent with its values written into the document."""
    given = {key: json.dumps(value) for key, value in grade().items()} | changed
    pairs = ", ".join(f"{key}: {value}" for key, value in given.items())
    return document(f"mutation {{ recordEvent(input: {{ {pairs} }}) {{ status }} }}")


BIG = b'{"query": "' + b"x" * 2_000_000 + b'"}'
MANY = json.dumps({"query": RECORD_MANY, "variables": {"input": {"events": [grade("big", answer="x" * 5_000_000)]}}})

# (what is wrong, the body, headers beside the usual ones, the status, the code)
REQUESTS: list[tuple[str, bytes, dict[str, str], int, str]] = [
    ("a score in quotes", said(score="0.8"), {}, 400, "BAD_INPUT"),
    ("a score that is true", said(score=True), {}, 400, "BAD_INPUT"),
    ("a score that is a list", said(score=[0.8]), {}, 400, "BAD_INPUT"),
    ("NaN in JSON", raw("0.8", "NaN"), {}, 400, "BAD_INPUT"),
    ("Infinity in JSON", raw("0.8", "Infinity"), {}, 400, "BAD_INPUT"),
    ("1e999 in JSON", raw("0.8", "1e999"), {}, 400, "BAD_INPUT"),
    ("an integer of 5,000 digits in JSON", raw("0.8", "9" * 5_000), {}, 400, "BAD_INPUT"),
    ("1e999 in the document", literal(score="1e999"), {}, 400, "BAD_INPUT"),
    ("-1e999 in the document", literal(score="-1e999"), {}, 400, "BAD_INPUT"),
    ("NaN in the document", literal(score="NaN"), {}, 400, "GRAPHQL_VALIDATION_FAILED"),
    ("an integer of 5,000 digits in the document", literal(score="9" * 5_000), {}, 400, "BAD_INPUT"),
    ("1e999 in metadata in the document", literal(metadata="{ rubric: [1e999] }"), {}, 400, "BAD_INPUT"),
    ("a metadata bomb in the document", literal(metadata="{a:" * 90 + "1" + "}" * 90), {}, 400, "QUERY_TOO_COMPLEX"),
    (
        "a metadata bomb in JSON",
        raw('"score": 0.8', '"metadata": ' + '{"a":' * 90_000 + "1" + "}" * 90_000),
        {},
        400,
        "BAD_INPUT",
    ),
    ("a revision beyond 32 bits", said(revision=2**31), {}, 400, "BAD_INPUT"),
    ("half a millisecond", said(timeSpentMs=0.5), {}, 400, "BAD_INPUT"),
    ("a huge integer of milliseconds", said(timeSpentMs=10**18), {}, 400, "BAD_INPUT"),
    ("an id that is an object", said(eventId={"$ne": None}), {}, 400, "BAD_INPUT"),
    ("an id that is true", said(studentId=True), {}, 400, "BAD_INPUT"),
    ("a concept that is null", said(conceptIds=[None]), {}, 400, "BAD_INPUT"),
    ("a time that is a number", said(occurredAt=1_741_680_000), {}, 400, "BAD_INPUT"),
    ("a type that is a number", said(type=7), {}, 400, "BAD_INPUT"),
    ("an unknown lane", said(lane="SOON"), {}, 400, "BAD_INPUT"),
    ("an unknown field", said(points=1_000), {}, 400, "BAD_INPUT"),
    ("another tenant by field", said(tenant=1), {}, 400, "BAD_INPUT"),
    (
        "an input that is null",
        json.dumps({"query": RECORD, "variables": {"input": None}}).encode(),
        {},
        400,
        "BAD_INPUT",
    ),
    ("no input at all", json.dumps({"query": RECORD}).encode(), {}, 400, "BAD_INPUT"),
    (
        "an item of a wrong type",
        json.dumps({"query": RECORD_MANY, "variables": {"input": {"events": [grade("x"), None]}}}).encode(),
        {},
        400,
        "BAD_INPUT",
    ),
    ("NUL in an id", raw('"s1"', '"s\\u0000"'), {}, 400, "BAD_INPUT"),
    ("NUL in metadata", said(metadata={"device": "\0"}), {}, 400, "BAD_INPUT"),
    ("a lone surrogate", raw('"s1"', '"\\ud800"'), {}, 400, "BAD_INPUT"),
    ("a lone surrogate in the document", literal(studentId='"\\uD800"'), {}, 400, "GRAPHQL_PARSE_FAILED"),
    ("a byte that is no UTF-8", raw('"s1"', '"s1"').replace(b'"s1"', b'"\xff"'), {}, 400, "BAD_INPUT"),
    ("a key that stands twice", raw('"score": 0.8', '"score": 0.8, "score": 0.9'), {}, 400, "BAD_INPUT"),
    ("no body", b"", {}, 400, "BAD_INPUT"),
    ("null", b"null", {}, 400, "BAD_INPUT"),
    ("a batch of requests", b"[" + said() + b"]", {}, 400, "BAD_INPUT"),
    ("half a body", said()[:-5], {}, 400, "BAD_INPUT"),
    ("2 MB for one event", said(answer="x" * 2_000_000), {}, 413, "TOO_LARGE"),
    ("a document of 2 MB", BIG, {}, 400, "QUERY_TOO_COMPLEX"),
    ("5 MB for a batch", MANY.encode(), {}, 413, "TOO_LARGE"),
    ("plain text", said(), {"content-type": "text/plain"}, 415, "BAD_INPUT"),
    ("a form", b"query=x", {"content-type": "application/x-www-form-urlencoded"}, 415, "BAD_INPUT"),
    ("no content type", said(), {"content-type": ""}, 415, "BAD_INPUT"),
    ("a compressed body", said(), {"content-encoding": "gzip"}, 415, "BAD_INPUT"),
    ("a syntax error", document("mutation {"), {}, 400, "GRAPHQL_PARSE_FAILED"),
    ("an unknown mutation", document("mutation { dropEvents }"), {}, 400, "GRAPHQL_VALIDATION_FAILED"),
    ("a void without its input", document(VOID.replace("$input", "$x")), {}, 400, "BAD_INPUT"),
    ("no token", said(), {"authorization": ""}, 401, "UNAUTHENTICATED"),
    ("a forged token", said(), {"authorization": "Bearer eyJhbGciOiJub25lIn0.e30."}, 401, "UNAUTHENTICATED"),
]


@pytest.mark.feature("000-03", "003-15")
@pytest.mark.parametrize(
    ("body", "headers", "status", "code"), [row[1:] for row in REQUESTS], ids=[row[0] for row in REQUESTS]
)
async def test_a_wrong_request_is_refused_with_its_code(
    day: Day, door: Door, body: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    usual = {
        "authorization": f"Bearer {day.ours.token()}", "content-type": "application/json",
        "accept": "application/graphql-response+json",
    }  # fmt: skip

    response = await door.http.post("/graphql", content=body, headers={**usual, **headers})

    answer = response.json()
    assert (response.status_code, {error["extensions"]["code"] for error in answer["errors"]}) == (status, {code})
    assert ("data" in answer, is_clean(response)) == (False, True)


@dataclass(frozen=True)
class Person:
    """Who sends."""

    roles: tuple[Role, ...]
    sub: str
    scopes: tuple[Scope, ...] = ()


TEACHER, STUDENT = Person((Role.TEACHER,), "t1"), Person((Role.STUDENT,), "s1")
GUARDIAN, READER = Person((Role.GUARDIAN,), "g1"), Person((Role.INTEGRATOR,), "bi", (Scope.READ,))
OWN = {"source": None, "eventId": None}
VIEWED = plain("CONTENT_VIEWED", contentId="c", **OWN)

# (what is wrong, who sends it, how the right event is changed, the problem told, or the code of the whole request)
PEOPLE: list[tuple[str, Person, dict[str, Any], str, str]] = [
    ("a guardian tells", GUARDIAN, OWN, "FORBIDDEN", ""),
    ("a machine without ingest tells", READER, {}, "FORBIDDEN", ""),
    ("a student grades", STUDENT, OWN, "FORBIDDEN", "score"),
    ("a student tells about another", STUDENT, {**VIEWED, "studentId": "s2"}, "FORBIDDEN", "studentId"),
    ("a student claims mastery", STUDENT, plain("CONCEPT_MASTERED", **OWN), "FORBIDDEN", "type"),
    ("a student voids", STUDENT, plain("EVENT_VOIDED", **OWN, **TARGET, reason="x"), "FORBIDDEN", "type"),
    ("a student in a foreign class", STUDENT, {**VIEWED, "classroomId": "8a"}, "NOT_FOUND", "classroomId"),
    (
        "a student in another tenant's class",
        STUDENT,
        {**VIEWED, "classroomId": "their-class"},
        "NOT_FOUND",
        "classroomId",
    ),
    ("a teacher as a machine", TEACHER, {"source": "lms"}, "FORBIDDEN", "source"),
    ("a teacher as somebody else", TEACHER, {"source": "user:head"}, "FORBIDDEN", "source"),
    ("a teacher of no class", TEACHER, {**VIEWED, "classroomId": None}, "REQUIRED", "classroomId"),
    ("a teacher in another tenant's class", TEACHER, {**OWN, "classroomId": "their-class"}, "NOT_FOUND", "classroomId"),
    ("a teacher about another tenant's pupil", TEACHER, {**OWN, "studentId": "their-pupil"}, "NOT_FOUND", "studentId"),
    (
        "a teacher voids another tenant's event",
        TEACHER,
        plain("EVENT_VOIDED", **OWN, targetSource="lms", targetEventId="their-event", reason="x"),
        "NOT_FOUND",
        "targetEventId",
    ),
]


@pytest.mark.feature("000-03", "C7")
@pytest.mark.parametrize(("person", "changed", "code", "path"), [r[1:] for r in PEOPLE], ids=[r[0] for r in PEOPLE])
async def test_a_wrong_sender_is_refused(
    day: Day, person: Person, changed: dict[str, Any], code: str, path: str
) -> None:
    token = day.ours.token(*person.roles, sub=person.sub, scopes=person.scopes)

    response = await day.ours.post(RECORD, {"input": grade(**changed)}, token=token)

    body = response.json()
    errors = body["data"]["recordEvent"]["errors"] if body["data"] else body["errors"]
    told = [(e.get("code") or e["extensions"]["code"], ".".join(e.get("field") or ())) for e in errors]
    assert (response.status_code, told, is_clean(response)) == (200, [(code, path)], True)


async def test_a_token_of_a_tenant_that_does_not_exist_records_nothing(day: Day) -> None:
    token = mint(
        SECRET, tenant=4, sub="lms", roles=[Role.INTEGRATOR], now=NOW, life=timedelta(hours=1), scopes=[Scope.INGEST]
    )

    response = await day.ours.post(RECORD, {"input": grade()}, token=token)

    (error,) = response.json()["errors"]
    assert (response.status_code, error["extensions"], is_clean(response)) == (200, {"code": "FORBIDDEN"}, True)


async def test_a_mutation_by_get_is_refused(day: Day, door: Door) -> None:
    headers = {"authorization": f"Bearer {day.ours.token()}"}

    response = await door.http.get("/graphql", params={"query": json.loads(literal())["query"]}, headers=headers)

    assert (response.status_code, response.json()["errors"][0]["extensions"]) == (405, {"code": "BAD_INPUT"})


@pytest.mark.parametrize(("size", "code"), [(0, "REQUIRED"), (1_001, "TOO_MANY")])
async def test_a_batch_of_a_wrong_size_is_refused_whole(day: Day, size: int, code: str) -> None:
    payload = await day.ours.told(RECORD_MANY, {"events": [grade(f"size-{place}") for place in range(size)]})

    assert (payload["results"], payload["seq"]) == ([], None)
    assert [(error["code"], error["field"]) for error in payload["errors"]] == [(code, ["events"])]


VOIDS: list[tuple[str, dict[str, Any], str, str]] = [
    ("an empty source", {"source": ""}, "BAD_ID", "source"),
    ("an event id of 129 characters", {"eventId": "x" * 129}, "TOO_LONG", "eventId"),
    ("a blank reason", {"reason": " "}, "REQUIRED", "reason"),
    ("a reason of 1,001 characters", {"reason": "x" * 1_001}, "TOO_LONG", "reason"),
]


@pytest.mark.feature("X-01")
@pytest.mark.parametrize(("changed", "code", "path"), [row[1:] for row in VOIDS], ids=[row[0] for row in VOIDS])
async def test_a_wrong_void_is_rejected(day: Day, changed: dict[str, Any], code: str, path: str) -> None:
    payload = await day.ours.told(VOID, {"source": "lms", "eventId": "first", "reason": "x", **changed})

    errors = [(error["code"], ".".join(error["field"])) for error in payload.pop("errors")]
    assert (payload, errors) == (
        {"status": "REJECTED", "event": None, "effect": None, "seq": None}, [(code, path)]
    )  # fmt: skip


@pytest.mark.feature("000-01", "000-06", "000-07")
async def test_after_all_of_it_the_log_holds_the_valid_events_alone_and_folds(day: Day, pool: Pool, live: Live) -> None:
    """Runs last: pytest keeps the order of a module."""
    await day.good("last")
    mill = Mill.of(pool, day.ours.district.tenant, live, now=NOW)

    folded = await mill.fold()

    assert len(EVENTS) + len(REQUESTS) + len(PEOPLE) + len(VOIDS) >= 140
    assert [row[:3] for row in await day.ours.log()] == [("lms", name, "SUBMISSION_GRADED") for name in day.valid]
    assert (folded, await day.ours.waiting()) == (len(day.valid), 0)
    assert await day.ours.rows(
        "select student, classroom, concept, score, count from standing where tenant = $1 order by 1, 2"
    ) == [("s1", "", "fractions", 800, len(day.valid)), ("s1", "7b", "fractions", 800, len(day.valid))]
    for table in ("conflict", "correction", "dead_letter", "unrostered"):
        assert await day.ours.rows(f"select 1 from {table} where tenant = $1") == []  # noqa: S608 - names of our own
    assert [row[1] for row in await day.theirs.log()] == ["their-event"]
