"""docs/features.md is in step with the markers of the tests, and the tool that says so tells the truth."""

import ast

from tests.support.features import DOCUMENT, complaints, documented, marked_tests, marks_of, rewritten

SOURCE = """
import pytest
pytestmark = [pytest.mark.feature("000-01")]

@pytest.mark.feature("000-02", "C5")
async def test_once(): ...

class TestBoth:
    @pytest.mark.feature("A")
    def test_inner(self): ...

def helper(): ...
"""


def test_the_document_names_exactly_the_tests_that_are_marked() -> None:
    text = DOCUMENT.read_text()

    assert complaints(documented(text), marked_tests()) == []
    assert rewritten(text, marked_tests()) == text


def test_every_row_of_the_specification_is_listed_once() -> None:
    rows = [feature.row for feature in documented(DOCUMENT.read_text())]

    assert len(rows) == len(set(rows)) == 241  # 177 of the sources, 16 rulings, 10 definitions, 38 of our own


def test_markers_of_functions_classes_and_modules_count() -> None:
    assert sorted(marks_of(ast.parse(SOURCE))) == [
        ("000-01", "TestBoth::test_inner"),
        ("000-01", "test_once"),
        ("000-02", "test_once"),
        ("A", "TestBoth::test_inner"),
        ("C5", "test_once"),
    ]


def test_a_done_row_without_a_test_an_unknown_row_and_a_stale_column_are_told() -> None:
    features = documented(
        "| 000-01 | Record | done |  |\n| 000-02 | Once | done | `a.py::t` |\n| 000-03 | Say | finished |  |"
    )

    told = complaints(features, {"000-02": ("a.py::t", "b.py::t"), "999-99": ("c.py::t",)})

    assert told == [
        "999-99 is marked by c.py::t but is no row",
        "000-01 is called done but no test is marked with it",
        "000-02: the tests column is stale, run python -m tests.support.features --write",
        "000-03 has state 'finished', not one of done, partly, open",
    ]
