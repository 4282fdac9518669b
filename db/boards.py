"""A class by concepts, in one statement: what the client selected of it, written as JSON by Postgres itself.

Thirty students with thirty concepts are 900 objects that nobody but the client needs. The statement is composed of the
constants below, once for each document; nothing that a caller sent is ever part of its text.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from db.pool import Connection
from db.written import Fields, Objects, Part, Writer, day, global_id, known_word, moment, number, text, truth, word
from rules.policy import DEFAULT_POLICY, Model


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


CONCEPT_KINDS = ("CONCEPT", "STANDARD", "TOPIC")
"""What a tenant may call an entry of its catalog, as far as this release knows."""
_MODEL = f"coalesce(p.model, '{DEFAULT_POLICY.model}')"
MODEL = known_word(_MODEL, [model.value for model in Model])
_COUNT = f"case when p.model = '{Model.SUCCESS_RATIO}' then k.quiz_attempts else k.count end"
_STATE = f"""case when ({_COUNT}) = 0 then '"NO_DATA"'
    when ({_COUNT}) < coalesce(p.min_evidence, {DEFAULT_POLICY.min_evidence}) then '"LOW_EVIDENCE"' else '"OK"' end"""

FIELDS: Fields = {
    "Classroom": {
        "id": global_id("Classroom", "r.classroom"),
        "key": text("r.classroom"),
        "name": text("r.name"),
        "zone": text("z.zone"),
    },
    "Enrollment": {
        "personId": text("e.person"),
        "displayName": text("n.display_name"),
        "role": word("e.role"),
        "startsOn": day("e.started"),
        "endsOn": day("e.ended"),
    },
    "StudentMastery": {
        "studentId": text("e.person"),
        "displayName": text("n.display_name"),
    },
    "Student": {
        "id": global_id("Student", "u.student"),
        "key": text("u.student"),
        "displayName": text("n.display_name"),
        "zone": text("coalesce(u.zone, t.zone)"),
    },
    "ConceptMastery": {
        "classroomId": text("$2::text"),
        "score": number("k.score", 1000),
        "percent": number("k.score", 10),
        "state": _STATE,
        "evidenceCount": _COUNT,
        "lastEvidenceAt": moment("k.last_evidence_at"),
        "model": MODEL,
        "modelVersion": f"coalesce(p.version, {DEFAULT_POLICY.version})",
        "masteredAt": moment("k.mastered_at"),
    },
    "Concept": {
        "id": global_id("Concept", "k.concept"),
        "key": text("k.concept"),
        "name": text("coalesce(c.name, k.concept)"),
        "kind": known_word("coalesce(c.kind, 'CONCEPT')", CONCEPT_KINDS),
        "isActive": truth("coalesce(c.is_active, true)"),
        "inCatalog": truth("c.subject is not null"),
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
    return _BOARD.replace("<classroom>", _WRITER.object("Classroom", parts))


def _student(part: Part) -> str:
    return f"case when u.student is null then 'null' else {_WRITER.object('Student', part.parts)} end"


def _row_of_concepts(part: Part) -> str:
    cells = _WRITER.object("ConceptMastery", part.parts)
    return f"""format('[%s]', {_MASTERY.replace("<mastery>", cells)})"""


def _page(rows: str, slot: str, kind: str) -> Callable[[Part], str]:
    """A page of which only `nodes` is selected, once."""

    def write(part: Part) -> str:
        (nodes,) = part.parts
        return f"""format('{{"{nodes.key}":[%s]}}', {rows.replace(slot, _WRITER.object(kind, nodes.parts))})"""

    return write


OBJECTS: Objects = {
    ("Classroom", "roster"): _page(_ROSTER, "<enrollment>", "Enrollment"),
    ("Classroom", "mastery"): _page(_ROWS, "<row>", "StudentMastery"),
    ("StudentMastery", "mastery"): _row_of_concepts,
    ("Enrollment", "student"): _student,
    ("Student", "mastery"): _page(_MASTERY, "<mastery>", "ConceptMastery"),
    ("ConceptMastery", "concept"): lambda part: _WRITER.object("Concept", part.parts),
}
"""What may be selected that has parts of its own."""
PAGES = {("Classroom", "roster"), ("Classroom", "mastery"), ("Student", "mastery")}
_WRITER: Writer = Writer(FIELDS, OBJECTS)


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
