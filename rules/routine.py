"""Routine events: what machines tell by the thousand, judged at a glance, exactly as `rules.validation` judges it.

Most events of a bulk differ in their values alone: which fields they have is the same over and over. What follows from
that is found once, as a form (`rules.forms`), so that for each event only its values are looked at. What is not of the
usual sort, be it a rare field, a letter beyond ASCII or anything wrong, is left to `validate`.
"""

import re
from datetime import UTC, datetime
from functools import lru_cache
from types import NoneType
from typing import Any, NamedTuple

from msgspec.structs import astuple

from rules.access import Scope, Viewer
from rules.evidence import EventInput, Lane, LearningEvent, Problem, Submission
from rules.fields import EPOCH, ID_LENGTH_MAX, SCORE_MAX, is_number, ratio_of, utc
from rules.fingerprint import digest_of, microseconds_of, spelled
from rules.forms import NOTHING_RARE, USUAL, form_of
from rules.kinds import KIND_BY_NAME
from rules.payload import payload_of
from rules.validation import FUTURE_MAX, LATE_AFTER, source_of

SCORES_MAX = 8_192  # pairs of score and scale that are remembered

_RARE = len(USUAL)
_TEXT = (str, NoneType)
_LANES: dict[str | None, Lane] = {None: Lane.LIVE, "LIVE": Lane.LIVE, "BACKFILL": Lane.BACKFILL}
# What can be printed and is the same within quotes, whether Python's or JSON's: no blank, no quote, no backslash.
_are_simple = re.compile(r"[!#-&(-\[\]-~]+").fullmatch


class Scored(NamedTuple):
    """What follows from a score and its scale, or from there being none."""

    scale: float | None
    ratio: int | None  # in millionths
    sent: str  # as they are fingerprinted
    payload: str


_UNSCORED = Scored(None, None, "", "{}")


class Routine:
    """Judges the routine events of one request."""

    def __init__(self, viewer: Viewer, now: datetime) -> None:
        self._viewer = viewer
        self._may_tell = viewer.is_integrator_for(Scope.INGEST)
        self._latest = now + FUTURE_MAX
        self._late_before = now - LATE_AFTER
        self._source: str | None = None  # the newest that the viewer may tell under

    def of(self, given: EventInput) -> Submission | None:
        """The event as the log stores it, where it is a routine one and nothing is wrong; then no fact is wanted."""
        if not self._may_tell:
            return None
        values = astuple(given)
        usual, name, urgency = values[:_RARE], given.type, values[-1]
        is_usual = values[_RARE:-1] == NOTHING_RARE and name.__class__ in _TEXT and urgency.__class__ in _TEXT
        if not is_usual or (name is not None and name not in KIND_BY_NAME):
            return None
        form, lane = form_of(name, tuple(map(type, usual))), _LANES.get(urgency)
        if form is None or lane is None:
            return None
        event_id, source, sent_at, student, classroom, assignment, quiz, _, _, named, score, max_score, *_ = usual
        concepts = _concepts_of(named, form.concepts_max)
        moment = self._moment_of(sent_at)
        scored = _scored(score, max_score) if form.is_scored else _UNSCORED
        if concepts is None or moment is None or scored is None or not _are_simple_ids(form.ids_of(usual) + concepts):
            return None
        if source != self._source and not self._allows(given):
            return None
        spelled_behind = (*usual, microseconds_of(moment), _spelled_concepts(concepts), scored.sent)
        return Submission(
            LearningEvent(
                source,
                event_id,
                form.kind,
                moment,
                student,
                classroom or "",
                0,
                assignment,
                quiz,
                concepts,
                scored.ratio if form.keeps_ratio else None,
                given.submission_id,
            ),
            digest_of(form.sent % form.gaps_of(spelled_behind)),
            form.source_type,
            payload_of(given, scored.scale, None, None) if form.has_payload_ids else scored.payload,
            lane,
            moment < self._late_before,
            form.is_inferred,
        )

    def _moment_of(self, sent: datetime) -> datetime | None:
        moment = sent if sent.tzinfo is UTC else utc(sent, "occurredAt", [])
        return moment if moment is not None and EPOCH <= moment <= self._latest else None

    def _allows(self, given: EventInput) -> bool:
        problems: list[Problem] = []
        source = source_of(given, self._viewer, problems)
        if not problems:
            self._source = source
        return not problems


def _are_simple_ids(ids: tuple[str, ...]) -> bool:
    text = "".join(ids)
    return (
        _are_simple(text) is not None
        and "" not in ids
        and (len(text) <= ID_LENGTH_MAX or max(map(len, ids)) <= ID_LENGTH_MAX)
    )


def _concepts_of(named: list[Any] | None, most: int) -> tuple[str, ...] | None:
    """The different ones in the order sent, at most so many; None where that is not all that is to be said of them."""
    if not most:
        return ()
    assert named is not None, "a form that has concepts is one of a list"
    if len(named) == 1:  # as in nearly all
        (concept,) = named
        return (concept,) if concept.__class__ is str else None
    if set(map(type, named)) != {str}:
        return None
    concepts = tuple(dict.fromkeys(named))
    return concepts if len(concepts) <= most else None


def _spelled_concepts(concepts: tuple[str, ...]) -> str:
    """A sorted set, as the fingerprint has it."""
    return f"('{concepts[0]}',)" if len(concepts) == 1 else ascii(tuple(sorted(concepts)))


@lru_cache(maxsize=SCORES_MAX, typed=True)
def _scored(score: float, max_score: float | None) -> Scored | None:
    """None where it is no score within its scale: credit beyond it is for the class to allow."""
    scale = 1 if max_score is None else max_score
    if not is_number(scale) or not 0 < scale <= SCORE_MAX or not is_number(score) or not 0 <= score <= scale:
        return None
    sent = f"('score', {spelled(score)})"
    if max_score is not None:
        sent += f", ('max_score', {spelled(max_score)})"
    payload = payload_of(EventInput(score=score), scale, None, None)
    return Scored(scale, ratio_of(score, scale), sent, payload)
