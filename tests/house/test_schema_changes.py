"""Clients of the last release read in CHANGELOG.md what will break them, or it does not land."""

from pathlib import Path

import pytest

from tests.support.schema_changes import last_release, newest_section, released, undescribed

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "docs" / "releases"
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()

OLD = """
type Query { pupil(id: ID!): Pupil  one: Int }
type Pupil implements Named { name: String!  level: Level }
interface Named { name: String! }
enum Level { LOW HIGH }
input Note { text: String }
type Mutation { write(note: Note): Int }
"""
CHANGES = {
    "a field goes": ("one: Int", "", "Field Query.one was removed.", "Query.one"),
    "a type changes": (
        "name: String!  level", "name: String  level", "Field Pupil.name changed type from String! to String.",
        "Pupil.name"),
    "an argument is needed": (
        "pupil(id: ID!)", "pupil(id: ID!, day: Int!)", "A required argument Query.pupil(day:) was added.",
        "Query.pupil(day:)"),
    "a value goes": ("LOW HIGH", "HIGH", "Enum value Level.LOW was removed.", "Level.LOW"),
    "a part of an input is needed": (
        "text: String", "text: String  by: ID!", "A required field Note.by was added.", "Note.by"),
    "an interface goes": ("implements Named", "", "Pupil no longer implements interface Named.", "Pupil"),
}  # fmt: skip


@pytest.mark.parametrize("case", CHANGES)
def test_a_breaking_change_needs_a_line_that_names_it(case: str) -> None:
    before, after, words, coordinate = CHANGES[case]
    new = OLD.replace(before, after)

    assert words in undescribed(OLD, new, "")
    assert words in undescribed(OLD, new, f"- `{coordinate}` is better now.\n")
    assert words not in undescribed(OLD, new, f"- **Breaking:** `{coordinate}` is another thing; use the new one.\n")


def test_a_new_value_of_an_enum_needs_to_be_named_and_a_new_field_does_not() -> None:
    new = OLD.replace("LOW HIGH", "LOW HIGH HIGHEST").replace("one: Int", "one: Int  two: Int")

    assert undescribed(OLD, new, "") == ["Enum value Level.HIGHEST was added."]
    assert undescribed(OLD, new, "- `Level.HIGHEST` is new.\n") == []
    assert undescribed(OLD, OLD, "") == []


def test_versions_are_read_from_the_headings() -> None:
    text = (
        "# Changelog\n\n## 0.3.0 (unreleased)\nNew.\n\n## 0.2.0 (2026-12-01)\nOld.\n\n## 0.1.0 (2026-11-20)\nOlder.\n"
    )

    assert released(text) == ["0.2.0", "0.1.0"]
    assert newest_section(text).strip() == "New."


def test_the_last_release_is_the_highest_number_not_the_last_in_the_alphabet(tmp_path: Path) -> None:
    for version in ("0.9.0", "0.10.0", "0.2.11"):
        (tmp_path / f"{version}.graphql").write_text(OLD)

    assert last_release(tmp_path) == tmp_path / "0.10.0.graphql"
    assert last_release(tmp_path / "none") is None


def test_every_release_has_left_its_schema() -> None:
    assert released(CHANGELOG) == [
        version for version in released(CHANGELOG) if (KEPT / f"{version}.graphql").is_file()
    ], "a release commits schema.graphql as docs/releases/<version>.graphql"


@pytest.mark.feature("002-11")
def test_nothing_breaks_clients_of_the_last_release_without_a_line_in_the_changelog() -> None:
    last = last_release(KEPT)
    assert last is not None

    assert undescribed(last.read_text(), (ROOT / "schema.graphql").read_text(), newest_section(CHANGELOG)) == []
