"""Schools and the tenant they belong to, as clients read them."""

from collections.abc import Mapping, Sequence
from typing import Annotated

import strawberry

from db import classrooms
from db.classrooms import ClassroomRow, SchoolRow
from db.freshness import Freshness
from db.pool import tenant_transaction
from db.visibility import of_classrooms
from graph.access import ANY_SCOPE, PEOPLE, allow
from graph.background import Job, job_page
from graph.classrooms import Classroom, classroom_of
from graph.connections import FIRST_DEFAULT, After, Connection, First, Keyset, limit_of, page_of
from graph.drift_reports import DriftReport, report_page
from graph.freshness import Fresh, MinSeq, fresh
from graph.nodes import Node, global_id, register
from graph.request import Context, Info
from rules.access import Role, Scope, Viewer

CLASSROOM_ORDER = Keyset("classrooms", (str,))


@strawberry.type(description="A school of the tenant, as far as you may see it.")
class School(Node, Fresh):
    """Made by `schools_of` and `school_of_classroom`, which decide which schools exist for the viewer."""

    key: str = strawberry.field(description="The tenant's own key of the school, as arguments take it.")
    name: str = strawberry.field(description="The school's name.")
    zone: str = strawberry.field(description="The IANA time zone of the school's local days.")

    @strawberry.field(
        description="The classes of the school by key: all of them for admins and machines, those they teach today "
        "for teachers."
    )
    @allow(Role.TEACHER, Role.ADMIN, scope=Scope.READ)
    async def classrooms(
        self, info: Info, first: First = FIRST_DEFAULT, after: After = None
    ) -> Connection[Classroom] | None:
        """A page of classes."""
        roles = None if _sees_all(info.context.viewer) else ("TEACHER",)
        return await classroom_page(
            info.context, self.freshness, school=self.key, roles=roles, first=first, after=after
        )


async def classroom_page(
    context: Context,
    point: Freshness,
    *,
    school: str | None,
    roles: Sequence[str] | None,
    first: int,
    after: str | None,
) -> Connection[Classroom]:
    """A page of classes by key: those the viewer is in today with one of the roles, or all of the school."""
    viewer, limit = context.viewer, limit_of(first)
    (start,) = CLASSROOM_ORDER.read(after) or ("",)
    async with tenant_transaction(context.pool, viewer.tenant, read_only=True) as connection:
        if roles is None:
            assert school is not None, "all classes of a tenant are no page"
            rows = await classrooms.classrooms_of_school(connection, viewer.tenant, school, after=start, limit=limit)
        else:
            rows = await classrooms.classrooms_of_person(
                connection,
                viewer.tenant,
                viewer.key,
                roles=roles,
                now=context.now,
                school=school,
                after=start,
                limit=limit,
            )
        keys = [row.key for row in rows]
        ties = await of_classrooms(connection, viewer.tenant, keys, viewer=viewer.key, now=context.now)
    return page_of(
        rows,
        first=first,
        after=after,
        cursor_of=lambda row: CLASSROOM_ORDER.write(row.key),
        node_of=lambda row: classroom_of(row, ties[row.key], point),
    )


def _sees_all(viewer: Viewer) -> bool:
    return viewer.has(Role.ADMIN) or viewer.is_integrator_for(Scope.READ)


def roles_today(viewer: Viewer) -> tuple[str, ...]:
    """The enrolment roles that the viewer's token lets count."""
    held = ((Role.STUDENT, "STUDENT"), (Role.TEACHER, "TEACHER"))
    return tuple(name for role, name in held if viewer.has(role))


def _school_of(row: SchoolRow, point: Freshness) -> School:
    return School(id=global_id("School", row.key), key=row.key, name=row.name, zone=row.zone, freshness=point)


def school_of_classroom(row: ClassroomRow, point: Freshness) -> School | None:
    """The school of a class that the viewer sees."""
    if row.school is None or row.school_name is None:
        return None
    return _school_of(SchoolRow(row.school, row.school_name, row.school_zone), point)


async def schools_of(context: Context, keys: Sequence[str], point: Freshness) -> dict[str, School]:
    """Those of these schools that exist for the viewer: all, or those with a class that they are in today."""
    viewer = context.viewer
    async with tenant_transaction(context.pool, viewer.tenant, read_only=True) as connection:
        if not _sees_all(viewer):
            keys = sorted(
                await classrooms.schools_of_person(
                    connection, viewer.tenant, keys, person=viewer.key, roles=roles_today(viewer), now=context.now
                )
            )
        rows = await classrooms.schools_of_keys(connection, viewer.tenant, keys)
    return {key: _school_of(row, point) for key, row in rows.items()}


async def _school_nodes(context: Context, keys: Sequence[str], point: Freshness) -> Mapping[str, Node]:
    return await schools_of(context, keys, point)


register("School", _school_nodes)


@strawberry.type(description="The tenant: a school district, or whatever else keeps its data apart from all others.")
class Tenant:
    """The viewer's own; no other can be named."""

    key: strawberry.ID = strawberry.field(description="The tenant's number, as tokens name it.")
    name: str = strawberry.field(description="The tenant's name.")
    zone: str = strawberry.field(description="The IANA time zone of schools, classes and students without their own.")

    @strawberry.field(
        description="Work in the background, the newest first: all of it for admins, what they asked for themselves "
        "for teachers and machines."
    )
    @allow(Role.TEACHER, Role.ADMIN, scope=Scope.READ)
    async def jobs(self, info: Info, first: First = FIRST_DEFAULT, after: After = None) -> Connection[Job] | None:
        """A page of jobs."""
        return await job_page(info.context, first=first, after=after)

    @strawberry.field(
        description="What the checks of single classes found, the newest first: those of `verifyProjection` and the "
        "nightly samples. For admins."
    )
    @allow(Role.ADMIN)
    async def drift_reports(
        self, info: Info, first: First = FIRST_DEFAULT, after: After = None
    ) -> Connection[DriftReport] | None:
        """A page of reports."""
        return await report_page(info.context, first=first, after=after)


async def tenant_of(context: Context) -> Tenant | None:
    """The viewer's tenant; None before it is set up."""
    number = context.viewer.tenant
    async with tenant_transaction(context.pool, number, read_only=True) as connection:
        row = await classrooms.tenant_of(connection, number)
    return Tenant(key=strawberry.ID(str(number)), name=row.name, zone=row.zone) if row else None


@strawberry.type
class SchoolQuery:
    """The root fields of schools and of the tenant."""

    @strawberry.field(description="One school; null when there is none with this key that you may see.")
    @allow(Role.STUDENT, Role.TEACHER, Role.ADMIN, scope=Scope.READ)
    async def school(
        self,
        info: Info,
        id: Annotated[strawberry.ID, strawberry.argument(description="The key of the school.")],
        min_seq: MinSeq = None,
    ) -> School | None:
        """Freshness first, then whether the school exists for the viewer."""
        point = await fresh(info.context, min_seq)
        return (await schools_of(info.context, [id], point)).get(id)

    @strawberry.field(description="Your tenant.")
    @allow(*PEOPLE, scope=ANY_SCOPE)
    async def tenant(self, info: Info) -> Tenant | None:
        """The token names it."""
        return await tenant_of(info.context)
