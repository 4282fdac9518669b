"""Settings: read once, refused with name and expectation, and never showing a secret."""

import stat
from datetime import timedelta
from pathlib import Path

import pytest

from server.setting_values import KNOWN_SECRETS
from server.settings import TABLE, Settings, WrongSetting, field_names

SECRET = "correct horse battery staple, 32+ bytes"
PRODUCTION = {
    "ENVIRONMENT": "production",
    "DATABASE_URL": "postgresql://sight:Zq8-long-one@db:5432/sightline",
    "REDIS_URL": "redis://cache:6379/0",
    "JWT_SECRET": SECRET,
}


def test_an_empty_environment_is_a_development_machine() -> None:
    settings = Settings.read({})

    assert (settings.environment, settings.host, settings.port) == ("development", "127.0.0.1", 8080)
    assert (settings.database_url, settings.redis_url, settings.data_dir) == (None, None, Path(".sightline"))
    assert (settings.pool_size_max, settings.pool_size_idle, settings.pool_lifetime_seconds) == (20, 10, 300)
    assert (settings.shutdown_seconds, settings.max_concurrent_requests) == (8, 100)
    assert settings.now_offset == timedelta()
    assert (settings.rate_limit_enabled, settings.integrator_events_per_second) == (True, 10_000)
    assert (settings.documents, settings.trusted_documents, settings.http_status_edition) == ("any", (), 2025)


@pytest.mark.feature("003-44")
def test_a_database_of_its_own_gets_fifty_connections_ten_idle_for_five_minutes() -> None:
    settings = Settings.read(PRODUCTION)

    assert (settings.pool_size_max, settings.pool_size_idle, settings.pool_lifetime_seconds) == (50, 10, 300)


def test_a_pool_smaller_than_the_idle_default_keeps_no_more_than_it_has() -> None:
    assert Settings.read({"POOL_SIZE_MAX": "3"}).pool_size_idle == 3


def test_an_empty_value_counts_as_unset() -> None:
    assert Settings.read({"PORT": "", "DATABASE_URL": " "}) == Settings.read({})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "0"),
        ("PORT", "65536"),
        ("PORT", "80a"),
        ("PORT", "٨٠٨٠"),
        ("ENVIRONMENT", "prod"),
        ("HOST", "a b"),
        ("DATABASE_URL", "mysql://u:hunter2@h/db"),
        ("DATABASE_URL", "postgresql+asyncpg://u:hunter2@h/db"),
        ("DATABASE_URL", "postgresql://u:hunter2@h"),
        ("DATABASE_URL", "postgresql:///db"),
        ("REDIS_URL", "http://:hunter2@h"),
        ("REDIS_URL", "unix://"),
        ("JWT_SECRET", "hunter2"),
        ("JWT_SECRET", "hunter2" + "2" * 40),
        ("JWT_ALGORITHM", "none"),
        ("JWT_ALGORITHM", "HS384"),
        ("JWKS_URL", "http://keys.example/jwks"),
        ("JWKS_FILE", "/no/such/file"),
        ("CORS_ORIGINS", "*"),
        ("CORS_ORIGINS", "https://a.example,*"),
        ("CORS_ORIGINS", "https://*.example"),
        ("CORS_ORIGINS", "https://a.example/path"),
        ("CORS_ORIGINS", "null"),
        ("POOL_SIZE_MAX", "0"),
        ("POOL_SIZE_IDLE", "21"),
        ("POOL_LIFETIME_SECONDS", "-1"),
        ("DOCUMENTS", "some"),
        ("TRUSTED_DOCUMENTS", "/no/such/folder"),
        ("HTTP_STATUS_EDITION", "2024"),
        ("RATE_LIMIT_ENABLED", "sometimes"),
        ("INTEGRATOR_EVENTS_PER_SECOND", "0"),
        ("MAX_CONCURRENT_REQUESTS", "1e3"),
        ("WORKER_CONCURRENCY", "257"),
        ("SHUTDOWN_SECONDS", "0"),
        ("LOG_LEVEL", "LOUD"),
        ("LOG_HASH_SECRET", "hunter2"),
        ("TRACE_ENABLED", "perhaps"),
        ("TRACE_RATIO", "1.5"),
        ("TRACE_RATIO", "-0.1"),
        ("TRACE_RATIO", "nan"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://u:hunter2@collector:4318"),
        ("METRICS_PORT", "65535"),
        ("METRICS_PORT", "0"),
        ("METRICS_TOKEN", "hunter2"),
        ("SIGHTLINE_NOW_OFFSET", "tomorrow"),
        ("SIGHTLINE_NOW_OFFSET", "P"),
        ("SIGHTLINE_NOW_OFFSET", "PT"),
        ("SIGHTLINE_NOW_OFFSET", "P99999D"),
        ("SIGHTLINE_NOW_OFFSET", "P99999999999999999999D"),
    ],
)
def test_a_wrong_setting_is_refused_by_name_with_what_it_expects(name: str, value: str) -> None:
    with pytest.raises(WrongSetting) as refused:
        Settings.read({name: value})

    expects = {row.name: row.expects for row in TABLE}[name]
    assert (refused.value.name, refused.value.expected) == (name, expects)
    assert str(refused.value).startswith(f"{name} expects {expects}; got ")
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("missing", ["DATABASE_URL", "REDIS_URL", "JWT_SECRET"])
def test_production_refuses_to_start_without_its_own_servers_and_secret(missing: str) -> None:
    with pytest.raises(WrongSetting, match=f"^{missing} expects .* in production; got nothing$"):
        Settings.read({name: value for name, value in PRODUCTION.items() if name != missing})


@pytest.mark.parametrize("secret", sorted(KNOWN_SECRETS))
def test_a_secret_out_of_a_textbook_is_refused(secret: str) -> None:
    with pytest.raises(WrongSetting, match=r"^JWT_SECRET expects .*; got a known or trivial one$"):
        Settings.read(PRODUCTION | {"JWT_SECRET": secret})


def test_production_refuses_a_well_known_database_password_and_a_moved_clock() -> None:
    with pytest.raises(WrongSetting, match="DATABASE_URL"):
        Settings.read(PRODUCTION | {"DATABASE_URL": "postgresql://postgres:postgres@db/sightline"})
    with pytest.raises(WrongSetting, match="SIGHTLINE_NOW_OFFSET"):
        Settings.read(PRODUCTION | {"SIGHTLINE_NOW_OFFSET": "1"})


def test_rs256_needs_its_public_keys_from_exactly_one_place(tmp_path: Path) -> None:
    keys = tmp_path / "jwks.json"
    keys.write_text("{}")
    with pytest.raises(WrongSetting, match="JWKS_URL"):
        Settings.read({"JWT_ALGORITHM": "RS256"})
    with pytest.raises(WrongSetting, match="JWKS_URL"):
        Settings.read({"JWT_ALGORITHM": "RS256", "JWKS_FILE": str(keys), "JWKS_URL": "https://id.example/jwks"})

    assert Settings.read({"JWT_ALGORITHM": "RS256", "JWKS_FILE": str(keys)}).jwks_file == keys


@pytest.mark.parametrize(
    ("value", "offset"),
    [
        ("90", timedelta(seconds=90)),
        ("-90", timedelta(seconds=-90)),
        ("P3DT2H", timedelta(days=3, hours=2)),
        ("-PT1H", timedelta(hours=-1)),
        ("P1W", timedelta(days=7)),
    ],
)
def test_the_clock_moves_by_seconds_or_by_a_duration(value: str, offset: timedelta) -> None:
    assert Settings.read({"SIGHTLINE_NOW_OFFSET": value}).now_offset == offset


def test_origins_are_listed_one_by_one() -> None:
    settings = Settings.read({"CORS_ORIGINS": "https://a.example, http://localhost:5173,https://a.example"})

    assert settings.cors_origins == ("https://a.example", "http://localhost:5173")


def test_the_development_secret_is_made_once_and_only_for_its_owner(tmp_path: Path) -> None:
    settings = Settings.read({"DATA_DIR": str(tmp_path / "data")})

    secret = settings.signing_secret()

    assert len(secret.encode()) >= 32
    assert Settings.read({"DATA_DIR": str(tmp_path / "data")}).signing_secret() == secret
    assert stat.S_IMODE((tmp_path / "data" / "jwt_secret").stat().st_mode) == 0o600
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["jwt_secret"]


def test_no_secret_shows_when_settings_are_printed() -> None:
    shown = repr(Settings.read(PRODUCTION))

    assert SECRET not in shown
    assert "Zq8-long-one" not in shown


def test_the_table_documents_every_setting_and_no_other() -> None:
    assert sorted(row.field_name for row in TABLE) == sorted(field_names())
