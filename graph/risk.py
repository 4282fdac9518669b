"""Risk flags as clients read them: who is slipping, how badly, on what evidence, and what would clear it."""

from collections.abc import Iterator, Mapping
from datetime import date, datetime
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import strawberry
from msgspec import MsgspecError, json

from db.dashboards import Flag, FlagKey
from db.freshness import Freshness
from graph.connections import Keyset
from graph.nodes import Node, global_id
from graph.request import Info

if TYPE_CHECKING:
    from graph.students import Student


FLAG_ORDER = Keyset("risk-flags", (int, str, str))  # of a class: by falling severity, student and reason


@strawberry.enum(description="Why a student may need help in a class.")
class RiskReason(Enum):
    """The reasons of `rules.risk.Reason`, described."""

    MISSING_SUBMISSIONS = strawberry.enum_value(
        "MISSING_SUBMISSIONS", description="Assigned work is past due, or has no due date, and has no grade."
    )
    SCORE_TREND_DOWN = strawberry.enum_value(
        "SCORE_TREND_DOWN", description="The last counted score in the class is lower than the one before it."
    )
    COMPLETION_BELOW_MEDIAN = strawberry.enum_value(
        "COMPLETION_BELOW_MEDIAN", description="The student's completion rate is below the median of the class."
    )
    INACTIVE = strawberry.enum_value(
        "INACTIVE", description="No activity in the class for at least the number of days its policy allows."
    )


@strawberry.enum(description="How much a risk matters, lowest first.")
class RiskSeverity(Enum):
    """The steps of `rules.risk.Severity`, described."""

    LOW = strawberry.enum_value(1, description="Worth a look.")
    MEDIUM = strawberry.enum_value(2, description="Worth a word with the student.")
    HIGH = strawberry.enum_value(3, description="Worth acting on today.")


@strawberry.type(description="One recorded event, by the key its producer gave it.")
class EventReference:
    """The key of an event in the log."""

    source: str = strawberry.field(description="The system or person that recorded the event.")
    event_id: strawberry.ID = strawberry.field(description="The event's id within its source.")


@strawberry.enum(description="What an item of work has to do with a flag.")
class RiskItemState(Enum):
    """The lists of work that evidence can hold."""

    NEVER_SUBMITTED = strawberry.enum_value("missing", description="Past due or without a due date, and not handed in.")
    AWAITING_GRADE = strawberry.enum_value("awaitingGrade", description="Handed in, and not graded yet.")
    OPEN = strawberry.enum_value("open", description="Assigned, and not graded yet; it lowers the completion rate.")
    SCORED = strawberry.enum_value("scores", description="Graded; its score is part of the trend.")


@strawberry.type(description="One item of work (an assignment or quiz) that a flag rests on.")
class RiskItem:
    """An entry of one of the evidence's lists."""

    key: str = strawberry.field(description="The key of the assignment or quiz.")
    state: RiskItemState = strawberry.field(description="What the item has to do with the flag.")
    due_at: datetime | None = strawberry.field(
        description="When the item is due for this student; null when it has no due date or is SCORED."
    )
    score: float | None = strawberry.field(
        description="The counted score, a fraction where 1 is full marks; null unless SCORED."
    )
    event: EventReference = strawberry.field(
        description="The event that assigned the item, or, when SCORED, the one that graded it."
    )


@strawberry.enum(description="What a number in a flag's evidence counts or measures.")
class RiskNumberName(Enum):
    """The numbers that evidence can hold, by their name in the stored evidence."""

    NEVER_SUBMITTED = strawberry.enum_value("missingCount", description="Items past due and not handed in, in all.")
    AWAITING_GRADE = strawberry.enum_value("awaitingGradeCount", description="Items handed in, not graded, in all.")
    SCORE_DROP = strawberry.enum_value("drop", description="How far the last score fell, a fraction in 0 to 1.")
    FALLS_IN_A_ROW = strawberry.enum_value("falls", description="Scores in a row that were lower than the one before.")
    COMPLETION_RATE = strawberry.enum_value("rate", description="The student's completion rate, a fraction in 0 to 1.")
    CLASS_MEDIAN = strawberry.enum_value("median", description="The median completion rate of the class, in 0 to 1.")
    GAP_TO_MEDIAN = strawberry.enum_value("gap", description="Median less completion rate, a fraction in 0 to 1.")
    STUDENTS_COMPARED = strawberry.enum_value(
        "studentCount", description="Students with a rate: the median is of these."
    )
    ITEMS_GRADED = strawberry.enum_value("graded", description="The student's assigned items that are graded.")
    ITEMS_ASSIGNED = strawberry.enum_value(
        "assigned", description="Items assigned to the student, without excused ones."
    )
    ITEMS_OPEN = strawberry.enum_value("openCount", description="Items assigned and not graded, in all.")
    INACTIVITY_LIMIT_DAYS = strawberry.enum_value("limitDays", description="Days without activity the class allows.")
    INACTIVITY_REACHED_DAYS = strawberry.enum_value(
        "reachedDays", description="Days without activity that were reached, counted in the steps of the severity."
    )


@strawberry.type(description="One number of a flag's evidence.")
class RiskNumber:
    """A named number; names that do not apply to a reason are absent."""

    name: RiskNumberName = strawberry.field(description="What the number counts or measures.")
    value: float = strawberry.field(description="The number; rates and scores are fractions in 0 to 1.")


@strawberry.type(
    description="Why a flag is up, in one shape for every reason. MISSING_SUBMISSIONS lists items never submitted and "
    "items awaiting a grade; SCORE_TREND_DOWN the falling scores in order, oldest first; COMPLETION_BELOW_MEDIAN the "
    "rates and the open items; INACTIVE the last active day, or the day of enrolment."
)
class RiskEvidence:
    """The stored evidence of a flag, typed."""

    events: list[EventReference] = strawberry.field(
        description="The recorded events the flag rests on, each once, in the order of `items`."
    )
    items: list[RiskItem] = strawberry.field(
        description="The items of work the flag rests on, at most 20 of a state; `numbers` holds the totals."
    )
    numbers: list[RiskNumber] = strawberry.field(description="The numbers the flag rests on.")
    last_active_on: date | None = strawberry.field(
        description="INACTIVE: the student's last active local day in the class; null if never active there."
    )
    enrolled_on: date | None = strawberry.field(
        description="INACTIVE, never active in the class: the local day that inactivity is counted from."
    )


_NUMBERS = {str(number.value): number for number in RiskNumberName}
_ITEMS = {str(state.value): state for state in RiskItemState}


def evidence_of(stored: Mapping[str, Any]) -> RiskEvidence:
    """Type the evidence that `rules.risk` wrote; what an older version wrote and nobody words any more is left out."""
    items = list(_items(stored))
    events = {(item.event.source, item.event.event_id): item.event for item in items}
    return RiskEvidence(
        events=list(events.values()),
        items=items,
        numbers=[
            RiskNumber(name=number, value=stored[name])
            for name, number in _NUMBERS.items()
            if stored.get(name) is not None
        ],
        last_active_on=_day(stored.get("lastActiveOn")),
        enrolled_on=_day(stored.get("enrolledOn")),
    )


def _items(stored: Mapping[str, Any]) -> Iterator[RiskItem]:
    for name, state in _ITEMS.items():
        for entry in stored.get(name, ()):
            event = entry["event"] if state is RiskItemState.SCORED else entry["assignedBy"]
            due_at = entry.get("dueAt")
            yield RiskItem(
                key=entry["item"],
                state=state,
                due_at=datetime.fromisoformat(due_at) if due_at else None,
                score=entry.get("score"),
                event=EventReference(source=event["source"], event_id=event["eventId"]),
            )


def _day(text: str | None) -> date | None:
    return date.fromisoformat(text) if text else None


@strawberry.type(description="One reason why one student of a class may need help; it is up until its reason ends.")
class RiskFlag(Node):
    """A raised flag; students and guardians never see one."""

    student_id: strawberry.ID = strawberry.field(description="The key of the student.")
    classroom_id: strawberry.ID = strawberry.field(description="The key of the class.")
    reason: RiskReason = strawberry.field(description="Why the flag is up.")
    severity: RiskSeverity = strawberry.field(description="How much this reason matters by itself.")
    raised_at: datetime = strawberry.field(description="When the reason was found to hold, this time.")
    evidence: RiskEvidence = strawberry.field(description="The events and numbers the flag rests on.")
    clears_when: str = strawberry.field(description="What would end it, in one sentence for people, with the numbers.")
    point: strawberry.Private[Freshness]

    @strawberry.field(description="The student; null for one who left the class a moment ago.")
    async def student(self, info: Info) -> Annotated["Student", strawberry.lazy("graph.students")] | None:
        """Loaded together with those of the other flags."""
        from graph.students import students_of  # late: a student shows flags, a flag shows its student

        return (await students_of(info.context, [self.student_id], self.point)).get(self.student_id)


def node_key_of(key: FlagKey) -> str:
    """The three keys that name a flag as the one key that a global id holds."""
    return json.encode(key).decode()


def read_node_key(text: str) -> FlagKey | None:
    """The keys in a global id's key; None for what `node_key_of` never wrote."""
    try:
        key = json.decode(text, type=FlagKey)
    except MsgspecError:
        return None
    return key if node_key_of(key) == text else None


def flag_of(classroom: str, flag: Flag, point: Freshness) -> RiskFlag:
    """A stored flag as clients read it."""
    return RiskFlag(
        id=global_id("RiskFlag", node_key_of((classroom, flag.student, flag.reason))),
        student_id=strawberry.ID(flag.student),
        classroom_id=strawberry.ID(classroom),
        reason=RiskReason(flag.reason),
        severity=RiskSeverity(flag.severity),
        raised_at=flag.raised_at,
        evidence=evidence_of(flag.evidence),
        clears_when=flag.clears_when,
        point=point,
    )
