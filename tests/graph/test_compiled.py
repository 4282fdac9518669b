"""The compiled path answers what the reference executor answers, byte for byte, and is taken where it should be."""

import random
import re
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from json import dumps
from typing import Any
from uuid import UUID
from zlib import crc32

import msgspec
import pytest
import strawberry
from graphql import GraphQLInputObjectType, GraphQLObjectType, get_named_type
from strawberry.schema.config import StrawberryConfig

from db.corrections import Effect
from db.evidence import Answer as Logged
from db.evidence import Status
from db.recorder import Overloaded
from graph.access import PEOPLE, allow, core_of
from graph.answers import Answer
from graph.documents import Documents, Malformed, Plan
from graph.live import DashboardMessage, EventMessage, MasteryMessage, RiskFlagMessage
from graph.refusal import Refused
from graph.request import Context, Engine, Info, begin
from graph.scalars import SCALARS
from graph.schema import schema
from graph.wire import decode
from rules.access import Role, Scope, Viewer
from rules.evidence import Submission
from rules.intake import ClassroomFacts, Facts, Place, Target, Wanted
from rules.roster import EnrollmentRole
from tests.graph.compiled_cases import DATES, EDGES, FLAWED, JUNK, MOMENT, Dice
from tests.support.intake import RECORD, RECORD_MANY, graded

CORE = core_of(schema)
NOW = MOMENT + timedelta(days=1)
FRESH_ID = UUID(int=77)
DOCUMENTS, VARIABLES = 260, 10  # documents of each seed, variables for each document
INPUTS = {"recordEvent": "RecordEventInput", "recordEvents": "RecordEventsInput", "voidEvent": "VoidEventInput"}
MESSAGES = 12  # for each document
OUTCOMES = {
    "ACCEPTED", "DUPLICATE", "CONFLICT", "REJECTED", "BAD_INPUT", "FORBIDDEN", "INTERNAL", "OVERLOADED", "UNAVAILABLE",
}  # fmt: skip
FACTS = Facts(
    classrooms={
        "7b": ClassroomFacts("Europe/Berlin", True, (Place(EnrollmentRole.TEACHER, MOMENT.date(), None),)),
    },
    students=frozenset({"s1", "t1"}),
    pupils=frozenset({("s1", "7b")}),
    targets={("lms", "e1"): Target("s1", "7b"), ("lms", "e2"): Target("s1", "8a")},
)


class Log:
    """A recorder without a store: its answer, or its failure, hangs on the event's id alone."""

    def __init__(self) -> None:
        self.told: list[Submission] = []

    async def record(
        self, tenant: int, submissions: Sequence[Submission], *, recorded_by: str, traceparent: str | None = None
    ) -> list[Logged]:
        self.told += submissions
        return [self._answer(sent) for sent in submissions]

    def _answer(self, sent: Submission) -> Logged:
        dice = random.Random(crc32(sent.event.event_id.encode()))
        fate = dice.random()
        if fate < 0.08:
            raise dice.choice((Overloaded(), ConnectionRefusedError("10.0.0.7"), RuntimeError("Ada scored 12")))
        return Logged(
            status=dice.choice(list(Status)),
            id=UUID(int=dice.getrandbits(120)),
            # Past the widest column of the log, or null: no shape may let it through where the schema would not.
            seq=dice.choice((1, 2**40, None)) if fate < 0.12 else 5,  # type: ignore[arg-type]
            received_at=NOW if fate > 0.15 else NOW.replace(tzinfo=None),
            stored_hash=b"\x01" * 16,
            effect=dice.choice((None, *Effect)),
        )


def viewer(*roles: Role, key: str = "t1", scope: Scope = Scope.INGEST) -> Viewer:
    scopes = frozenset({scope}) if Role.INTEGRATOR in roles else frozenset[Scope]()
    return Viewer(tenant=1, key=key, roles=frozenset(roles), scopes=scopes, expires_at=NOW + timedelta(hours=1))


MACHINE = viewer(Role.INTEGRATOR, key="lms")
VIEWERS = (
    *[MACHINE] * 8, viewer(Role.ADMIN), viewer(Role.TEACHER), viewer(Role.STUDENT, key="s1"), viewer(Role.GUARDIAN),
    viewer(Role.INTEGRATOR, scope=Scope.READ), viewer(),
)  # fmt: skip


@pytest.fixture(autouse=True)
def _still(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same facts and the same fresh id for both paths, and no store."""

    async def facts(_context: Context, wanted: Wanted) -> Facts:
        return Facts() if wanted.is_nothing else FACTS

    monkeypatch.setattr("graph.recording.facts_of", facts)
    monkeypatch.setattr("graph.recording.uuid4", lambda: FRESH_ID)


def engine(log: Any) -> Engine:
    return Engine(clock=lambda: NOW, pool=None, recorder=log, wake=None, live=log)  # type: ignore[arg-type]


def written(answer: Answer) -> str:
    """The answer as sent; only the random id of an internal error is left out."""
    return re.sub(r'"errorId":"\w+"', '"errorId":""', msgspec.json.encode(answer.body).decode())


async def both(documents: Documents, plan: Plan, variables: Any, asker: Viewer) -> tuple[Answer, Answer]:
    """The answers of the compiled path and of the reference; both must have told the recorder the same."""
    logs = Log(), Log()
    answers = [
        await documents.execute(one, variables, begin(engine(log), asker, "c1"))
        for one, log in zip((plan, replace(plan, mutation=None)), logs, strict=True)
    ]
    assert logs[0].told == logs[1].told, variables
    return answers[0], answers[1]


# ---------------------------------------------------------------- mutations


def mutation(dice: Dice) -> tuple[str, bool]:
    """A document of recording, and whether it must be compiled."""
    name = dice.of(INPUTS)
    field = CORE.mutation_type.fields[name]  # type: ignore[union-attr]
    payload = get_named_type(field.type)
    assert isinstance(payload, GraphQLObjectType)
    selection = dice.selection(payload)
    variable, kind = dice.of(("input", "given")), field.args["input"].type
    alias = dice.of(("", "", "told: "))
    head, root = f"${variable}: {kind}", f"{alias}{name}(input: ${variable}) {{ {selection} }}"
    if "@" in selection or "nope" in selection:
        return f"mutation ({head}) {{ {root} }}", False
    odd = dice.random.random() if dice.flaw else 1.0
    if odd > 0.75:
        return f"mutation M({head}) {{ {root} }}", True
    if odd > 0.5:
        spread = root.replace(f"{{ {selection} }}", "{ ...F ...F }")
        return f"mutation ({head}) {{ {spread} }} fragment F on {payload.name} {{ {selection} }}", True
    return dice.of((
        f"mutation ({head}, $more: Int) {{ {root} again: {name}(input: ${variable}) {{ __typename }} }}",
        f"mutation ({head}) {{ {root} again: {name}(input: ${variable}) {{ __typename }} }}",
        f"mutation ({head}) @nope {{ {root} }}",
        f"mutation (${variable}: {kind.of_type}) {{ {root} }}",
        f"mutation ({head} = {{}}) {{ {root} }}",
        f"mutation {{ {name}(input: {{}}) {{ {selection} }} }}",
        'mutation ($id: ID) { recordEvent(input: { eventId: $id, source: "lms" }) { status } }',
        f"mutation ({head}) {{ ... {{ {root} }} }}",
        f"mutation ({head}) {{ {root.replace('{', '@include(if: true) {', 1)} }}",
        f"query ({head}) {{ {root} }}",
    )), False  # fmt: skip


def variables(dice: Dice, plan: Plan) -> Any:
    """Variables for a plan, as they come out of the JSON of a request."""
    names = [node.variable.name.value for node in plan.operation.variable_definitions or ()]
    kind = CORE.type_map[INPUTS.get(plan.root.split()[1], "RecordEventInput")]
    assert isinstance(kind, GraphQLInputObjectType)
    given: dict[str, Any] = {name: dice.input_object(kind) for name in names}
    if dice.is_flawed():
        given = dice.of(({}, dict.fromkeys(names), {name: [] for name in names}, {"nope": 1, **given}))
    return decode(dumps(given))


async def test_recording_answers_the_same_on_both_paths() -> None:
    documents, cases, codes = Documents(schema), 0, Counter[str]()
    for place in range(DOCUMENTS):
        dice = Dice(random.Random(place), flaw=FLAWED if place % 2 else 0.0)
        text, is_known = mutation(dice)
        try:
            plan = documents.plan(text, None)
        except (Malformed, Refused):
            continue
        assert (plan.mutation is not None) == is_known, text
        for each in range(VARIABLES):
            dice.flaw = FLAWED / 3 if each % 2 else 0.0
            given, asker = variables(dice, plan), dice.of(VIEWERS)

            ours, theirs = await both(documents, plan, given, asker)

            assert written(ours) == written(theirs), (text, given)
            cases += 1
            codes.update(ours.codes or re.findall(r'"(ACCEPTED|DUPLICATE|CONFLICT|REJECTED)"', written(ours)))
    assert cases >= 2_000
    # Dice that never store an event, or never meet an error afterwards, would prove little.
    assert {name for name, count in codes.items() if count >= 10} >= OUTCOMES, codes
    # The rest are documents of other shapes, wrong variables, refused viewers, and errors, which are replayed.
    assert documents.tally.compiled > cases / 3


async def test_every_field_reads_every_edge_the_same_on_both_paths() -> None:
    documents = Documents(schema)
    plan = documents.plan(RECORD, None)
    kind = CORE.type_map["RecordEventInput"]
    assert isinstance(kind, GraphQLInputObjectType)
    for name, field in kind.fields.items():
        for value in (*JUNK, *DATES, *EDGES.get(get_named_type(field.type).name, ())):
            given = {"input": decode(dumps(graded(**{name: value})))}

            ours, theirs = await both(documents, plan, given, MACHINE)

            assert written(ours) == written(theirs), given
    assert documents.tally.compiled > 300


@pytest.mark.parametrize("asker", [MACHINE, viewer(Role.ADMIN)], ids=["machine", "admin"])
async def test_sound_variables_of_an_admitted_viewer_never_walk(asker: Viewer) -> None:
    class Sure(Log):
        def _answer(self, sent: Submission) -> Logged:
            return Logged(Status.ACCEPTED, id=FRESH_ID, seq=5, received_at=NOW, stored_hash=b"")

    documents = Documents(schema)
    events = [graded(eventId=place, score=place % 2, lane="BACKFILL", metadata={}) for place in range(9)]
    for place, (text, given) in enumerate(
        [
            (RECORD, events[1]),
            (RECORD, graded(score=None)),
            (RECORD_MANY, {"events": events}),
            (RECORD_MANY, {"events": [], "lane": "LIVE"}),
        ],
        start=1,
    ):
        answer = await documents.execute(
            documents.plan(text, None), {"input": given, "unasked": 1}, begin(engine(Sure()), asker, "c1")
        )

        assert answer.errors == ()
        assert (documents.tally.compiled, documents.tally.reference) == (place, 0)


@pytest.mark.parametrize("asker", [viewer(Role.GUARDIAN), viewer(), viewer(Role.INTEGRATOR, scope=Scope.READ)])
async def test_whom_the_rule_refuses_is_refused_on_the_compiled_path_too(asker: Viewer) -> None:
    documents, log = Documents(schema), Log()
    plan = documents.plan(RECORD, None)
    assert plan.mutation is not None

    answer = await documents.execute(plan, {"input": graded()}, begin(engine(log), asker, "c1"))

    assert (answer.codes, answer.data, log.told) == ({"FORBIDDEN"}, None, [])
    assert documents.tally.compiled == 0


async def test_an_error_is_told_once_and_the_event_is_not_told_again() -> None:
    class Broken(Log):
        async def record(self, tenant: int, submissions: Sequence[Submission], **_: Any) -> list[Logged]:
            self.told += submissions
            raise RuntimeError("Ada scored 12")

    documents, log = Documents(schema), Broken()

    answer = await documents.execute(
        documents.plan(RECORD, None), {"input": graded()}, begin(engine(log), MACHINE, "c")
    )

    assert (answer.codes, answer.errors[0]["path"], len(log.told)) == ({"INTERNAL"}, ["recordEvent"], 1)
    assert "Ada" not in written(answer)


# ---------------------------------------------------------------- subscriptions


@strawberry.type
class Query:
    """Something to ask."""

    @strawberry.field
    @allow(*PEOPLE)
    def nothing(self) -> str | None:
        return None


@strawberry.type
class Feed:
    """The messages of the product, from a list."""

    @strawberry.subscription
    @allow(*PEOPLE)
    async def mastery_changed(self, info: Info) -> AsyncGenerator[MasteryMessage, None]:
        for message in info.context.engine.live:  # type: ignore[attr-defined]
            yield message

    @strawberry.subscription
    @allow(*PEOPLE)
    async def risk_flag_changed(self, info: Info) -> AsyncGenerator[RiskFlagMessage, None]:
        for message in info.context.engine.live:  # type: ignore[attr-defined]
            yield message

    @strawberry.subscription
    @allow(*PEOPLE)
    async def event_recorded(self, info: Info) -> AsyncGenerator[EventMessage, None]:
        for message in info.context.engine.live:  # type: ignore[attr-defined]
            yield message

    @strawberry.subscription
    @allow(*PEOPLE)
    async def dashboard_changed(self, info: Info) -> AsyncGenerator[DashboardMessage, None]:
        for message in info.context.engine.live:  # type: ignore[attr-defined]
            yield message


FED = strawberry.Schema(Query, subscription=Feed, config=StrawberryConfig(scalar_map=SCALARS))


async def heard(documents: Documents, plan: Plan, messages: list[Any]) -> list[str]:
    asker = begin(engine(messages), viewer(Role.TEACHER), "c1")
    async with aclosing(documents.subscribe(plan, {}, asker)) as answers:
        return [written(answer) async for answer in answers]


async def test_messages_are_written_the_same_on_both_paths() -> None:
    documents, cases = Documents(FED), 0
    for place in range(160):
        dice = Dice(random.Random(place))
        name, field = dice.of(core_of(FED).subscription_type.fields.items())  # type: ignore[union-attr]
        kind = get_named_type(field.type)
        assert isinstance(kind, GraphQLObjectType)
        plan = documents.plan(f"subscription {{ {dice.of(('', 'it: '))}{name} {{ {dice.selection(kind)} }} }}", None)
        dice.flaw = 0.04 if place % 2 else 0.0
        messages = [dice.built(kind) for _ in range(MESSAGES)]

        ours = await heard(documents, plan, messages)
        walked = documents.tally.reference
        theirs = await heard(documents, replace(plan, subscription=None), messages)

        assert ours == theirs, plan.document
        assert plan.subscription is not None
        assert documents.tally.reference - walked == len(theirs)
        cases += len(ours)
    assert cases == 160 * MESSAGES
    assert documents.tally.compiled > cases * 0.7


UNKNOWN = {
    "a resolver that waits": "masteryChanged { student { key } }",
    "a resolver below": "masteryChanged { mastery { concept { subject { key } } } }",
    "arguments": "dashboardChanged { dashboard { atRisk(first: 1) { nodes { studentId } } } }",
    "a directive": "masteryChanged { kind @include(if: true) }",
    "a fragment with a directive": "masteryChanged { ... @skip(if: false) { kind } }",
}


@pytest.mark.parametrize("selection", UNKNOWN.values(), ids=UNKNOWN)
def test_what_is_no_plain_attribute_is_left_to_the_reference(selection: str) -> None:
    assert Documents(FED).plan(f"subscription {{ {selection} }}", None).subscription is None


def test_a_field_that_is_guarded_is_no_plain_attribute() -> None:
    @strawberry.type
    class Message:
        kind: str

        @strawberry.field
        @allow(Role.ADMIN)
        def secret(self) -> str:
            return "for admins"

        @strawberry.field
        def length(self) -> int:
            return len(self.kind)

    @strawberry.type
    class Subscription:
        @strawberry.subscription
        @allow(*PEOPLE)
        async def told(self) -> AsyncGenerator[Message, None]:
            yield Message(kind="a")

    documents = Documents(strawberry.Schema(Query, subscription=Subscription))

    assert documents.plan("subscription { told { kind secret } }", None).subscription is None
    assert documents.plan("subscription { told { kind length } }", None).subscription is not None
