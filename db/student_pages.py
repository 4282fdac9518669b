"""What a student page asks for, in SQL: freshness, mastery by concept, progress, and the history."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from db import boards, class_pages
from db.pages import ENROLLED_TODAY, FRESH_FIELDS, composed, limit_of, paged
from db.timelines import AFTER_ALL
from db.timelines import BEFORE_ALL as BEFORE_ALL_EVENTS
from db.work import BEFORE_ALL, UNDATED
from db.written import (
    Fields,
    Given,
    Objects,
    Order,
    Part,
    Writer,
    all_of,
    cursor,
    global_id,
    known_word,
    micros,
    moment,
    number,
    text,
    truth,
    word,
)
from rules.classroom import WorkStatus
from rules.kinds import CORRECTION_KINDS, Kind
from rules.policy import MILLION
from rules.roster import AssignmentKind, Difficulty

_CORRECTIONS = "(" + ", ".join(f"'{kind}'" for kind in sorted(CORRECTION_KINDS)) + ")"
# Half to even, as `rules.rounding`: of sums that are never below zero.
_MEAN = """(g.score_sum / g.score_count + case
    when 2 * (g.score_sum % g.score_count) > g.score_count
        or 2 * (g.score_sum % g.score_count) = g.score_count and (g.score_sum / g.score_count) % 2 = 1
    then 1 else 0 end)"""
_EFFECT = f"""case
    when (select true from dead_letter d
          where d.tenant = $1 and d.source = x.source and d.event_id = x.event_id) then '"DEAD"'
    when x.kind in {_CORRECTIONS} then '"EFFECTIVE"'
    else (
        select case when 'EVENT_VOIDED' = any(m.by) then '"VOIDED"'
            when 'SUBMISSION_REGRADED' = any(m.by) then '"SUPERSEDED"' else '"EFFECTIVE"' end
        from (select <corrected_by> as by offset 0) m
    ) end"""  # noqa: S608 - composed of constants above
# What took the value of an event out of every number; a scalar subquery, see db.timelines.
_CORRECTED_BY = """array(
        select v.kind from correction v
        where v.tenant = $1 and v.target_source = x.source and v.target_event_id = x.event_id
        union all
        select v.kind from correction v
        where v.tenant = $1 and v.target_source = x.source and v.target_submission = x.submission
            and v.student in ('', x.student) and x.ratio is not null
    )"""

# The cases are those of db.work, and of `rules.classroom.status_of_work`.
_STATUS = """case
    when w.is_excused then 'EXCUSED'
    when w.counted is not null then 'GRADED'
    when w.submitted_at is not null then 'SUBMITTED'
    when not w.is_assigned then null
    when coalesce(w.due_at, q.due_at) < $2 then 'OVERDUE'
    else 'ASSIGNED' end"""
_KNOWN_DIFFICULTY = known_word("w.difficulty", [one.value for one in Difficulty])
_DIFFICULTY = f"case when w.difficulty is null then 'null' else upper({_KNOWN_DIFFICULTY}) end"

FIELDS: Fields = {
    **FRESH_FIELDS,
    "Student": class_pages.FIELDS["Student"],
    "ConceptMastery": {**boards.FIELDS["ConceptMastery"], "classroomId": text("nullif(k.classroom, '')")},
    "Concept": boards.FIELDS["Concept"],
    "StudentProgress": {
        "averageScore": f"case when g.score_count = 0 then 'null' else {number(_MEAN, 1000)} end",
        "totalTimeSpentMs": "g.spent_ms || '.0'",
        "lastActivityAt": moment("g.last_at"),
    },
    "ConceptCounts": {
        "notStarted": "g.not_started + <unmet>",
        "inProgress": "g.in_progress",
        "completed": "g.completed",
        "mastered": "g.mastered",
    },
    "LearningEvent": {
        **class_pages.FIELDS["LearningEvent"],
        "effect": _EFFECT.replace("<corrected_by>", _CORRECTED_BY),
    },
    "StudentAssignment": {
        "assignmentId": text("w.item"),
        "classroomId": text("w.classroom"),
        "status": word("w.status"),
        "dueAt": moment("w.due_at"),
        "submittedAt": moment("w.submitted_at"),
        "isLate": truth("w.submitted_at > w.due_at"),
        "score": number("w.counted", MILLION),
    },
    "Assignment": {
        "id": global_id("Assignment", "w.assignment"),
        "key": text("w.assignment"),
        "classroomId": text("w.classroom"),
        "title": text("w.title"),
        "kind": known_word("w.kind", [kind.value for kind in AssignmentKind]),
        "dueAt": moment("w.set_due_at"),
        "difficulty": _DIFFICULTY,
        "conceptIds": "to_json(w.concepts)::text",
    },
}
"""What may be selected beside objects."""

_STUDENT = f"""
select a.place, fresh.seq, ties.is_taught, ties.is_linked,
    case when a.is_admin or a.as_teacher and ties.is_taught or a.as_guardian and ties.is_linked
        or a.as_student and a.key = a.viewer then <student> end as page,
    null::text as version, null::text[] as lists
from <ask>
cross join <fresh> fresh
join student u on u.tenant = $1 and u.student = a.key
join tenant t on t.tenant = $1
left join person n on n.tenant = $1 and n.person = a.key
cross join lateral (
    select exists (
        select from guardian_link g where g.tenant = $1 and g.guardian = a.viewer and g.student = a.key
            and g.consent_at <= $2 and g.revoked_at is null
    ) as is_linked, exists (
        select from enrollment m
        join classroom c on c.tenant = $1 and c.classroom = m.classroom
        left join school h on h.tenant = $1 and h.school = c.school
        cross join lateral (
            select ($2::timestamptz at time zone coalesce(c.zone, h.zone, t.zone))::date as day offset 0
        ) today
        join enrollment e on e.tenant = $1 and e.classroom = m.classroom and e.person = a.viewer
            and e.role = 'TEACHER' and e.started <= today.day and (e.ended is null or e.ended > today.day)
        where m.tenant = $1 and m.person = a.key and m.role = 'STUDENT' and {ENROLLED_TODAY}
    ) as is_taught
    offset 0
) ties
"""  # noqa: S608 - composed of constants above
_HAS_TRACE = "(k.count > 0 or k.rank > 0 or k.last_accessed_at is not null)"
# What of the catalog, or of the class's work, the student has never met. The catalog is counted once for all who ask.
_UNMET_OF_ALL = f"""(select count(*) from concept c where c.tenant = $1 and c.is_active) - (
    select count(*) from standing k join concept c on c.tenant = $1 and c.concept = k.concept and c.is_active
    where k.tenant = $1 and k.student = a.key and k.classroom = '' and {_HAS_TRACE}
)"""  # noqa: S608 - composed of constants above
_UNMET_OF_CLASS = f"""(
    select count(*)
    from (
        select distinct unnest(w.concepts) as concept from assignment w
        where w.tenant = $1 and w.classroom = <class>
    ) w
    join concept c on c.tenant = $1 and c.concept = w.concept and c.is_active
    where not exists (
        select from standing k where k.tenant = $1 and k.student = a.key and k.classroom = <class>
            and k.concept = w.concept and {_HAS_TRACE}
    )
)"""  # noqa: S608 - composed of constants above
_PROGRESS = f"""(
    select <object> from (
        select count(*) filter (where k.mastered_at is not null or k.rank = 3) as mastered,
            count(*) filter (where k.mastered_at is null and k.rank = 2) as completed,
            count(*) filter (where k.mastered_at is null and k.rank = 1) as in_progress,
            count(*) filter (where k.mastered_at is null and k.rank = 0) as not_started,
            coalesce(sum(k.score), 0) as score_sum, count(k.score) as score_count,
            coalesce(sum(k.time_spent_ms), 0) as spent_ms, max(k.last_accessed_at) as last_at
        from standing k
        where k.tenant = $1 and k.student = a.key and k.classroom = <class> and {_HAS_TRACE}
    ) g
)"""  # noqa: S608 - composed of constants above


def statement_of(parts: Sequence[Part], kinds: Sequence[str] = (), *, with_seq: bool = False) -> str:
    """The statement that writes these parts of students; `kinds` are the types of the values that are left open."""
    written = _STUDENT.replace("<student>", _WRITER.object("Student", parts))
    return composed(written, parts, kinds, with_seq=with_seq)


def _mastery(part: Part) -> str:
    assert part.page is not None
    behind = f"and k.concept > {part.page.after[1]}" if part.page.after else ""
    rows = f"""(
        select * from standing k
        where k.tenant = $1 and k.student = a.key and k.classroom = {_class_of(part)} {behind} and {_HAS_TRACE}
        order by k.concept limit {limit_of(part.page)}
    ) k
    left join lateral (
        select * from concept c where c.tenant = $1 and c.concept = k.concept offset 0
    ) c on true
    left join lateral (
        select * from classroom_policy p
        where p.tenant = $1 and p.classroom = k.classroom and p.version = k.policy_version offset 0
    ) p on true"""  # noqa: S608 - composed of constants above
    return paged(_WRITER, "ConceptMastery", part, rows, places=("k.concept",), cursor=_MASTERY_CURSOR)


def _progress(part: Part) -> str:
    asked = _class_of(part)
    of_class = _UNMET_OF_CLASS.replace("<class>", asked)
    unmet = (
        _UNMET_OF_ALL if part.classroom is None else f"case {asked} when '' then {_UNMET_OF_ALL} else {of_class} end"
    )
    written = _PROGRESS.replace("<object>", _WRITER.object("StudentProgress", part.parts))
    return written.replace("<unmet>", unmet).replace("<class>", asked)


def _timeline(part: Part) -> str:
    assert part.page is not None
    order, than = ("desc", "<") if part.is_newest_first else ("asc", ">")
    behind = ""
    if part.page.after:
        _, at, seq = part.page.after
        behind = f"and (x.occurred_at, x.seq) {than} ({at}, {seq})"
    within = f"and ({part.classroom} = '' or x.classroom = {part.classroom})" if part.classroom else ""
    kinds = ", ".join(f"'{kind}'" for kind in part.words or [kind.value for kind in Kind])
    rows = f"""(
        select * from event x
        where x.tenant = $1 and x.student = a.key {within} {behind} and x.kind in ({kinds})
            and (select true from unrostered w where w.tenant = $1 and w.seq = x.seq) is null
            and (a.is_admin or a.as_teacher and ties.is_taught or x.kind not in {_CORRECTIONS}
                and (select true from dead_letter d
                     where d.tenant = $1 and d.source = x.source and d.event_id = x.event_id) is null
                and not {_CORRECTED_BY} && array['EVENT_VOIDED', 'SUBMISSION_REGRADED'])
        order by x.occurred_at {order}, x.seq {order} limit {limit_of(part.page)}
    ) x"""  # noqa: S608 - composed of constants above
    return paged(
        _WRITER,
        "LearningEvent",
        part,
        rows,
        places=("x.occurred_at", "x.seq"),
        cursor=_NEWEST_CURSOR if part.is_newest_first else _OLDEST_CURSOR,
    )


def _assignments(part: Part) -> str:
    assert part.page is not None
    behind = ""
    if part.page.after:
        _, *place = part.page.after
        behind = f"and (w.place, w.classroom, w.item) > ({', '.join(map(str, place))})"
    within = f"and ({part.classroom} = '' or w.classroom = {part.classroom})" if part.classroom else ""
    words = ", ".join(f"'{word}'" for word in part.words or WorkStatus)
    rows = f"""(
        select * from (
            select w.classroom, w.item, w.submitted_at, w.counted, coalesce(w.due_at, q.due_at) as due_at,
                coalesce(w.due_at, q.due_at, '{UNDATED}') as place, q.assignment, q.title, q.kind, q.difficulty,
                q.concepts, q.due_at as set_due_at, {_STATUS} as status
            from work w
            left join assignment q on q.tenant = $1 and q.assignment = w.item and q.classroom = w.classroom
            where w.tenant = $1 and w.student = a.key and w.classroom <> '' {within}
        ) w
        where w.status in ({words}) {behind}
        order by w.place, w.classroom, w.item limit {limit_of(part.page)}
    ) w"""  # noqa: S608 - composed of constants above
    places = ("w.place", "w.classroom", "w.item")
    return paged(_WRITER, "StudentAssignment", part, rows, places=places, cursor=_WORK_CURSOR)


def _class_of(part: Part) -> str:
    return "''" if part.classroom is None else str(part.classroom)


def _shell(kind: str, shell: str = "<object>") -> Callable[[Part], str]:
    return lambda part: shell.replace("<object>", _WRITER.object(kind, part.parts))


MASTERY_ORDER = Order("mastery", ("text",), ("",))
OLDEST_FIRST = Order("timeline", ("timestamptz", "int8"), BEFORE_ALL_EVENTS)
NEWEST_FIRST = Order("timeline-newest", ("timestamptz", "int8"), AFTER_ALL)
WORK_ORDER = Order("student-work", ("timestamptz", "text", "text"), (BEFORE_ALL, "", ""))
_MASTERY_CURSOR = cursor(MASTERY_ORDER, "to_json(l.k0)")
_OLDEST_CURSOR = cursor(OLDEST_FIRST, micros("l.k0"), "l.k1")
_NEWEST_CURSOR = cursor(NEWEST_FIRST, micros("l.k0"), "l.k1")
_WORK_CURSOR = cursor(WORK_ORDER, micros("l.k0"), "to_json(l.k1)", "to_json(l.k2)")
OBJECTS: Objects = {
    ("Student", "asOf"): _shell("AsOf"),
    ("Student", "mastery"): _mastery,
    ("Student", "progress"): _progress,
    ("Student", "timeline"): _timeline,
    ("Student", "assignments"): _assignments,
    ("StudentAssignment", "assignment"): _shell(
        "Assignment", "case when w.assignment is null then 'null' else <object> end"
    ),
    ("ConceptMastery", "concept"): _shell("Concept"),
    ("StudentProgress", "concepts"): _shell("ConceptCounts"),
}
"""What may be selected that has parts of its own."""
BELOW = {
    ("Student", "asOf"): "AsOf",
    ("Student", "mastery"): "ConceptMastery",
    ("Student", "progress"): "StudentProgress",
    ("Student", "timeline"): "LearningEvent",
    ("Student", "assignments"): "StudentAssignment",
    ("StudentAssignment", "assignment"): "Assignment",
    ("ConceptMastery", "concept"): "Concept",
    ("StudentProgress", "concepts"): "ConceptCounts",
}
"""The types of what has parts."""
PAGES = {("Student", "mastery"), ("Student", "timeline"), ("Student", "assignments")}
"""The lists among them."""
LOGS = {("Student", "timeline")}
"""Those that read the log of events."""
_WRITER: Writer = Writer(FIELDS, OBJECTS)
_ALL = all_of("Student", FIELDS, BELOW, PAGES)
STUDENT_PAGE = statement_of(_ALL)
"""All that can be selected; every other statement is a part of it."""
STUDENT_PAGE_IN_CLASS = statement_of([replace(part, classroom=Given(0)) for part in _ALL], ["text"])
"""The same, with the evidence and the events of one class."""
