"""Reading the raised risk flags of students, class by class."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import msgspec

from db.dashboards import Flag
from db.pool import Connection

Place = tuple[int, str, str]
"""(severity upside down, classroom, reason): where a flag stands in a student's list."""
FIRST: Place = (-100, "", "")

FLAGS_OF_STUDENTS = """
select asked.student, k.* from unnest($2::text[]) as asked (student)
cross join lateral (
    select f.classroom, f.reason, f.severity, f.raised_at, f.evidence, f.clears_when
    from risk_flag f
    where f.tenant = $1 and f.student = asked.student and f.severity is not null
      and ($3::text[] is null or f.classroom in (
          select a.classroom from unnest($3::text[], $4::text[]) as a (student, classroom)
          where a.student = asked.student
      ))
      and (-f.severity, f.classroom, f.reason) > ($5::int, $6::text, $7::text)
    order by -f.severity, f.classroom, f.reason
    limit $8
) k
"""


async def flags_of_students(
    connection: Connection,
    tenant: int,
    students: Sequence[str],
    *,
    within: Mapping[str, Sequence[str]] | None,
    after: Place | None,
    limit: int,
) -> dict[str, list[tuple[str, Flag]]]:
    """For each student (classroom, flag), the most severe first, then by class and reason.

    `within` names the classes of each student whose flags may be shown; None means all.
    """
    pairs = None if within is None else [(student, room) for student, rooms in within.items() for room in rooms]
    rows = await connection.fetch(
        FLAGS_OF_STUDENTS,
        tenant,
        students,
        None if pairs is None else [student for student, _ in pairs],
        None if pairs is None else [room for _, room in pairs],
        *(after or FIRST),
        limit,
    )
    found: dict[str, list[tuple[str, Flag]]] = defaultdict(list)
    for row in rows:
        flag = Flag(
            student=row["student"],
            reason=row["reason"],
            severity=row["severity"],
            raised_at=row["raised_at"],
            evidence=msgspec.json.decode(row["evidence"]),
            clears_when=row["clears_when"],
        )
        found[row["student"]].append((row["classroom"], flag))
    return found
