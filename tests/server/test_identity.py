"""Identity: only a token signed with our key and algorithm, alive and well-formed, becomes a viewer."""

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from graph.refusal import BadCredential, ExpiredCredential
from rules.access import Role, Scope, Viewer
from server.identity import Identity, KeySet, SharedSecret, mint

NOW = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
SECRET = "a secret of the tests, thirty-two bytes or more"
GOOD = {"tenant": 7, "sub": "t1", "roles": ["teacher"], "exp": int(NOW.timestamp()) + 300}


def identity(**more: Any) -> Identity:
    return Identity(SharedSecret(SECRET), clock=lambda: NOW, **more)


def signed(claims: Any, *, header: dict[str, Any] | None = None, secret: str = SECRET) -> str:
    """A token made by hand, so that no library corrects what the test wants wrong."""
    parts = [json.dumps({"alg": "HS256", "typ": "JWT", **(header or {})}), json.dumps(claims)]
    text = ".".join(base64.urlsafe_b64encode(part.encode()).rstrip(b"=").decode() for part in parts)
    digest = hmac.new(secret.encode(), text.encode(), hashlib.sha256).digest()
    return f"{text}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


async def test_a_good_token_becomes_its_viewer() -> None:
    viewer = await identity().viewer_of(signed({**GOOD, "scopes": ["ingest"], "sources": ["lms"]}))

    assert viewer == Viewer(
        tenant=7,
        key="t1",
        roles=frozenset({Role.TEACHER}),
        expires_at=NOW + timedelta(seconds=300),
        scopes=frozenset({Scope.INGEST}),
        sources=frozenset({"lms"}),
    )


async def test_a_minted_token_is_read_back_whole() -> None:
    token = mint(SECRET, tenant=7, sub="i1", roles={Role.INTEGRATOR}, scopes={Scope.READ, Scope.INGEST},
                 sources={"lms"}, now=NOW, life=timedelta(hours=24))  # fmt: skip

    viewer = await identity().viewer_of(token)

    assert (viewer.tenant, viewer.key, viewer.sources) == (7, "i1", frozenset({"lms"}))
    assert viewer.is_integrator_for(Scope.READ)
    assert viewer.expires_at == NOW + timedelta(hours=24)


async def test_a_tenant_may_be_a_string_of_digits() -> None:
    assert (await identity().viewer_of(signed({**GOOD, "tenant": "7"}))).tenant == 7


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in GOOD.items() if key != name}


BAD_CLAIMS: dict[str, Any] = {
    "no object": [1],
    "no exp": without("exp"),
    "exp as text": {**GOOD, "exp": str(GOOD["exp"])},
    "exp as a fraction": {**GOOD, "exp": 1.5e9},
    "exp 9e99": {**GOOD, "exp": 9e99},
    "exp beyond the calendar": {**GOOD, "exp": 10**30},
    "exp true": {**GOOD, "exp": True},
    "exp null": {**GOOD, "exp": None},
    "exp negative": {**GOOD, "exp": -1},
    "a life over 30 days": {**GOOD, "exp": int((NOW + timedelta(days=31)).timestamp())},
    "not yet valid": {**GOOD, "nbf": int(NOW.timestamp()) + 60},
    "issued in the future": {**GOOD, "iat": int(NOW.timestamp()) + 60},
    "iat as text": {**GOOD, "iat": "now"},
    "no sub": without("sub"),
    "an empty sub": {**GOOD, "sub": ""},
    "a sub of 129 characters": {**GOOD, "sub": "x" * 129},
    "a sub that is a number": {**GOOD, "sub": 5},
    "a sub with NUL": {**GOOD, "sub": "a\0"},
    "a sub with a surrogate": {**GOOD, "sub": "\ud800"},
    "no tenant": without("tenant"),
    "tenant 0": {**GOOD, "tenant": 0},
    "tenant -1": {**GOOD, "tenant": -1},
    "tenant true": {**GOOD, "tenant": True},
    "tenant 1.0": {**GOOD, "tenant": 1.0},
    "tenant 2^63": {**GOOD, "tenant": 2**63},
    "tenant in full-width digits": {**GOOD, "tenant": "\uff17"},
    "tenant in words": {**GOOD, "tenant": "seven"},
    "no roles": without("roles"),
    "empty roles": {**GOOD, "roles": []},
    "an unknown role": {**GOOD, "roles": ["teacher", "root"]},
    "roles as text": {**GOOD, "roles": "admin"},
    "roles as an object": {**GOOD, "roles": {"admin": True}},
    "a role that is a list": {**GOOD, "roles": [["admin"]]},
    "an unknown scope": {**GOOD, "scopes": ["everything"]},
    "scopes as text": {**GOOD, "scopes": "read"},
    "sources as text": {**GOOD, "sources": "lms"},
    "an empty source": {**GOOD, "sources": [""]},
    "a thousand sources": {**GOOD, "sources": [str(number) for number in range(1_000)]},
}


@pytest.mark.parametrize("case", BAD_CLAIMS)
async def test_wrong_claims_are_a_bad_credential(case: str) -> None:
    with pytest.raises(BadCredential) as refused:
        await identity().viewer_of(signed(BAD_CLAIMS[case]))
    assert type(refused.value) is BadCredential
    assert str(refused.value) == ""


BAD_HEADERS: dict[str, dict[str, Any]] = {
    "alg none": {"alg": "none"},
    "alg NonE": {"alg": "NonE"},
    "alg HS384": {"alg": "HS384"},
    "alg RS256": {"alg": "RS256"},
    "no alg": {"alg": None},
    "crit": {"crit": ["exp"]},
    "crit empty": {"crit": []},
    "kid as a number": {"kid": 5},
    "kid as a list": {"kid": ["a"]},
    "a long kid": {"kid": "x" * 500},
    "detached payload": {"b64": False, "crit": ["b64"]},
}


@pytest.mark.parametrize("case", BAD_HEADERS)
async def test_tricks_in_the_header_are_a_bad_credential(case: str) -> None:
    with pytest.raises(BadCredential):
        await identity().viewer_of(signed(GOOD, header=BAD_HEADERS[case]))


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "x.y.z",
        "é.é.é",
        "a" * 9_000,
        signed(GOOD)[:-2],
        signed(GOOD) + ".x",
        signed(GOOD, secret="x" * 40),
        signed(GOOD).rsplit(".", 1)[0] + ".",
    ],
)
async def test_a_token_that_we_did_not_sign_is_a_bad_credential(token: str) -> None:
    with pytest.raises(BadCredential):
        await identity().viewer_of(token)


async def test_a_token_past_its_time_is_expired_and_a_little_leeway_is_kept() -> None:
    now = int(NOW.timestamp())

    with pytest.raises(ExpiredCredential):
        await identity().viewer_of(signed({**GOOD, "exp": now - 5}))
    assert (await identity().viewer_of(signed({**GOOD, "exp": now - 4}))).key == "t1"
    with pytest.raises(BadCredential) as forged:
        await identity().viewer_of(signed({**GOOD, "exp": now - 60}, secret="x" * 40))
    assert type(forged.value) is BadCredential  # a forger learns nothing about time


async def test_a_configured_issuer_and_audience_are_required() -> None:
    strict = identity(issuer="https://school.example", audience="sightline")

    viewer = await strict.viewer_of(signed({**GOOD, "iss": "https://school.example", "aud": "sightline"}))
    assert viewer.key == "t1"
    for claims in ({}, {"iss": "https://evil.example", "aud": "sightline"}, {"iss": "https://school.example"}):
        with pytest.raises(BadCredential):
            await strict.viewer_of(signed({**GOOD, **claims}))


def test_a_short_secret_is_refused_at_start() -> None:
    with pytest.raises(ValueError, match="JWT_SECRET expects at least 32 bytes"):
        SharedSecret("short")


@pytest.fixture(scope="module")
def private_key() -> RSAPrivateKey:
    return generate_private_key(65537, 2048)


def publish(place: Path, *keys: tuple[RSAPrivateKey, str | None], **more: Any) -> None:
    listed = []
    for key, kid in keys:
        entry = {**jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True), "use": "sig", **more}
        listed.append({**entry, "kid": kid} if kid else entry)
    place.write_text(json.dumps({"keys": listed}))


def issued(key: RSAPrivateKey, kid: str | None, **claims: Any) -> str:
    return jwt.encode({**GOOD, **claims}, key, algorithm="RS256", headers={"kid": kid} if kid else None)


async def test_a_token_of_an_issuer_is_read_with_the_key_it_names(tmp_path: Path, private_key: RSAPrivateKey) -> None:
    publish(tmp_path / "keys.json", (private_key, "a"))
    reader = Identity(KeySet(str(tmp_path / "keys.json"), clock=lambda: NOW), clock=lambda: NOW)

    assert (await reader.viewer_of(issued(private_key, "a"))).key == "t1"
    assert (await reader.viewer_of(issued(private_key, None))).key == "t1"
    for kid in ("../a", "unknown", "a\0"):
        with pytest.raises(BadCredential):
            await reader.viewer_of(issued(private_key, kid))


async def test_a_public_key_cannot_be_used_as_a_shared_secret(tmp_path: Path, private_key: RSAPrivateKey) -> None:
    publish(tmp_path / "keys.json", (private_key, "a"))
    reader = Identity(KeySet(str(tmp_path / "keys.json"), clock=lambda: NOW), clock=lambda: NOW)
    pem = private_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    with pytest.raises(BadCredential):
        await reader.viewer_of(signed(GOOD, header={"kid": "a"}, secret=pem))


async def test_a_rotated_key_is_fetched_at_most_once_a_minute(tmp_path: Path, private_key: RSAPrivateKey) -> None:
    times = [NOW]
    place, newer = tmp_path / "keys.json", generate_private_key(65537, 2048)
    publish(place, (private_key, "a"))
    reader = Identity(KeySet(str(place), clock=lambda: times[-1]), clock=lambda: NOW)
    await reader.viewer_of(issued(private_key, "a"))

    publish(place, (private_key, "a"), (newer, "b"))
    with pytest.raises(BadCredential):
        await reader.viewer_of(issued(newer, "b"))
    times.append(NOW + timedelta(seconds=60))

    assert (await reader.viewer_of(issued(newer, "b"))).key == "t1"
    place.unlink()
    times.append(NOW + timedelta(seconds=180))
    with pytest.raises(BadCredential):
        await reader.viewer_of(issued(newer, "c"))
    assert (await reader.viewer_of(issued(newer, "b"))).key == "t1"  # an issuer that is away locks nobody out


@pytest.mark.parametrize("more", [{"use": "enc"}, {"alg": "RS512"}, {"kty": "EC"}, {"n": "AQAB"}, {"n": 5}])
async def test_a_key_that_is_not_for_these_signatures_is_left_out(
    tmp_path: Path, private_key: RSAPrivateKey, more: dict[str, Any]
) -> None:
    publish(tmp_path / "keys.json", (private_key, "a"), **more)
    reader = Identity(KeySet(str(tmp_path / "keys.json"), clock=lambda: NOW), clock=lambda: NOW)

    with pytest.raises(BadCredential):
        await reader.viewer_of(issued(private_key, "a"))


@pytest.mark.parametrize("place", ["http://issuer.example/keys", "ftp://issuer.example/keys", "gopher://x"])
def test_keys_come_over_https_or_from_a_file_only(place: str) -> None:
    with pytest.raises(ValueError, match="JWT_JWKS expects"):
        KeySet(place, clock=lambda: NOW)
