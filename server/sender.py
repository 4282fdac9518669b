"""A client of the service: it asks over HTTP, sends events in batches, and tries again where that can help."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import httpx

from rules.evidence import EventInput
from rules.fields import FIELD_BY_NAME

TRIES_MAX = 8
BACK_OFF_SECONDS_FIRST = 0.2
BACK_OFF_SECONDS_MAX = 5.0
TIMEOUT_SECONDS = 15.0
BATCH_EVENTS_MAX = 1_000  # what recordEvents takes (003-59)
RETRYABLE_STATUS = frozenset({429, 502, 503, 504})
RETRYABLE_CODES = frozenset({"OVERLOADED", "UNAVAILABLE", "RATE_LIMITED"})

RECORD_EVENTS = """
mutation Record($input: RecordEventsInput!) {
  recordEvents(input: $input) {
    results { status errors { code field message } }
    errors { code field message }
  }
}
"""


class Refusal(Exception):
    """The service answered, and what it said will not change by asking again."""


class Unreachable(Exception):
    """The service did not answer, or was busy, in every one of TRIES_MAX tries."""


class _Busy(Exception):
    """One try that failed in a way that another may not."""

    def __init__(self, why: str, wait_seconds: float | None = None) -> None:
        super().__init__(why)
        self.wait_seconds = wait_seconds


@dataclass(slots=True)
class Tally:
    """What became of the events sent so far."""

    statuses: Counter[str] = field(default_factory=Counter)
    retries: int = 0
    first_error: str | None = None  # of a refused event, to show one example

    def count(self, results: Sequence[Mapping[str, Any]]) -> None:
        """Add the results of one batch."""
        for result in results:
            self.statuses[result["status"]] += 1
            if result["status"] == "REJECTED" and self.first_error is None:
                self.first_error = "; ".join(
                    f"{error['code']} {'.'.join(error['field'] or [])}: {error['message']}"
                    for error in result["errors"]
                )

    @property
    def total(self) -> int:
        """Events answered, duplicates included."""
        return self.statuses.total()

    def line(self) -> str:
        """The counts as one line."""
        names = ("ACCEPTED", "DUPLICATE", "CONFLICT", "REJECTED")
        return " ".join(f"{name.lower()}={self.statuses[name]}" for name in names) + f" retries={self.retries}"


class Service:
    """A running service, as one token may use it. Use as an async context manager."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self.tally = Tally()
        self._client = httpx.AsyncClient(
            headers={"authorization": f"Bearer {token}"}, timeout=TIMEOUT_SECONDS, trust_env=False
        )

    async def ask(self, document: str, variables: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The data of one operation. Raises Refusal, or Unreachable after TRIES_MAX tries with growing waits."""
        why: Exception = Unreachable()
        for attempt in range(TRIES_MAX):
            try:
                return await self._try(document, variables or {})
            except _Busy as busy:
                why = busy
                self.tally.retries += 1
                wait = busy.wait_seconds or BACK_OFF_SECONDS_FIRST * 2**attempt
                await asyncio.sleep(min(wait, BACK_OFF_SECONDS_MAX))
        raise Unreachable(f"{self.url} gave no answer in {TRIES_MAX} tries, at last: {why}")

    async def record(self, events: Sequence[EventInput]) -> list[dict[str, Any]]:
        """Record at most BATCH_EVENTS_MAX events and count what became of them; results are in the order given.

        A batch whose answer was lost is sent again as it is: the events' keys make that harmless.
        """
        answer = await self.ask(RECORD_EVENTS, {"input": {"events": [wire(event) for event in events]}})
        payload = answer["recordEvents"]
        if payload["errors"]:
            raise Refusal(f"recordEvents was refused: {payload['errors'][0]}")
        results: list[dict[str, Any]] = payload["results"]
        self.tally.count(results)
        return results

    async def save(self, mutation: str, entry: Mapping[str, Any]) -> None:
        """Save one entry of the roster with one of its mutations, e.g. "saveStudent". Raises Refusal."""
        kind = mutation[0].upper() + mutation[1:]
        document = (
            f"mutation Save($input: {kind}Input!) {{ {mutation}(input: $input) {{ errors {{ code field message }} }} }}"
        )
        errors = (await self.ask(document, {"input": entry}))[mutation]["errors"]
        if errors:
            raise Refusal(f"{mutation} was refused: {errors[0]['code']} {errors[0]['message']}")

    async def _try(self, document: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        try:
            response = await self._client.post(self.url, json={"query": document, "variables": variables})
        except httpx.TransportError as error:
            raise _Busy(f"{type(error).__name__} {error}") from error
        if response.status_code in RETRYABLE_STATUS:
            raise _Busy(f"HTTP {response.status_code}", _retry_after(response))
        try:
            answer = response.json()
        except ValueError:
            raise Refusal(f"{self.url} answered HTTP {response.status_code} without JSON") from None
        if errors := answer.get("errors"):
            code = (errors[0].get("extensions") or {}).get("code")
            if code in RETRYABLE_CODES:
                raise _Busy(code)
            raise Refusal(f"{self.url} answered {code or response.status_code}: {errors[0].get('message')}")
        data: dict[str, Any] = answer["data"]
        return data

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()


def _retry_after(response: httpx.Response) -> float | None:
    said = response.headers.get("retry-after", "")
    return float(said) if said.isdecimal() else None


def wire(event: EventInput) -> dict[str, Any]:
    """An event as clients send it: only what it says, times as RFC 3339."""
    sent: dict[str, Any] = {}
    for name, field_name in FIELD_BY_NAME.items():
        value = getattr(event, name)
        if value is not None:
            sent[field_name] = value.isoformat() if name in {"occurred_at", "due_at"} else value
    return sent
