"""Short-lived tokens for the demo's page: a browser on this machine names a role and looks through its eyes."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import jwt
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from rules.access import Role
from server.identity import SharedSecret, mint
from server.pages.files import GUARDS
from server.pages.visitors import is_from_this_machine

LIFE = timedelta(minutes=5)  # as an access token of a school's own issuer (C10), so that renewal is seen at work
BODY_BYTES_MAX = 1024
LOGINS_BYTES_MAX = 64 * 1024


@dataclass(frozen=True, slots=True)
class Logins:
    """Whom the demo's pages sign in: the file of their tokens, and for how long at a time."""

    file: Path
    life: timedelta = LIFE


class SignIn:
    """POST /sign-in with `{"role": "teacher"}`: a fresh token of the demo's person of that role.

    The people of `logins` are signed in again, for a short life. Only this machine is answered,
    and only the service's own pages: the request must be JSON, which no form of a stranger's page can send.
    """

    PATH = "/sign-in"

    def __init__(self, *, logins: Logins, secret: str, clock: Callable[[], datetime]) -> None:
        self._logins = logins
        self._secret = secret
        self._clock = clock
        self.route = Route(self.PATH, self._answer, methods=["POST"])

    async def _answer(self, request: Request) -> Response:
        headers = {**GUARDS, "cache-control": "no-store"}
        if not is_from_this_machine(request):
            return JSONResponse({"error": "UNKNOWN"}, status_code=404, headers=headers)
        if request.headers.get("content-type", "").split(";")[0].strip() != "application/json":
            return JSONResponse({"error": "JSON_EXPECTED"}, status_code=415, headers=headers)
        token = self._token_of(await _role_in(request))
        if token is None:
            return JSONResponse({"error": "UNKNOWN_ROLE"}, status_code=403, headers=headers)
        return JSONResponse({"accessToken": token}, headers=headers)

    def _token_of(self, role: str | None) -> str | None:
        held = _logins_in(self._logins.file).get(role or "")
        if held is None:
            return None
        try:
            claims = jwt.decode(held, self._secret, algorithms=[SharedSecret.algorithm], options={"verify_exp": False})
        except jwt.InvalidTokenError:
            return None  # written under another secret: who was known is nobody now
        return mint(
            self._secret,
            tenant=claims["tenant"],
            sub=claims["sub"],
            roles=[Role(each) for each in claims["roles"]],
            now=self._clock(),
            life=self._logins.life,
        )


async def _role_in(request: Request) -> str | None:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_BYTES_MAX:
            return None
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return None
    role = said.get("role") if isinstance(said, dict) else None
    return role if isinstance(role, str) else None


def _logins_in(path: Path) -> dict[str, str]:
    """Tokens by role; none before the demo has written them."""
    try:
        with path.open("rb") as file:
            tokens = json.loads(file.read(LOGINS_BYTES_MAX))["tokens"]
    except FileNotFoundError:
        return {}
    return {role: token for role, token in tokens.items() if role in set(Role)}
