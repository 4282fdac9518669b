"""What each subscription follows: where its changes are read, in which order, and who may be told of them."""

from collections.abc import Awaitable, Callable, Sequence

import strawberry

from db import background, changes, visibility
from db.background import Job
from db.changes import ChangedStanding, RecordedEvent, RiskTransition
from db.classrooms import ClassroomRow, classrooms_of_keys
from db.freshness import Freshness
from db.pool import Connection, tenant_transaction
from db.visibility import ClassroomTies, StudentTies
from graph.dashboards import Dashboard, dashboard_of
from graph.refusal import ErrorCode, Refused
from graph.request import Context
from graph.standings import key_of
from graph.streams import Stream
from graph.tokens import Cursor, StreamName
from rules.access import (
    may_follow_job,
    may_subscribe_class_mastery,
    may_subscribe_dashboard,
    may_subscribe_events,
    may_subscribe_mastery,
    may_subscribe_risk,
)


def risk_stream(context: Context, key: str) -> Stream[RiskTransition]:
    """Every transition of a class's flags."""
    tenant = context.viewer.tenant

    async def read(connection: Connection, cursor: Cursor) -> Sequence[RiskTransition]:
        return await changes.risk_changes(connection, tenant, key, after=cursor.no)

    return Stream(
        name=StreamName("riskFlagChanged", tenant, "classroom", key),
        topic=(tenant, "classroom", key),
        is_allowed=_right_to_classroom(context, key, may_subscribe_risk),
        position=changes.risk_position,
        read=read,
        place=lambda row: Cursor(row.no),
        is_state=False,
        trace=lambda row: row.traceparent,
    )


def mastery_stream(
    context: Context, student_id: strawberry.ID | None, classroom_id: strawberry.ID | None
) -> Stream[ChangedStanding]:
    """The standings of one student, or of one class. Raises Refused unless exactly one is named."""
    if student_id is not None and classroom_id is None:
        return _student_mastery_stream(context, key_of(student_id, field="studentId"))
    if classroom_id is not None and student_id is None:
        return _class_mastery_stream(context, key_of(classroom_id, field="classroomId"))
    raise Refused(ErrorCode.BAD_INPUT, "Name exactly one of 'studentId' and 'classroomId'.", field=("studentId",))


def _student_mastery_stream(context: Context, key: str) -> Stream[ChangedStanding]:
    tenant = context.viewer.tenant

    async def read(connection: Connection, cursor: Cursor) -> Sequence[ChangedStanding]:
        return await changes.student_standings(connection, tenant, key, after=cursor.bound)

    return Stream(
        name=StreamName("masteryChanged", tenant, "student", key),
        topic=(tenant, "student", key),
        is_allowed=_right_to_student(context, key),
        position=changes.student_position,
        read=read,
        place=lambda row: Cursor(row.student_change, (row.classroom, row.mastery.concept.key)),
        is_state=True,
        is_in_snapshot=lambda row: row.has_trace,
    )


def _class_mastery_stream(context: Context, key: str) -> Stream[ChangedStanding]:
    tenant = context.viewer.tenant

    async def read(connection: Connection, cursor: Cursor) -> Sequence[ChangedStanding]:
        return await changes.classroom_standings(connection, tenant, key, after=cursor.bound)

    return Stream(
        name=StreamName("masteryChanged", tenant, "classroom", key),
        topic=(tenant, "classroom", key),
        is_allowed=_right_to_classroom(context, key, may_subscribe_class_mastery),
        position=changes.classroom_position,
        read=read,
        place=lambda row: Cursor(row.class_change, (row.student, row.mastery.concept.key)),
        is_state=True,
        is_in_snapshot=lambda row: row.has_trace,
    )


def dashboard_stream(context: Context, key: str) -> Stream[Dashboard]:
    """The dashboard of a class, the newest only."""
    tenant = context.viewer.tenant

    async def read(connection: Connection, _cursor: Cursor) -> Sequence[ClassroomRow]:
        return list((await classrooms_of_keys(connection, tenant, [key])).values())

    async def finish(rows: Sequence[ClassroomRow], point: Freshness) -> Sequence[Dashboard]:
        context.renew()  # "the last seven days" end now, not when the client came
        return [await dashboard_of(context, row, point) for row in rows]

    return Stream(
        name=StreamName("dashboardChanged", tenant, "classroom", key),
        topic=(tenant, "classroom", key),
        is_allowed=_right_to_classroom(context, key, may_subscribe_dashboard),
        position=changes.classroom_position,
        read=read,
        finish=finish,
        place=lambda row: Cursor(row.snapshot.change_no),
        is_state=True,
        tells_ready=False,
    )


def event_stream(context: Context, key: str) -> Stream[RecordedEvent]:
    """Every event of a class's log."""
    tenant = context.viewer.tenant

    async def read(connection: Connection, cursor: Cursor) -> Sequence[RecordedEvent]:
        return await changes.recorded_events(connection, tenant, key, after=cursor.no)

    return Stream(
        name=StreamName("eventRecorded", tenant, "classroom", key),
        topic=(tenant, "recorded", key),
        is_allowed=_right_to_classroom(context, key, may_subscribe_events),
        position=changes.log_position,
        read=read,
        place=lambda row: Cursor(row.event.seq),
        is_state=False,
    )


def job_stream(context: Context, key: str) -> Stream[Job]:
    """One job, the newest state only."""
    tenant = context.viewer.tenant

    async def load() -> Job | None:
        async with tenant_transaction(context.pool, tenant, read_only=True) as connection:
            return (await background.of_keys(connection, tenant, [key])).get(key)

    async def read(connection: Connection, _cursor: Cursor) -> Sequence[Job]:
        return list((await background.of_keys(connection, tenant, [key])).values())

    async def is_allowed(seconds_max: float) -> bool:
        job = await context.engine.fanout.recent(("job", tenant, key), load, seconds_max=seconds_max)
        return job is not None and may_follow_job(context.viewer, job.requested_by)

    return Stream(
        name=StreamName("jobProgressed", tenant, "job", key),
        topic=(tenant, "job", key),
        is_allowed=is_allowed,
        position=changes.job_position,
        read=read,
        place=lambda row: Cursor(row.change_no),
        is_state=True,
        tells_ready=False,
    )


def _right_to_classroom(context: Context, key: str, may: Callable[..., bool]) -> Callable[[float], Awaitable[bool]]:
    viewer = context.viewer

    async def load() -> ClassroomTies | None:
        async with tenant_transaction(context.pool, viewer.tenant, read_only=True) as connection:
            now = context.engine.clock()
            found = await visibility.of_classrooms(connection, viewer.tenant, [key], viewer=viewer.key, now=now)
        return found.get(key)

    async def is_allowed(seconds_max: float) -> bool:
        remembered = ("classroom", viewer.tenant, viewer.key, key)
        ties = await context.engine.fanout.recent(remembered, load, seconds_max=seconds_max)
        return ties is not None and may(viewer, is_taught=ties.is_teacher)

    return is_allowed


def _right_to_student(context: Context, key: str) -> Callable[[float], Awaitable[bool]]:
    viewer = context.viewer

    async def load() -> StudentTies | None:
        async with tenant_transaction(context.pool, viewer.tenant, read_only=True) as connection:
            now = context.engine.clock()
            found = await visibility.of_students(connection, viewer.tenant, [key], viewer=viewer.key, now=now)
        return found.get(key)

    async def is_allowed(seconds_max: float) -> bool:
        remembered = ("student", viewer.tenant, viewer.key, key)
        ties = await context.engine.fanout.recent(remembered, load, seconds_max=seconds_max)
        return ties is not None and may_subscribe_mastery(
            viewer, key, is_linked=ties.is_linked, is_taught=ties.is_taught
        )

    return is_allowed
