"""An event as it rides in its outbox row, so that its fold need not look for it in the log."""

from datetime import datetime
from typing import Literal

import msgspec

from db.outbox import Claimed
from rules.evidence import CORRECTION_KINDS, Kind, LearningEvent

_Text = str | None
_Number = int | None
# A layout that differs in anything gets another number: whoever does not know it reads the log.
_LAYOUT: Literal[1] = 1
_Parcel = tuple[
    Literal[1], str, str, Kind, int, _Text, _Text, tuple[str, ...], _Number, _Text, datetime | None, _Number, _Text,
    _Text,
]  # fmt: skip

PARCEL_BYTES_MAX = 1_000  # a row of more than 2,000 bytes is compressed, or cut up and kept in pieces

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Parcel)
_CORRECTION_IDS = frozenset(map(id, CORRECTION_KINDS))  # a member's own hash is Python's, and is asked of every event


def packed(event: LearningEvent) -> bytes | None:
    """What rides in the event's outbox row beside the columns that the row has anyway.

    None of an event that is read from the log instead: one that is too large, and a correction, which waits beside what
    it speaks of, in a row of its own (`db.corrections`).
    """
    if id(event.kind) in _CORRECTION_IDS:
        return None
    parcel = _encoder.encode((
        _LAYOUT, event.source, event.event_id, event.kind, event.revision, event.assignment, event.quiz, event.concepts,
        event.ratio, event.submission, event.due_at, event.time_spent_ms, event.target_source, event.target_event_id,
    ))  # fmt: skip
    return parcel if len(parcel) <= PARCEL_BYTES_MAX else None


def unpacked(row: Claimed) -> LearningEvent | None:
    """The event of a claimed row, as `db.facts.event_of` would read it from the log.

    None where nothing rides in the row, or what another release packed: the log has it.
    """
    if row.packed is None:
        return None
    try:
        parcel = _decoder.decode(row.packed)
    except msgspec.MsgspecError:
        return None
    return LearningEvent(parcel[1], parcel[2], parcel[3], row.occurred_at, row.student, row.classroom, *parcel[4:])
