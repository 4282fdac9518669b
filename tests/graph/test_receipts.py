"""Answers of recording: what stands in for a payload says all that the payload would."""

import random
from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
import strawberry
from graphql import FieldNode, GraphQLObjectType, OperationDefinitionNode, parse

from db.corrections import Effect
from db.evidence import Answer, Status
from graph.access import core_of
from graph.receipts import Accepted, EventConflict, RecordedEvent, RecordEventPayload, RecordStatus, answered
from graph.scalars import Seq
from graph.schema import schema
from graph.shapes import Shape, shape_of
from tests.graph.compiled_cases import Dice
from tests.rules.intake_samples import GRADED, accepted

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
SENT = replace(accepted(GRADED), type_inferred=True, is_idempotent=False)
STORED = Answer(Status.ACCEPTED, UUID(int=7), 2**40, NOW, SENT.fingerprint)
WHOLE = RecordEventPayload(
    status=RecordStatus.ACCEPTED,
    event=RecordedEvent(
        id=strawberry.ID("00000000-0000-0000-0000-000000000007"),
        seq=Seq(2**40),
        source="canvas",
        event_id=strawberry.ID("e1"),
        received_at=NOW,
    ),
    type_inferred=True,
    idempotent=False,
    effect=None,
    conflict=None,
    seq=Seq(2**40),
    errors=[],
)


def shape(selection: str) -> Shape:
    """The shape of a selection on the answer to one event."""
    core = core_of(schema)
    kind = core.type_map["RecordEventPayload"]
    (operation,) = parse(f"{{ field {{ {selection} }} }}").definitions
    assert isinstance(kind, GraphQLObjectType)
    assert isinstance(operation, OperationDefinitionNode)
    (node,) = operation.selection_set.selections
    assert isinstance(node, FieldNode)
    found = shape_of(kind, [node], {})
    assert found is not None
    return found


def test_an_accepted_event_has_every_attribute_of_its_payload() -> None:
    made: object = answered(SENT, STORED)

    assert type(made) is Accepted
    told = {field.name: getattr(made, field.name) for field in fields(RecordEventPayload)}
    assert told | {"errors": list(told["errors"])} == {
        field.name: getattr(WHOLE, field.name) for field in fields(WHOLE)
    }


def test_any_selection_reads_the_same_of_an_accepted_event_and_of_its_payload() -> None:
    kind = core_of(schema).type_map["RecordEventPayload"]
    assert isinstance(kind, GraphQLObjectType)
    for seed in range(300):
        selection = Dice(random.Random(seed), flaw=0.0).selection(kind)
        write = shape(selection)

        found, expected = write(answered(SENT, STORED)), write(WHOLE)

        assert expected is not None
        assert (found, list(found or ())) == (expected, list(expected)), selection


def test_what_no_payload_could_say_is_left_to_the_reference() -> None:
    made = answered(SENT, replace(STORED, received_at=NOW.replace(tzinfo=None)))

    assert shape("event { receivedAt }")(made) is None
    assert shape("event { id } status")(made) == {"event": {"id": WHOLE.event and WHOLE.event.id}, "status": "ACCEPTED"}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"status": Status.DUPLICATE}, replace(WHOLE, status=RecordStatus.DUPLICATE)),
        (
            {"status": Status.CONFLICT, "stored_hash": b"\x01" * 16},
            replace(
                WHOLE,
                status=RecordStatus.CONFLICT,
                conflict=EventConflict(stored_hash="01" * 16, sent_hash=SENT.fingerprint.hex()),
            ),
        ),
    ],
)
def test_every_other_answer_is_a_payload(change: dict[str, Any], expected: RecordEventPayload) -> None:
    assert answered(SENT, replace(STORED, **change)) == expected


def test_the_effect_of_a_correction_is_told_by_a_payload() -> None:
    made = answered(SENT, replace(STORED, effect=Effect.WAITING))

    assert type(made) is RecordEventPayload
    assert made.effect is not None
    assert made.effect.name == "WAITING"
