"""Mastery of one concept: what the evidence says a student can do today."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

from rules.evidence import ACTIVE_KINDS, CORRECTION_KINDS, SCORED_KINDS, Kind, LearningEvent
from rules.policy import MILLION, Model, Policy
from rules.rounding import half_even
from rules.value import Value

FRESH_MAX = 16_384  # concepts of the classes a worker folds


class Standing(Value, frozen=True):
    """One view's mastery of, and progress on, one concept.

    Ratios and sums are in millionths; `score` is in thousandths (3 decimals, half-even), None without evidence.
    Order-free facts (best, time, status) stand beside order-bound ones (score, latest, mastered_at).
    """

    concept: str
    # mastery, Definition A
    count: int = 0  # attempts folded: the pieces of evidence
    earlier_sum: int = 0  # sum of min(ratio, 1) of all attempts but the newest
    newest: int | None = None  # min(ratio, 1) of the newest attempt
    successes: int = 0  # quiz attempts with ratio >= success_threshold
    quiz_attempts: int = 0
    score: int | None = None
    last_evidence_at: datetime | None = None
    mastered_at: datetime | None = None  # first event after which the model held mastery in state OK
    # progress, 001-04
    rank: int = 0  # 0 NOT_STARTED, 1 IN_PROGRESS, 2 COMPLETED, 3 MASTERED: the highest any event claims
    claimed_at: datetime | None = None  # earliest CONCEPT_MASTERED
    best: int | None = None
    latest: int | None = None
    time_spent_ms: int = 0
    last_accessed_at: datetime | None = None
    policy_version: int = 1


class State(StrEnum):
    """Whether there is enough evidence to say anything (X-11)."""

    NO_DATA = "NO_DATA"
    LOW_EVIDENCE = "LOW_EVIDENCE"
    OK = "OK"


class Status(StrEnum):
    """How far a student is with a concept (001-04), lowest first."""

    NOT_STARTED = "NOT_STARTED"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    MASTERED = "MASTERED"


STATUSES = tuple(Status)


class MasterySource(StrEnum):
    """Who says that a concept is mastered: a teacher's event or the model."""

    CLAIMED = "CLAIMED"
    COMPUTED = "COMPUTED"


@dataclass(frozen=True, slots=True)
class Mastery:
    """Since when a concept is mastered, and who says so."""

    at: datetime
    source: MasterySource


@dataclass(frozen=True, slots=True)
class Progress:
    """All concepts of one view together (001-03); `average_score` in thousandths, None without any score."""

    by_status: dict[Status, int]
    average_score: int | None
    time_spent_ms: int
    last_activity_at: datetime | None


class Effect(NamedTuple):
    """What a kind of event may do to the concepts it names."""

    is_evidence: bool  # its score counts for mastery
    is_active: bool  # it is something the student did: moves last_accessed_at
    is_counting_time: bool
    rank: int  # the progress it supports by itself


# Work handed out, corrections and unmapped statements say nothing about what a student did with a concept.
TIMELESS_KINDS = CORRECTION_KINDS | {Kind.ASSIGNMENT_ASSIGNED, Kind.OTHER}
CLAIMED_RANKS = {Kind.CONCEPT_COMPLETED: 2, Kind.CONCEPT_MASTERED: 3}


def _effect_of(kind: Kind) -> Effect:
    is_evidence, is_active = kind in SCORED_KINDS, kind in ACTIVE_KINDS
    rank = CLAIMED_RANKS.get(kind, int(is_evidence or is_active))
    return Effect(is_evidence, is_active, kind not in TIMELESS_KINDS, rank)


EFFECTS: dict[Kind, Effect] = {kind: _effect_of(kind) for kind in Kind}


@lru_cache(maxsize=FRESH_MAX)
def fresh_standing(concept: str) -> Standing:
    """A concept without any evidence; shared, because a fold asks for it all the time."""
    return Standing(concept)


def advance(standing: Standing, event: LearningEvent, *, policy: Policy) -> Standing:
    """Let one event that names the concept move its standing; the same object comes back when nothing moves.

    The event must sort after everything the standing holds and be an attempt of its own: `outcome` sees to both.
    """
    effect = EFFECTS[event.kind]
    if effect.is_evidence and event.ratio is not None:
        return _with_evidence(standing, event, effect, event.ratio, policy)
    spent_ms = event.time_spent_ms if effect.is_counting_time else None
    if effect.is_active or spent_ms:
        return _with_activity(standing, event, effect, spent_ms or 0, policy)
    return standing


def _with_activity(standing: Standing, event: LearningEvent, effect: Effect, spent_ms: int, policy: Policy) -> Standing:
    """Progress without a score: time, access and rank."""
    at = event.occurred_at
    return Standing(
        standing.concept,
        standing.count,
        standing.earlier_sum,
        standing.newest,
        standing.successes,
        standing.quiz_attempts,
        standing.score,
        standing.last_evidence_at,
        standing.mastered_at,
        effect.rank if effect.rank > standing.rank else standing.rank,
        at if standing.claimed_at is None and event.kind is Kind.CONCEPT_MASTERED else standing.claimed_at,
        standing.best,
        standing.latest,
        standing.time_spent_ms + spent_ms,
        at if effect.is_active else standing.last_accessed_at,
        policy.version,
    )


def _with_evidence(standing: Standing, event: LearningEvent, effect: Effect, ratio: int, policy: Policy) -> Standing:
    """One more piece of evidence, and the progress that comes with it."""
    at, kind = event.occurred_at, event.kind
    newest = ratio if ratio < MILLION else MILLION  # extra credit lifts no mastery above 1
    earlier_sum = standing.earlier_sum + (standing.newest or 0)
    count = standing.count + 1
    successes, quiz_attempts = standing.successes, standing.quiz_attempts
    if kind is Kind.QUIZ_ATTEMPT:
        quiz_attempts += 1
        successes += newest >= policy.success_threshold
    if policy.model is Model.DECAYING_AVERAGE:
        enough = count
        score: int | None = decaying_average(newest, earlier_sum, count, recent_percent=policy.recent_percent)
    else:
        enough = quiz_attempts
        score = success_ratio(successes, quiz_attempts)
    mastered_at = standing.mastered_at
    if mastered_at is None and score is not None and enough >= policy.min_evidence:
        mastered_at = at if score * 1000 >= policy.mastery_threshold else None
    return Standing(
        standing.concept,
        count,
        earlier_sum,
        newest,
        successes,
        quiz_attempts,
        score,
        at,
        mastered_at,
        effect.rank if effect.rank > standing.rank else standing.rank,
        at if standing.claimed_at is None and kind is Kind.CONCEPT_MASTERED else standing.claimed_at,
        ratio if standing.best is None or ratio > standing.best else standing.best,
        ratio,
        standing.time_spent_ms + (event.time_spent_ms or 0),
        at if effect.is_active else standing.last_accessed_at,
        policy.version,
    )


def decaying_average(newest: int, earlier_sum: int, count: int, *, recent_percent: int) -> int:
    """p percent of the newest ratio and the rest of the mean of all before, in thousandths; count >= 1."""
    if count == 1:
        return half_even(newest, 1000)
    before = count - 1
    return half_even(recent_percent * newest * before + (100 - recent_percent) * earlier_sum, 100_000 * before)


def success_ratio(successes: int, quiz_attempts: int) -> int | None:
    """Successful quiz attempts of all, in thousandths; None, never 0, without attempts (002-06)."""
    return half_even(successes * 1000, quiz_attempts) if quiz_attempts else None


def evidence_count(standing: Standing, policy: Policy) -> int:
    """The pieces of evidence the policy's model rests on: quiz attempts alone for the success ratio."""
    return standing.quiz_attempts if policy.model is Model.SUCCESS_RATIO else standing.count


def state_of(standing: Standing, policy: Policy) -> State:
    """Whether the score may be spoken of: no evidence, too little, or enough."""
    count = evidence_count(standing, policy)
    if count == 0:
        return State.NO_DATA
    return State.LOW_EVIDENCE if count < policy.min_evidence else State.OK


def mastery_of(standing: Standing) -> Mastery | None:
    """The earliest moment at which mastery held; of a claim and a computation at one instant the claim speaks."""
    claimed, computed = standing.claimed_at, standing.mastered_at
    if claimed is not None and (computed is None or claimed <= computed):
        return Mastery(claimed, MasterySource.CLAIMED)
    return None if computed is None else Mastery(computed, MasterySource.COMPUTED)


def status_of(standing: Standing) -> Status:
    """The highest status any event supports, mastery by the model included."""
    return Status.MASTERED if standing.mastered_at is not None else STATUSES[standing.rank]


def progress_of(standings: Iterable[Standing]) -> Progress:
    """All concepts together: how many stand where, the mean of their scores, time, and the last activity."""
    by_status = dict.fromkeys(Status, 0)
    score_sum = score_count = time_spent_ms = 0
    last: datetime | None = None
    for standing in standings:
        by_status[status_of(standing)] += 1
        time_spent_ms += standing.time_spent_ms
        if standing.score is not None:
            score_sum += standing.score
            score_count += 1
        at = standing.last_accessed_at
        last = at if last is None or (at is not None and at > last) else last
    average = half_even(score_sum, score_count) if score_count else None
    return Progress(by_status, average, time_spent_ms, last)
