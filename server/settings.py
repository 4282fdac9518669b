"""Settings: the environment, read once into one frozen value, and refused at start where it is wrong."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import urlsplit

from server.setting_values import (
    KNOWN_PASSWORDS,
    SECRET_BYTES_MIN,
    Environment,
    algorithm_name,
    clock_offset,
    documents_regime,
    environment_name,
    explicit_origins,
    https_address,
    level_name,
    listen_address,
    long_secret,
    metrics_port,
    own_path,
    postgres_address,
    readable_file,
    readable_places,
    redis_address,
    share,
    status_edition,
    switch,
    truth,
    web_address,
)

EMBEDDED_POOL_SIZE_MAX = 20  # api, worker and tests share the embedded server's 200 connections

T = TypeVar("T")


class WrongSetting(Exception):
    """A setting that cannot be used: its name, what it expects, and what came (never the value of a secret)."""

    def __init__(self, name: str, expected: str, got: str) -> None:
        super().__init__(f"{name} expects {expected}; got {got}")
        self.name, self.expected, self.got = name, expected, got


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the settings table: README prints it, errors quote `expects`."""

    name: str
    default: str  # in words where it depends
    expects: str
    about: str
    is_secret: bool = False

    @property
    def field_name(self) -> str:
        return self.name.removeprefix("SIGHTLINE_").lower()


TABLE = (
    Setting("ENVIRONMENT", "development", "development or production", "Production refuses every default secret."),
    Setting("HOST", "127.0.0.1", "an address to listen on", "0.0.0.0 inside a container."),
    Setting("PORT", "8080", "a port, 1 to 65535", "HTTP, WebSocket and the live page."),
    Setting("DATA_DIR", ".sightline", "a folder", "Embedded servers, demo.json and the development secret."),
    Setting(
        "DATABASE_URL",
        "embedded",
        "postgresql://user:password@host:port/name",
        "PostgreSQL 18. Unset: the embedded one; required in production.",
        is_secret=True,
    ),
    Setting(
        "REDIS_URL",
        "embedded",
        "redis://, rediss:// or unix:// and an address",
        "Valkey or Redis. Unset: the embedded one; required in production.",
        is_secret=True,
    ),
    Setting("POOL_SIZE_MAX", "50 (embedded: 20)", "a whole number, 1 to 500", "Database connections of one process."),
    Setting("POOL_SIZE_IDLE", "10", "a whole number, 0 to POOL_SIZE_MAX", "Connections kept open when idle."),
    Setting("POOL_LIFETIME_SECONDS", "300", "a whole number, 10 to 86400", "Then an idle connection is renewed."),
    Setting("JWT_ALGORITHM", "HS256", "HS256 or RS256", "The one algorithm that bearer tokens are accepted with."),
    Setting(
        "JWT_SECRET",
        "made once in DATA_DIR/jwt_secret",
        f"at least {SECRET_BYTES_MIN} bytes that are no known example",
        "Key of HS256 tokens; required in production with HS256.",
        is_secret=True,
    ),
    Setting("JWKS_URL", "unset", "an https:// address", "Public keys of RS256 tokens; or JWKS_FILE."),
    Setting("JWKS_FILE", "unset", "a readable file", "Public keys of RS256 tokens; or JWKS_URL."),
    Setting("JWT_ISSUER", "unset", "text", "When set, tokens must carry it as `iss`."),
    Setting("JWT_AUDIENCE", "unset", "text", "When set, tokens must carry it as `aud`."),
    Setting(
        "CORS_ORIGINS",
        "none",
        "origins such as https://school.example, separated by commas; never *",
        "Other sites whose pages may call this service.",
    ),
    Setting(
        "DOCUMENTS",
        "any",
        "any or trusted",
        "With trusted, only registered documents are answered; ad-hoc text and introspection are refused.",
    ),
    Setting(
        "TRUSTED_DOCUMENTS",
        "none",
        "folders of *.graphql files, or JSON files of text by hash, separated by commas",
        "Documents that applications registered; the service's own pages' are always known.",
    ),
    Setting(
        "HTTP_STATUS_EDITION",
        "2025",
        "2025 or 2026",
        "GraphQL over HTTP: 2026 answers wrong documents with 422, and half an answer with 294.",
    ),
    Setting(
        "SIGN_IN_PATH",
        "none",
        "a path of this origin, such as /auth/token",
        "Where the live page fetches tokens: POST answers `accessToken` as JSON. Unset: the viewer pastes one.",
    ),
    Setting("GRAPHIQL", "on; off in production", "on or off", "The schema in a browser, at /graphiql."),
    Setting("RATE_LIMIT_ENABLED", "true", "true or false", "Limits of each viewer; docs/costs.md lists them."),
    Setting(
        "INTEGRATOR_EVENTS_PER_SECOND",
        "10000",
        "a whole number, 1 to 10000000",
        "What machines of one tenant may record at each api process.",
    ),
    Setting("MAX_CONCURRENT_REQUESTS", "100", "a whole number, 1 to 10000", "More are answered OVERLOADED."),
    Setting("WORKER_CONCURRENCY", "twice the CPUs", "a whole number, 1 to 256", "Batches one worker folds at a time."),
    Setting("SHUTDOWN_SECONDS", "8", "a whole number, 1 to 300", "Time to finish work in flight after SIGTERM."),
    Setting("LOG_LEVEL", "INFO", "DEBUG, INFO, WARNING or ERROR", "Log lines below it are dropped."),
    Setting("LOG_FILE", "none", "a file; one process each", "Log lines go there too: 10 MB, 5 backups, 30 days."),
    Setting(
        "LOG_HASH_SECRET",
        "made once in DATA_DIR/log_hash_secret",
        f"at least {SECRET_BYTES_MIN} bytes that are no known example",
        "Key of the hashes that stand for students in log lines; share it, and lines of all processes match.",
        is_secret=True,
    ),
    Setting("TRACE_ENABLED", "false", "true or false", "OpenTelemetry traces: request, commit, fold, push."),
    Setting("TRACE_RATIO", "0.01", "a share from 0 to 1", "Requests traced among those that bring no traceparent."),
    Setting(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "none",
        "an http:// or https:// address",
        "Where traces are sent (OTLP over HTTP, JSON). Unset: they are lines of the log.",
        is_secret=True,
    ),
    Setting(
        "METRICS_PORT",
        "none",
        "a port, 1 to 65534",
        "GET /metrics on a port of its own; a worker's is the one above.",
    ),
    Setting(
        "METRICS_TOKEN",
        "none",
        f"at least {SECRET_BYTES_MIN} bytes that are no known example",
        "Bearer token that GET /metrics asks for; without METRICS_PORT it opens the page on PORT.",
        is_secret=True,
    ),
    Setting(
        "SIGHTLINE_NOW_OFFSET",
        "0",
        "seconds, or a duration such as P3DT2H or -PT1H, at most 3660 days",
        "Moves the clock, for tests of what time alone changes; refused in production.",
    ),
)
_ROWS = {row.name: row for row in TABLE}


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole configuration of one process. `database_url` and `redis_url` are None for the embedded servers."""

    environment: Environment
    host: str
    port: int
    data_dir: Path
    database_url: str | None = field(repr=False)
    redis_url: str | None = field(repr=False)
    pool_size_max: int
    pool_size_idle: int
    pool_lifetime_seconds: int
    jwt_algorithm: Literal["HS256", "RS256"]
    jwt_secret: str | None = field(repr=False)  # None: see signing_secret
    jwks_url: str | None
    jwks_file: Path | None
    jwt_issuer: str | None
    jwt_audience: str | None
    cors_origins: tuple[str, ...]
    documents: Literal["any", "trusted"]
    trusted_documents: tuple[Path, ...]
    http_status_edition: Literal[2025, 2026]
    sign_in_path: str | None
    graphiql: bool
    rate_limit_enabled: bool
    integrator_events_per_second: int
    max_concurrent_requests: int
    worker_concurrency: int
    shutdown_seconds: int
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"]
    log_file: Path | None
    log_hash_secret: str | None = field(repr=False)  # None: see hash_secret
    trace_enabled: bool
    trace_ratio: float
    otel_exporter_otlp_endpoint: str | None
    metrics_port: int | None
    metrics_token: str | None = field(repr=False)
    now_offset: timedelta

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Settings:
        """Read and check every setting; an empty value counts as unset. Raises WrongSetting for the first wrong one."""
        given = Given(environ)
        database_url = given.parsed("DATABASE_URL", postgres_address, None)
        pool_size_max = given.number(
            "POOL_SIZE_MAX", default=50 if database_url else EMBEDDED_POOL_SIZE_MAX, least=1, most=500
        )
        idle_default = min(10, pool_size_max)
        environment: Environment = given.parsed("ENVIRONMENT", environment_name, "development")
        settings = cls(
            environment=environment,
            host=given.parsed("HOST", listen_address, "127.0.0.1"),
            port=given.number("PORT", default=8080, least=1, most=65535),
            data_dir=given.parsed("DATA_DIR", Path, Path(".sightline")),
            database_url=database_url,
            redis_url=given.parsed("REDIS_URL", redis_address, None),
            pool_size_max=pool_size_max,
            pool_size_idle=given.number("POOL_SIZE_IDLE", default=idle_default, least=0, most=pool_size_max),
            pool_lifetime_seconds=given.number("POOL_LIFETIME_SECONDS", default=300, least=10, most=86400),
            jwt_algorithm=given.parsed("JWT_ALGORITHM", algorithm_name, "HS256"),
            jwt_secret=given.parsed("JWT_SECRET", long_secret, None),
            jwks_url=given.parsed("JWKS_URL", https_address, None),
            jwks_file=given.parsed("JWKS_FILE", readable_file, None),
            jwt_issuer=given.text("JWT_ISSUER"),
            jwt_audience=given.text("JWT_AUDIENCE"),
            cors_origins=given.parsed("CORS_ORIGINS", explicit_origins, ()),
            documents=given.parsed("DOCUMENTS", documents_regime, "any"),
            trusted_documents=given.parsed("TRUSTED_DOCUMENTS", readable_places, ()),
            http_status_edition=given.parsed("HTTP_STATUS_EDITION", status_edition, 2025),
            sign_in_path=given.parsed("SIGN_IN_PATH", own_path, None),
            graphiql=given.parsed("GRAPHIQL", switch, environment == "development"),
            rate_limit_enabled=given.parsed("RATE_LIMIT_ENABLED", truth, True),
            integrator_events_per_second=given.number(
                "INTEGRATOR_EVENTS_PER_SECOND", default=10_000, least=1, most=10_000_000
            ),
            max_concurrent_requests=given.number("MAX_CONCURRENT_REQUESTS", default=100, least=1, most=10_000),
            worker_concurrency=given.number(
                "WORKER_CONCURRENCY", default=min(2 * (os.cpu_count() or 1), 256), least=1, most=256
            ),
            shutdown_seconds=given.number("SHUTDOWN_SECONDS", default=8, least=1, most=300),
            log_level=given.parsed("LOG_LEVEL", level_name, "INFO"),
            log_file=given.parsed("LOG_FILE", Path, None),
            log_hash_secret=given.parsed("LOG_HASH_SECRET", long_secret, None),
            trace_enabled=given.parsed("TRACE_ENABLED", truth, False),
            trace_ratio=given.parsed("TRACE_RATIO", share, 0.01),
            otel_exporter_otlp_endpoint=given.parsed("OTEL_EXPORTER_OTLP_ENDPOINT", web_address, None),
            metrics_port=given.parsed("METRICS_PORT", metrics_port, None),
            metrics_token=given.parsed("METRICS_TOKEN", long_secret, None),
            now_offset=given.parsed("SIGHTLINE_NOW_OFFSET", clock_offset, timedelta()),
        )
        settings._check_together()
        return settings

    @property
    def is_production(self) -> bool:
        return self.environment == "production"

    def signing_secret(self) -> str:
        """The HS256 key: JWT_SECRET, or in development one that is made once and kept in the data folder."""
        if self.jwt_secret is not None:
            return self.jwt_secret
        if self.is_production:
            raise WrongSetting("JWT_SECRET", _ROWS["JWT_SECRET"].expects, "nothing")
        return kept_secret(self.data_dir / "jwt_secret")

    def hash_secret(self) -> str:
        """The key of the hashes in log lines: LOG_HASH_SECRET, or one that is made once and kept in the data folder."""
        return self.log_hash_secret or kept_secret(self.data_dir / "log_hash_secret")

    def _check_together(self) -> None:
        if self.jwt_algorithm == "RS256" and (self.jwks_url is None) == (self.jwks_file is None):
            raise WrongSetting("JWKS_URL", "either it or JWKS_FILE to be set with JWT_ALGORITHM=RS256", "both or none")
        if not self.is_production:
            return
        needed = {"DATABASE_URL": self.database_url, "REDIS_URL": self.redis_url}
        if self.jwt_algorithm == "HS256":
            needed["JWT_SECRET"] = self.jwt_secret
        for name, value in needed.items():
            if value is None:
                raise WrongSetting(name, f"{_ROWS[name].expects} in production", "nothing")
        if urlsplit(self.database_url or "").password in KNOWN_PASSWORDS:
            raise WrongSetting("DATABASE_URL", "a password of its own in production", "a well-known password")
        if self.jwks_url is not None and not self.jwks_url.startswith("https://"):
            raise WrongSetting("JWKS_URL", "an https:// address in production", "another scheme")
        if self.now_offset:
            raise WrongSetting("SIGHTLINE_NOW_OFFSET", "not to be set in production", "a moved clock")


class Given:
    """What the environment holds, handed out by name, with the table's words in every refusal."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def text(self, name: str) -> str | None:
        return self._environ.get(name, "").strip() or None

    def parsed(self, name: str, parse: Callable[[str], T], default: T | None) -> T:
        """`parse` raises ValueError, whose words are shown for secrets instead of the value."""
        value = self.text(name)
        if value is None:
            return default  # type: ignore[return-value] # the caller's default has the field's type
        try:
            return parse(value)
        except ValueError as why:
            row = _ROWS[name]
            raise WrongSetting(name, row.expects, str(why) if row.is_secret else repr(value[:100])) from None

    def number(self, name: str, *, default: int, least: int, most: int) -> int:
        def within(value: str) -> int:
            if not re.fullmatch(r"\d{1,9}", value, re.ASCII) or not least <= int(value) <= most:
                raise ValueError(value)
            return int(value)

        return self.parsed(name, within, default)


def kept_secret(path: Path) -> str:
    """The secret in this file (mode 0600), made on first use; processes that start together agree on one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        fresh = path.with_name(f"{path.name}.{os.getpid()}")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(48))
        try:
            os.link(fresh, path)  # whole or not at all, and the first one wins
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
    return path.read_text().strip()


def table_markdown() -> str:
    """The settings as the table of README."""
    lines = ["| Setting | Default | Expects | What it is for |", "|---|---|---|---|"]
    lines += [f"| `{row.name}` | {row.default} | {row.expects} | {row.about} |" for row in TABLE]
    return "\n".join(lines) + "\n"


def field_names() -> list[str]:
    """Names of the fields of Settings, in order: the house test holds the table against them."""
    return [found.name for found in fields(Settings)]
