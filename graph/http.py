"""GraphQL over HTTP: one answer in JSON for every request, however it was sent."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Any, Literal

import msgspec
from graphql import OperationType
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from db.trace import within
from graph.answers import Answer, refusal
from graph.documents import Documents, Malformed, Plan
from graph.gate import Gate
from graph.refusal import BadCredential, ErrorCode, ExpiredCredential, Refused
from graph.request import Engine, begin
from graph.telling import GONE, Operation, Tell, nobody
from graph.wire import Ask, ask_of, bad_input, decode, refuse_unstorable_text
from rules.access import Viewer

BODY_BYTES_MAX = 256 * 1024
BULK_BYTES_MAX = 4 * 1024 * 1024  # `recordEvents` alone: 1,000 events
BODY_SECONDS_MAX = 10  # a body that trickles in must not hold its memory for ever
RETRY_AFTER_SECONDS = 1
IDS_DRAWN = 256

JSON = "application/json"
RESPONSE_JSON = "application/graphql-response+json"

# The status of an answer that was not executed, by the code of its error; an executed one is 200. Clients that accept
# only the legacy media type get 200 for WELL_FORMED, since they take any other status for a failure of the network.
STATUS = {
    ErrorCode.UNAUTHENTICATED: 401,
    ErrorCode.FORBIDDEN: 403,
    ErrorCode.BAD_INPUT: 400,
    ErrorCode.QUERY_TOO_COMPLEX: 400,
    ErrorCode.GRAPHQL_PARSE_FAILED: 400,
    ErrorCode.GRAPHQL_VALIDATION_FAILED: 400,
    ErrorCode.TOO_LARGE: 413,
    ErrorCode.RATE_LIMITED: 429,
    ErrorCode.OVERLOADED: 503,
    ErrorCode.UNAVAILABLE: 503,
    ErrorCode.INTERNAL: 500,
}
WELL_FORMED = {
    ErrorCode.BAD_INPUT,
    ErrorCode.QUERY_TOO_COMPLEX,
    ErrorCode.GRAPHQL_PARSE_FAILED,
    ErrorCode.GRAPHQL_VALIDATION_FAILED,
}
# The 2026 edition tells a document that was read and is wrong (422) from a request that could not be read (400), and an
# answer of which a part failed (294) from a whole one.
STATUS_2026 = STATUS | {
    ErrorCode.BAD_INPUT: 422,
    ErrorCode.QUERY_TOO_COMPLEX: 422,
    ErrorCode.GRAPHQL_VALIDATION_FAILED: 422,
}
PARTIAL_2026 = 294
RETRIED = {ErrorCode.OVERLOADED, ErrorCode.UNAVAILABLE}

Authenticate = Callable[[str], Awaitable[Viewer]]

_encode = msgspec.json.Encoder().encode
_spare_ids: list[str] = []
_correlation = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class Halted(Exception):
    """The request ends here, with a status that its code alone does not give."""

    def __init__(self, status: int, refused: Refused, headers: dict[str, str] | None = None) -> None:
        super().__init__()
        self.status = status
        self.refused = refused
        self.headers = headers or {}


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphQLHTTP:
    """The ASGI endpoint of POST and GET /graphql.

    `authenticate` turns a bearer token into a Viewer, or raises BadCredential or ExpiredCredential.
    """

    documents: Documents
    engine: Engine
    authenticate: Authenticate
    gate: Gate
    allowed_origins: Collection[str] = field(default_factory=frozenset)
    tell: Tell = nobody
    status_edition: Literal[2025, 2026] = 2025

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        headers = request.headers
        correlation_id = correlation_of(headers.get("x-request-id"))
        operation = Operation(correlation_id, self.engine.tracer.begin(headers.get("traceparent")))
        try:
            response = await self._respond(request, operation)
            operation.status = response.status_code
        except ClientDisconnect:
            operation.status = GONE
            return
        finally:
            operation.finish(self.tell)
        await sealed(response, correlation_id)(scope, receive, send)

    async def _respond(self, request: Request, operation: Operation) -> Response:
        try:
            media_type = negotiated(request.headers.get("accept"))
        except Halted as halted:
            return response_of(_noted(operation, refusal(halted.refused)), halted.status)
        return await self.respond(self._asked(request), operation, media_type, is_get=request.method == "GET")

    async def _asked(self, request: Request) -> tuple[Viewer, Ask, int]:
        self.check_request(request)
        viewer = await self.viewer_of(request)
        return viewer, *await asked(request)

    async def respond(
        self, asking: Awaitable[tuple[Viewer, Ask, int]], operation: Operation, media_type: str, *, is_get: bool
    ) -> Response:
        """Answer who asks for what, in how many bytes; `asking` raises Halted or Refused where it cannot say."""
        try:
            viewer, ask, size = await asking
        except Halted as halted:
            return response_of(_noted(operation, refusal(halted.refused)), halted.status, media_type, halted.headers)
        except Refused as refused:
            # The request itself is malformed, so even a legacy client gets the status.
            return response_of(_noted(operation, refusal(refused)), STATUS[refused.code], media_type)
        operation.viewer, operation.variables = viewer, ask.variables
        try:
            answer = await self._answer(ask, size, operation, is_get=is_get)
        except Halted as halted:
            return response_of(_noted(operation, refusal(halted.refused)), halted.status, media_type, halted.headers)
        except Malformed as malformed:
            answer = malformed.answer
        except Refused as refused:
            answer = refusal(refused)
        return self.response(answer, operation, media_type)

    def response(self, answer: Answer, operation: Operation, media_type: str) -> Response:
        """An answer to what could be read, with its status."""
        return response_of(_noted(operation, answer), status_of(answer, media_type, self.status_edition), media_type)

    async def _answer(self, ask: Ask, size: int, operation: Operation, *, is_get: bool) -> Answer:
        viewer = operation.viewer
        assert viewer is not None, "only the viewer's own operations are answered"
        async with self.gate.passing():
            operation.plan = plan = self.gate.planned(self.documents, ask, viewer)
            _check_plan(plan, size, is_get=is_get)
            operation.cost = self.gate.charge(plan, ask.variables, viewer)
            context = begin(self.engine, viewer, operation.correlation_id, operation.traceparent)
            if operation.span is None:
                answer = await self.documents.execute(plan, ask.variables, context)
            else:
                with within(self.engine.tracer, operation.span):
                    answer = await self.documents.execute(plan, ask.variables, context)
            return answer.costing(operation.cost)

    def check_request(self, request: Request) -> None:
        """Judge method, content type and site. Raises Halted or Refused."""
        if request.method not in ("GET", "POST"):
            raise Halted(405, bad_input("Use POST, or GET for queries."), {"allow": "GET, POST"})
        if request.method == "POST":
            _check_content(request)
        # A browser sends a GET across sites without asking first; a POST of JSON it must announce (preflight).
        elif request.headers.get("sec-fetch-site") == "cross-site" and (
            request.headers.get("origin") not in self.allowed_origins
        ):
            raise Refused(ErrorCode.FORBIDDEN, "Queries by GET are not answered across sites.")

    async def viewer_of(self, request: Request) -> Viewer:
        """The bearer of the request's token. Raises Halted with 401."""
        return await self.bearer_of(request.headers.get("authorization"))

    async def bearer_of(self, authorization: str | None) -> Viewer:
        """The same by the header alone."""
        try:
            return await self.authenticate(token_of(authorization))
        except ExpiredCredential:
            raise unauthenticated("The token has expired.", "invalid_token") from None
        except BadCredential:
            raise unauthenticated("A valid bearer token is required.", "invalid_token") from None


def unauthenticated(message: str, error: str) -> Halted:
    """The answer 401, with the challenge that HTTP asks for."""
    challenge = f'Bearer realm="sightline", error="{error}"'
    return Halted(401, Refused(ErrorCode.UNAUTHENTICATED, message), {"www-authenticate": challenge})


def correlation_of(sent: str | None) -> str:
    """The caller's id where it is harmless in a log line, else a new one."""
    return sent if sent and _correlation.fullmatch(sent) else _fresh_id()


def _fresh_id() -> str:
    """32 hexadecimal digits that nobody can guess; asking the system for those of each request cost it 3 µs."""
    if not _spare_ids:
        drawn = token_hex(16 * IDS_DRAWN)
        _spare_ids.extend(drawn[start : start + 32] for start in range(0, len(drawn), 32))
    return _spare_ids.pop()


def token_of(authorization: Any) -> str:
    """The token of `Bearer <token>`. Raises BadCredential."""
    scheme, _, token = authorization.partition(" ") if isinstance(authorization, str) else ("", "", "")
    if scheme.lower() != "bearer" or not token.strip():
        raise BadCredential
    return token.strip()


def negotiated(accept: str | None) -> str:
    """The media type to answer with; the legacy one where the client does not say. Raises Halted with 406."""
    if not accept:
        return JSON
    for ours, accepted in ((RESPONSE_JSON, {RESPONSE_JSON}), (JSON, {JSON, "application/*", "*/*"})):
        for part in accept.lower().split(","):
            kind, *parameters = (piece.strip() for piece in part.split(";"))
            if kind in accepted and not any(re.fullmatch(r"q=0(\.0*)?", parameter) for parameter in parameters):
                return ours
    raise Halted(406, bad_input(f"Answers come as {RESPONSE_JSON} or {JSON}."))


def status_of(answer: Answer, media_type: str, edition: Literal[2025, 2026] = 2025) -> int:
    """The status of an answer to a request that could be read; one with a partial result is a success."""
    codes = answer.codes
    if codes and codes <= RETRIED and all(value is None for value in (answer.data or {}).values()):
        return 503  # nothing came back, and asking again will help: proxies and clients know what to do
    is_modern = media_type != JSON
    if answer.is_executed or not codes:
        return PARTIAL_2026 if codes and is_modern and edition == 2026 else 200
    code = ErrorCode(min(codes))
    if not is_modern and code in WELL_FORMED:
        return 200
    return (STATUS_2026 if edition == 2026 else STATUS).get(code, 400)


def _noted(operation: Operation, answer: Answer) -> Answer:
    operation.answered(answer)
    return answer


def response_of(answer: Answer, status: int, media_type: str = JSON, headers: dict[str, str] | None = None) -> Response:
    """An answer as JSON."""
    body = _encode(answer.body)
    response = Response(body, status, headers, media_type=f"{media_type}; charset=utf-8")
    if status in (429, 503):
        told = answer.errors[0]["extensions"].get("retryAfterSeconds", RETRY_AFTER_SECONDS)
        response.headers["retry-after"] = str(told)
    return response


def sealed(response: Response, correlation_id: str) -> Response:
    """A response with the headers that every one has."""
    response.headers["x-request-id"] = correlation_id
    response.headers["x-content-type-options"] = "nosniff"
    response.headers["cache-control"] = "no-store"  # pupils' data: no proxy may keep it
    return response


def is_json(content_type: str) -> bool:
    """Whether a body of this type is JSON in UTF-8."""
    kind, *parameters = (part.strip().lower() for part in content_type.split(";"))
    charsets = [parameter.removeprefix("charset=").strip('"') for parameter in parameters if "charset" in parameter]
    return kind == JSON and all(charset in ("utf-8", "utf8") for charset in charsets)


def _check_content(request: Request) -> None:
    if not is_json(request.headers.get("content-type", "")):
        raise Halted(415, bad_input(f"Send {JSON} in UTF-8."), {"accept": JSON})
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Halted(415, bad_input("Send the body uncompressed."), {"accept-encoding": "identity"})


def _check_plan(plan: Plan, size: int, *, is_get: bool) -> None:
    if plan.kind is OperationType.SUBSCRIPTION:
        raise Halted(400, bad_input("Subscriptions run over WebSocket (graphql-transport-ws) or as text/event-stream."))
    if is_get and plan.kind is not OperationType.QUERY:
        raise Halted(405, bad_input("Mutations need POST."), {"allow": "POST"})
    if size > BODY_BYTES_MAX and not plan.is_only_recording_in_bulk:
        raise too_large(BODY_BYTES_MAX)


def too_large(limit: int) -> Refused:
    """The refusal of a body over a limit."""
    return Refused(ErrorCode.TOO_LARGE, f"The body is over {limit} bytes; only recordEvents may send {BULK_BYTES_MAX}.")


async def asked(request: Request) -> tuple[Ask, int]:
    """Read the request and its size in bytes. Raises Refused, or Halted with 408."""
    if request.method == "GET":
        return _asked_by_get(request)
    raw = await _body(request)
    return ask_in(raw), len(raw)


def ask_in(raw: bytes) -> Ask:
    """What a body asks. Raises Refused."""
    body = decode(raw)
    ask = ask_of(body)
    refuse_unstorable_text(raw, body)
    return ask


def _asked_by_get(request: Request) -> tuple[Ask, int]:
    parameters = request.query_params
    texts = ("query", "documentId", "operationName")
    body: dict[str, Any] = {key: parameters[key] for key in texts if key in parameters}
    for key in ("variables", "extensions"):
        if parameters.get(key):
            body[key] = decode(parameters[key])
            refuse_unstorable_text(parameters[key], body[key])
    if len(parameters.multi_items()) != len(parameters):
        raise bad_input("A parameter stands twice.")
    return ask_of(body), 0


async def _body(request: Request) -> bytes:
    """Read at most BULK_BYTES_MAX; what Content-Length says is believed only where it refuses."""
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > BULK_BYTES_MAX:
        raise too_large(BODY_BYTES_MAX)
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS_MAX):
            async for chunk in request.stream():
                body += chunk
                if len(body) > BULK_BYTES_MAX:
                    raise too_large(BODY_BYTES_MAX)
    except TimeoutError:
        raise Halted(408, bad_input("The body did not arrive in time."), {"connection": "close"}) from None
    return bytes(body)
