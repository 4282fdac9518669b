"""Where a student is heading: the daily snapshots of the mastery index, and the line through them (004-12, 003-60)."""

from datetime import date
from enum import Enum

import strawberry

from db import closing
from db.pool import tenant_transaction
from graph.loaders import batched
from graph.request import Context
from rules.calendar import local_date
from rules.index import Level, MasteryIndex
from rules.trend import Direction, historical_average, trend_of


@strawberry.enum(description="What a mastery index means, lowest first.")
class MasteryLevel(Enum):
    """`rules.index.Level`, described."""

    BEGINNER = strawberry.enum_value(Level.BEGINNER, description="Below 0.40.")
    DEVELOPING = strawberry.enum_value(Level.DEVELOPING, description="From 0.40.")
    COMPETENT = strawberry.enum_value(Level.COMPETENT, description="From 0.60.")
    PROFICIENT = strawberry.enum_value(Level.PROFICIENT, description="From 0.75.")
    EXPERT = strawberry.enum_value(Level.EXPERT, description="From 0.90.")


@strawberry.enum(description="Where the daily snapshots of the last 30 days lead.")
class TrendDirection(Enum):
    """`rules.trend.Direction`, described."""

    IMPROVING = strawberry.enum_value(Direction.IMPROVING, description="Up by more than 0.01 a day.")
    STABLE = strawberry.enum_value(Direction.STABLE, description="Neither.")
    DECLINING = strawberry.enum_value(Direction.DECLINING, description="Down by more than 0.01 a day.")


@strawberry.enum(description="Whether there are enough snapshots for a trend to mean something.")
class TrendState(Enum):
    """X-11."""

    NOT_ENOUGH_DATA = strawberry.enum_value(
        "NOT_ENOUGH_DATA", description="Fewer than 3 snapshots in the last 30 days: there is no slope."
    )
    OK = strawberry.enum_value("OK", description="Enough snapshots.")


@strawberry.type(
    description="The mastery index of a student at the end of one day, with its parts; 0 to 1, 3 decimals."
)
class MasterySnapshot:
    """One row of `daily_index`."""

    day: date = strawberry.field(description="The day that ended, in the tenant's time zone.")
    score: float = strawberry.field(
        description="0.4 completion + 0.3 quiz + 0.2 quality + 0.1 consistency; "
        "missing parts leave their weight to the others."
    )
    level: MasteryLevel | None = strawberry.field(
        description="What the score means; null where `coverage` is below 0.5."
    )
    coverage: float = strawberry.field(description="The sum of the weights of the parts that there are.")
    completion: float | None = strawberry.field(description="Assigned work done, by effort; null without any.")
    quiz: float | None = strawberry.field(description="Mean over the quizzes of 28 days; null without any.")
    quality: float | None = strawberry.field(description="Mean of the quality assessed in 28 days; null without any.")
    consistency: float | None = strawberry.field(
        description="How regular the last 14 days were; null before the first activity."
    )


@strawberry.type(description="How a student's mastery index has moved, day by day.")
class StudentTrends:
    """Definition E, without the forecast."""

    state: TrendState = strawberry.field(description="Whether there is a trend.")
    slope: float | None = strawberry.field(
        description="Change of the index per day over the last 30 days, 6 decimals; null without a trend."
    )
    direction: TrendDirection | None = strawberry.field(description="What the slope means; null without a trend.")
    r_squared: float | None = strawberry.field(
        description="The share of the movement that a straight line explains, 6 decimals; null where nothing moved."
    )
    historical_average: float | None = strawberry.field(
        description="Mean of the snapshots of the 90 days before today; null without any."
    )
    snapshots: list[MasterySnapshot] = strawberry.field(
        description="One for each of the last 90 days that had an index at its end, the oldest first. Late events and "
        "corrections write the days since again."
    )


async def trends_of(context: Context, student: str) -> StudentTrends | None:
    """One transaction for all students of the answer."""
    return await batched(context, "trends", lambda keys: _load(context, keys)).load(student)


async def _load(context: Context, students: list[str]) -> dict[str, StudentTrends]:
    tenant = context.viewer.tenant
    async with tenant_transaction(context.pool, tenant, read_only=True) as connection:
        zone = await closing.tenant_zone(connection, tenant)
        stored = await closing.stored(connection, tenant, students)
    today = local_date(context.now, zone)
    found: dict[str, dict[date, MasteryIndex]] = {student: {} for student in students}
    for student, day in sorted(stored):
        found[student][day] = stored[student, day]
    return {student: _trends(indexes, today=today) for student, indexes in found.items()}


def _trends(indexes: dict[date, MasteryIndex], *, today: date) -> StudentTrends:
    scores = {day: index.score for day, index in indexes.items()}
    trend = trend_of(scores, today=today)
    return StudentTrends(
        state=TrendState.OK if trend else TrendState.NOT_ENOUGH_DATA,
        slope=trend.slope / 1_000_000 if trend else None,
        direction=TrendDirection(trend.direction) if trend else None,
        r_squared=trend.r_squared / 1_000_000 if trend and trend.r_squared is not None else None,
        historical_average=_fraction(historical_average(scores, today=today)),
        snapshots=[_snapshot(day, index) for day, index in indexes.items()],
    )


def _snapshot(day: date, index: MasteryIndex) -> MasterySnapshot:
    return MasterySnapshot(
        day=day,
        score=index.score / 1000,
        level=MasteryLevel(index.level) if index.level else None,
        coverage=index.coverage / 1000,
        completion=_fraction(index.completion),
        quiz=_fraction(index.quiz),
        quality=_fraction(index.quality),
        consistency=_fraction(index.consistency),
    )


def _fraction(thousandths: int | None) -> float | None:
    return None if thousandths is None else thousandths / 1000
