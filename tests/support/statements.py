"""Every SQL statement of the product, found by reading `db/`, and what its text says about tenants."""

import ast
import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from db.tables import TENANT_TABLES

DB = Path(__file__).parents[2] / "db"
VERBS = ("select", "insert", "update", "delete", "with")
ASKING = frozenset(
    {"execute", "executemany", "fetch", "fetchrow", "fetchval", "cursor", "prepare", "copy_records_to_table"}
)
_SUBQUERY = re.compile(r"\(\s*(?:select|insert|update|delete|with)\b")
_COMMENT = re.compile(r"--[^\n]*")
_TEXT = re.compile(r"'(?:[^']|'')*'")
_FROM = re.compile(
    r"\b(?:from|using)\b(.*?)"
    r"(?=\bwhere\b|\bgroup by\b|\border by\b|\blimit\b|\breturning\b|\bon conflict\b|\bfor\b|\boffset\b|$)",
    re.DOTALL,
)
_TARGET = re.compile(r"\b(?:insert into|update|delete from)\s+(\w+)(?:\s+(?!set\b|where\b|using\b)(\w+))?")
_INSERT = re.compile(r"insert into (\w+)\s*\(\s*(\w+)[^)]*\)\s*(?:select(?:\s+distinct)?|values\s*\()\s*(\$?\w+)")
_SETS = re.compile(r"\b(?:union all|union|except|intersect)\b")


@dataclass(frozen=True, slots=True)
class Asked:
    """One place where a statement is sent: its text as code, as far as it is no constant of the module."""

    module: str
    line: int
    argument: str


def _trees() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(DB.glob("*.py")):
        yield path.stem, ast.parse(path.read_text())


def statements() -> dict[str, str]:
    """Every public constant of a module of db/ that is a statement, by `module.NAME`."""
    found = {}
    for stem, tree in _trees():
        for name in _constants(tree):
            text = getattr(importlib.import_module(f"db.{stem}"), name)
            if isinstance(text, str) and plain(text).startswith(VERBS):
                found[f"{stem}.{name}"] = text
    return found


def _constants(tree: ast.Module) -> list[str]:
    return [
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name) and target.id.isupper() and not target.id.startswith("_")
    ]


def asked_otherwise() -> Iterator[Asked]:
    """The places where db/ sends something that is not plainly one of its constants."""
    known = statements()
    for stem, tree in _trees():
        for call in ast.walk(tree):
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute) or not call.args:
                continue
            if call.func.attr not in ASKING:
                continue
            argument = call.args[0]
            chosen = [argument.body, argument.orelse] if isinstance(argument, ast.IfExp) else [argument]
            if not all(isinstance(one, ast.Name) and f"{stem}.{one.id}" in known for one in chosen):
                yield Asked(stem, call.lineno, ast.unparse(argument))


def plain(statement: str) -> str:
    """Without comments and texts, in one case."""
    return _TEXT.sub("''", _COMMENT.sub("", statement)).strip().lower()


def parts(statement: str) -> Iterator[str]:
    """Every query in a statement by itself, each subquery in it left as `subquery`."""
    text = plain(statement)
    while (match := _SUBQUERY.search(text)) is not None:
        start, depth = match.start(), 0
        for end in range(start, len(text)):
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            if depth == 0:
                break
        yield from parts(text[start + 1 : end])
        text = f"{text[:start]} subquery {text[end + 1 :]}"
    yield from _SETS.split(text)


def without_tenant(statement: str) -> list[str]:
    """The tables that some query of the statement reads or writes without `tenant = $1`."""
    return [wrong for part in parts(statement) for wrong in _without_tenant(part)]


def _without_tenant(part: str) -> Iterator[str]:
    inserted = re.search(r"insert into (\w+)", part)
    if inserted:
        first = _INSERT.search(part)
        if first is None or first.groups()[1:] != ("tenant", "$1"):
            yield f"insert into {inserted[1]}"
    looks = list(_looks(part))
    for table, alias in looks:
        bare = r"(?<![.\w])tenant = \$1\b" if len(looks) == 1 else r"(?!)"
        if not re.search(rf"\b{alias}\.tenant = \$1\b|{bare}", part):
            yield f"{table} {alias}"


def _looks(part: str) -> Iterator[tuple[str, str]]:
    """(table, alias) of each table that a query reads, or changes in place."""
    target = _TARGET.search(part)
    if target and target[1] in TENANT_TABLES and "insert into" not in part:
        yield target[1], target[2] or target[1]
    for clause in _FROM.finditer(re.sub(r"\bdistinct from\b|\bdelete from\b|\bfor (?:no key )?update\b", "", part)):
        for item in re.split(r",|\bjoin\b", _flat(clause[1])):
            words = re.findall(r"[\w']+", item)
            if words and words[0] in TENANT_TABLES:
                alias = words[2:] if words[1:2] == ["as"] else words[1:]
                is_alias = alias and alias[0] not in ("on", "left", "cross", "inner", "set")
                yield words[0], alias[0] if is_alias else words[0]


def _flat(clause: str) -> str:
    """Without arguments, column names and conditions in parentheses."""
    while (shorter := re.sub(r"\([^()]*\)", " ", clause)) != clause:
        clause = shorter
    return clause
