"""What each subscription follows: where its changes are read, in which order, and who may be told of them."""

from collections.abc import Callable, Mapping, Sequence

import strawberry

from db import background, changes, many_changes, visibility
from db.background import Job
from db.changes import ChangedStanding, RecordedEvent, RiskTransition
from db.classrooms import ClassroomRow, classrooms_of_keys
from db.freshness import Freshness
from db.pool import Connection, tenant_transaction
from db.visibility import Followers
from graph.dashboards import Dashboard, dashboard_of
from graph.refusal import ErrorCode, Refused
from graph.request import Context
from graph.rights import Right, Ties
from graph.standings import key_of
from graph.streams import Many, Stream
from graph.tokens import Cursor, StreamName
from rules.access import (
    Viewer,
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
        right=Right(_classroom_ties(context, key), _taught(may_subscribe_risk)),
        position=changes.risk_position,
        number=lambda numbers: numbers[1],
        read=read,
        many=Many(many_changes.risk_positions, many_changes.many_risk_changes),
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

    def admits(viewer: Viewer, followers: Followers) -> bool:
        is_linked, is_taught = viewer.key in followers.guardians, viewer.key in followers.teachers
        return may_subscribe_mastery(viewer, key, is_linked=is_linked, is_taught=is_taught)

    return Stream(
        name=StreamName("masteryChanged", tenant, "student", key),
        topic=(tenant, "student", key),
        right=Right(_student_ties(context, key), admits),
        position=changes.student_position,
        read=read,
        place=lambda row: Cursor(row.student_change, (row.classroom, row.mastery.concept.key)),
        is_state=True,
        is_quick=True,
        is_in_snapshot=lambda row: row.has_trace,
    )


def _class_mastery_stream(context: Context, key: str) -> Stream[ChangedStanding]:
    tenant = context.viewer.tenant

    async def read(connection: Connection, cursor: Cursor) -> Sequence[ChangedStanding]:
        return await changes.classroom_standings(connection, tenant, key, after=cursor.bound)

    return Stream(
        name=StreamName("masteryChanged", tenant, "classroom", key),
        topic=(tenant, "classroom", key),
        right=Right(_classroom_ties(context, key), _taught(may_subscribe_class_mastery)),
        position=changes.classroom_position,
        number=lambda numbers: numbers[0],
        read=read,
        many=Many(changes.classroom_positions, changes.many_classroom_standings),
        place=lambda row: Cursor(row.class_change, (row.student, row.mastery.concept.key)),
        is_state=True,
        is_quick=True,
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
        right=Right(_classroom_ties(context, key), _taught(may_subscribe_dashboard)),
        position=changes.classroom_position,
        number=lambda numbers: numbers[0],
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
        right=Right(_classroom_ties(context, key), _taught(may_subscribe_events)),
        position=changes.log_position,
        read=read,
        many=Many(many_changes.log_positions, many_changes.many_recorded_events),
        place=lambda row: Cursor(row.event.seq),
        is_state=False,
    )


def job_stream(context: Context, key: str) -> Stream[Job]:
    """One job, the newest state only."""
    tenant = context.viewer.tenant

    async def load(keys: Sequence[str]) -> Mapping[str, Job]:
        async with tenant_transaction(context.pool, tenant, read_only=True) as connection:
            return await background.of_keys(connection, tenant, keys)

    async def read(connection: Connection, _cursor: Cursor) -> Sequence[Job]:
        return list((await background.of_keys(connection, tenant, [key])).values())

    return Stream(
        name=StreamName("jobProgressed", tenant, "job", key),
        topic=(tenant, "job", key),
        right=Right(
            Ties(context.engine.fanout, ("job", tenant), key, load),
            lambda viewer, job: may_follow_job(viewer, job.requested_by),
        ),
        position=changes.job_position,
        read=read,
        place=lambda row: Cursor(row.change_no),
        is_state=True,
        tells_ready=False,
    )


def _classroom_ties(context: Context, key: str) -> Ties:
    tenant, pool, clock = context.viewer.tenant, context.pool, context.engine.clock

    async def load(keys: Sequence[str]) -> Mapping[str, Followers]:
        async with tenant_transaction(pool, tenant, read_only=True) as connection:
            return await visibility.followers_of_classrooms(connection, tenant, keys, clock())

    return Ties(context.engine.fanout, ("classroom", tenant), key, load)


def _student_ties(context: Context, key: str) -> Ties:
    tenant, pool, clock = context.viewer.tenant, context.pool, context.engine.clock

    async def load(keys: Sequence[str]) -> Mapping[str, Followers]:
        async with tenant_transaction(pool, tenant, read_only=True) as connection:
            return await visibility.followers_of_students(connection, tenant, keys, clock())

    return Ties(context.engine.fanout, ("student", tenant), key, load)


def _taught(may: Callable[..., bool]) -> Callable[[Viewer, Followers], bool]:
    return lambda viewer, followers: may(viewer, is_taught=viewer.key in followers.teachers)
