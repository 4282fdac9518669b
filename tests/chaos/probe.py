"""Requests that nobody gives up: while Postgres is away each ends in time, and the first one afterwards works."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx

from rules.access import Role
from server.sender import RECORD_EVENTS
from tests.chaos.cluster import slowness
from tests.chaos.script import Said
from tests.chaos.witness import Broken, Ledger, event_of
from tests.chaos.world import BYSTANDER, SOURCE, STEADY_CLASS, token_of

ANSWER_SECONDS_MAX = 3.0
EVERY_SECONDS = 0.25
GIVEN_UP_SECONDS = 10.0
BUSY_SECONDS = 0.5  # half of what an api allows a new connection
READ = "query ($id: ID!) { classroom(id: $id) { name } }"
BUSY = frozenset({"UNAVAILABLE", "OVERLOADED"})


@dataclass(slots=True)
class Probe:
    """Asks every api for a class and to record an event, in the bystander's tenant."""

    urls: Sequence[str]
    day: datetime
    ledger: Ledger
    connecting: Callable[[], Awaitable[float]]  # seconds of a new connection of our own to Postgres
    slowest_seconds: float = 0.0
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    async def during(self, fault: str, repaired: Awaitable[object]) -> None:
        """Ask again and again until all is repaired, and then each api once more. Raises Broken."""
        repair, asked = asyncio.ensure_future(repaired), list[asyncio.Task[str | None]]()
        async with httpx.AsyncClient(trust_env=False, timeout=GIVEN_UP_SECONDS) as client:
            while not repair.done():
                asked += self._round(client)
                await asyncio.wait({repair}, timeout=EVERY_SECONDS)
            await repair
            afterwards = self._round(client)
            seconds = await self.connecting()
            await asyncio.gather(*asked)
            refusals = [refusal for refusal in await asyncio.gather(*afterwards) if refusal is not None]
            # Where a connection takes so long without any api in between, the machine has no time for Postgres.
            if refusals and seconds < BUSY_SECONDS:
                raise Broken(f"the first request after a {fault} was refused: {'; '.join(refusals)}")

    def _round(self, client: httpx.AsyncClient) -> list["asyncio.Task[str | None]"]:
        """A read and a write at each api, on their way."""
        return [
            asyncio.create_task(ask(client, f"{url}/graphql"))
            for url in self.urls
            for ask in (self._read, self._record)
        ]

    async def _read(self, client: httpx.AsyncClient, address: str) -> str | None:
        token = token_of(Role.ADMIN, "probe", tenant=BYSTANDER)
        _, refusal = await self._asked(client, address, token, READ, {"id": STEADY_CLASS})
        return refusal

    async def _record(self, client: httpx.AsyncClient, address: str) -> str | None:
        said = Said(f"probe-{next(self._numbers)}", "SUBMISSION_CREATED", "steady-0", STEADY_CLASS, "steady-w0", 1)
        token, since = token_of(Role.INTEGRATOR, "lms", tenant=BYSTANDER), time.monotonic()
        variables = {"input": {"events": [event_of(said, self.day)]}}
        data, refusal = await self._asked(client, address, token, RECORD_EVENTS, variables)
        if refusal is None:
            statuses = [result["status"] for result in data["recordEvents"]["results"]]
            self.ledger.note([(SOURCE, said.event_id)], statuses, since=since)
        return refusal

    async def _asked(
        self, client: httpx.AsyncClient, address: str, token: str, document: str, variables: dict[str, Any]
    ) -> tuple[dict[str, Any], str | None]:
        """The data, and the refusal where the api says: come back. Raises Broken for a late answer and any other."""
        began = time.monotonic()
        try:
            response = await client.post(
                address,
                json={"query": document, "variables": variables},
                headers={"authorization": f"Bearer {token}"},
            )
        except httpx.TransportError as error:
            raise Broken(
                f"{type(error).__name__} after {time.monotonic() - began:.2f} s instead of an answer"
            ) from None
        seconds = time.monotonic() - began
        self.slowest_seconds = max(self.slowest_seconds, seconds)
        told = f"{document.split('(')[0]} at {address} in {seconds:.2f} s: {response.status_code} {response.text}"
        if seconds > ANSWER_SECONDS_MAX * slowness():
            raise Broken(f"a late answer to {told}")
        answer: dict[str, Any] = response.json()
        errors = answer.get("errors") or []
        if response.status_code not in {200, 503} or any(e["extensions"]["code"] not in BUSY for e in errors):
            raise Broken(f"a wrong answer to {told}")
        return answer.get("data") or {}, told if errors else None
