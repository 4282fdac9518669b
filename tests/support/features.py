"""Features and their tests: holds docs/features.md against the `feature` markers of the tests.

`python -m tests.support.features` prints every row with its tests; `--write` rewrites the tests column.
"""

import argparse
import ast
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "features.md"
TESTS = ROOT / "tests"
STATES = ("done", "partly", "open")
ROW = re.compile(
    r"^\| (?P<row>(?:\d{3}|X)-\d+|C\d+|[A-J]) \| (?P<name>[^|]*) \| (?P<state>[^|]*) \| ?(?P<tests>[^|]*)\|$"
)


@dataclass(frozen=True, slots=True)
class Feature:
    """One row of docs/features.md; `tests` are `path::name` below tests/, sorted."""

    row: str
    name: str
    state: str
    tests: tuple[str, ...]

    def line(self) -> str:
        shown = "<br>".join(f"`{test}`" for test in self.tests)
        return f"| {self.row} | {self.name} | {self.state} | {shown} |"


def marked_tests(folder: Path = TESTS) -> dict[str, tuple[str, ...]]:
    """The tests of each row, by reading the sources: nothing is imported, so a broken test is listed too."""
    found: dict[str, set[str]] = {}
    for path in sorted(folder.rglob("test_*.py")):
        for row, name in marks_of(ast.parse(path.read_text())):
            found.setdefault(row, set()).add(f"{path.relative_to(folder).as_posix()}::{name}")
    return {row: tuple(sorted(tests)) for row, tests in found.items()}


def marks_of(module: ast.Module) -> Iterator[tuple[str, str]]:
    """(row, test) pairs of functions, of classes and of a module's `pytestmark`, which mark all tests in them."""
    of_module = [row for statement in module.body if is_pytestmark(statement) for row in rows_in(statement)]
    yield from marks_in(module.body, of_module, prefix="")


def marks_in(body: Iterable[ast.stmt], inherited: list[str], prefix: str) -> Iterator[tuple[str, str]]:
    for node in body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        rows = inherited + [row for decorator in node.decorator_list for row in rows_in(decorator)]
        if isinstance(node, ast.ClassDef):
            yield from marks_in(node.body, rows, prefix=f"{node.name}::")
        elif node.name.startswith("test_"):
            yield from ((row, prefix + node.name) for row in rows)


def is_pytestmark(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Assign) and any(
        isinstance(target, ast.Name) and target.id == "pytestmark" for target in statement.targets
    )


def rows_in(tree: ast.AST) -> list[str]:
    """Arguments of every `pytest.mark.feature(...)` in here, also inside pytest.param(..., marks=...)."""
    return [
        argument.value
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "pytest.mark.feature"
        for argument in call.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    ]


def documented(text: str) -> list[Feature]:
    """The rows of the document, in order."""
    return [
        Feature(
            match["row"], match["name"].strip(), match["state"].strip(), tuple(re.findall(r"`([^`]+)`", match["tests"]))
        )
        for match in map(ROW.match, text.splitlines())
        if match
    ]


def tests_in(cell: str) -> tuple[str, ...]:
    return tuple(re.findall(r"`([^`]+)`", cell))


def rewritten(text: str, marked: dict[str, tuple[str, ...]]) -> str:
    """The document with its tests column filled from the markers, all else unchanged."""
    lines = []
    for line in text.splitlines():
        rows = documented(line)
        lines.append(replace(rows[0], tests=marked.get(rows[0].row, ())).line() if rows else line)
    return "\n".join(lines) + "\n"


def complaints(features: list[Feature], marked: dict[str, tuple[str, ...]]) -> list[str]:
    """What is wrong between the document and the tests, one sentence each."""
    known = Counter(feature.row for feature in features)
    wrong = [f"{row} is listed {count} times" for row, count in known.items() if count > 1]
    wrong += [
        f"{row} is marked by {tests[0]} but is no row" for row, tests in sorted(marked.items()) if row not in known
    ]
    for feature in features:
        if feature.state not in STATES:
            wrong.append(f"{feature.row} has state {feature.state!r}, not one of {', '.join(STATES)}")
        if feature.state == "done" and not marked.get(feature.row):
            wrong.append(f"{feature.row} is called done but no test is marked with it")
        if feature.tests != marked.get(feature.row, ()):
            wrong.append(f"{feature.row}: the tests column is stale, run python -m tests.support.features --write")
    return wrong


def report(features: list[Feature], marked: dict[str, tuple[str, ...]]) -> str:
    lines = []
    for feature in features:
        lines.append(f"{feature.row:7} {feature.state:6} {feature.name}")
        lines += [f"{'':15}{test}" for test in marked.get(feature.row, ())]
    states = Counter(feature.state for feature in features)
    lines.append(", ".join(f"{states[state]} {state}" for state in STATES))
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.support.features", description=__doc__)
    parser.add_argument("--write", action="store_true", help="rewrite the tests column of docs/features.md")
    asked = parser.parse_args(arguments)
    marked = marked_tests()
    if asked.write:
        DOCUMENT.write_text(rewritten(DOCUMENT.read_text(), marked))
    features = documented(DOCUMENT.read_text())
    print(report(features, marked))
    wrong = complaints(features, marked)
    for sentence in wrong:
        print(sentence, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
