"""Voids over real HTTP into real Postgres: final, told once, and only by whom the target's class belongs to."""

from typing import Any

import pytest

from rules.access import Role
from tests.support.intake import VOID, Intake, graded


@pytest.mark.feature("X-01")
async def test_voiding_twice_is_one_void(intake: Intake) -> None:
    await intake.record(**graded())
    admin = intake.token(Role.ADMIN, sub="head")

    first = await intake.told(VOID, {"source": "lms", "eventId": "e1", "reason": "sent twice"}, token=admin)
    again = await intake.told(VOID, {"source": "lms", "eventId": "e1", "reason": "another word"}, token=admin)

    event = first.pop("event")
    assert first == {"status": "ACCEPTED", "seq": "2", "effect": "APPLIED", "errors": []}
    assert (event["source"], event["eventId"]) == ("user:head", "void:lms:e1")
    assert again == {"status": "DUPLICATE", "seq": "2", "effect": None, "errors": [], "event": event}
    assert await intake.rows("select target_source, target_event_id, reason from correction where tenant = $1") == [
        ("lms", "e1", "sent twice")
    ]
    assert (await intake.log())[1:] == [("user:head", "void:lms:e1", "EVENT_VOIDED", "s1", "7b")]


@pytest.mark.feature("X-01")
async def test_a_machines_void_carries_the_source_of_the_service(intake: Intake) -> None:
    long = "e" * 128
    await intake.record(**graded(long))

    payload = await intake.told(VOID, {"source": "lms", "eventId": long, "reason": "sent twice"})

    assert (payload["status"], payload["effect"], payload["event"]["source"]) == ("ACCEPTED", "APPLIED", "sightline")
    assert payload["event"]["eventId"].startswith("void#")


@pytest.mark.feature("X-05")
async def test_a_void_before_its_target_waits_and_a_void_of_a_void_does_nothing(intake: Intake) -> None:
    waiting = await intake.told(VOID, {"source": "lms", "eventId": "later", "reason": "known to be wrong"})
    key = waiting["event"]

    nothing = await intake.told(VOID, {"source": key["source"], "eventId": key["eventId"], "reason": "take it back"})

    assert [waiting["effect"], nothing["effect"]] == ["WAITING", "NONE"]


@pytest.mark.feature("X-01")
async def test_a_teacher_voids_only_what_belongs_to_their_class(intake: Intake) -> None:
    await intake.district.classroom("8a")
    await intake.record(**graded("own"))
    await intake.record(**graded("foreign", classroomId="8a"))
    await intake.record(**graded("classless", type="CONCEPT_STARTED", score=None, classroomId=None))
    token = intake.token(Role.TEACHER, sub="t1")

    async def void(event_id: str) -> dict[str, Any]:
        return await intake.told(VOID, {"source": "lms", "eventId": event_id, "reason": "wrong"}, token=token)

    refused = [await void(event_id) for event_id in ("foreign", "classless", "unknown")]
    own = await void("own")

    assert refused[0] == refused[1] == refused[2]
    assert [(error["code"], error["field"]) for error in refused[0]["errors"]] == [("NOT_FOUND", ["eventId"])]
    assert (own["status"], own["effect"]) == ("ACCEPTED", "APPLIED")
    assert await intake.rows("select target_event_id from correction where tenant = $1") == [("own",)]


@pytest.mark.feature("X-01")
async def test_a_void_told_as_an_event_obeys_the_same_walls(intake: Intake) -> None:
    await intake.district.classroom("8a")
    await intake.record(**graded("own"))
    await intake.record(**graded("foreign", classroomId="8a"))
    token = intake.token(Role.TEACHER, sub="t1")
    void = {"type": "EVENT_VOIDED", "classroomId": "7b", "targetSource": "lms", "reason": "wrong"}

    foreign = await intake.refusals(token=token, targetEventId="foreign", **void)
    unknown = await intake.refusals(token=token, targetEventId="unknown", **void)
    own = await intake.record(token=token, targetEventId="own", **void)

    assert foreign == unknown == [("NOT_FOUND", "targetEventId")]
    assert (own["status"], own["effect"]) == ("ACCEPTED", "APPLIED")
