"""What a setting may be: each text of the environment becomes a value here, or ValueError says why not."""

import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

SECRET_BYTES_MIN = 32  # HS256 is as strong as its key, and RFC 7518 asks for the size of the hash
# Secrets that stand in examples everywhere; all long enough to pass the check of their size.
KNOWN_SECRETS = frozenset(
    {
        "your-256-bit-secret-your-256-bit-secret",
        "your-super-secret-jwt-key-change-in-production",
        "change-me-in-production-change-me-in-production",
        "development-only-secret-never-use-in-production",
        "super-secret-jwt-token-with-at-least-32-characters-long",
    }
)
KNOWN_PASSWORDS = frozenset({"postgres", "password", "sightline", "changeme", "secret", "admin"})
SECRET_DISTINCT_MIN = 8  # "aaaa…" is long and no secret

ISO_DURATION = re.compile(
    r"(?P<sign>[+-]?)P(?!$)(?:(?P<weeks>\d+)W)?(?:(?P<days>\d+)D)?"
    r"(?:T(?!$)(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?(?:(?P<seconds>\d+)S)?)?"
)
NOW_OFFSET_MAX = timedelta(days=3660)

Environment = Literal["development", "production"]


def environment_name(value: str) -> Environment:
    match value:
        case "development" | "production" as name:
            return name
    raise ValueError(value)


def algorithm_name(value: str) -> Literal["HS256", "RS256"]:
    match value:
        case "HS256" | "RS256" as name:
            return name
    raise ValueError(value)


def level_name(value: str) -> Literal["DEBUG", "INFO", "WARNING", "ERROR"]:
    match value.upper():
        case "DEBUG" | "INFO" | "WARNING" | "ERROR" as level:
            return level
    raise ValueError(value)


def documents_regime(value: str) -> Literal["any", "trusted"]:
    match value:
        case "any" | "trusted" as name:
            return name
    raise ValueError(value)


def status_edition(value: str) -> Literal[2025, 2026]:
    match value:
        case "2025":
            return 2025
        case "2026":
            return 2026
    raise ValueError(value)


def listen_address(value: str) -> str:
    if not re.fullmatch(r"[0-9A-Za-z.:\[\]-]{1,253}", value):
        raise ValueError(value)
    return value


def postgres_address(value: str) -> str:
    # No value in the words below: it carries a password.
    parts = urlsplit(value)
    if parts.scheme not in {"postgresql", "postgres"}:
        raise ValueError("another scheme")
    if not (parts.hostname or "host=" in parts.query):
        raise ValueError("no host")
    if len(parts.path) < 2:
        raise ValueError("no database name")
    return value


def redis_address(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"redis", "rediss", "unix"}:
        raise ValueError("another scheme")
    if not (parts.path if parts.scheme == "unix" else parts.hostname):
        raise ValueError("no address")
    return value


def long_secret(value: str) -> str:
    size = len(value.encode())
    if size < SECRET_BYTES_MIN:
        raise ValueError(f"{size} bytes")
    if value in KNOWN_SECRETS or len(set(value)) < SECRET_DISTINCT_MIN:
        raise ValueError("a known or trivial one")
    return value


def https_address(value: str) -> str:
    parts = urlsplit(value)
    is_local = parts.scheme == "http" and parts.hostname in {"127.0.0.1", "localhost", "::1"}
    if not parts.hostname or not (parts.scheme == "https" or is_local):
        raise ValueError(value)
    return value


def web_address(value: str) -> str:
    parts = urlsplit(value)
    # No value in the words below: it may carry a password.
    if not parts.hostname or parts.scheme not in {"http", "https"}:
        raise ValueError("another scheme, or no host")
    if parts.username is not None:
        raise ValueError("an address with a name or password")
    return value


def truth(value: str) -> bool:
    match value.lower():
        case "true" | "1":
            return True
        case "false" | "0":
            return False
    raise ValueError(value)


def own_path(value: str) -> str:
    if not re.fullmatch(r"/[\w.~-][\w.~/-]{0,200}", value, re.ASCII):
        raise ValueError(value)
    return value


def switch(value: str) -> bool:
    match value.lower():
        case "on":
            return True
        case "off":
            return False
    raise ValueError(value)


def share(value: str) -> float:
    if not re.fullmatch(r"0(\.\d{1,9})?|1(\.0{1,9})?", value, re.ASCII):
        raise ValueError(value)
    return float(value)


def metrics_port(value: str) -> int:
    if not re.fullmatch(r"\d{1,5}", value, re.ASCII) or not 1 <= int(value) <= 65534:
        raise ValueError(value)
    return int(value)


def readable_file(value: str) -> Path:
    path = Path(value)
    if not path.is_file() or not os.access(path, os.R_OK):
        raise ValueError(value)
    return path


def readable_places(value: str) -> tuple[Path, ...]:
    """Folders and files that are there, each named once."""
    places = tuple(dict.fromkeys(Path(part.strip()) for part in value.split(",") if part.strip()))
    for place in places:
        if not (place.is_dir() or place.is_file()) or not os.access(place, os.R_OK):
            raise ValueError(str(place))
    return places


def explicit_origins(value: str) -> tuple[str, ...]:
    origins = tuple(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))
    for origin in origins:
        parts = urlsplit(origin)
        if f"{parts.scheme}://{parts.netloc}" != origin or parts.scheme not in {"http", "https"} or "*" in origin:
            raise ValueError(origin)
        if not parts.hostname or parts.username is not None:
            raise ValueError(origin)
    return origins


def clock_offset(value: str) -> timedelta:
    if re.fullmatch(r"[+-]?\d{1,9}", value, re.ASCII):
        offset = timedelta(seconds=int(value))
    else:
        found = ISO_DURATION.fullmatch(value)
        if found is None or len(value) > 40:
            raise ValueError(value)
        parts = {name: int(part) for name, part in found.groupdict().items() if name != "sign" and part}
        try:
            offset = timedelta(**parts) * (-1 if found["sign"] == "-" else 1)
        except OverflowError as too_far:
            raise ValueError(value) from too_far
    if abs(offset) > NOW_OFFSET_MAX:
        raise ValueError(value)
    return offset
