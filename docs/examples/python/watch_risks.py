"""Tell of each risk flag of a class that changes, once, across restarts of this program and of the service."""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import httpx
from websockets.exceptions import ConnectionClosed, InvalidURI, WebSocketException
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

BACK_OFF_SECONDS_FIRST = 0.25
BACK_OFF_SECONDS_MAX = 30.0
LOOK_SECONDS = 1.0  # how often the file of the token is looked at
RETRYABLE_CODES = {"UNAVAILABLE", "OVERLOADED", "RATE_LIMITED"}
UNAUTHORIZED = 4401  # final; 4403 (expired), 1012 (restart), 1013 (too many, too slow) and lost lines are not

RISKS = """
subscription WatchRisks($classroom: ID!, $after: String) {
  riskFlagChanged(classroomId: $classroom, after: $after) {
    kind
    resumeToken
    transition { change notify studentId reason severity clearsWhen }
  }
}
"""
FLAGS = """
query RaisedFlags($classroom: ID!) {
  classroom(id: $classroom) { riskFlags(first: 200) { nodes { studentId reason severity clearsWhen } } }
}
"""


class Refused(Exception):
    """The service answered, and what it said will not change by asking again."""


class Busy(Exception):
    """The service asks to be tried again."""


@dataclass(slots=True)
class Token:
    """The bearer token: from a file that whoever renews it writes anew, or from the environment."""

    file: Path | None
    seen: str = ""

    def read(self) -> str:
        """The token as it is now."""
        self.seen = self.file.read_text().strip() if self.file else os.environ.get("SIGHTLINE_TOKEN", "")
        return self.seen

    @property
    def is_renewed(self) -> bool:
        """Whether the file holds another token than the one that was read last."""
        return self.file is not None and self.file.read_text().strip() != self.seen


@dataclass(slots=True)
class Place:
    """Where we stand in the stream, kept in a file: the resume token of the last message that was handled."""

    file: Path

    def read(self) -> str | None:
        """The token; None at the very first start."""
        return self.file.read_text().strip() or None if self.file.exists() else None

    def keep(self, token: str) -> None:
        """Replace it whole: half a token would be worse than an old one."""
        fresh = self.file.with_suffix(".new")
        fresh.write_text(token)
        fresh.replace(self.file)


@dataclass(slots=True)
class Watch:
    """One class, watched."""

    url: str
    classroom: str
    is_quiet: bool
    token: Token
    place: Place
    back_off_seconds: float = BACK_OFF_SECONDS_FIRST

    def forever(self) -> NoReturn:
        """Listen, and come back whenever the line is lost. Raises Refused."""
        while True:
            try:
                self._listen()
            except ConnectionClosed as closed:
                if closed.rcvd is not None and closed.rcvd.code == UNAUTHORIZED:
                    raise Refused("closed with 4401: this token is not accepted") from closed
                why = str(closed)
            except InvalidURI as wrong:
                raise Refused(str(wrong)) from wrong
            except (Busy, OSError, WebSocketException, httpx.TransportError) as lost:
                why = f"{type(lost).__name__} {lost}"
            wait = self.back_off_seconds * random.uniform(0.5, 1)  # noqa: S311 - jitter is no secret
            self.back_off_seconds = min(BACK_OFF_SECONDS_MAX, self.back_off_seconds * 2)
            print(f"away ({why}), back in {wait:.1f} s", file=sys.stderr, flush=True)
            time.sleep(wait)

    def _listen(self) -> None:
        """One connection, until it is lost."""
        url = self.url.replace("http", "ws", 1)
        with connect(url, subprotocols=[Subprotocol("graphql-transport-ws")], compression=None) as line:
            tell(line, type="connection_init", payload={"authorization": f"Bearer {self.token.read()}"})
            looked_at = time.monotonic()
            while True:
                with suppress(TimeoutError):
                    self._take(line, json.loads(line.recv(timeout=LOOK_SECONDS)))
                if time.monotonic() - looked_at > LOOK_SECONDS:
                    looked_at = time.monotonic()
                    self._renew(line)

    def _renew(self, line: ClientConnection) -> None:
        """Hand a fresh token in on the open socket: it lives on, and the stream does not notice."""
        if self.token.is_renewed:
            tell(line, type="ping", payload={"authorization": f"Bearer {self.token.read()}"})

    def _take(self, line: ClientConnection, message: dict[str, Any]) -> None:
        """Take one message of the protocol."""
        kind: str = message["type"]
        payload: Any = message.get("payload") or {}
        if kind == "connection_ack":
            variables = {"classroom": self.classroom, "after": self.place.read()}
            tell(line, type="subscribe", id="1", payload={"query": RISKS, "variables": variables})
        elif kind == "ping":
            tell(line, type="pong")
        elif kind == "next" and payload.get("data"):
            self._handle(payload["data"]["riskFlagChanged"])
        elif kind in ("next", "error"):
            refuse(payload if kind == "error" else payload["errors"])
        elif kind == "complete":
            raise Busy("the stream was ended")

    def _handle(self, message: dict[str, Any]) -> None:
        """Handle one message first and keep its token afterwards: a crash in between tells twice, never not at all."""
        self.back_off_seconds = BACK_OFF_SECONDS_FIRST
        if message["kind"] in ("READY", "RESYNC"):  # we listen from here on: what is read now misses nothing
            self._tell_raised(message["kind"])
        elif (change := message["transition"])["notify"] or not self.is_quiet:
            told = (change["change"], change["studentId"], change["reason"], change["severity"], change["clearsWhen"])
            print(*(word for word in told if word), flush=True)
        self.place.keep(message["resumeToken"])

    def _tell_raised(self, why: str) -> None:
        sent = {"query": FLAGS, "variables": {"classroom": self.classroom}}
        headers = {"authorization": f"Bearer {self.token.seen}"}
        response = httpx.post(self.url, json=sent, headers=headers)
        if not response.is_success or "errors" in response.json():
            raise Busy(f"HTTP {response.status_code} to a query")  # the stream begins anew, and so does this
        flags = response.json()["data"]["classroom"]["riskFlags"]["nodes"]
        print(f"{why}: {len(flags)} flags are raised in {self.classroom}", flush=True)


def tell(line: ClientConnection, **message: Any) -> None:
    """Send one message of graphql-transport-ws."""
    line.send(json.dumps(message))


def refuse(errors: list[dict[str, Any]]) -> NoReturn:
    """Raise Busy where all errors are of those that pass, else Refused."""
    codes = [(error.get("extensions") or {}).get("code") for error in errors]
    if set(codes) <= RETRYABLE_CODES:
        raise Busy(str(codes[0]))
    raise Refused(f"{codes[0]}: {errors[0]['message']}")


def main() -> int:
    """Watch until interrupted, or refused for good."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="Without --token-file the token is read from the environment: SIGHTLINE_TOKEN."
    )
    parser.add_argument("classroom", help="the key of the class")
    parser.add_argument("--url", default="http://127.0.0.1:8080/graphql", help="default: %(default)s")
    parser.add_argument("--token-file", type=Path, help="a file that holds the token; a fresh one is taken up at once")
    parser.add_argument("--place", type=Path, default=Path("watch_risks.place"), help="default: %(default)s")
    parser.add_argument("--quiet", action="store_true", help="only what is worth telling a person (notify)")
    asked = parser.parse_args()
    watch = Watch(asked.url, asked.classroom, asked.quiet, Token(asked.token_file), Place(asked.place))
    try:
        watch.forever()
    except KeyboardInterrupt:
        return 0
    except Refused as refused:
        print(f"refused: {refused}", file=sys.stderr)
        return 4


if __name__ == "__main__":
    sys.exit(main())
