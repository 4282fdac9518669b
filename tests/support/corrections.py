"""Corrections for tests: dice that throw them, and the corrected set said a second time, event by event."""

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from hypothesis import strategies as st

from rules.evidence import Kind, LearningEvent

SET_ASIDE = frozenset(
    {
        Kind.SUBMISSION_CREATED, Kind.SUBMISSION_GRADED, Kind.QUIZ_ATTEMPT, Kind.CONCEPT_COMPLETED,
        Kind.CONCEPT_MASTERED, Kind.EXERCISE_COMPLETED, Kind.QUALITY_ASSESSED,
    }
)  # fmt: skip
GRADES = (Kind.SUBMISSION_GRADED, Kind.QUIZ_ATTEMPT)
IN_CLASS = re.compile(r"@\w+")  # event ids and evidence say no other
SCORED = (*GRADES, Kind.CONCEPT_COMPLETED, Kind.CONCEPT_MASTERED)


def regrade(name: str, target: LearningEvent, ratio: int, at: datetime, **more: Any) -> LearningEvent:
    """A regrade of an event, or of its submission with `by_submission`."""
    by_submission = more.pop("by_submission", False)
    given: dict[str, Any] = {
        "source": "office",
        "event_id": name,
        "kind": Kind.SUBMISSION_REGRADED,
        "occurred_at": at,
        "student": target.student,
        "ratio": ratio,
        "target_source": target.source,
        **({"submission": target.submission} if by_submission else {"target_event_id": target.event_id}),
    }
    return LearningEvent(**{**given, **more})


def about_item(kind: Kind, name: str, target: LearningEvent, at: datetime, **more: Any) -> LearningEvent:
    """An excuse or a reopening of the item of an event."""
    given: dict[str, Any] = {
        "source": "office",
        "event_id": name,
        "kind": kind,
        "occurred_at": at,
        "student": target.student,
        "classroom": target.classroom,
        "assignment": target.item,
    }
    return LearningEvent(**{**given, **more})


@st.composite
def corrections(
    draw: Any,
    events: Sequence[LearningEvent],
    *,
    moments: Sequence[datetime],
    ratios: Sequence[int],
    at_most: int = 6,
) -> list[LearningEvent]:
    """Regrades, excuses and reopenings of these events, at any of the moments, also before what they correct."""
    scored = [event for event in events if event.ratio is not None and event.kind in SCORED]
    worked = [event for event in events if event.item is not None]
    found: list[LearningEvent] = []
    for number in range(draw(st.integers(1, at_most))):
        at, name = draw(st.sampled_from(moments)), f"c{number}"
        if scored and draw(st.booleans()):
            target = draw(st.sampled_from(scored))
            found.append(
                regrade(
                    name, target, draw(st.sampled_from(ratios)), at,
                    by_submission=bool(target.submission is not None and target.kind in GRADES and draw(st.booleans())),
                    only_if_higher=draw(st.booleans()),
                )
            )  # fmt: skip
        elif worked:
            target = draw(st.sampled_from(worked))
            kind = draw(st.sampled_from([Kind.ASSIGNMENT_EXCUSED, Kind.ASSIGNMENT_REOPENED]))
            due_at = draw(st.sampled_from([None, *moments])) if kind is Kind.ASSIGNMENT_REOPENED else None
            found.append(about_item(kind, name, target, at, due_at=due_at))
    return found


def corrected_set(
    events: Sequence[LearningEvent], told: Sequence[LearningEvent]
) -> tuple[list[LearningEvent], set[tuple[str, str, str]]]:
    """The history as it would have been without any correction, and the (student, class, item) that are excused.

    What is set aside is in it as plain activity, assignments of excused work too. Holds for attempts that stay within
    one class and one item: see `is_plain`.
    """
    found: list[LearningEvent] = []
    left: list[LearningEvent] = []
    excused: set[tuple[str, str, str]] = set()
    for event in events:
        said = _said_of(event, told) if event.kind in SET_ASIDE | {Kind.ASSIGNMENT_ASSIGNED} else []
        is_excused = bool(said) and said[-1].kind is Kind.ASSIGNMENT_EXCUSED
        reopenings = [one for one in said if one.kind is Kind.ASSIGNMENT_REOPENED]
        if is_excused:
            excused.add((event.student, event.classroom, event.item or ""))
        if is_excused or (event.kind in SET_ASIDE and any(one.key > event.key for one in reopenings)):
            found.append(replace(event, assignment=None, quiz=None, concepts=(), ratio=None, submission=None))
        else:
            left.append(event)
        found += [] if is_excused else [_assigned_again(one, event) for one in reopenings]
    found += [_valued(event, left, told) for event in left]
    return list({event.key: event for event in found}.values()), excused


def _assigned_again(reopening: LearningEvent, event: LearningEvent) -> LearningEvent:
    """What a reopening is for the item of an event: one that names no class assigns it again in each where it is.

    Each of these is an event of its own, whose name keeps its place in the total order.
    """
    again = replace(reopening, kind=Kind.ASSIGNMENT_ASSIGNED, classroom=event.classroom)
    if event.classroom == reopening.classroom:
        return again
    return replace(again, event_id=f"{reopening.event_id}@{event.classroom}")


def as_said(text: str) -> str:
    """A text of a corrected set with the reopenings' own event ids."""
    return IN_CLASS.sub("", text)


def is_plain(events: Sequence[LearningEvent]) -> bool:
    """Whether no attempt spans two classes or two items: then a corrected set can be written down as events."""
    places: dict[tuple[str, str, str], set[tuple[str, str | None]]] = {}
    for event in events:
        if event.submission is not None:
            name = (event.student, event.source, event.submission)
            places.setdefault(name, set()).add((event.classroom, event.item))
    return all(len(found) == 1 for found in places.values())


def _said_of(event: LearningEvent, told: Sequence[LearningEvent]) -> list[LearningEvent]:
    """The excuses and reopenings of an event's item, in total order."""
    return sorted(
        (
            one
            for one in told
            if one.kind in (Kind.ASSIGNMENT_EXCUSED, Kind.ASSIGNMENT_REOPENED)
            and (one.student, one.assignment) == (event.student, event.item)
            and one.classroom in ("", event.classroom)  # one that names no class means the item wherever it is
        ),
        key=lambda one: one.key,
    )


def _valued(event: LearningEvent, left: Sequence[LearningEvent], told: Sequence[LearningEvent]) -> LearningEvent:
    """The event with the last value of its attempt."""
    if event.ratio is None or event.kind not in SCORED:
        return event
    grades = [event]
    if event.submission is not None and event.kind in GRADES:
        name = (event.student, event.source, event.submission)
        grades = sorted(
            (
                one
                for one in left
                if (one.student, one.source, one.submission) == name and one.kind in GRADES and one.ratio is not None
            ),
            key=lambda one: one.key,
        )
    reopened = max((one.key for one in _said_of(event, told) if one.kind is Kind.ASSIGNMENT_REOPENED), default=None)
    steps = [(one.key, one.key, one) for one in grades]
    for one in told:
        if one.kind is not Kind.SUBMISSION_REGRADED or (reopened is not None and one.key < reopened):
            continue
        names = {(grade.source, grade.event_id): grade for grade in grades}
        meant = names.get((one.target_source or "", one.target_event_id or ""))
        if one.submission is not None and (one.target_source, one.submission) == (event.source, event.submission):
            meant = grades[0] if one.student == event.student and event.kind in GRADES else None
        if meant is not None:
            steps.append((max(one.key, meant.key), one.key, one))
    value = event.ratio
    is_first = True
    for place, key, one in sorted(
        steps, key=lambda step: (step[0], step[1] != step[0] or step[2] not in grades, step[1])
    ):
        assert key <= place
        assert one.ratio is not None
        if is_first or not one.only_if_higher or one.ratio > value:
            value = one.ratio
        is_first = False
    return replace(event, ratio=value) if len(steps) > len(grades) else event
