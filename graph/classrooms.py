"""A class as clients read it: its rates, dashboard, people, work, risks and policy, for whoever may see each."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Annotated

import strawberry

from db import classrooms
from db.classrooms import ClassroomRow
from db.dashboards import flags_of_classroom, flags_of_keys, read_dashboard
from db.freshness import Freshness
from db.policies import policy_of
from db.pool import tenant_transaction
from db.visibility import ClassroomTies, of_classrooms
from graph.access import allow
from graph.boards import board_of
from graph.catalog_reads import Concept
from graph.class_mastery import StudentMastery, class_concepts, class_mastery
from graph.class_pages import CLASS_PAGES
from graph.classwork import (
    ASSIGNMENT_ORDER,
    ROSTER_ORDER,
    Assignment,
    ClassroomPolicy,
    Enrollment,
    assignment_of,
    enrollment_of,
    policy_shown,
)
from graph.compiled import read_at_once
from graph.connections import FIRST_DEFAULT, After, Connection, First, limit_of, page_of
from graph.dashboards import ClassroomRollup, Dashboard, dashboard_of, rollup_of
from graph.freshness import Fresh, MinSeq, fresh
from graph.nodes import Node, global_id, register
from graph.refusal import ErrorCode, Refused
from graph.request import Context, Info
from graph.risk import FLAG_ORDER, RiskFlag, RiskReason, RiskSeverity, flag_of, read_node_key
from rules.access import Role, Scope, may_read_classroom, may_subscribe_dashboard
from rules.calendar import local_date
from rules.risk import Severity

if TYPE_CHECKING:
    from graph.schools import School


@strawberry.type(description="A class, as far as you may see it.")
class Classroom(Node, Fresh):
    """Made by `classrooms_of` only, which decides which classes exist for the viewer."""

    key: str = strawberry.field(description="The tenant's own key of the class, as arguments take it.")
    name: str = strawberry.field(description="The class's name.")
    zone: str = strawberry.field(description="The IANA time zone of the class's local days.")
    row: strawberry.Private[ClassroomRow]
    ties: strawberry.Private[ClassroomTies]

    @strawberry.field(description="The school the class belongs to; null when it belongs to none.")
    async def school(self, info: Info) -> Annotated["School", strawberry.lazy("graph.schools")] | None:
        """Known with the class: whoever sees a class may see the name of its school."""
        from graph.schools import school_of_classroom  # late: a school shows classes, a class shows its school

        return school_of_classroom(self.row, self.freshness)

    @strawberry.field(description="The rates of the class over its active students. For its staff.")
    @allow(Role.TEACHER, Role.ADMIN, scope=Scope.READ)
    async def rollup(self, info: Info) -> ClassroomRollup | None:
        """One row."""
        self._require_staff(info, "rollup")
        context, tenant = info.context, info.context.viewer.tenant
        async with tenant_transaction(context.pool, tenant, read_only=True) as connection:
            found = await read_dashboard(
                connection,
                tenant,
                self.key,
                now=context.now,
                today=local_date(context.now, self.zone),
                at_risk_limit=0,
                recent_limit=0,
            )
        return rollup_of(found.rollup)

    @strawberry.field(
        description="What a teacher looks at each morning: rates, who is at risk, what happened lately. For the "
        "class's teachers and admins."
    )
    @allow(Role.TEACHER, Role.ADMIN)
    async def dashboard(self, info: Info) -> Dashboard | None:
        """One statement, whatever the size of the class."""
        if not may_subscribe_dashboard(info.context.viewer, is_taught=self.ties.is_teacher):
            raise _forbidden("dashboard")
        return await dashboard_of(info.context, self.row, self.freshness)

    @strawberry.field(
        description="Who is in the class on a day: one entry for each person and role, ordered by person, role and "
        "first day. For the class's staff."
    )
    @allow(Role.TEACHER, Role.ADMIN, scope=Scope.READ)
    async def roster(
        self,
        info: Info,
        on: Annotated[
            date | None,
            strawberry.argument(description="A day on the calendar of the class; left out or null: today."),
        ] = None,
        first: First = FIRST_DEFAULT,
        after: After = None,
    ) -> Connection[Enrollment] | None:
        """Intervals that hold on the day."""
        self._require_staff(info, "roster")
        limit, place = limit_of(first), ROSTER_ORDER.read(after)
        context, tenant = info.context, info.context.viewer.tenant
        async with tenant_transaction(context.pool, tenant, read_only=True) as connection:
            rows = await classrooms.roster_of(
                connection,
                tenant,
                self.key,
                on=on or local_date(context.now, self.zone),
                after=place,
                limit=limit,
            )
        shows_names = may_subscribe_dashboard(context.viewer, is_taught=self.ties.is_teacher)
        return page_of(
            rows,
            first=first,
            after=after,
            cursor_of=lambda row: ROSTER_ORDER.write(*row.place),
            node_of=lambda row: enrollment_of(row, shows_name=shows_names),
        )

    @strawberry.field(
        description="What each student enrolled today can do, concept by concept, by student key: the rows of a heat "
        "map. `masteryChanged` of the class pushes what changes. For the class's staff."
    )
    @allow(Role.TEACHER, Role.ADMIN, scope=Scope.READ)
    async def mastery(
        self, info: Info, first: First = FIRST_DEFAULT, after: After = None
    ) -> Connection[StudentMastery] | None:
        """Under the policy of the class, from its own evidence."""
        self._require_staff(info, "mastery")
        return await class_mastery(
            info.context,
            self.key,
            on=local_date(info.context.now, self.zone),
            shows_names=may_subscribe_dashboard(info.context.viewer, is_taught=self.ties.is_teacher),
            first=first,
            after=after,
        )

    @strawberry.field(
        description="The concepts that the class's work is about, or that its students gave evidence of, by key: the "
        "columns of a heat map."
    )
    @allow(Role.STUDENT, Role.TEACHER, Role.ADMIN, scope=Scope.READ)
    async def concepts(
        self, info: Info, first: First = FIRST_DEFAULT, after: After = None
    ) -> Connection[Concept] | None:
        """For everyone who may see the class."""
        return await class_concepts(info.context, self.key, first=first, after=after)

    @strawberry.field(description="The work of the class, by key.")
    @allow(Role.STUDENT, Role.TEACHER, Role.ADMIN, scope=Scope.READ)
    async def assignments(
        self, info: Info, first: First = FIRST_DEFAULT, after: After = None
    ) -> Connection[Assignment] | None:
        """For everyone who may see the class."""
        limit = limit_of(first)
        (start,) = ASSIGNMENT_ORDER.read(after) or ("",)
        tenant = info.context.viewer.tenant
        async with tenant_transaction(info.context.pool, tenant, read_only=True) as connection:
            rows = await classrooms.assignments_of(connection, tenant, self.key, after=start, limit=limit)
        return page_of(
            rows,
            first=first,
            after=after,
            cursor_of=lambda row: ASSIGNMENT_ORDER.write(row.key),
            node_of=assignment_of,
        )

    @strawberry.field(
        description="The raised risk flags of the class, the most severe first, then by student and reason. For its "
        "staff."
    )
    @allow(Role.TEACHER, Role.ADMIN, scope=Scope.READ)
    async def risk_flags(
        self,
        info: Info,
        student_id: Annotated[
            strawberry.ID | None, strawberry.argument(description="Only flags of the student with this key.")
        ] = None,
        reasons: Annotated[
            list[RiskReason] | None, strawberry.argument(description="Only flags of these reasons.")
        ] = None,
        min_severity: Annotated[
            RiskSeverity | None, strawberry.argument(description="Only flags of at least this severity.")
        ] = None,
        first: First = FIRST_DEFAULT,
        after: After = None,
    ) -> Connection[RiskFlag] | None:
        """One statement."""
        self._require_staff(info, "riskFlags")
        limit, place = limit_of(first), FLAG_ORDER.read(after)
        tenant = info.context.viewer.tenant
        async with tenant_transaction(info.context.pool, tenant, read_only=True) as connection:
            rows = await flags_of_classroom(
                connection,
                tenant,
                self.key,
                student=student_id,
                reasons=None if reasons is None else [reason.name for reason in reasons],
                severity_min=Severity.LOW if min_severity is None else Severity[min_severity.name],
                after=place,
                limit=limit,
            )
        return page_of(
            rows,
            first=first,
            after=after,
            cursor_of=lambda row: FLAG_ORDER.write(-row.severity, row.student, row.reason),
            node_of=lambda row: flag_of(self.key, row, self.freshness),
        )

    @strawberry.field(description="How the numbers of the class are made: the newest version. For its staff.")
    @allow(Role.TEACHER, Role.ADMIN, scope=Scope.READ)
    async def policy(self, info: Info) -> ClassroomPolicy | None:
        """Version 1, the defaults, until someone chooses otherwise."""
        self._require_staff(info, "policy")
        tenant = info.context.viewer.tenant
        async with tenant_transaction(info.context.pool, tenant, read_only=True) as connection:
            return policy_shown(await policy_of(connection, tenant, self.key))

    def _require_staff(self, info: Info, field: str) -> None:
        """A teacher's token may belong to someone who is only a student of this class."""
        if not _may_read(info.context, self.ties, field_for_staff=True):
            raise _forbidden(field)


def _forbidden(field: str) -> Refused:
    return Refused(ErrorCode.FORBIDDEN, f"You may not use '{field}' of this class.")


def _may_read(context: Context, ties: ClassroomTies, *, field_for_staff: bool = False) -> bool:
    return may_read_classroom(
        context.viewer, is_teacher=ties.is_teacher, is_enrolled=ties.is_enrolled, field_for_staff=field_for_staff
    )


def classroom_of(row: ClassroomRow, ties: ClassroomTies, point: Freshness) -> Classroom:
    """A class as clients read it, once it is decided that they may."""
    return Classroom(
        id=global_id("Classroom", row.key),
        key=row.key,
        name=row.name,
        zone=row.zone,
        freshness=point,
        row=row,
        ties=ties,
    )


async def classrooms_of(context: Context, keys: Sequence[str], point: Freshness) -> dict[str, Classroom]:
    """Those of these classes that exist for the viewer; `point` is what `fresh` answered before."""
    viewer = context.viewer
    async with tenant_transaction(context.pool, viewer.tenant, read_only=True) as connection:
        ties = await of_classrooms(connection, viewer.tenant, keys, viewer=viewer.key, now=context.now)
        seen = {key: tie for key, tie in ties.items() if _may_read(context, tie)}
        rows = await classrooms.classrooms_of_keys(connection, viewer.tenant, list(seen)) if seen else {}
    return {key: classroom_of(row, seen[key], point) for key, row in rows.items()}


async def _classroom_nodes(context: Context, keys: Sequence[str], point: Freshness) -> Mapping[str, Node]:
    return await classrooms_of(context, keys, point)


async def _assignment_nodes(context: Context, keys: Sequence[str], point: Freshness) -> Mapping[str, Node]:
    viewer = context.viewer
    async with tenant_transaction(context.pool, viewer.tenant, read_only=True) as connection:
        rows = await classrooms.assignments_of_keys(connection, viewer.tenant, keys)
        of = sorted({row.classroom for row in rows.values()})
        ties = await of_classrooms(connection, viewer.tenant, of, viewer=viewer.key, now=context.now)
    seen = {key for key, tie in ties.items() if _may_read(context, tie)}
    return {key: assignment_of(row) for key, row in rows.items() if row.classroom in seen}


async def _flag_nodes(context: Context, keys: Sequence[str], point: Freshness) -> Mapping[str, Node]:
    viewer = context.viewer
    named = {key: read for key in keys if (read := read_node_key(key)) is not None}
    async with tenant_transaction(context.pool, viewer.tenant, read_only=True) as connection:
        of = sorted({key[0] for key in named.values()})
        ties = await of_classrooms(connection, viewer.tenant, of, viewer=viewer.key, now=context.now)
        open_classes = {key for key, tie in ties.items() if _may_read(context, tie, field_for_staff=True)}
        seen = [key for key in named.values() if key[0] in open_classes]
        found = await flags_of_keys(connection, viewer.tenant, seen)
    return {text: flag_of(key[0], found[key], point) for text, key in named.items() if key in found}


register("Classroom", _classroom_nodes)
register("Assignment", _assignment_nodes)
register("RiskFlag", _flag_nodes)


@strawberry.type
class ClassroomQuery:
    """The root field of a class."""

    @strawberry.field(description="One class; null when there is none with this key that you may see.")
    @allow(Role.STUDENT, Role.TEACHER, Role.ADMIN, scope=Scope.READ)
    @read_at_once(board_of, CLASS_PAGES.page_of)
    async def classroom(
        self,
        info: Info,
        id: Annotated[strawberry.ID, strawberry.argument(description="The key of the class.")],
        min_seq: MinSeq = None,
    ) -> Classroom | None:
        """Freshness first, then whether the class exists for the viewer."""
        point = await fresh(info.context, min_seq)
        return (await classrooms_of(info.context, [id], point)).get(id)
