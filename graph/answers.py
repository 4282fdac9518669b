"""What a client reads: results in one shape, refusals with their code, and everything else behind a mask."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from traceback import extract_tb
from typing import Any

from graphql import ArgumentNode, ExecutionResult, GraphQLError, ValueNode

from graph.refusal import ErrorCode, Refused

ERRORS_MAX = 5  # a client mends the first ones; a list of thousands is an attack on its own log
MESSAGE_CHARACTERS_MAX = 500  # graphql-core quotes the value at fault, however long it is

log = logging.getLogger("sightline.graph")

Excuse = Callable[[BaseException], Refused | None]


@dataclass(frozen=True, slots=True)
class Answer:
    """One GraphQL response; a request error (`is_executed` is false) has no `data` at all."""

    errors: tuple[dict[str, Any], ...]
    data: dict[str, Any] | None = None
    is_executed: bool = False
    cost: dict[str, Any] | None = None  # what it was charged, where its viewer has a budget

    @property
    def body(self) -> dict[str, Any]:
        """The response map of the specification."""
        body: dict[str, Any] = {"data": self.data} if self.is_executed else {}
        if self.errors:
            body["errors"] = list(self.errors)
        if self.cost is not None:
            body["extensions"] = {"cost": self.cost}
        return body

    def costing(self, cost: dict[str, Any] | None) -> "Answer":
        """The same answer, and what it was charged."""
        return self if cost is None else Answer(self.errors, self.data, self.is_executed, cost)

    @property
    def codes(self) -> set[str]:
        """The codes of all errors."""
        return {error["extensions"]["code"] for error in self.errors}


def no_excuse(_error: BaseException) -> Refused | None:
    """The default for `excuse`: nothing that a resolver lets escape is the client's business."""
    return None


def refusal(refused: Refused) -> Answer:
    """The answer to a request that was refused as a whole."""
    return Answer((_told(refused),))


def request_errors(errors: Iterable[GraphQLError], code: ErrorCode) -> Answer:
    """The answer to a document or variables that graphql-core found at fault: its messages name only what was sent."""
    return Answer(tuple(_located(error, error.message, {"code": code}) for error in list(errors)[:ERRORS_MAX]))


def executed(result: ExecutionResult, correlation_id: str, excuse: Excuse) -> Answer:
    """The answer of an operation that ran; each unexpected error is logged once and masked."""
    errors = tuple(_of_field(error, correlation_id, excuse) for error in (result.errors or [])[:ERRORS_MAX])
    return Answer(errors, result.data, is_executed=True)


def failed(error: BaseException, correlation_id: str, excuse: Excuse) -> Answer:
    """The answer when something broke outside any field: a source of events, or the engine itself."""
    return Answer((_judged(error, correlation_id, excuse),))


def _of_field(error: GraphQLError, correlation_id: str, excuse: Excuse) -> dict[str, Any]:
    cause: Exception = error
    while isinstance(cause, GraphQLError) and cause.original_error:
        cause = cause.original_error  # located errors nest; what the resolver raised is the innermost one
    if isinstance(cause, GraphQLError) and cause.nodes and isinstance(cause.nodes[0], ArgumentNode | ValueNode):
        # An argument that only became wrong with its variable. Errors of output values have no such node, and their
        # messages quote data.
        return _located(error, cause.message, {"code": ErrorCode.BAD_INPUT})
    judged = _judged(cause, correlation_id, excuse)
    return _located(error, judged["message"], judged["extensions"])


def _judged(error: BaseException, correlation_id: str, excuse: Excuse) -> dict[str, Any]:
    refused = error if isinstance(error, Refused) else excuse(error)
    if refused is None and isinstance(error, TimeoutError | ConnectionError):
        refused = Refused(ErrorCode.UNAVAILABLE, "A part of the service does not answer; try again shortly.")
    return _told(refused) if refused else _masked(error, correlation_id)


def _told(refused: Refused) -> dict[str, Any]:
    extensions: dict[str, Any] = {**refused.extensions, "code": refused.code}
    if refused.field:
        extensions["field"] = list(refused.field)
    return {"message": refused.message, "extensions": extensions}


def _masked(error: BaseException, correlation_id: str) -> dict[str, Any]:
    error_id = token_hex(8)
    # Frames and class only: the messages of asyncpg and of scalars quote values, which are pupils' data, and a line
    # of source may hold whatever somebody once typed into it.
    frames = "".join(f"  {Path(at.filename).name}:{at.lineno} in {at.name}\n" for at in extract_tb(error.__traceback__))
    log.error(
        "internal_error type=%s errorId=%s\n%s",
        type(error).__name__,
        error_id,
        frames,
        extra={"error_id": error_id, "correlation_id": correlation_id, "error_type": type(error).__name__},
    )
    return {"message": "Internal error", "extensions": {"code": ErrorCode.INTERNAL, "errorId": error_id}}


def _located(error: GraphQLError, message: str, extensions: dict[str, Any]) -> dict[str, Any]:
    entry: dict[str, Any] = {"message": message[:MESSAGE_CHARACTERS_MAX]}
    if error.locations:
        entry["locations"] = [{"line": place.line, "column": place.column} for place in error.locations]
    if error.path is not None:
        entry["path"] = list(error.path)
    return {**entry, "extensions": extensions}
