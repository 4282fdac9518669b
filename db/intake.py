"""What an intake asks before it records: roster, policy, assignments and targets, in one statement."""

import msgspec

from db.pool import Connection
from rules.intake import ClassroomFacts, Facts, Place, Target, Wanted

# A target's class is asked with the others: whether the viewer teaches it decides about the void.
FACTS = """
with target as materialized (
    select v.source, v.event_id, e.student, e.classroom
    from unnest($7::text[], $8::text[]) as v (source, event_id)
    join event_key k on k.tenant = $1 and k.source = v.source and k.event_id = v.event_id
    join event e on e.tenant = $1 and e.seq = k.seq and e.received_at = k.received_at
    where k.tenant = $1 and e.tenant = $1
), submitted as materialized (
    select distinct v.source, v.submission, e.student, e.classroom
    from unnest($10::text[], $11::text[]) as v (source, submission)
    join event e on e.tenant = $1 and e.source = v.source and e.submission = v.submission
    where e.tenant = $1 and e.ratio is not null and e.kind in ('SUBMISSION_GRADED', 'QUIZ_ATTEMPT')
), home as materialized (
    select a.assignment, a.classroom from assignment a where a.tenant = $1 and a.assignment = any($12::text[])
), asked as materialized (
    select a.classroom from unnest($3::text[]) as a (classroom) union select g.classroom from target g
    union select g.classroom from submitted g union select h.classroom from home h
)
select json_build_object(
    'classrooms', (
        select coalesce(json_agg(json_build_object(
            'key', c.classroom,
            'zone', coalesce(c.zone, s.zone, t.zone),
            'extraCredit', coalesce((
                select p.extra_credit from classroom_policy p
                where p.tenant = $1 and p.classroom = c.classroom
                order by p.version desc limit 1
            ), false),
            'places', (
                select coalesce(
                    json_agg(json_build_object('role', m.role, 'started', m.started, 'ended', m.ended)), '[]'
                )
                from enrollment m where m.tenant = $1 and m.classroom = c.classroom and m.person = $2
            )
        )), '[]')
        from asked a
        cross join lateral (  -- one look for each class, and `offset 0` so that it stays so: see db.projection
            select * from classroom k where k.tenant = $1 and k.classroom = a.classroom offset 0
        ) c
        join tenant t on t.tenant = $1
        left join school s on s.tenant = $1 and s.school = c.school
    ),
    'students', (
        select coalesce(json_agg(s.student), '[]') from student s where s.tenant = $1 and s.student = any($4::text[])
    ),
    'pupils', (
        select coalesce(json_agg(json_build_array(u.student, u.classroom)), '[]')
        from unnest($5::text[], $6::text[]) as u (student, classroom)
        where exists (
            select from enrollment m
            where m.tenant = $1 and m.classroom = u.classroom and m.person = u.student and m.role = 'STUDENT'
        )
    ),
    'assignments', (
        select coalesce(json_agg(json_build_array(a.classroom, a.assignment, a.concepts)), '[]')
        from assignment a where a.tenant = $1 and a.assignment = any($9::text[])
    ),
    'homes', (select coalesce(json_agg(json_build_array(h.assignment, h.classroom)), '[]') from home h),
    'submissions', (
        select coalesce(json_agg(json_build_array(g.source, g.submission, g.student, g.classroom)), '[]')
        from submitted g
    ),
    'targets', (
        select coalesce(json_agg(json_build_array(g.source, g.event_id, g.student, g.classroom)), '[]') from target g
    )
)::text
"""


class _Classroom(msgspec.Struct, rename="camel"):
    key: str
    zone: str
    extra_credit: bool
    places: list[Place]


class _Facts(msgspec.Struct):
    classrooms: list[_Classroom]
    students: list[str]
    pupils: list[tuple[str, str]]
    assignments: list[tuple[str, str, tuple[str, ...]]]
    targets: list[tuple[str, str, str, str]]
    homes: list[tuple[str, str]]
    submissions: list[tuple[str, str, str, str]]


_decode = msgspec.json.Decoder(_Facts).decode


async def facts_of(connection: Connection, tenant: int, wanted: Wanted, *, viewer: str) -> Facts:
    """Those of the wanted facts that roster and log know; `viewer` is whose times in the classes are meant."""
    text: str = await connection.fetchval(
        FACTS,
        tenant,
        viewer,
        list(wanted.classrooms),
        list(wanted.students),
        [student for student, _ in wanted.pupils],
        [classroom for _, classroom in wanted.pupils],
        [source for source, _ in wanted.targets],
        [event_id for _, event_id in wanted.targets],
        list(wanted.assignments),
        [source for source, _ in wanted.submissions],
        [submission for _, submission in wanted.submissions],
        list(wanted.homes),
    )
    read = _decode(text)
    submissions: dict[tuple[str, str], tuple[Target, ...]] = {}
    for source, submission, student, room in read.submissions:
        key = (source, submission)
        submissions[key] = (*submissions.get(key, ()), Target(student, room))
    return Facts(
        classrooms={c.key: ClassroomFacts(c.zone, c.extra_credit, tuple(c.places)) for c in read.classrooms},
        students=frozenset(read.students),
        pupils=frozenset(read.pupils),
        concepts={(classroom, assignment): concepts for classroom, assignment, concepts in read.assignments},
        targets={(source, event_id): Target(student, room) for source, event_id, student, room in read.targets},
        submissions=submissions,
        homes=dict(read.homes),
    )
