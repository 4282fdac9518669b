"""Who sends and who watches: producers that never give up, and subscribers that come back with their token."""

import asyncio
import contextlib
import itertools
import json
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, WebSocketException

from server.sender import RECORD_EVENTS
from tests.chaos.cluster import bounded
from tests.chaos.script import Request, Said
from tests.chaos.world import SOURCE

TRY_SECONDS = 1.5  # then another api is asked: this one may be frozen
AGAIN_SECONDS = 0.05
SEND_SECONDS_MAX = 30.0
PAUSE_SECONDS = 0.02  # between two events of the bystander
SILENCE_SECONDS = 1.0  # then a socket is asked whether it lives
Key = tuple[str, str]  # (source, event id)


class Broken(AssertionError):
    """The service broke a promise."""


@dataclass(slots=True)
class Ledger:
    """Every answer that came: what the service has promised to keep."""

    answers: defaultdict[Key, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    ack_times: list[float] = field(default_factory=list)  # monotonic, one per answered request
    waits: list[float] = field(default_factory=list)  # seconds from its first try to its answer, of each of these
    _awaited: tuple[int, asyncio.Event] | None = None

    def note(self, request: Sequence[Key], statuses: Sequence[str], *, since: float) -> None:
        """Keep one answer to what was first asked at `since`."""
        self.ack_times.append(time.monotonic())
        self.waits.append(self.ack_times[-1] - since)
        for key, status in zip(request, statuses, strict=True):
            self.answers[key][status] += 1
        if self._awaited is not None and len(self.ack_times) >= self._awaited[0]:
            self._awaited[1].set()

    def after(self, count: int) -> asyncio.Event:
        """Set with so many answers more, counted from now; who waits goes on one turn of the loop after the last."""
        event = asyncio.Event()
        self._awaited = (len(self.ack_times) + count, event)
        return event

    def longest_gap(self, since: float, until: float) -> float:
        """Seconds of the longest stretch without an answer."""
        marks = [since, *(at for at in self.ack_times if since < at < until), until]
        return max(after - before for before, after in itertools.pairwise(marks))

    def waits_between(self, since: float, until: float) -> list[float]:
        """How long each answer between two moments was waited for."""
        return [wait for at, wait in zip(self.ack_times, self.waits, strict=True) if since < at < until]


class Producer:
    """Sends requests one after the other, each again and again under the same event ids until it is answered."""

    def __init__(self, urls: Sequence[str], token: str, day: datetime, ledger: Ledger, *, first: int = 0) -> None:
        self._urls = urls
        self._place = first
        self._day = day
        self._ledger = ledger
        self._client = httpx.AsyncClient(
            headers={"authorization": f"Bearer {token}"}, timeout=TRY_SECONDS, trust_env=False
        )

    async def send(self, request: Request) -> None:
        """Send one request. Raises Broken for an answer that no retry explains."""
        events = [event_of(said, self._day) for said in request]
        body = {"query": RECORD_EVENTS, "variables": {"input": {"events": events}}}
        keys = [(SOURCE, said.event_id) for said in request]
        since = time.monotonic()
        async with bounded(SEND_SECONDS_MAX, f"an answer to {keys[0]}"):
            while (statuses := await self._try(body)) is None:
                self._place += 1
                await asyncio.sleep(AGAIN_SECONDS)
        if len(statuses) != len(keys) or not {"ACCEPTED", "DUPLICATE"}.issuperset(statuses):
            raise Broken(f"{keys} was answered {statuses}")
        self._ledger.note(keys, statuses, since=since)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _try(self, body: dict[str, Any]) -> list[str] | None:
        """The statuses, or None where asking again may help."""
        try:
            response = await self._client.post(f"{self._urls[self._place % len(self._urls)]}/graphql", json=body)
            if response.status_code in {429, 503}:
                return None
            answer = response.json()
        except (httpx.TransportError, json.JSONDecodeError):
            return None
        if response.status_code != 200 or answer.get("errors") or answer["data"]["recordEvents"]["errors"]:
            raise Broken(f"recordEvents answered {response.status_code} {answer}")
        return [result["status"] for result in answer["data"]["recordEvents"]["results"]]


def event_of(said: Said, day: datetime) -> dict[str, Any]:
    """An event as a producer sends it."""
    sent: dict[str, Any] = {
        "eventId": said.event_id,
        "source": SOURCE,
        "type": said.kind,
        "occurredAt": (day + timedelta(minutes=said.minute)).isoformat(),
        "studentId": said.student,
        "classroomId": said.classroom,
        "assignmentId": said.assignment,
        "conceptIds": ["fractions", "ratios"],
    }
    if said.score is not None:
        sent |= {"score": said.score, "maxScore": 1, "submissionId": said.submission}
    return sent


class Bystander:
    """Steady single events in a tenant of its own: how long did recording pause?"""

    def __init__(self, producer: Producer, classroom: str, students: int) -> None:
        self._producer = producer
        self._classroom = classroom
        self._students = students

    async def run(self) -> None:
        """Send until cancelled."""
        for number in itertools.count():
            student = f"{self._classroom}-{number % self._students}"
            item = f"{self._classroom}-w0"
            said = Said(f"steady-{number}", "SUBMISSION_CREATED", student, self._classroom, item, number % 600)
            await self._producer.send((said,))
            await asyncio.sleep(PAUSE_SECONDS)


@dataclass(frozen=True, slots=True)
class Stream:
    """A subscription to follow: its document, its variables, and the field of the answer that holds a message."""

    name: str
    document: str
    classroom: str
    first_token: str | None = None


class Subscriber:
    """Follows one stream over whichever api answers, and comes back with its last token after any loss."""

    def __init__(self, urls: Sequence[str], token: str, stream: Stream, *, first: int = 0) -> None:
        self.stream = stream
        self.messages: list[dict[str, Any]] = []
        self.returns = -1  # the first connection is no return
        self.error: str | None = None
        self.moved = asyncio.Event()  # set at each message
        self._urls = [url.replace("http", "ws", 1) + "/graphql" for url in urls]
        self._token = token
        self._place = first
        self._resume = stream.first_token

    async def run(self) -> None:
        """Follow until cancelled."""
        while self.error is None:
            try:
                url = self._urls[self._place % len(self._urls)]
                async with connect(
                    url, subprotocols=["graphql-transport-ws"], open_timeout=TRY_SECONDS, close_timeout=0.2,  # type: ignore[list-item]
                    proxy=None, ping_interval=None, compression=None,
                ) as socket:  # fmt: skip
                    await self._follow(socket)
            except (WebSocketException, InvalidHandshake, OSError, TimeoutError, EOFError):
                self._place += 1
                await asyncio.sleep(AGAIN_SECONDS)

    async def _follow(self, socket: ClientConnection) -> None:
        await _tell(socket, type="connection_init", payload={"authorization": f"Bearer {self._token}"})
        async with asyncio.timeout(TRY_SECONDS):
            assert json.loads(await socket.recv())["type"] == "connection_ack"
        variables = {"classroomId": self.stream.classroom, "after": self._resume}
        await _tell(socket, id="1", type="subscribe", payload={"query": self.stream.document, "variables": variables})
        self.returns += 1
        is_asked = False
        while True:
            try:
                async with asyncio.timeout(SILENCE_SECONDS):
                    message = json.loads(await socket.recv())
            except TimeoutError:
                if is_asked:
                    raise
                await _tell(socket, type="ping")
                is_asked = True
                continue
            is_asked = False
            if not self._take(message):
                return

    def _take(self, message: dict[str, Any]) -> bool:
        """Note one message; False when the stream has ended and must be asked for again."""
        if message["type"] == "pong":
            return True
        if message["type"] != "next" or message["payload"].get("errors"):
            code = json.dumps(message)
            if "UNAVAILABLE" not in code and "OVERLOADED" not in code and message["type"] != "complete":
                self.error = code
            self.moved.set()
            raise EOFError  # asked again with the token, elsewhere
        payload = message["payload"]["data"][self.stream.name]
        self._resume = payload["resumeToken"]
        self.messages.append(payload)
        self.moved.set()
        return True


async def _tell(socket: ClientConnection, **message: Any) -> None:
    async with asyncio.timeout(TRY_SECONDS):
        await socket.send(json.dumps(message))


async def cancelled(tasks: Sequence[asyncio.Task[None]]) -> None:
    """End tasks that run for ever; raises what one of them died of."""
    for task in tasks:
        task.cancel()
    for task in tasks:
        with contextlib.suppress(asyncio.CancelledError):
            await task
