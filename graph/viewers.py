"""Who is asking: the bearer of the token, with the classes and children that are theirs."""

from enum import Enum

import strawberry

from db import classrooms
from db.pool import tenant_transaction
from graph.access import ANY_SCOPE, PEOPLE, allow
from graph.classrooms import Classroom
from graph.connections import FIRST_DEFAULT, After, Connection, First, Keyset, limit_of, page_of
from graph.freshness import Fresh, MinSeq, fresh
from graph.request import Info
from graph.schools import Tenant, classroom_page, roles_today, tenant_of
from graph.students import Student, students_of
from rules.access import Role

CHILD_ORDER = Keyset("children", (str,))


@strawberry.enum(description="What a viewer is in the tenant; one person may hold several roles.")
class ViewerRole(Enum):
    """The roles of `rules.access.Role`, described."""

    STUDENT = strawberry.enum_value("student", description="Sees their own work.")
    GUARDIAN = strawberry.enum_value("guardian", description="Sees the work of the children they are linked to.")
    TEACHER = strawberry.enum_value("teacher", description="Sees the classes they teach today.")
    ADMIN = strawberry.enum_value("admin", description="Sees the whole tenant.")
    INTEGRATOR = strawberry.enum_value("integrator", description="A machine; its token's scopes say what it may do.")


@strawberry.type(description="The bearer of the token that the request carries.")
class Viewer(Fresh):
    """Whose it is comes from the token, never from an argument."""

    key: str = strawberry.field(description="The person's or machine's key in the tenant: the token's `sub`.")
    roles: list[ViewerRole] = strawberry.field(description="The roles that the token carries, by name.")

    @strawberry.field(description="The tenant that the token names.")
    async def tenant(self, info: Info) -> Tenant | None:
        """Null before the tenant is set up."""
        return await tenant_of(info.context)

    @strawberry.field(description="The classes you teach or are enrolled in today, by key. For teachers and students.")
    @allow(Role.STUDENT, Role.TEACHER)
    async def classrooms(
        self, info: Info, first: First = FIRST_DEFAULT, after: After = None
    ) -> Connection[Classroom] | None:
        """Only roles that the token carries count."""
        context = info.context
        return await classroom_page(
            context, self.freshness, school=None, roles=roles_today(context.viewer), first=first, after=after
        )

    @strawberry.field(description="The students you follow as a guardian with active consent, by key. For guardians.")
    @allow(Role.GUARDIAN)
    async def children(
        self, info: Info, first: First = FIRST_DEFAULT, after: After = None
    ) -> Connection[Student] | None:
        """A page of students."""
        context, limit = info.context, limit_of(first)
        (start,) = CHILD_ORDER.read(after) or ("",)
        viewer = context.viewer
        async with tenant_transaction(context.pool, viewer.tenant, read_only=True) as connection:
            keys = await classrooms.children_of(
                connection, viewer.tenant, viewer.key, now=context.now, after=start, limit=limit
            )
        found = await students_of(context, keys, self.freshness)
        return page_of(
            [key for key in keys if key in found],  # a consent may end between the two statements
            first=first,
            after=after,
            cursor_of=CHILD_ORDER.write,
            node_of=found.__getitem__,
        )


@strawberry.type
class ViewerQuery:
    """The root field of whoever asks."""

    @strawberry.field(description="You: the bearer of the token.")
    @allow(*PEOPLE, scope=ANY_SCOPE)
    async def viewer(self, info: Info, min_seq: MinSeq = None) -> Viewer | None:
        """Freshness first."""
        point = await fresh(info.context, min_seq)
        viewer = info.context.viewer
        return Viewer(
            key=viewer.key, roles=sorted(map(ViewerRole, viewer.roles), key=lambda role: role.name), freshness=point
        )
