"""A class by concepts, in one statement: what the client selected of it, written as JSON by Postgres itself.

Thirty students with thirty concepts are 900 objects that nobody but the client needs. The statement is composed of the
constants below, once for each document; nothing that a caller sent is ever part of its text.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from db.pool import Connection
from rules.policy import DEFAULT_POLICY, Model

PARTS_MAX = 40  # of one object; Postgres's format() takes 100 arguments


@dataclass(frozen=True, slots=True)
class Part:
    """One selected field: the name it is answered under, its name in the schema, and what is selected of it."""

    key: str
    field: str
    parts: tuple["Part", ...] = ()


@dataclass(frozen=True, slots=True)
class Board:
    """The viewer's ties to a class today, and the class as selected; no text for whom no tie and no role lets in."""

    is_teacher: bool
    is_enrolled: bool
    text: str | None


@dataclass(frozen=True, slots=True)
class BoardAsk:
    """Which class, as seen by whom, how many students of it and how many concepts of each; an admin needs no tie."""

    classroom: str
    viewer: str
    is_admin: bool
    students_max: int
    concepts_max: int


def _text(column: str) -> str:
    return f"coalesce(to_json({column})::text, 'null')"


def _word(column: str) -> str:
    """A word of an enum: letters and underscores."""
    return f"""'"' || {column} || '"'"""


def _truth(condition: str) -> str:
    return f"case when {condition} then 'true' else 'false' end"


def _moment(column: str) -> str:
    """As `write_moment` of the scalars: in UTC with `Z`, microseconds only where there are any."""
    written = f"""to_char({column} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""
    return f"""coalesce('"' || replace({written}, '.000000Z', 'Z') || '"', 'null')"""


def _day(column: str) -> str:
    return f"""coalesce('"' || to_char({column}, 'YYYY-MM-DD') || '"', 'null')"""


def _number(column: str, parts: int) -> str:
    """A whole number of parts as a float: the shortest digits, and `.0` where there is nothing to say."""
    whole, broken = f"{column} / {parts} || '.0'", f"({column}::float8 / {parts})::text"
    return f"coalesce(case when {column} % {parts} = 0 then {whole} else {broken} end, 'null')"


def _global_id(kind: str, column: str) -> str:
    """As `global_id` of the nodes: URL-safe base64 without its padding and its line breaks."""
    coded = f"encode(convert_to('{kind}:' || {column}, 'UTF8'), 'base64')"
    return f"""'"' || translate({coded}, E'+/=\\n', '-_') || '"'"""


_MODEL = f"coalesce(p.model, '{DEFAULT_POLICY.model}')"
_COUNT = f"case when p.model = '{Model.SUCCESS_RATIO}' then k.quiz_attempts else k.count end"
_STATE = f"""case when ({_COUNT}) = 0 then '"NO_DATA"'
    when ({_COUNT}) < coalesce(p.min_evidence, {DEFAULT_POLICY.min_evidence}) then '"LOW_EVIDENCE"' else '"OK"' end"""

FIELDS: Mapping[str, Mapping[str, str]] = {
    "Classroom": {
        "id": _global_id("Classroom", "r.classroom"),
        "key": _text("r.classroom"),
        "name": _text("r.name"),
        "zone": _text("z.zone"),
    },
    "Enrollment": {
        "personId": _text("e.person"),
        "displayName": _text("n.display_name"),
        "role": _word("e.role"),
        "startsOn": _day("e.started"),
        "endsOn": _day("e.ended"),
    },
    "StudentMastery": {
        "studentId": _text("e.person"),
        "displayName": _text("n.display_name"),
    },
    "Student": {
        "id": _global_id("Student", "u.student"),
        "key": _text("u.student"),
        "displayName": _text("n.display_name"),
        "zone": _text("coalesce(u.zone, t.zone)"),
    },
    "ConceptMastery": {
        "classroomId": _text("$2::text"),
        "score": _number("k.score", 1000),
        "percent": _number("k.score", 10),
        "state": _STATE,
        "evidenceCount": _COUNT,
        "lastEvidenceAt": _moment("k.last_evidence_at"),
        "model": _word(_MODEL),
        "modelVersion": f"coalesce(p.version, {DEFAULT_POLICY.version})",
        "masteredAt": _moment("k.mastered_at"),
    },
    "Concept": {
        "id": _global_id("Concept", "k.concept"),
        "key": _text("k.concept"),
        "name": _text("coalesce(c.name, k.concept)"),
        "kind": _word("coalesce(c.kind, 'CONCEPT')"),
        "isActive": _truth("coalesce(c.is_active, true)"),
        "inCatalog": _truth("c.subject is not null"),
    },
}
"""What may be selected beside objects: SQL that gives the JSON of each field."""

_ROSTER = """(
    select coalesce(string_agg(<enrollment>, ',' order by e.person, e.role, e.started), '')
    from (
        select * from enrollment m
        where m.tenant = $1 and m.classroom = $2 and m.started <= today.day and (m.ended is null or m.ended > today.day)
        order by m.person, m.role, m.started limit $6
    ) e
    left join student u on u.tenant = $1 and u.student = e.person and e.role = 'STUDENT'
    left join person n on n.tenant = $1 and n.person = e.person
)"""
_ROWS = """(
    select coalesce(string_agg(<row>, ',' order by e.person), '')
    from (
        select distinct m.person from enrollment m
        where m.tenant = $1 and m.classroom = $2 and m.role = 'STUDENT' and m.started <= today.day
            and (m.ended is null or m.ended > today.day)
        order by m.person limit $6
    ) e
    left join person n on n.tenant = $1 and n.person = e.person
)"""
_MASTERY = """(
    select coalesce(string_agg(<mastery>, ',' order by k.concept), '')
    from (
        select * from standing s
        where s.tenant = $1 and s.student = e.person and s.classroom = $2
            and (s.count > 0 or s.rank > 0 or s.last_accessed_at is not null)
        order by s.concept limit $7
    ) k
    left join concept c on c.tenant = $1 and c.concept = k.concept
    left join classroom_policy p on p.tenant = $1 and p.classroom = $2 and p.version = k.policy_version
)"""
# The text is made for the class's teachers of today and for admins alone; the rest are not even read for.
_BOARD = """
select ties.is_teacher, ties.is_enrolled, case when ties.is_teacher or $5::boolean then <classroom> end as board,
    $6::int as students_max, $7::int as concepts_max
from classroom r
join tenant t on t.tenant = $1
left join school h on h.tenant = $1 and h.school = r.school
cross join lateral (select coalesce(r.zone, h.zone, t.zone) as zone) z
cross join lateral (select ($4::timestamptz at time zone z.zone)::date as day) today
cross join lateral (
    select coalesce(bool_or(m.role = 'TEACHER'), false) as is_teacher,
        coalesce(bool_or(m.role = 'STUDENT'), false) as is_enrolled
    from enrollment m
    where m.tenant = $1 and m.classroom = $2 and m.person = $3 and m.started <= today.day
        and (m.ended is null or m.ended > today.day)
) ties
where r.tenant = $1 and r.classroom = $2
"""


def statement_of(parts: Sequence[Part]) -> str:
    """The statement that writes these parts of a class; they must be of FIELDS and the objects below."""
    return _BOARD.replace("<classroom>", _object("Classroom", parts))


def _object(kind: str, parts: Sequence[Part]) -> str:
    assert len(parts) <= PARTS_MAX
    assert all(part.key.isascii() and part.key.isidentifier() for part in parts)  # a name of GraphQL: safe in a literal
    template = ",".join(f'"{part.key}":%s' for part in parts)
    return f"format('{{{template}}}', {', '.join(_value(kind, part) for part in parts)})"


def _value(kind: str, part: Part) -> str:
    if part.field == "__typename":
        return f"""'"{kind}"'"""
    return OBJECTS[kind, part.field](part.parts) if part.parts else FIELDS[kind][part.field]


def _student(parts: Sequence[Part]) -> str:
    return f"case when u.student is null then 'null' else {_object('Student', parts)} end"


def _row_of_concepts(parts: Sequence[Part]) -> str:
    return f"""format('[%s]', {_MASTERY.replace("<mastery>", _object("ConceptMastery", parts))})"""


def _page(rows: str, slot: str, kind: str) -> Callable[[Sequence[Part]], str]:
    """A page of which only `nodes` is selected, once."""

    def write(parts: Sequence[Part]) -> str:
        (nodes,) = parts
        return f"""format('{{"{nodes.key}":[%s]}}', {rows.replace(slot, _object(kind, nodes.parts))})"""

    return write


OBJECTS: Mapping[tuple[str, str], Callable[[Sequence[Part]], str]] = {
    ("Classroom", "roster"): _page(_ROSTER, "<enrollment>", "Enrollment"),
    ("Classroom", "mastery"): _page(_ROWS, "<row>", "StudentMastery"),
    ("StudentMastery", "mastery"): _row_of_concepts,
    ("Enrollment", "student"): _student,
    ("Student", "mastery"): _page(_MASTERY, "<mastery>", "ConceptMastery"),
    ("ConceptMastery", "concept"): lambda parts: _object("Concept", parts),
}
"""What may be selected that has parts of its own."""
PAGES = {("Classroom", "roster"), ("Classroom", "mastery"), ("Student", "mastery")}


_BELOW: Mapping[str, Sequence[tuple[str, str]]] = {
    "Classroom": [("roster", "Enrollment"), ("mastery", "StudentMastery")],
    "Enrollment": [("student", "Student")],
    "Student": [("mastery", "ConceptMastery")],
    "StudentMastery": [("mastery", "ConceptMastery")],
    "ConceptMastery": [("concept", "Concept")],
}


def _all(kind: str) -> tuple[Part, ...]:
    parts = [Part(name, name) for name in FIELDS[kind]]
    for name, inner in _BELOW.get(kind, ()):
        of_inner = _all(inner)
        parts.append(Part(name, name, (Part("nodes", "nodes", of_inner),) if (kind, name) in PAGES else of_inner))
    return tuple(parts)


BOARD = statement_of(_all("Classroom"))
"""All that can be selected; every other statement is a part of it."""


async def read_board(
    connection: Connection, tenant: int, statement: str, ask: BoardAsk, *, now: datetime
) -> Board | None:
    """Read a class by a statement of `statement_of`; None when there is no such class."""
    row = await connection.fetchrow(
        statement, tenant, ask.classroom, ask.viewer, now, ask.is_admin, ask.students_max, ask.concepts_max
    )
    return None if row is None else Board(row["is_teacher"], row["is_enrolled"], row["board"])
