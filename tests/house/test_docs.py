"""What the documents say is so: their queries are valid, their commands exist, their tables are those of the code."""

import argparse
import re
from pathlib import Path

import pytest
from graphql import parse, validate

from graph.access import core_of
from graph.schema import schema
from server.commands import parser
from server.demo_school import SHOWN_CLASSROOM, student_key, work_key
from server.settings import TABLE, table_markdown

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
ARCHITECTURE = ROOT / "docs" / "architecture.md"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
ROOMS = ("server", "graph", "jobs", "db", "rules")
BLOCK = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|#|mailto:)(?P<path>[^)#\s]+)")
SERVER_COMMAND = re.compile(r"python -m server (?P<words>[^\n`|#]+)")
MAKE_COMMAND = re.compile(r"(?:^|`|[A-Z]=\S+ )make (?P<target>[a-z-]+)", re.MULTILINE)
# Whoever reads this may be anywhere: no folder of some machine, no address of some network.
PLACES = re.compile(
    r"(?<![\w.])/(?:work|home|root|Users|tmp)/"
    r"|\b(?:10|192\.168|172\.(?:1[6-9]|2\d|3[01]))(?:\.\d+){2,3}\b"
)

of_each = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def blocks(path: Path, language: str) -> list[str]:
    return [found["text"] for found in BLOCK.finditer(path.read_text()) if found["language"] == language]


def graphql_blocks() -> list[tuple[str, str]]:
    return [(str(path.relative_to(ROOT)), text) for path in DOCUMENTS for text in blocks(path, "graphql")]


def commands() -> dict[str, argparse.ArgumentParser]:
    (found,) = (action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    return dict(found.choices)


@pytest.mark.parametrize(("name", "text"), graphql_blocks())
def test_every_graphql_block_is_valid_against_the_schema(name: str, text: str) -> None:
    assert [error.message for error in validate(core_of(schema), parse(text))] == []


def test_readme_shows_a_query_a_mutation_and_a_subscription() -> None:
    shown = [parse(text).definitions[0] for text in blocks(README, "graphql")]

    kinds = [definition.operation.value for definition in shown]  # type: ignore[attr-defined]
    assert kinds == ["query", "mutation", "subscription"]


def test_the_keys_in_readme_are_those_of_the_demo() -> None:
    quoted = set(re.findall(r'"(7b[^"]*)"', "".join(blocks(README, "graphql"))))

    assert quoted == {SHOWN_CLASSROOM, student_key(SHOWN_CLASSROOM, 1), work_key(SHOWN_CLASSROOM, 0)}


@pytest.mark.feature("001-38")
def test_the_settings_table_of_readme_is_that_of_the_code() -> None:
    between = re.search(r"<!-- settings: [^>]*-->\n(.*?)<!-- end of settings -->", README.read_text(), re.DOTALL)

    assert between is not None
    assert between[1] == table_markdown(), "README is stale: python -m server settings --markdown"
    assert table_markdown().count("\n") == len(TABLE) + 2


@of_each
def test_every_command_named_exists_with_its_options(path: Path) -> None:
    known = commands()
    for found in SERVER_COMMAND.finditer(path.read_text()):
        name, *rest = found["words"].split()
        if name == "…":  # any of them
            continue
        if name.startswith("-"):
            assert name == "--help"
            continue
        for each in name.split("|"):
            assert each in known, found[0]
        options = {option for action in known[name]._actions for option in action.option_strings}
        assert {word for word in rest if word.startswith("--")} <= options, found[0]


@of_each
def test_every_make_target_named_exists(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    assert {found["target"] for found in MAKE_COMMAND.finditer(path.read_text())} - targets == set()


@of_each
def test_every_link_leads_somewhere(path: Path) -> None:
    lost = [found["path"] for found in LINK.finditer(path.read_text()) if not (path.parent / found["path"]).exists()]

    assert lost == []


@of_each
def test_no_document_names_a_place_on_some_machine(path: Path) -> None:
    assert [found[0] for found in PLACES.finditer(path.read_text())] == []


def test_every_file_of_a_room_has_its_line_in_the_architecture() -> None:
    listed = set(re.findall(r"^\| `((?:\w+/)+\w+\.py)` \|", ARCHITECTURE.read_text(), re.MULTILINE))
    built = {
        str(path.relative_to(ROOT))
        for room in (*ROOMS, "server/pages")
        for path in (ROOT / room).glob("*.py")
        if path.name != "__init__.py"
    }

    assert sorted(built - listed) == [], "add a line to the rooms table of docs/architecture.md"
    assert sorted(listed - built) == [], "docs/architecture.md names files that are gone"


def test_every_test_that_a_document_names_is_there() -> None:
    named = {
        (str(path.relative_to(ROOT)), found)
        for path in DOCUMENTS
        if path.name != "features.md"  # its own house test
        for found in re.findall(r"`(tests/[\w./]+)`", path.read_text())
    }

    assert [(path, found) for path, found in sorted(named) if not (ROOT / found).exists()] == []
