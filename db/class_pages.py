"""What a class page asks for, in SQL: freshness, rates, who is at risk, what happened lately, the policy."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from db import boards
from db.dashboards import AHEAD_MINUTES_MAX, FIRST_AT_RISK, FIRST_FLAG, RECENT_DAYS
from db.pages import ENROLLED_TODAY, FRESH_FIELDS, LAG, composed, limit_of, paged
from db.timelines import AFTER_ALL
from db.written import (
    IN_DOUBT,
    KEPT,
    Fields,
    Objects,
    Order,
    Part,
    Writer,
    all_of,
    coded,
    cursor,
    global_id,
    known_word,
    micros,
    moment,
    number,
    numbered_word,
    text,
    truth,
)
from rules.kinds import CORRECTION_KINDS, Kind
from rules.policy import DEFAULT_POLICY, MILLION
from rules.risk import Reason, Severity

_SEVERITIES = {severity.value: severity.name for severity in Severity}
_KINDS = "(" + ", ".join(f"'{kind}'" for kind in sorted(CORRECTION_KINDS)) + ")"
_RATES = {
    "completionRate": number("s.completion_rate", 1000),
    "averageScore": number("s.average_score", 1000),
    "submissionRate": number("s.submission_rate", 1000),
    "activeStudents": "coalesce(s.active_students, 0)",
}
# Scalar subqueries, as in db.timelines: as EXISTS the planner would hash every correction of the tenant for one page.
_EFFECT = f"""case
    when (select true from dead_letter d
          where d.tenant = $1 and d.source = x.source and d.event_id = x.event_id) then '"DEAD"'
    when x.kind in {_KINDS} then '"EFFECTIVE"'
    when (select true from correction v where v.tenant = $1 and v.target_source = x.source
            and v.target_event_id = x.event_id and v.kind = 'EVENT_VOIDED' limit 1) then '"VOIDED"'
    when (select true from correction v where v.tenant = $1 and v.target_source = x.source
            and v.target_event_id = x.event_id and v.kind = 'SUBMISSION_REGRADED' limit 1) then '"SUPERSEDED"'
    when x.ratio is not null and (select true from correction v where v.tenant = $1
            and v.target_source = x.source and v.target_submission = x.submission
            and v.student in ('', x.student) limit 1) then '"SUPERSEDED"'
    else '"EFFECTIVE"' end"""  # noqa: S608 - composed of constants above
EVENT_FIELDS = {
    "id": """'"' || x.id || '"'""",
    "seq": """'"' || x.seq || '"'""",
    "source": text("x.source"),
    "eventId": text("x.event_id"),
    "type": known_word("x.kind", [kind.value for kind in Kind]),
    "sourceType": text("x.source_type"),
    "occurredAt": moment("x.occurred_at"),
    "receivedAt": moment("x.received_at"),
    "isLate": truth("x.is_late"),
    "classroomId": text("nullif(x.classroom, '')"),
    "assignmentId": text("nullif(x.assignment, '')"),
    "quizId": text("nullif(x.quiz, '')"),
    "conceptIds": "to_json(x.concepts)::text",
    "submissionId": text("nullif(x.submission, '')"),
    "score": number("x.ratio", MILLION),
    "dueAt": moment("x.due_at"),
    "timeSpentMs": "coalesce(x.time_spent_ms::text, 'null')",
    "effect": _EFFECT,
}
_FLAG_KEY = "'[' || to_json(f.classroom) || ',' || to_json(f.student) || ',' || to_json(f.reason) || ']'"

FIELDS: Fields = {
    **FRESH_FIELDS,
    "Classroom": {**boards.FIELDS["Classroom"], "lagMs": LAG},
    "ClassroomRollup": _RATES,
    "Dashboard": _RATES,
    "AtRiskStudent": {"studentId": text("x.student"), "severity": numbered_word("x.overall", _SEVERITIES)},
    "Activity": {"studentId": text("x.student")},
    "LearningEvent": EVENT_FIELDS,
    "RiskFlag": {
        "id": f"""'"' || {coded(f"'RiskFlag:' || {_FLAG_KEY}")} || '"'""",
        "studentId": text("f.student"),
        "classroomId": text("f.classroom"),
        "reason": known_word("f.reason", [reason.value for reason in Reason]),
        "severity": numbered_word("f.severity", _SEVERITIES),
        "raisedAt": moment("f.raised_at"),
        "clearsWhen": text("f.clears_when"),
    },
    "Student": {
        "id": global_id("Student", "u.student"),
        "key": text("u.student"),
        "displayName": text("n.display_name"),
        "zone": text("coalesce(u.zone, t.zone)"),
        "lagMs": LAG,
    },
    "Concept": boards.FIELDS["Concept"],
    "ClassroomPolicy": {
        "version": f"coalesce(p.version, {DEFAULT_POLICY.version})",
        "model": boards.MODEL,
        "recentPercent": f"coalesce(p.recent_percent, {DEFAULT_POLICY.recent_percent})",
        "successThreshold": number(f"coalesce(p.success_threshold, {DEFAULT_POLICY.success_threshold})", MILLION),
        "masteryThreshold": number(f"coalesce(p.mastery_threshold, {DEFAULT_POLICY.mastery_threshold})", MILLION),
        "minEvidence": f"coalesce(p.min_evidence, {DEFAULT_POLICY.min_evidence})",
        "inactivityDays": f"coalesce(p.inactivity_days, {DEFAULT_POLICY.inactivity_days})",
        "extraCredit": truth(f"coalesce(p.extra_credit, {DEFAULT_POLICY.extra_credit})"),
    },
}
"""What may be selected beside objects."""

# `offset 0` keeps the day from being worked out again for each row that is compared with it.
_CLASS = f"""
select a.place, fresh.seq, ties.is_teacher, ties.is_enrolled,
    case when ties.is_teacher or a.is_admin then <classroom> end as page, <version> as version,
    case when (ties.is_teacher or a.is_admin) and a.known is distinct from <version> then <lists> end as lists
from <ask>
cross join <fresh> fresh
join classroom r on r.tenant = $1 and r.classroom = a.key
join tenant t on t.tenant = $1
left join school h on h.tenant = $1 and h.school = r.school
cross join lateral (select coalesce(r.zone, h.zone, t.zone) as zone) z
cross join lateral (select ($2::timestamptz at time zone z.zone)::date as day offset 0) today
cross join lateral (
    select coalesce(bool_or(m.role = 'TEACHER'), false) as is_teacher,
        coalesce(bool_or(m.role = 'STUDENT'), false) as is_enrolled
    from enrollment m
    where m.tenant = $1 and m.classroom = a.key and m.person = a.viewer and {ENROLLED_TODAY}
) ties
left join classroom_state s on s.tenant = $1 and s.classroom = a.key
"""  # noqa: S608 - composed of constants above
# The number of the class, and the moment it was reached: a restored database counts on from an earlier number.
_VERSION = "concat(s.change_no, '@', s.assessed_at)"
_ENROLLED = f"""(select true from enrollment m where m.tenant = $1 and m.classroom = a.key and m.person = x.student
    and m.role = 'STUDENT' and {ENROLLED_TODAY} limit 1)"""  # noqa: S608 - composed of constants above
# Whoever is in the class today, its teachers may see; of one who has left, only the reference executor knows more.
_STUDENT = f"""coalesce((
    select case when a.is_admin or {_ENROLLED} then <object> else {IN_DOUBT} end
    from student u left join person n on n.tenant = $1 and n.person = u.student
    where u.tenant = $1 and u.student = x.student
), 'null')"""  # noqa: S608 - composed of constants above
_FLAGS = """format('[%s]', (
    select string_agg(<object>, ',' order by f.severity desc, f.reason) from risk_flag f
    where f.tenant = $1 and f.classroom = a.key and f.student = x.student and f.severity is not null
))"""
_POLICY = """(
    select <object> from (select 1) one left join lateral (
        select * from classroom_policy v where v.tenant = $1 and v.classroom = a.key order by v.version desc limit 1
    ) p on true
)"""


def statement_of(parts: Sequence[Part], kinds: Sequence[str] = (), *, with_seq: bool = False) -> str:
    """The statement that writes these parts of classes; `kinds` are the types of the values that are left open."""
    lists: list[str] = []
    written = _CLASS.replace("<classroom>", _WRITER.object("Classroom", _beside("Classroom", parts, lists)))
    version, texts = (_VERSION, f"array[{', '.join(lists)}]") if lists else ("null::text", "null::text[]")
    return composed(written.replace("<version>", version).replace("<lists>", texts), parts, kinds, with_seq=with_seq)


def _beside(kind: str, parts: Sequence[Part], lists: list[str]) -> list[Part]:
    """The parts, where lists that hold as long as the class's number are written beside them, into `lists`."""
    left = []
    for part in parts:
        if (kind, part.field) in HELD and not _shows_students(part.parts):
            lists.append(OBJECTS[kind, part.field](part))
            left.append(Part(part.key, KEPT))
        elif (kind, part.field) == ("Classroom", "dashboard"):
            left.append(replace(part, parts=tuple(_beside("Dashboard", part.parts, lists))))
        else:
            left.append(part)
    return left


def _shows_students(parts: Sequence[Part]) -> bool:
    return any(part.field == "student" or _shows_students(part.parts) for part in parts)


def _at_risk(part: Part) -> str:
    assert part.page is not None
    behind = "where g.overall is not null"  # as the comparison of places has it, by which db.dashboards reads each page
    if part.page.after:
        _, overall, count, student = part.page.after
        behind = f"where (-g.overall, -g.count, g.student) > ({overall}, {count}, {student})"
    rows = f"""(
        select * from (
            select f.student, max(f.overall)::int as overall, count(*) as count from risk_flag f
            where f.tenant = $1 and f.classroom = a.key and f.severity is not null
            group by f.student
        ) g {behind}
        order by -g.overall, -g.count, g.student limit {limit_of(part.page)}
    ) x"""  # noqa: S608 - composed of constants above
    places = ("-x.overall", "-x.count", "x.student")
    return paged(_WRITER, "AtRiskStudent", part, rows, places=places, cursor=_AT_RISK_CURSOR)


def _recent(part: Part) -> str:
    assert part.page is not None
    behind = ""
    if part.page.after:
        _, at, seq = part.page.after
        behind = f"and (x.occurred_at, x.seq) < ({at}, {seq})"
    rows = f"""(
        select * from event x
        where x.tenant = $1 and x.classroom = a.key and x.occurred_at >= $2 - interval '{RECENT_DAYS * 24} hours'
            and x.received_at >= $2 - interval '{RECENT_DAYS * 24 * 60 + AHEAD_MINUTES_MAX} minutes'
            and x.received_at <= $2 + interval '24 hours' {behind} and {_ENROLLED}
        order by x.occurred_at desc, x.seq desc limit {limit_of(part.page)}
    ) x"""  # noqa: S608 - composed of constants above
    return paged(_WRITER, "Activity", part, rows, places=("x.occurred_at", "x.seq"), cursor=_RECENT_CURSOR)


def _flags(part: Part) -> str:
    assert part.page is not None
    behind = ""
    if part.page.after:
        _, severity, student, reason = part.page.after
        behind = f"and (-f.severity, f.student, f.reason) > ({severity}, {student}, {reason})"
    rows = f"""(
        select * from risk_flag f
        where f.tenant = $1 and f.classroom = a.key and f.severity is not null {behind}
        order by -f.severity, f.student, f.reason limit {limit_of(part.page)}
    ) f cross join lateral (select f.student) x"""  # noqa: S608 - composed of constants above
    places = ("-f.severity", "f.student", "f.reason")
    return paged(_WRITER, "RiskFlag", part, rows, places=places, cursor=_FLAG_CURSOR)


def _concepts(part: Part) -> str:
    """What the class's work is about, and what its students gave evidence of without it: db.catalog_reads."""
    assert part.page is not None
    behind = f"where k.concept > {part.page.after[1]}" if part.page.after else ""
    rows = f"""(
        select k.concept from (
            select w.concept from standing w where w.tenant = $1 and w.classroom = a.key and w.count > 0
            union
            select named.concept collate "C" from assignment w, unnest(w.concepts) as named (concept)
            where w.tenant = $1 and w.classroom = a.key
        ) k {behind}
        order by k.concept limit {limit_of(part.page)}
    ) k left join lateral (
        select * from concept c where c.tenant = $1 and c.concept = k.concept offset 0
    ) c on true"""  # noqa: S608 - composed of constants above
    return paged(_WRITER, "Concept", part, rows, places=("k.concept",), cursor=_CONCEPT_CURSOR)


def _shell(kind: str, shell: str = "<object>") -> Callable[[Part], str]:
    return lambda part: shell.replace("<object>", _WRITER.object(kind, part.parts))


AT_RISK_ORDER = Order("at-risk", ("int8", "int8", "text"), FIRST_AT_RISK)
RECENT_ORDER = Order("recent-activity", ("timestamptz", "int8"), AFTER_ALL)
FLAGS_ORDER = Order("risk-flags", ("int8", "text", "text"), FIRST_FLAG)
CONCEPTS_ORDER = Order("class-concepts", ("text",), ("",))
_AT_RISK_CURSOR = cursor(AT_RISK_ORDER, "l.k0", "l.k1", "to_json(l.k2)")
_RECENT_CURSOR = cursor(RECENT_ORDER, micros("l.k0"), "l.k1")
_FLAG_CURSOR = cursor(FLAGS_ORDER, "l.k0", "to_json(l.k1)", "to_json(l.k2)")
_CONCEPT_CURSOR = cursor(CONCEPTS_ORDER, "to_json(l.k0)")
OBJECTS: Objects = {
    ("Classroom", "asOf"): _shell("AsOf"),
    ("Classroom", "rollup"): _shell("ClassroomRollup"),
    ("Classroom", "policy"): _shell("ClassroomPolicy", _POLICY),
    ("Classroom", "dashboard"): _shell("Dashboard"),
    ("Classroom", "riskFlags"): _flags,
    ("Classroom", "concepts"): _concepts,
    ("Dashboard", "atRisk"): _at_risk,
    ("Dashboard", "recentActivity"): _recent,
    ("AtRiskStudent", "student"): _shell("Student", _STUDENT),
    ("AtRiskStudent", "flags"): _shell("RiskFlag", _FLAGS),
    ("RiskFlag", "student"): _shell("Student", _STUDENT),
    ("Activity", "student"): _shell("Student", _STUDENT),
    ("Activity", "event"): _shell("LearningEvent"),
    ("Student", "asOf"): _shell("AsOf"),
}
"""What may be selected that has parts of its own."""
PAGES = {
    ("Dashboard", "atRisk"): AT_RISK_ORDER,
    ("Dashboard", "recentActivity"): RECENT_ORDER,
    ("Classroom", "riskFlags"): FLAGS_ORDER,
    ("Classroom", "concepts"): CONCEPTS_ORDER,
}
"""The lists among them."""
LOGS = {("Dashboard", "recentActivity")}
"""Those that read the log of events."""
HELD = {("Dashboard", "atRisk"), ("Classroom", "riskFlags")}
"""Those that are made of flags alone: they are written under the class's lock, and its number moves with them. Where
names and roles of students are shown beside, the roster has a say, and they are read each time."""
BELOW = {
    ("Classroom", "asOf"): "AsOf",
    ("Classroom", "rollup"): "ClassroomRollup",
    ("Classroom", "policy"): "ClassroomPolicy",
    ("Classroom", "dashboard"): "Dashboard",
    ("Classroom", "riskFlags"): "RiskFlag",
    ("Classroom", "concepts"): "Concept",
    ("Dashboard", "atRisk"): "AtRiskStudent",
    ("Dashboard", "recentActivity"): "Activity",
    ("AtRiskStudent", "student"): "Student",
    ("AtRiskStudent", "flags"): "RiskFlag",
    ("RiskFlag", "student"): "Student",
    ("Activity", "student"): "Student",
    ("Activity", "event"): "LearningEvent",
    ("Student", "asOf"): "AsOf",
}
"""The types of what has parts."""
_WRITER: Writer = Writer(FIELDS, OBJECTS)
CLASS_PAGE = statement_of(all_of("Classroom", FIELDS, BELOW, PAGES))
"""All that can be selected; every other statement is a part of it."""
