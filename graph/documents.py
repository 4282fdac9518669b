"""From the text of a document to its answer: guarded, validated and cached once, executed many times."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from inspect import isawaitable
from typing import Any

import strawberry
from graphql import (
    DocumentNode,
    FieldNode,
    GraphQLError,
    OperationDefinitionNode,
    OperationType,
    Source,
    parse,
    validate,
)
from graphql.execution import (
    ExecutionResult,
    Executor,
    create_source_event_stream,
    execute_root_selection_set,
    execute_subscription_event,
    map_source_to_response_event,
)

from db.trace import Span
from graph import access, complexity
from graph.answers import ERRORS_MAX, Answer, Excuse, executed, failed, no_excuse, refusal, request_errors
from graph.compiled import Compiler, Mutation, Query, Replay, Subscription, Tally, replay_of
from graph.complexity import CHARACTERS_MAX, COMMENTS_MAX, TOKENS_MAX, too_complex
from graph.costs import Bill, billed
from graph.refusal import ErrorCode, Refused
from graph.request import Context
from graph.trusted import Library, TrustedDocument, WrongDocument
from graph.wire import Ask, bad_input, refuse_unstorable

CACHED_MAX = 1_000
NAME_CHARACTERS_MAX = 64  # of an operation's name, where it is told
OPERATION_SECONDS_MAX = 10.0  # statements have closer limits; this one is for what many of them add up to
CACHED_CHARACTERS_MAX = 262_144  # a token weighs about half a kilobyte once parsed, so this bounds some 70 MB


@dataclass(frozen=True, slots=True)
class Plan:
    """One operation of a document that has passed every check that does not need its variables."""

    document: DocumentNode
    operation: OperationDefinitionNode
    name: str | None
    title: str  # such as "query Dashboard": the caller's name, else the first field's
    root: str  # such as "query classroom": words of the schema only, so that there are few
    has_dashboard: bool
    bill: Bill
    query: Query | None = None  # compiled, where it is of a known shape
    mutation: Mutation | None = None
    subscription: Subscription | None = None

    @property
    def kind(self) -> OperationType:
        """Query, mutation or subscription."""
        return self.operation.operation

    @property
    def is_only_recording_in_bulk(self) -> bool:
        """Whether nothing but the mutation `recordEvents` is asked: the one operation with a large body."""
        return self.kind is OperationType.MUTATION and all(
            isinstance(selection, FieldNode) and selection.name.value == "recordEvents"
            for selection in self.operation.selection_set.selections
        )


class Malformed(Exception):
    """The document cannot be executed; `answer` says why, in coded errors."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer


class Documents:
    """A schema with its doors closed, and the documents it has come to know."""

    def __init__(
        self,
        schema: strawberry.Schema,
        *,
        excuse: Excuse = no_excuse,
        with_suggestions: bool = False,
        trusted: Sequence[TrustedDocument] = (),
        only_trusted: bool = False,
        operation_seconds_max: float = OPERATION_SECONDS_MAX,
    ) -> None:
        """`excuse` turns an infrastructure error into a refusal such as UNAVAILABLE, or answers None to mask it.

        Raises WrongDocument where a trusted one is not valid: whoever serves must not find that out from a client.
        """
        self._schema = access.core_of(schema)
        access.guard(self._schema)
        self._excuse = excuse
        self._hides_suggestions = not with_suggestions
        self.seconds_max = operation_seconds_max
        self._compiler = Compiler(self._schema)
        self.tally = Tally()
        self._plans: OrderedDict[tuple[str, str | None], Plan] = OrderedDict()
        self._characters = 0
        self._unfinished: set[asyncio.Future[ExecutionResult]] = set()
        self._library = Library(trusted, is_closed=only_trusted)
        self._pinned: dict[tuple[str, str | None], Plan] = {}  # of trusted documents: never dropped
        for document in trusted:
            self._pin(document)

    def asked(self, ask: Ask) -> Plan:
        """The plan of the document that a request sends, or names by its id. Raises Refused or Malformed."""
        plan = self.plan(self._library.text_of(ask), ask.operation_name)
        if ask.document_id is not None:
            self._library.remember(ask)
        return plan

    def plan(self, text: str, operation_name: str | None) -> Plan:
        """Check a document and choose its operation. Raises Refused or Malformed."""
        known = self._found(text, operation_name)
        if known is not None:
            return known
        plan = self._made(text, operation_name)
        self._remember((text, operation_name), plan)
        return plan

    def known(self, ask: Ask) -> Plan | None:
        """The plan of what is asked, where it was made before and nothing but that has to be said of it."""
        text = self._library.known_text_of(ask)
        return None if text is None else self._found(text, ask.operation_name)

    def _found(self, text: str, operation_name: str | None) -> Plan | None:
        key = (text, operation_name)
        known = self._plans.get(key)
        if known is None:
            return self._pinned.get(key)
        self._plans.move_to_end(key)
        return known

    def _made(self, text: str, operation_name: str | None) -> Plan:
        document = self._parse(text)
        complexity.guard(document)
        operation = _choose(document, operation_name)
        errors = validate(self._schema, document, max_errors=ERRORS_MAX - 1, hide_suggestions=self._hides_suggestions)
        if errors:
            raise Malformed(request_errors(errors, ErrorCode.GRAPHQL_VALIDATION_FAILED))
        return replace(
            _planned(document, operation, billed(self._schema, document, operation)),
            query=self._compiler.query(document, operation),
            mutation=self._compiler.mutation(document, operation),
            subscription=self._compiler.subscription(document, operation),
        )

    def _pin(self, document: TrustedDocument) -> None:
        """Plan every operation of a trusted document for good. Raises WrongDocument."""
        try:
            operations = [d for d in self._parse(document.text).definitions if isinstance(d, OperationDefinitionNode)]
            for name in {one.name.value if one.name else None for one in operations} or {None}:
                plan = self._pinned[document.text, name] = self._made(document.text, name)
            if len(operations) == 1:
                self._pinned[document.text, None] = plan
        except Malformed as malformed:
            raise WrongDocument(document.place, _told(malformed.answer.errors[0])) from None
        except Refused as refused:
            raise WrongDocument(document.place, refused.message) from None

    async def execute(self, plan: Plan, variables: dict[str, Any], context: Context) -> Answer:
        """Run a query or a mutation; one that takes too long is stopped, with the statement it is at."""
        try:
            async with asyncio.timeout(self.seconds_max):
                return await self._executed(plan, variables, context)
        except TimeoutError:
            return self.stopped(plan)

    def stopped(self, plan: Plan) -> Answer:
        """The answer to an operation that took longer than `seconds_max`."""
        return refusal(Refused(ErrorCode.UNAVAILABLE, f"Stopped after {self.seconds_max:g} s: {_advice(plan)}"))

    async def ended(self, plan: Plan, variables: dict[str, Any], context: Context, outcome: Any) -> Answer:
        """The answer to a mutation that was told already, worded by the reference executor from what came of it."""
        self.tally.reference += 1
        return await self._walk(plan, variables, context, replay_of(outcome))

    async def _executed(self, plan: Plan, variables: dict[str, Any], context: Context) -> Answer:
        compiled = plan.query or plan.mutation
        outcome = await compiled.run(variables, context) if compiled else None
        if isinstance(outcome, dict):
            self.tally.compiled += 1
            return Answer((), outcome, is_executed=True)
        self.tally.reference += 1
        return await self._walk(plan, variables, context, outcome)

    async def _walk(
        self, plan: Plan, variables: dict[str, Any], context: Context, replay: Replay | None = None
    ) -> Answer:
        executor = self._executor(plan, variables, context, replay)
        if isinstance(executor, Answer):
            return executor
        try:
            result = execute_root_selection_set(executor)
            done: ExecutionResult = await result if isawaitable(result) else result
        except Exception as error:  # the outermost edge of every resolver
            return failed(error, context.correlation_id, self._excuse)
        return executed(done, context.correlation_id, self._excuse)

    async def subscribe(self, plan: Plan, variables: dict[str, Any], context: Context) -> AsyncGenerator[Answer]:
        """Answer each event of a subscription, pulled one at a time; an answer that was not executed is the last."""
        executor = self._executor(plan, variables, context)
        if isinstance(executor, Answer):
            yield executor
            return
        try:
            opened = create_source_event_stream(executor)
            source: AsyncIterable[Any] | ExecutionResult = await opened if isawaitable(opened) else opened
            if isinstance(source, ExecutionResult):
                yield Answer(executed(source, context.correlation_id, self._excuse).errors)
                return
            events = map_source_to_response_event(executor, source, self._delivery(plan.subscription, context))
            async with aclosing(events):
                async for result in events:
                    yield executed(result, context.correlation_id, self._excuse)
        except Exception as error:  # the outermost edge of every source of events
            yield failed(error, context.correlation_id, self._excuse)

    def voice(self, plan: Plan, variables: dict[str, Any], context: Context) -> "Voice":
        """What a subscription answers to messages that are followed elsewhere."""
        return Voice(self, plan, variables, context)

    async def told(self, plan: Plan, variables: dict[str, Any], context: Context, message: Any) -> Answer:
        """Answer one message of a subscription by the reference executor."""
        executor = self._executor(plan, variables, context)
        if isinstance(executor, Answer):
            return executor
        context.renew()
        self.tally.reference += 1
        try:
            result = execute_subscription_event(executor.build_per_event_executor(message))
            done: ExecutionResult = await result if isawaitable(result) else result
        except Exception as error:  # the outermost edge of every resolver
            return failed(error, context.correlation_id, self._excuse)
        return executed(done, context.correlation_id, self._excuse)

    def _delivery(self, compiled: Subscription | None, context: Context) -> Callable[[Executor[Any]], Any]:
        """How one event becomes a response: by its shape, where it has one and fits it."""

        def deliver(executor: Executor[Any]) -> Any:
            context.renew()
            shown = compiled.shown(executor.root_value) if compiled else None
            if shown is None:
                self.tally.reference += 1
                result = execute_subscription_event(executor)
                return self._to_its_end(result) if isawaitable(result) else result
            self.tally.compiled += 1
            return ExecutionResult(shown, None)

        return deliver

    async def _to_its_end(self, execution: Awaitable[ExecutionResult]) -> ExecutionResult:
        """Execute one message, and finish it for nobody when its listener leaves meanwhile.

        graphql-core, cancelled, leaves coroutines behind that were never awaited.
        """
        going_on = asyncio.ensure_future(execution)
        self._unfinished.add(going_on)
        going_on.add_done_callback(self._unfinished.discard)
        return await asyncio.shield(going_on)

    async def settle(self) -> None:
        """Wait until messages whose listeners have left are executed: then nobody uses the pool for them."""
        while self._unfinished:
            await asyncio.wait(set(self._unfinished))

    def _parse(self, text: str) -> DocumentNode:
        if len(text) > CHARACTERS_MAX:
            raise too_complex("characters", CHARACTERS_MAX)
        refuse_unstorable(text)
        try:
            return parse(Source(text), max_lexical_tokens=TOKENS_MAX, max_comments=COMMENTS_MAX)
        except GraphQLError as error:
            for what, limit in (("tokens", TOKENS_MAX), ("comments", COMMENTS_MAX)):
                if f"more than {limit} {what}" in error.message:
                    raise too_complex(what, limit) from None
            raise Malformed(request_errors([error], ErrorCode.GRAPHQL_PARSE_FAILED)) from None

    def _remember(self, key: tuple[str, str | None], plan: Plan) -> None:
        self._plans[key] = plan
        self._characters += len(key[0])
        while len(self._plans) > CACHED_MAX or self._characters > CACHED_CHARACTERS_MAX:
            (text, _), _ = self._plans.popitem(last=False)
            self._characters -= len(text)

    def _executor(
        self, plan: Plan, variables: dict[str, Any], context: Context, replay: Replay | None = None
    ) -> Executor[Any] | Answer:
        built = Executor.build(
            self._schema,
            plan.document,
            context_value=context,
            raw_variable_values=variables,
            operation_name=plan.name,
            max_coercion_errors=ERRORS_MAX - 1,
            middleware=[replay] if replay else None,
            hide_suggestions=self._hides_suggestions,
        )
        return request_errors(built, ErrorCode.BAD_INPUT) if isinstance(built, list) else built


@dataclass(frozen=True, slots=True)
class Voice:
    """One subscription as an audience hears it: an answer for each message, by its shape where it has one and fits."""

    documents: Documents
    plan: Plan
    variables: dict[str, Any]
    context: Context

    @property
    def is_plain(self) -> bool:
        """Whether its answers load nothing."""
        return self.plan.subscription is not None

    def at_once(self, message: Any) -> Answer | None:
        """The answer, where a shape writes it."""
        compiled = self.plan.subscription
        shown = compiled.shown(message) if compiled else None
        if shown is None:
            return None
        self.documents.tally.compiled += 1
        return Answer((), shown, is_executed=True)

    async def answer(self, message: Any) -> Answer:
        """The answer by the reference executor."""
        return await self.documents.told(self.plan, self.variables, self.context, message)

    def trace(self, traceparent: str) -> Span | None:
        """The span of one message that is pushed."""
        span = self.context.engine.tracer.join("push", (traceparent,))
        if span is not None:
            span.rename(f"push {self.plan.root.removeprefix('subscription ')}")
        return span


def _choose(document: DocumentNode, operation_name: str | None) -> OperationDefinitionNode:
    # Strawberry would run the first of several; the specification wants a request error.
    operations = [d for d in document.definitions if isinstance(d, OperationDefinitionNode)]
    named = [d for d in operations if operation_name is None or (d.name and d.name.value == operation_name)]
    if not operations:
        raise bad_input("The document holds no operation.")
    if not named:
        raise bad_input("The document holds no operation of the name in 'operationName'.")
    if operation_name is None and len(named) > 1:
        raise bad_input("The document holds several operations: 'operationName' must say which one to run.")
    return named[0]


def _planned(document: DocumentNode, operation: OperationDefinitionNode, bill: Bill) -> Plan:
    name = operation.name.value if operation.name else None
    first = operation.selection_set.selections[0]
    kind, field = operation.operation.value, first.name.value if isinstance(first, FieldNode) else "fragment"
    return Plan(
        document,
        operation,
        name,
        title=f"{kind} {(name or field)[:NAME_CHARACTERS_MAX]}",
        root=f"{kind} {field}",
        has_dashboard=any(_has_dashboard(definition) for definition in document.definitions),
        bill=bill,
    )


def _advice(plan: Plan) -> str:
    if plan.kind is OperationType.MUTATION:
        return "what was told may be stored all the same, so tell it again under the same ids."
    return "ask for less at once, or try again shortly."


def _told(error: dict[str, Any]) -> str:
    places = ", ".join(f"line {place['line']} column {place['column']}" for place in error.get("locations", ()))
    return f"{error['message']}{f' ({places})' if places else ''}"


def _has_dashboard(node: Any) -> bool:
    selection_set = getattr(node, "selection_set", None)
    if isinstance(node, FieldNode) and node.name.value == "dashboard":
        return True
    return selection_set is not None and any(_has_dashboard(child) for child in selection_set.selections)
