"""What may not enter the log: every wrong input has exactly one answer."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from rules.evidence import (
    Kind,
    ProblemCode,
)
from tests.rules.intake_samples import (
    CODE,
    NOW,
    SURROGATE,
    VALID,
    refused,
)

# (name, kind of the valid input, what is changed, the one problem expected); a kind is sent by a machine
G, Q, C, X = Kind.SUBMISSION_GRADED, Kind.QUIZ_ATTEMPT, Kind.CONCEPT_COMPLETED, Kind.EXERCISE_COMPLETED
A, V, H, Y = Kind.ASSIGNMENT_ASSIGNED, Kind.EVENT_VOIDED, Kind.PEER_HELP, Kind.QUALITY_ASSESSED
S, N, R, E = Kind.SUBMISSION_CREATED, Kind.ANSWER_SUBMITTED, Kind.SUBMISSION_REGRADED, Kind.ASSIGNMENT_EXCUSED
WRONG: list[tuple[str, Kind, dict[str, Any], ProblemCode, str]] = [
    ("no event id from a machine", G, {"event_id": None}, CODE.REQUIRED, "eventId"),
    ("empty event id", G, {"event_id": ""}, CODE.BAD_ID, "eventId"),
    ("event id of 129 characters", G, {"event_id": "x" * 129}, CODE.TOO_LONG, "eventId"),
    ("event id of a million characters", G, {"event_id": "x" * 1_000_000}, CODE.TOO_LONG, "eventId"),
    ("NUL in an id", G, {"event_id": "a\0b"}, CODE.BAD_ID, "eventId"),
    ("line break in an id", G, {"event_id": "a\nb"}, CODE.BAD_ID, "eventId"),
    ("DEL in an id", G, {"event_id": "a\x7f"}, CODE.BAD_ID, "eventId"),
    ("lone surrogate in an id", G, {"event_id": SURROGATE}, CODE.BAD_ID, "eventId"),
    ("surrogate behind an umlaut", G, {"event_id": "ä\udfff"}, CODE.BAD_ID, "eventId"),
    ("blank before an id", G, {"event_id": " e1"}, CODE.BAD_ID, "eventId"),
    ("blank after an id", G, {"event_id": "e1 "}, CODE.BAD_ID, "eventId"),
    ("no-break space around an id", G, {"event_id": "\u00a0e1"}, CODE.BAD_ID, "eventId"),
    ("only a blank", G, {"event_id": " "}, CODE.BAD_ID, "eventId"),
    ("a number for an id", G, {"event_id": 7}, CODE.BAD_ID, "eventId"),
    ("no source from a machine", G, {"source": None}, CODE.REQUIRED, "source"),
    ("empty source", G, {"source": ""}, CODE.BAD_ID, "source"),
    ("a person's source from a machine", G, {"source": "user:pupil-1"}, CODE.FORBIDDEN, "source"),
    ("the service's own source", G, {"source": "sightline"}, CODE.FORBIDDEN, "source"),
    ("no student from a machine", G, {"student_id": None}, CODE.REQUIRED, "studentId"),
    ("surrogate in the student", G, {"student_id": SURROGATE}, CODE.BAD_ID, "studentId"),
    ("no time from a machine", G, {"occurred_at": None}, CODE.REQUIRED, "occurredAt"),
    ("time without offset", G, {"occurred_at": datetime(2026, 3, 1)}, CODE.BAD_TIMESTAMP, "occurredAt"),  # noqa: DTZ001
    ("year 318857 as text", G, {"occurred_at": "318857-05-20T17:46:39Z"}, CODE.BAD_TIMESTAMP, "occurredAt"),
    ("year 1", G, {"occurred_at": datetime.min.replace(tzinfo=UTC)}, CODE.BAD_TIMESTAMP, "occurredAt"),
    (
        "year 1 that leaves the calendar in UTC",
        G,
        {"occurred_at": datetime.min.replace(tzinfo=timezone(timedelta(hours=14)))},
        CODE.BAD_TIMESTAMP,
        "occurredAt",
    ),
    (
        "just before 1970",
        G,
        {"occurred_at": datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)},
        CODE.BAD_TIMESTAMP,
        "occurredAt",
    ),
    ("year 9999", G, {"occurred_at": datetime.max.replace(tzinfo=UTC)}, CODE.FUTURE_TIMESTAMP, "occurredAt"),
    (
        "year 9999 that leaves the calendar in UTC",
        G,
        {"occurred_at": datetime.max.replace(tzinfo=timezone(timedelta(hours=-14)))},
        CODE.FUTURE_TIMESTAMP,
        "occurredAt",
    ),
    (
        "a moment more than 15 minutes ahead",
        G,
        {"occurred_at": NOW + timedelta(minutes=15, microseconds=1)},
        CODE.FUTURE_TIMESTAMP,
        "occurredAt",
    ),
    ("unknown type", G, {"type": "GRADED_MAYBE"}, CODE.UNKNOWN_TYPE, "type"),
    ("empty type", G, {"type": ""}, CODE.UNKNOWN_TYPE, "type"),
    ("canonical type in lower case that is no alias", G, {"type": "submission_graded"}, CODE.UNKNOWN_TYPE, "type"),
    ("type of 10,000 characters", G, {"type": "X" * 10_000}, CODE.UNKNOWN_TYPE, "type"),
    ("surrogate as type", G, {"type": SURROGATE}, CODE.UNKNOWN_TYPE, "type"),
    ("nothing that says the type", G, {"type": None, "score": None, "concept_ids": None}, CODE.REQUIRED, "type"),
    ("grade without score", G, {"score": None}, CODE.SCORE_REQUIRED, "score"),
    ("quiz attempt without score", Q, {"score": None}, CODE.SCORE_REQUIRED, "score"),
    ("score on an assignment", A, {"score": 0.5}, CODE.SCORE_NOT_ALLOWED, "score"),
    ("score on a submission", S, {"score": 0}, CODE.SCORE_NOT_ALLOWED, "score"),
    ("score on a void", V, {"score": 1}, CODE.SCORE_NOT_ALLOWED, "score"),
    ("negative score", G, {"score": -0.000001}, CODE.SCORE_OUT_OF_RANGE, "score"),
    ("score above 1 without a scale", G, {"score": 85}, CODE.SCORE_OUT_OF_RANGE, "score"),
    ("score above its scale", G, {"score": 10.5, "max_score": 10}, CODE.SCORE_OUT_OF_RANGE, "score"),
    ("NaN", G, {"score": float("nan")}, CODE.SCORE_OUT_OF_RANGE, "score"),
    ("infinity, which is 1e999", G, {"score": float("inf")}, CODE.SCORE_OUT_OF_RANGE, "score"),
    ("minus infinity", G, {"score": float("-inf")}, CODE.SCORE_OUT_OF_RANGE, "score"),
    ("integer of 5,000 digits", G, {"score": 10**5_000}, CODE.SCORE_OUT_OF_RANGE, "score"),
    ("true as a score", G, {"score": True}, CODE.SCORE_OUT_OF_RANGE, "score"),
    ("concept score above 1", C, {"score": 1.01}, CODE.SCORE_OUT_OF_RANGE, "score"),
    ("scale of zero", G, {"max_score": 0}, CODE.OUT_OF_RANGE, "maxScore"),
    ("negative scale", G, {"max_score": -1}, CODE.OUT_OF_RANGE, "maxScore"),
    ("NaN as scale", G, {"max_score": float("nan")}, CODE.OUT_OF_RANGE, "maxScore"),
    ("infinite scale", G, {"max_score": float("inf")}, CODE.OUT_OF_RANGE, "maxScore"),
    ("scale of 5,000 digits", G, {"max_score": 10**5_000}, CODE.OUT_OF_RANGE, "maxScore"),
    ("grade without classroom", G, {"classroom_id": None}, CODE.REQUIRED, "classroomId"),
    ("grade without assignment", G, {"assignment_id": None}, CODE.REQUIRED, "assignmentId"),
    ("submission without classroom", S, {"classroom_id": None}, CODE.REQUIRED, "classroomId"),
    ("assignment without assignment id", A, {"assignment_id": None}, CODE.REQUIRED, "assignmentId"),
    ("classroom of 200 characters", G, {"classroom_id": "k" * 200}, CODE.TOO_LONG, "classroomId"),
    ("tab in the assignment", G, {"assignment_id": "a\t1"}, CODE.BAD_ID, "assignmentId"),
    ("submission id too long", G, {"submission_id": "s" * 129}, CODE.TOO_LONG, "submissionId"),
    ("grade without concepts", G, {"concept_ids": None}, CODE.REQUIRED, "conceptIds"),
    ("empty list of concepts", G, {"concept_ids": []}, CODE.REQUIRED, "conceptIds"),
    ("51 concepts", G, {"concept_ids": [f"k{n}" for n in range(51)]}, CODE.TOO_MANY, "conceptIds"),
    ("100,000 concepts", G, {"concept_ids": [str(n) for n in range(100_000)]}, CODE.TOO_MANY, "conceptIds"),
    ("empty concept id", G, {"concept_ids": ["k1", ""]}, CODE.BAD_ID, "conceptIds.1"),
    ("NUL in a concept", G, {"concept_ids": ["k\0"]}, CODE.BAD_ID, "conceptIds.0"),
    ("concept id too long", G, {"concept_ids": ["k" * 129]}, CODE.TOO_LONG, "conceptIds.0"),
    ("two concepts on a concept event", C, {"concept_ids": ["k1", "k2"]}, CODE.TOO_MANY, "conceptIds"),
    ("no concept on a concept event", C, {"concept_ids": None}, CODE.REQUIRED, "conceptIds"),
    ("quiz attempt at nothing", Q, {"quiz_id": None}, CODE.REQUIRED, "quizId"),
    ("revision beyond 32 bits", G, {"revision": 2**31}, CODE.OUT_OF_RANGE, "revision"),
    ("revision of 5,000 digits", G, {"revision": 10**5_000}, CODE.OUT_OF_RANGE, "revision"),
    ("negative time spent", C, {"time_spent_ms": -1}, CODE.OUT_OF_RANGE, "timeSpentMs"),
    ("more than a day spent", C, {"time_spent_ms": 86_400_001}, CODE.OUT_OF_RANGE, "timeSpentMs"),
    ("half a millisecond", C, {"time_spent_ms": 0.5}, CODE.OUT_OF_RANGE, "timeSpentMs"),
    ("no exercises", X, {"total_exercises": 0, "completed_exercises": 0}, CODE.OUT_OF_RANGE, "totalExercises"),
    ("more exercises done than there are", X, {"completed_exercises": 11}, CODE.OUT_OF_RANGE, "completedExercises"),
    ("exercises without total", X, {"total_exercises": None}, CODE.REQUIRED, "totalExercises"),
    ("exercises without difficulty", X, {"difficulty": None}, CODE.REQUIRED, "difficulty"),
    ("unknown difficulty", X, {"difficulty": "expert"}, CODE.OUT_OF_RANGE, "difficulty"),
    ("quality without any part", Y, {"correctness": None}, CODE.REQUIRED, "codeQuality"),
    ("quality above 1", Y, {"correctness": 1.1}, CODE.OUT_OF_RANGE, "correctness"),
    ("quality that is NaN", Y, {"efficiency": float("nan")}, CODE.OUT_OF_RANGE, "efficiency"),
    ("help by nobody", H, {"helper_id": None}, CODE.REQUIRED, "helperId"),
    ("help to oneself", H, {"helped_id": "pupil-1"}, CODE.OUT_OF_RANGE, "helpedId"),
    ("content without id", Kind.CONTENT_VIEWED, {"content_id": None}, CODE.REQUIRED, "contentId"),
    ("quiz session without quiz", Kind.QUIZ_STARTED, {"quiz_id": None}, CODE.REQUIRED, "quizId"),
    ("display without question", Kind.QUESTION_DISPLAYED, {"question_id": None}, CODE.REQUIRED, "questionId"),
    ("answer without text", N, {"answer": None}, CODE.REQUIRED, "answer"),
    ("answer with NUL", N, {"answer": "a\0"}, CODE.BAD_TEXT, "answer"),
    ("answer of 4,001 characters", N, {"answer": "a" * 4_001}, CODE.TOO_LONG, "answer"),
    ("attempt zero", N, {"attempt_number": 0}, CODE.OUT_OF_RANGE, "attemptNumber"),
    ("void without reason", V, {"reason": None}, CODE.REQUIRED, "reason"),
    ("void with a blank reason", V, {"reason": "  "}, CODE.REQUIRED, "reason"),
    ("void without target", V, {"target_event_id": None}, CODE.REQUIRED, "targetEventId"),
    ("regrade without score", V, {"type": "SUBMISSION_REGRADED"}, CODE.SCORE_REQUIRED, "score"),
    ("regrade of nothing", R, {"target_event_id": None}, CODE.REQUIRED, "targetEventId"),
    ("regrade of two", R, {"submission_id": "s1"}, CODE.OUT_OF_RANGE, "submissionId"),
    ("regrade above full marks", R, {"score": 1.5}, CODE.SCORE_OUT_OF_RANGE, "score"),
    ("regrade if maybe higher", R, {"only_if_higher": 1}, CODE.OUT_OF_RANGE, "onlyIfHigher"),
    ("excuse of nothing", E, {"assignment_id": None}, CODE.REQUIRED, "assignmentId"),
    ("excuse without reason", E, {"reason": None}, CODE.REQUIRED, "reason"),
    ("excuse with a score", E, {"score": 0.5}, CODE.SCORE_NOT_ALLOWED, "score"),
    ("reopening without class", Kind.ASSIGNMENT_REOPENED, {"classroom_id": None}, CODE.REQUIRED, "classroomId"),
    ("due date without offset", A, {"due_at": datetime(2026, 3, 1)}, CODE.BAD_TIMESTAMP, "dueAt"),  # noqa: DTZ001
    ("due in the year 1", A, {"due_at": datetime.min.replace(tzinfo=UTC)}, CODE.BAD_TIMESTAMP, "dueAt"),
    ("51 rubric tags", G, {"rubric_tags": ["t"] * 51}, CODE.TOO_MANY, "rubricTags"),
    ("rubric tag too long", G, {"rubric_tags": ["t", "t" * 129]}, CODE.TOO_LONG, "rubricTags.1"),
    ("app nobody registered", G, {"app": "SPREADSHEET"}, CODE.UNKNOWN_APP, "app"),
    ("app of 51 characters", G, {"app": "A" * 51}, CODE.TOO_LONG, "app"),
    ("unknown lane", G, {"lane": "FAST"}, CODE.OUT_OF_RANGE, "lane"),
    ("metadata that is a list", G, {"metadata": []}, CODE.BAD_METADATA, "metadata"),
    ("metadata of 17 KiB", G, {"metadata": {"x": "y" * 17_000}}, CODE.BAD_METADATA, "metadata"),
    ("NaN in metadata", G, {"metadata": {"x": float("nan")}}, CODE.BAD_METADATA, "metadata"),
    ("NUL in metadata", G, {"metadata": {"x": ["\0"]}}, CODE.BAD_METADATA, "metadata"),
    ("surrogate in a metadata key", G, {"metadata": {SURROGATE: 1}}, CODE.BAD_METADATA, "metadata"),
    ("huge integer in metadata", G, {"metadata": {"x": 10**5_000}}, CODE.BAD_METADATA, "metadata"),
    ("metadata six levels deep", G, {"metadata": {"a": [[[[[1]]]]]}}, CODE.BAD_METADATA, "metadata"),
    ("metadata of 2,000 values", G, {"metadata": {"a": [1] * 2_000}}, CODE.BAD_METADATA, "metadata"),
    ("text where metadata counts", G, {"metadata": {"wordCount": "many"}}, CODE.BAD_METADATA, "metadata.wordCount"),
]


@pytest.mark.feature("000-03", "000-04", "000-05", "001-02", "003-14", "003-15", "004-08")
@pytest.mark.parametrize(("kind", "change", "code", "field"), [pytest.param(*row[1:], id=row[0]) for row in WRONG])
def test_each_wrong_input_has_exactly_one_answer(
    kind: Kind, change: dict[str, Any], code: ProblemCode, field: str
) -> None:
    assert refused(replace(VALID[kind], **change)) == [(code, tuple(field.split(".")))]


def test_the_table_of_wrong_inputs_is_long_enough() -> None:
    assert len(WRONG) >= 60
    assert len({row[0] for row in WRONG}) == len(WRONG)
