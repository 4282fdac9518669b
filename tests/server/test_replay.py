"""The real classes: what the rows of OULAD become, and how they are moved in time."""

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import cast

import pytest

from rules.access import Role, Scope, Viewer
from rules.evidence import EventInput, IntakeSettings, Submission
from rules.roster import AssignmentKind
from rules.validation import validate
from server.feed import feed, roster_entries
from server.replay import DATA, Course, Replay, Row, Stay, Work, WrongData, read_courses, shift_to_week
from server.sender import Service, Tally

pytestmark = pytest.mark.feature("000-25")

NOW = datetime(2026, 3, 11, 9, 30, tzinfo=UTC)
NOVEMBER = datetime(2013, 11, 1, tzinfo=UTC)  # between the two rows of SMALL
MACHINE = Viewer(1, "lms-1", frozenset({Role.INTEGRATOR}), NOW, frozenset({Scope.INGEST}))
ESSAY = Work("a1", "BBB:TMA", "TMA", date(2013, 10, 20))
QUIZ = Work("a2", "BBB:CMA", "CMA", date(2013, 11, 24))
SMALL = Course(
    "BBB-2013J",
    (ESSAY, QUIZ),
    (Stay("s1", date(2013, 6, 1), None), Stay("s2", date(2013, 10, 5), date(2013, 12, 31))),
    (Row("p1", date(2013, 10, 19), "s1", ESSAY, 0.66), Row("p2", date(2013, 11, 20), "s1", QUIZ, 0.9)),
)


@pytest.fixture(scope="module")
def courses() -> dict[str, Course]:
    return read_courses()


def test_the_data_holds_nine_classes_with_all_their_rows_and_the_notice_beside_them(courses: dict[str, Course]) -> None:
    students = {key: len(course.stays) for key, course in courses.items()}

    assert students == {
        "AAA-2013J": 203,
        "BBB-2013B": 946,
        "BBB-2013J": 1230,
        "DDD-2013B": 725,
        "DDD-2013J": 1071,
        "EEE-2013J": 581,
        "FFF-2013B": 875,
        "FFF-2013J": 1255,
        "GGG-2013J": 559,
    }
    assert sum(len(course.rows) for course in courses.values()) == 44_245
    assert sum(len(course.works) for course in courses.values()) == 83
    assert "CC BY 4.0" in (DATA / "README.md").read_text()


def test_a_course_begins_in_the_month_that_its_name_says() -> None:
    assert SMALL.day_zero == date(2013, 10, 1)
    assert Course("FFF-2013B", (), (), ()).day_zero == date(2013, 2, 1)


@pytest.mark.parametrize("today", [date(2026, 11, 20) + timedelta(days=day) for day in range(8)])
def test_a_shift_puts_today_into_the_week_asked_for_and_keeps_weekdays(today: date) -> None:
    shift = shift_to_week(SMALL, today, 12)

    week = (today - (SMALL.day_zero + shift)).days // 7 + 1
    assert week == 12
    assert shift.days % 7 == 0


def test_work_is_assigned_to_every_student_with_its_due_date_once_they_are_there() -> None:
    assigned = [event for event in Replay(SMALL).events() if event.type == "ASSIGNMENT_ASSIGNED"]

    assert [(e.event_id, e.occurred_at, e.due_at) for e in assigned] == [
        ("a1:s1:assigned", datetime(2013, 10, 1, 6, tzinfo=UTC), datetime(2013, 10, 21, tzinfo=UTC)),
        ("a2:s1:assigned", datetime(2013, 10, 1, 6, tzinfo=UTC), datetime(2013, 11, 25, tzinfo=UTC)),
        ("a1:s2:assigned", datetime(2013, 10, 5, 6, tzinfo=UTC), datetime(2013, 10, 21, tzinfo=UTC)),
        ("a2:s2:assigned", datetime(2013, 10, 5, 6, tzinfo=UTC), datetime(2013, 11, 25, tzinfo=UTC)),
    ]


def test_tutor_marked_work_is_handed_in_then_marked_and_a_quiz_is_one_attempt() -> None:
    replay = Replay(SMALL)

    created, graded = replay.events_of(SMALL.rows[0])
    (attempt,) = replay.events_of(SMALL.rows[1])

    handed_in = replay.moment_of(SMALL.rows[0])
    assert handed_in.date() == date(2013, 10, 19)
    assert created == EventInput(
        event_id="p1:created",
        source="oulad",
        occurred_at=handed_in,
        student_id="s1",
        classroom_id="BBB-2013J",
        assignment_id="a1",
        concept_ids=["BBB:TMA"],
        type="SUBMISSION_CREATED",
        submission_id="p1",
    )
    assert (graded.event_id, graded.type, graded.score) == ("p1:graded", "SUBMISSION_GRADED", 0.66)
    assert graded.occurred_at == handed_in + timedelta(hours=1)
    assert (attempt.event_id, attempt.type, attempt.score) == ("p2:attempt", "QUIZ_ATTEMPT", 0.9)


def test_a_row_sent_live_keeps_its_ids_and_is_stamped_with_the_moment() -> None:
    live = Replay(SMALL).events_of(SMALL.rows[0], at=NOW)

    assert [event.event_id for event in live] == ["p1:created", "p1:graded"]
    assert {event.occurred_at for event in live} == {NOW}


def test_a_shift_moves_every_time_by_the_same_span() -> None:
    shift = timedelta(days=70)

    plain, moved = Replay(SMALL).events(), Replay(SMALL, shift).events()

    assert [e.occurred_at + shift for e in plain if e.occurred_at] == [e.occurred_at for e in moved]
    assert [e.due_at + shift for e in plain if e.due_at] == [e.due_at for e in moved if e.due_at]


def test_nobody_has_left_on_a_day_that_is_still_to_come() -> None:
    before, after = (Replay(SMALL).enrollments(today=day)[1].ended for day in (date(2013, 12, 30), date(2013, 12, 31)))

    assert (before, after) == (None, date(2013, 12, 31))


def test_work_is_numbered_by_its_due_date_and_a_quiz_is_called_one() -> None:
    essay, quiz = Replay(SMALL).assignments

    assert (essay.title, essay.kind) == ("Tutor-marked work 1", AssignmentKind.ASSIGNMENT)
    assert (quiz.title, quiz.kind) == ("Computer-marked quiz 1", AssignmentKind.QUIZ)


def test_every_event_of_a_real_class_is_taken_has_its_own_id_and_is_in_the_order_of_time(
    courses: dict[str, Course],
) -> None:
    course = courses["AAA-2013J"]
    found = Replay(course).events()

    checked = [validate(e, viewer=MACHINE, now=NOW, settings=IntakeSettings(), fresh_id="") for e in found]

    assert [problem for problem in checked if not isinstance(problem, Submission)] == []
    assert len({event.event_id for event in found}) == len(found)
    assert [e.occurred_at for e in found] == sorted(e.occurred_at for e in found if e.occurred_at)
    kinds = Counter(event.type for event in found)
    assert kinds["ASSIGNMENT_ASSIGNED"] == len(course.works) * len(course.stays)
    assert kinds["SUBMISSION_GRADED"] + kinds["QUIZ_ATTEMPT"] == len(course.rows)


def test_the_roster_is_saved_catalog_and_school_first_and_work_last() -> None:
    steps = [Counter(mutation for mutation, _ in entries) for entries in roster_entries([Replay(SMALL)])]

    assert steps == [
        {"saveCatalog": 1, "saveSchool": 1},
        {"saveClassroom": 1, "saveStudent": 2},
        {"saveEnrollment": 2},
        {"saveAssignment": 2},
    ]


def test_a_folder_without_the_data_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(WrongData, match=str(tmp_path)):
        read_courses(tmp_path)


class Recorded:
    """A service that takes everything; only what is sent to it matters here."""

    def __init__(self) -> None:
        self.tally = Tally()
        self.batches: list[list[EventInput]] = []

    async def record(self, events: list[EventInput]) -> None:
        self.batches.append(events)


async def test_at_full_speed_only_what_has_happened_is_sent_unchanged_and_as_a_backfill() -> None:
    service, found = Recorded(), Replay(SMALL).events()

    await feed(cast(Service, service), found, days_per_second=0, stop=asyncio.Event(), clock=lambda: NOVEMBER)

    (batch,) = service.batches
    assert batch == [replace(event, lane="BACKFILL") for event in found if event.event_id != "p2:attempt"]


async def test_at_a_chosen_speed_the_future_is_stamped_when_it_is_sent() -> None:
    service, found = Recorded(), Replay(SMALL).events()

    await feed(cast(Service, service), found, days_per_second=1e6, stop=asyncio.Event(), clock=lambda: NOVEMBER)

    sent = [event for batch in service.batches for event in batch]
    assert [event.event_id for event in sent] == [event.event_id for event in found]
    assert sent[-1].occurred_at == NOVEMBER
    assert {event.lane for event in sent} == {"LIVE"}
