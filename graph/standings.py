"""What a student can do, as clients read it: mastery by concept, and the way through the concepts."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from enum import Enum

import strawberry

from db import standings
from db.pool import tenant_transaction
from db.standings import MasteryAsk, MasteryRow
from graph.catalog_reads import Concept, concept_of
from graph.connections import Connection, Keyset, limit_of, page_of
from graph.loaders import batched
from graph.refusal import ErrorCode, Refused
from graph.request import Context
from graph.scalars import as_id
from rules.policy import Model
from rules.skill import MasterySource, Progress, State, Status, evidence_count, mastery_of, state_of, status_of

CONCEPT_IDS_MAX = 200
KEY_CHARACTERS_MAX = 128
MASTERY_ORDER = Keyset("mastery", (str,))


@strawberry.enum(description="How evidence becomes a score; the policy of the class decides.")
class MasteryModel(Enum):
    """Definition A."""

    DECAYING_AVERAGE = strawberry.enum_value(
        Model.DECAYING_AVERAGE,
        description="The newest score weighs p percent (usually 65), the mean of all earlier ones the rest.",
    )
    SUCCESS_RATIO = strawberry.enum_value(
        Model.SUCCESS_RATIO, description="Successful quiz attempts divided by all quiz attempts."
    )


@strawberry.enum(description="Whether there is enough evidence for a score to mean something.")
class MasteryState(Enum):
    """X-11: a score without evidence is no score."""

    NO_DATA = strawberry.enum_value(State.NO_DATA, description="No evidence: `score` is null, which is not 0.")
    LOW_EVIDENCE = strawberry.enum_value(
        State.LOW_EVIDENCE, description="Fewer pieces of evidence than the policy asks for (`minEvidence`, usually 3)."
    )
    OK = strawberry.enum_value(State.OK, description="Enough evidence.")


@strawberry.enum(description="How far a student is with a concept, lowest first.")
class ConceptStatus(Enum):
    """The highest that any event supports, whatever their order."""

    NOT_STARTED = strawberry.enum_value(Status.NOT_STARTED, description="No event yet.")
    IN_PROGRESS = strawberry.enum_value(Status.IN_PROGRESS, description="Worked on.")
    COMPLETED = strawberry.enum_value(Status.COMPLETED, description="A completion was recorded.")
    MASTERED = strawberry.enum_value(Status.MASTERED, description="Mastery was claimed or computed.")


@strawberry.enum(description="Who says that a concept is mastered.")
class ConceptMasterySource(Enum):
    """001-05."""

    CLAIMED = strawberry.enum_value(MasterySource.CLAIMED, description="A CONCEPT_MASTERED event says so.")
    COMPUTED = strawberry.enum_value(MasterySource.COMPUTED, description="The score reached the mastery threshold.")


@strawberry.type(description="A student's mastery of one concept: what the evidence says they can do today.")
class ConceptMastery:
    """Definition A, for one view."""

    concept: Concept = strawberry.field(description="The concept.")
    classroom_id: strawberry.ID | None = strawberry.field(
        description="The key of the class whose evidence counts; null when all of the student's evidence counts."
    )
    score: float | None = strawberry.field(description="Mastery, 0 to 1 with 3 decimals; null without evidence.")
    percent: float | None = strawberry.field(description="The same, 0 to 100; null without evidence.")
    state: MasteryState = strawberry.field(description="Whether there is enough evidence.")
    evidence_count: int = strawberry.field(description="How many pieces of evidence the score rests on.")
    last_evidence_at: datetime | None = strawberry.field(description="When the newest piece of evidence happened.")
    model: MasteryModel = strawberry.field(description="How the score was computed.")
    model_version: int = strawberry.field(description="The version of the policy that computed it; 1 is the default.")
    mastered_at: datetime | None = strawberry.field(
        description="When the score first reached the mastery threshold with enough evidence; null if it never did."
    )


@strawberry.type(description="How far a student is with one concept, over all classes.")
class ConceptProgress:
    """001-04."""

    concept: Concept = strawberry.field(description="The concept.")
    status: ConceptStatus = strawberry.field(description="The highest status that any event supports.")
    attempts: int = strawberry.field(description="How often it was tried for a score; voided events do not count.")
    best_score: float | None = strawberry.field(description="The best score, a fraction of full marks.")
    latest_score: float | None = strawberry.field(description="The score of the latest attempt, a fraction.")
    total_time_spent_ms: float = strawberry.field(
        description="Time spent on it in milliseconds, a whole number; it may exceed what an Int can hold."
    )
    last_accessed_at: datetime | None = strawberry.field(description="When the student last worked on it.")
    mastered_at: datetime | None = strawberry.field(description="The earliest moment at which mastery held.")
    mastery_source: ConceptMasterySource | None = strawberry.field(
        description="Who says that it is mastered; null while it is not."
    )


@strawberry.type(description="How many concepts stand where.")
class ConceptCounts:
    """Each concept counts once, where it stands."""

    not_started: int = strawberry.field(
        description="Active concepts of the catalog, or of the class's assignments, that the student never met."
    )
    in_progress: int = strawberry.field(description="Concepts worked on.")
    completed: int = strawberry.field(description="Concepts completed and not mastered.")
    mastered: int = strawberry.field(description="Concepts mastered, claimed or computed.")


@strawberry.type(description="All concepts of a student together.")
class StudentProgress:
    """001-03."""

    concepts: ConceptCounts = strawberry.field(description="How many concepts stand where.")
    average_score: float | None = strawberry.field(
        description="The mean of the mastery scores, 0 to 1 with 3 decimals; null without any evidence."
    )
    total_time_spent_ms: float = strawberry.field(
        description="Time spent on concepts in milliseconds, a whole number; it may exceed what an Int can hold."
    )
    last_activity_at: datetime | None = strawberry.field(description="When the student last worked on a concept.")


async def mastery_page(
    context: Context, student: str, ask: MasteryAsk, *, first: int, after: str | None
) -> Connection[ConceptMastery]:
    """A page of one student's mastery, loaded together with the same page of the answer's other students."""
    (start,) = MASTERY_ORDER.read(after) or ("",)
    rows = await _rows_of(context, student, replace(ask, after=start, limit=limit_of(first)))
    return page_of(
        rows,
        first=first,
        after=after,
        cursor_of=lambda row: MASTERY_ORDER.write(row.concept.key),
        node_of=lambda row: mastery_shown(row, ask.classroom),
    )


async def concept_progress(context: Context, student: str, concept: str) -> ConceptProgress:
    """One student's way through one concept, over all classes."""
    (row,) = await _rows_of(context, student, MasteryAsk(concepts=(concept,), limit=1))
    standing, mastery = row.standing, mastery_of(row.standing)
    return ConceptProgress(
        concept=concept_of(row.concept),
        status=ConceptStatus(status_of(standing)),
        attempts=standing.count,
        best_score=_fraction(standing.best),
        latest_score=_fraction(standing.latest),
        total_time_spent_ms=standing.time_spent_ms,
        last_accessed_at=standing.last_accessed_at,
        mastered_at=mastery.at if mastery else None,
        mastery_source=ConceptMasterySource(mastery.source) if mastery else None,
    )


async def progress_of(context: Context, student: str, classroom: str) -> StudentProgress:
    """All concepts of one student together, loaded together with those of the answer's other students."""
    tenant = context.viewer.tenant

    async def load(students: list[str]) -> dict[str, Progress]:
        async with tenant_transaction(context.pool, tenant, read_only=True) as connection:
            return await standings.progress_of_students(connection, tenant, students, classroom=classroom)

    progress = await batched(context, ("progress", classroom), load).load(student)
    assert progress is not None
    counts = progress.by_status
    return StudentProgress(
        concepts=ConceptCounts(
            not_started=counts[Status.NOT_STARTED],
            in_progress=counts[Status.IN_PROGRESS],
            completed=counts[Status.COMPLETED],
            mastered=counts[Status.MASTERED],
        ),
        average_score=None if progress.average_score is None else progress.average_score / 1_000,
        total_time_spent_ms=progress.time_spent_ms,
        last_activity_at=progress.last_activity_at,
    )


def keys_of(ids: Sequence[strawberry.ID] | None, *, field: str) -> tuple[str, ...] | None:
    """The keys that a list argument names, each once, in order. Raises Refused for too many or a key too long."""
    if ids is None:
        return None
    if len(ids) > CONCEPT_IDS_MAX:
        raise Refused(ErrorCode.BAD_INPUT, f"'{field}' holds more than {CONCEPT_IDS_MAX} keys.", field=(field,))
    return tuple(sorted({key_of(id, field=field) for id in ids}))


def key_of(id: strawberry.ID, *, field: str) -> str:
    """The key that an argument names. Raises Refused for one that no roster could hold."""
    if not 1 <= len(id) <= KEY_CHARACTERS_MAX:
        message = f"'{field}' must be keys of 1 to {KEY_CHARACTERS_MAX} characters."
        raise Refused(ErrorCode.BAD_INPUT, message, field=(field,))
    return str(id)


async def _rows_of(context: Context, student: str, ask: MasteryAsk) -> list[MasteryRow]:
    tenant = context.viewer.tenant

    async def load(students: list[str]) -> dict[str, list[MasteryRow]]:
        async with tenant_transaction(context.pool, tenant, read_only=True) as connection:
            return await standings.of_students(connection, tenant, students, ask)

    return await batched(context, ("mastery", ask), load).load(student) or []


def mastery_shown(row: MasteryRow, classroom: str) -> ConceptMastery:
    """A standing as clients read it; `classroom` "" is the view over all classes."""
    standing, policy = row.standing, row.policy
    return ConceptMastery(
        concept=concept_of(row.concept),
        classroom_id=as_id(classroom),
        score=None if standing.score is None else standing.score / 1_000,
        percent=None if standing.score is None else standing.score / 10,
        state=MasteryState(state_of(standing, policy)),
        evidence_count=evidence_count(standing, policy),
        last_evidence_at=standing.last_evidence_at,
        model=MasteryModel(policy.model),
        model_version=policy.version,
        mastered_at=standing.mastered_at,
    )


def _fraction(millionths: int | None) -> float | None:
    return None if millionths is None else millionths / 1_000_000
