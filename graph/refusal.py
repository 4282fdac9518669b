"""What may go wrong on purpose: the coded refusals that a client is allowed to read."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any


class ErrorCode(StrEnum):
    """Every code that `extensions.code` of a top-level error can carry."""

    UNAUTHENTICATED = "UNAUTHENTICATED"
    FORBIDDEN = "FORBIDDEN"
    BAD_INPUT = "BAD_INPUT"
    QUERY_TOO_COMPLEX = "QUERY_TOO_COMPLEX"
    GRAPHQL_PARSE_FAILED = "GRAPHQL_PARSE_FAILED"
    GRAPHQL_VALIDATION_FAILED = "GRAPHQL_VALIDATION_FAILED"
    RATE_LIMITED = "RATE_LIMITED"
    OVERLOADED = "OVERLOADED"
    UNAVAILABLE = "UNAVAILABLE"
    STALE = "STALE"
    HISTORY_PURGED = "HISTORY_PURGED"
    TOO_LARGE = "TOO_LARGE"
    INTERNAL = "INTERNAL"


class Refused(Exception):
    """A refusal whose message is written for the client; anything else raised is masked.

    `field` is the path of the input at fault, in the client's words; `extensions` are more facts for programs. The
    message must not quote data that the viewer may not see.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        *,
        field: tuple[str, ...] | None = None,
        extensions: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.extensions = dict(extensions or {})
        self.code = code
        self.message = message
        self.field = field


class BadCredential(Exception):
    """The token is missing, malformed, forged or revoked: asking again with the same one is useless."""


class ExpiredCredential(BadCredential):
    """The token was good and its time is over: a client should fetch a fresh one and try again."""
