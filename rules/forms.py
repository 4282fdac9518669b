"""Forms: what follows from which fields an event has and from its type, found once for the thousands that are alike."""

from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from operator import itemgetter
from types import NoneType
from typing import Any, NamedTuple, TypeAlias

from rules.evidence import EventInput
from rules.fields import CONCEPTS_MAX
from rules.kinds import ALIASES, KIND_BY_NAME, SPECS, Concepts, Kind, Scores, Spec

FORMS_MAX = 2_048  # some hundred make sense; what is not kept is found again

Values: TypeAlias = tuple[Any, ...]
"""An event's usual fields, in their order."""

_USUAL_COUNT = EventInput.__struct_fields__.index("due_at")
USUAL = EventInput.__struct_fields__[:_USUAL_COUNT]
"""The fields that a routine event may have, but for the lane."""
NOTHING_RARE = (None,) * (len(EventInput.__struct_fields__) - _USUAL_COUNT - 1)
"""The fields between those and the lane, where none is sent."""

_CLASSES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(USUAL, (str,)),
    "occurred_at": (datetime,),
    "concept_ids": (list,),
    "score": (float, int),
    "max_score": (float, int),
    "revision": (),
}
_OF_A_MACHINE = {"event_id", "source", "occurred_at", "student_id"}
_IDS = frozenset(name for name in USUAL if name.endswith("_id"))
# The fingerprint's gaps: an id stands in one as it is, the others are spelled behind the event's own fields.
MOMENT, CONCEPTS, SCORES = range(_USUAL_COUNT, _USUAL_COUNT + 3)
_GAPS = {
    "occurred_at": (MOMENT, "('occurred_at', %d)"),
    "concept_ids": (CONCEPTS, "('concept_ids', %s)"),
    "score": (SCORES, "%s"),  # the score and its scale
}
_UNSAID = {"event_id", "source", "max_score"}  # the key is not fingerprinted, the scale stands with the score


class Form(NamedTuple):
    """What is known of an event before its values are looked at."""

    kind: Kind
    is_inferred: bool
    source_type: str | None  # the name of an alias
    keeps_ratio: bool
    is_scored: bool
    concepts_max: int  # 0 where it names none
    ids_of: Callable[[Values], tuple[str, ...]]  # two or more: a machine's event names itself and a student
    sent: str  # the fields as they are fingerprinted, with gaps
    gaps_of: Callable[[Values], Values]  # what stands in them, of the usual fields and what is spelled behind them
    has_payload_ids: bool  # whether its payload says more than scores


@lru_cache(maxsize=FORMS_MAX)
def form_of(name: str | None, classes: tuple[type, ...]) -> Form | None:
    """The form of an event whose usual fields are of these classes, and whose type was sent as `name`, a known one.

    None where something is missing or not allowed, or is not usual: `rules.validation` must judge such an event.
    """
    sent = {field for field, kind in zip(USUAL, classes, strict=True) if kind is not NoneType}
    if any(kind not in _CLASSES[field] for field, kind in zip(USUAL, classes, strict=True) if field in sent):
        return None
    kind = _kind_of(name, sent)
    if kind is None or not _is_whole(sent, SPECS[kind]):
        return None
    spec = SPECS[kind]
    ids = [place for place, field in enumerate(USUAL) if field in sent and field in _IDS]
    gaps = [_gap(place, field, kind) for place, field in enumerate(USUAL) if field in sent and field not in _UNSAID]
    return Form(
        kind=kind,
        is_inferred=name is None,
        source_type=name if name in ALIASES else None,
        keeps_ratio=spec.keeps_ratio,
        is_scored="score" in sent,
        concepts_max=0 if "concept_ids" not in sent else 1 if spec.concepts is Concepts.ONE else CONCEPTS_MAX,
        ids_of=itemgetter(*ids),
        sent=f"[{', '.join(text for _, text in gaps)}]",
        gaps_of=itemgetter(*(place for place, _ in gaps if place is not None)),
        has_payload_ids=not sent.isdisjoint(("content_id", "question_id")),
    )


def _kind_of(name: str | None, sent: set[str]) -> Kind | None:
    if name is not None:
        return KIND_BY_NAME[name]
    if "score" in sent:
        return Kind.SUBMISSION_GRADED
    return Kind.SUBMISSION_CREATED if {"assignment_id", "concept_ids"} <= sent else None


def _is_whole(sent: set[str], spec: Spec) -> bool:
    """Whether all is there that a machine's event of the kind needs, and nothing that it may not say.

    Kinds with rules of their own need a field that no routine event has.
    """
    if not (_OF_A_MACHINE | set(spec.needs)) <= sent or (spec.any_of and sent.isdisjoint(spec.any_of)):
        return False
    if "concept_ids" not in sent and spec.concepts is not Concepts.ANY:
        return False
    if "score" not in sent:
        return spec.scores is not Scores.REQUIRED and "max_score" not in sent
    return spec.scores is not Scores.FORBIDDEN


def _gap(place: int, field: str, kind: Kind) -> tuple[int | None, str]:
    """Where the value of a fingerprinted field comes from, and its text; no place for what the form knows already."""
    if field == "type":
        return None, f"('type', '{kind.value}')"
    return _GAPS.get(field) or (place, f"('{field}', '%s')")
