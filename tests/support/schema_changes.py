"""What a change of the schema does to clients of the last release, and whether CHANGELOG.md tells them."""

import re
from pathlib import Path

from graphql import GraphQLSchema, build_schema, find_breaking_changes, find_dangerous_changes

HEADING = re.compile(r"^## (?P<version>\d+\.\d+\.\d+) \((?P<date>[^)]+)\)$", re.MULTILINE)
UNRELEASED = "unreleased"
BREAKING = "- **Breaking:** "


def released(changelog: str) -> list[str]:
    """The versions that are out, newest first."""
    return [found["version"] for found in HEADING.finditer(changelog) if found["date"] != UNRELEASED]


def newest_section(changelog: str) -> str:
    """What CHANGELOG.md says of the version that is being made."""
    _, *parts = HEADING.split(changelog)
    version, date, text = parts[:3]
    assert date == UNRELEASED, f"CHANGELOG.md has no section for what comes after {version}"
    return text


def last_release(folder: Path) -> Path | None:
    """The newest SDL that a release has left."""
    return max(
        folder.glob("*.graphql"), key=lambda path: tuple(int(part) for part in path.stem.split(".")), default=None
    )


def undescribed(old: str, new: str, section: str) -> list[str]:
    """Changes that can break a client and that `section` does not name, each in words.

    A breaking change needs a line that begins with `- **Breaking:** ` and names its coordinate in backticks; one that
    is merely dangerous (a new enum value, an optional argument) needs to be named at all.
    """
    before, after = build_schema(old), build_schema(new)
    lines = [line for line in section.splitlines() if line.startswith(BREAKING)]
    told = {
        **{change.description: "\n".join(lines) for change in find_breaking_changes(before, after)},
        **{change.description: section for change in find_dangerous_changes(before, after)},
    }
    return [words for words, where in told.items() if f"`{_coordinate(words, before, after)}`" not in where]


def _number(path: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in path.stem.split("."))


def _coordinate(words: str, *schemas: GraphQLSchema) -> str:
    """The first thing of either schema that the words name, as `Type.field(argument:)`."""
    types = {name for schema in schemas for name in schema.type_map} | {
        directive.name for schema in schemas for directive in schema.directives
    }
    for word in words.split():
        named = word.rstrip(".")
        if re.split(r"[.(]", named.lstrip("@"))[0] in types:
            return named
    raise AssertionError(f"no coordinate in {words!r}")
