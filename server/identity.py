"""Who is asking: a bearer token becomes a Viewer, or one of two clear refusals."""

import asyncio
import json
import urllib.request
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from graph.refusal import BadCredential, ExpiredCredential
from rules.access import Role, Scope, Viewer

SECRET_BYTES_MIN = 32  # HS256: a shorter secret can be guessed offline from one token
RSA_BITS_MIN = 2_048
TOKEN_CHARACTERS_MAX = 8_192
LIFE_MAX = timedelta(days=30)
LEEWAY = timedelta(seconds=5)  # clocks of two well-kept hosts
NAME_CHARACTERS_MAX = 128
SOURCES_MAX = 100
TENANT_MAX = 2**63 - 1
KEYS_BYTES_MAX = 1024 * 1024
KEYS_MAX = 100
FETCH_SECONDS_MAX = 5
PROOF_HOLDS = timedelta(seconds=60)  # how long a key that its issuer has withdrawn may still open the door
PROVEN_MAX = 4_096  # tokens of 8 kB at most, so 32 MB at the very worst
REFETCH_EVERY = timedelta(seconds=60)  # a stranger's made-up `kid` must not turn us against the issuer

Clock = Callable[[], datetime]
Word = TypeVar("Word", Role, Scope)


class Keys(Protocol):
    """Where the key of a token comes from; the algorithm belongs to the key, never to the token."""

    algorithm: str

    async def of(self, header: dict[str, Any]) -> Any:
        """The key for a token with this header. Raises BadCredential."""


class SharedSecret:
    """One secret that issuer and service share (HS256)."""

    algorithm = "HS256"

    def __init__(self, secret: str) -> None:
        if len(secret.encode()) < SECRET_BYTES_MIN:
            raise ValueError(f"JWT_SECRET expects at least {SECRET_BYTES_MIN} bytes")
        self._secret = secret

    async def of(self, header: dict[str, Any]) -> str:
        """The secret, whatever `kid` says."""
        return self._secret


class KeySet:
    """The public keys of an issuer (RS256), read from a file or an https address and kept until a key is missing."""

    algorithm = "RS256"

    def __init__(self, place: str, *, clock: Clock) -> None:
        parts = urlsplit(place)
        is_local = parts.hostname in ("localhost", "127.0.0.1", "::1")
        if parts.scheme not in ("", "file", "https") and not (parts.scheme == "http" and is_local):
            raise ValueError("JWT_JWKS expects a file path or an https:// address")
        self._place = place
        self._clock = clock
        self._keys: dict[str | None, RSAPublicKey] = {}
        self._asked_at: datetime | None = None
        self._asking = asyncio.Lock()

    async def of(self, header: dict[str, Any]) -> RSAPublicKey:
        """The key that `kid` names; a token without `kid` is taken only where the issuer has a single key."""
        kid = header.get("kid")
        if kid not in self._keys:
            await self._refresh(kid)
        if kid is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        key = self._keys.get(kid)
        if key is None:
            raise BadCredential
        return key

    async def _refresh(self, kid: str | None) -> None:
        async with self._asking:
            now = self._clock()
            is_too_soon = self._asked_at is not None and now - self._asked_at < REFETCH_EVERY
            if kid in self._keys or is_too_soon or (kid is None and self._keys):
                return
            self._asked_at = now
            try:
                self._keys = read_keys(await asyncio.to_thread(_fetch, self._place))
            except (OSError, ValueError):
                return  # the issuer is away: the keys we know still hold


@dataclass(frozen=True, slots=True)
class Proof:
    """What a token whose signature held says, when it begins to hold, and when that was proven."""

    viewer: Viewer
    begins_at: datetime | None
    at: datetime

    def bearer(self, now: datetime) -> Viewer:
        """Who shows the token at this moment. Raises BadCredential or ExpiredCredential."""
        if self.begins_at is not None and self.begins_at > now + LEEWAY:
            raise BadCredential
        if self.viewer.expires_at > now + LIFE_MAX + LEEWAY:
            raise BadCredential
        if self.viewer.expires_at + LEEWAY <= now:
            raise ExpiredCredential
        return self.viewer


class Identity:
    """The verifier of tokens: `viewer_of` is all that the edge needs."""

    def __init__(self, keys: Keys, *, clock: Clock, issuer: str | None = None, audience: str | None = None) -> None:
        self._keys = keys
        self._clock = clock
        self._issuer = issuer
        self._audience = audience
        self._proven: dict[str, Proof] = {}

    async def viewer_of(self, token: str) -> Viewer:
        """The bearer of a token. Raises BadCredential, or ExpiredCredential where only its time is over.

        Neither exception carries anything of the token.
        """
        if len(token) > TOKEN_CHARACTERS_MAX or not token.isascii():
            raise BadCredential
        now = self._clock()
        proof = self._proven.get(token)
        if proof is None or not proof.at <= now < proof.at + PROOF_HOLDS:
            proof = await self._prove(token, now)
        return proof.bearer(now)

    def known(self, token: str) -> Viewer | None:
        """The bearer of a token that was proven within the last minute and holds now; None says nothing."""
        proof, now = self._proven.get(token), self._clock()
        if proof is None or not proof.at <= now < proof.at + PROOF_HOLDS:
            return None
        try:
            return proof.bearer(now)
        except (BadCredential, ExpiredCredential):
            return None

    async def _prove(self, token: str, now: datetime) -> Proof:
        """Verify a token and remember it for a minute: a machine shows the same one with every request.

        Only what the signature proves is remembered, by the whole token; the times in it are judged at each request.
        """
        claims = await self._verified(token)
        moments = [_moment(claims[claim]) for claim in ("nbf", "iat") if claim in claims]
        proof = Proof(_viewer(claims), max(moments, default=None), now)
        self._proven.pop(token, None)
        if len(self._proven) >= PROVEN_MAX:
            del self._proven[next(iter(self._proven))]
        self._proven[token] = proof
        return proof

    async def _verified(self, token: str) -> dict[str, Any]:
        """The claims, once the signature and the issuer are proven; times are judged by our own clock."""
        try:
            header = jwt.get_unverified_header(token)
            kid = header.get("kid")
            # `crit` names extensions that we would have to obey; we know none.
            if header.get("alg") != self._keys.algorithm or "crit" in header or not _is_name(kid, is_optional=True):
                raise BadCredential
            key = await self._keys.of(header)
            checks = {"verify_exp": False, "verify_nbf": False, "verify_iat": False}
            options: Any = {**checks, "require": ["exp", "sub"], "verify_aud": self._audience is not None}
            algorithms = [self._keys.algorithm]
            return jwt.decode(
                token, key, algorithms=algorithms, options=options, issuer=self._issuer, audience=self._audience
            )
        # PyJWT lets a few raw errors of its parsers through for tokens made by hand.
        except (jwt.PyJWTError, ValueError, TypeError, KeyError, RecursionError, OverflowError):
            raise BadCredential from None


def mint(
    secret: str,
    *,
    tenant: int,
    sub: str,
    roles: Collection[Role],
    now: datetime,
    life: timedelta,
    scopes: Collection[Scope] = (),
    sources: Collection[str] | None = None,
) -> str:
    """Sign a token for development and tests; production tokens come from the school's own issuer."""
    SharedSecret(secret)
    claims: dict[str, Any] = {
        "tenant": tenant,
        "sub": sub,
        "roles": sorted(roles),
        "scopes": sorted(scopes),
        "iat": int(now.timestamp()),
        "exp": int((now + life).timestamp()),
    }
    if sources is not None:
        claims["sources"] = sorted(sources)
    return jwt.encode(claims, secret, algorithm=SharedSecret.algorithm)


def read_keys(text: bytes) -> dict[str | None, RSAPublicKey]:
    """The usable keys of a JSON Web Key Set: RSA, for signatures, long enough. Raises ValueError."""
    document = json.loads(text)
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise ValueError("a JSON Web Key Set needs a list of 'keys'")
    keys: dict[str | None, RSAPublicKey] = {}
    for entry in listed[:KEYS_MAX]:
        if not isinstance(entry, dict) or entry.get("kty") != "RSA" or entry.get("use", "sig") != "sig":
            continue
        if entry.get("alg", "RS256") != "RS256" or not _is_name(entry.get("kid"), is_optional=True):
            continue
        try:
            key = jwt.PyJWK(entry, algorithm="RS256").key
        except (jwt.PyJWTError, ValueError, TypeError, KeyError):
            continue  # one broken key must not lock out the holders of the others
        if isinstance(key, RSAPublicKey) and key.key_size >= RSA_BITS_MIN:
            keys[entry.get("kid")] = key
    return keys


def _fetch(place: str) -> bytes:
    if urlsplit(place).scheme in ("http", "https"):
        with urllib.request.urlopen(place, timeout=FETCH_SECONDS_MAX) as answer:  # noqa: S310 # nosec B310 - checked
            return bytes(answer.read(KEYS_BYTES_MAX))
    return Path(place.removeprefix("file://")).read_bytes()


def _viewer(claims: dict[str, Any]) -> Viewer:
    roles = _words(claims.get("roles"), Role)
    if not roles or not _is_name(claims.get("sub")):
        raise BadCredential
    sources = claims.get("sources")
    return Viewer(
        tenant=_tenant(claims.get("tenant")),
        key=claims["sub"],
        roles=roles,
        expires_at=_moment(claims.get("exp")),
        scopes=_words(claims.get("scopes", []), Scope),
        sources=None if sources is None else _names(sources),
    )


def _tenant(value: Any) -> int:
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= 19:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= TENANT_MAX:
        raise BadCredential
    return value


def _moment(value: Any) -> datetime:
    # An integer as RFC 7519 has it in practice: 9e99 or "never" would make a token that cannot be ended.
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 253_402_300_799:
        raise BadCredential
    return datetime.fromtimestamp(value, UTC)


def _words(value: Any, kind: type[Word]) -> frozenset[Word]:
    try:
        return frozenset(kind(word) for word in _names(value))
    except ValueError:
        raise BadCredential from None


def _names(value: Any) -> frozenset[str]:
    if not isinstance(value, list) or len(value) > SOURCES_MAX or not all(_is_name(name) for name in value):
        raise BadCredential
    return frozenset(value)


def _is_name(value: Any, *, is_optional: bool = False) -> bool:
    if value is None:
        return is_optional
    return isinstance(value, str) and 1 <= len(value) <= NAME_CHARACTERS_MAX and value.isprintable()
