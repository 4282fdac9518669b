"""POST /sign-in: whom the demo's pages may sign in as, and what everyone else is told."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import jwt
import pytest
from starlette.applications import Starlette

from rules.access import Role
from server.identity import mint
from server.pages.sign_in import Logins, SignIn

NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)
SECRET = "a secret of the demo with more than thirty-two bytes"
EARLIER = "a secret of before, also with more than thirty-two bytes"


async def answer(file: Path, role: str) -> httpx.Response:
    sign_in = SignIn(logins=Logins(file, timedelta(minutes=5)), secret=SECRET, clock=lambda: NOW)
    transport = httpx.ASGITransport(Starlette(routes=[sign_in.route]), client=("127.0.0.1", 50_000))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client:
        return await client.post("/sign-in", json={"role": role})


def written(folder: Path, secret: str) -> Path:
    """The demo's file, with a token of its teacher that has ended long ago."""
    token = mint(
        secret, tenant=7, sub="t1", roles=[Role.TEACHER], now=NOW - timedelta(days=2), life=timedelta(hours=24)
    )
    file = folder / "demo.json"
    file.write_text(json.dumps({"tokens": {"teacher": token}}))
    return file


@pytest.mark.feature("003-63")
async def test_a_login_of_the_demo_gets_a_fresh_short_token(tmp_path: Path) -> None:
    response = await answer(written(tmp_path, SECRET), "teacher")

    claims = jwt.decode(response.json()["accessToken"], SECRET, algorithms=["HS256"], options={"verify_exp": False})
    assert (response.status_code, claims["sub"], claims["exp"] - claims["iat"]) == (200, "t1", 300)


@pytest.mark.feature("003-63")
@pytest.mark.parametrize(("secret", "role"), [(EARLIER, "teacher"), (SECRET, "admin")], ids=["another secret", "role"])
async def test_whom_the_demo_does_not_know_it_refuses_for_good(tmp_path: Path, secret: str, role: str) -> None:
    """Not a failure of the server: a client that would try again does so for ever."""
    response = await answer(written(tmp_path, secret), role)

    assert (response.status_code, response.json()) == (403, {"error": "UNKNOWN_ROLE"})
