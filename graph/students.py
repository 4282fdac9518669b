"""A student as clients read them: mastery, progress and history, for whoever may see them (000-18)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import Annotated

import strawberry

from db import visibility
from db.dashboards import Flag
from db.freshness import Freshness
from db.pool import tenant_transaction
from db.standings import MasteryAsk
from db.student_flags import flags_of_students
from db.timelines import TimelineAsk
from db.visibility import StudentTies
from graph.access import PEOPLE, allow
from graph.compiled import read_at_once
from graph.connections import FIRST_DEFAULT, After, Connection, First, Keyset, limit_of, page_of
from graph.coursework import AssignmentStatus, StudentAssignment, student_work
from graph.freshness import Fresh, MinSeq, fresh
from graph.loaders import batched
from graph.nodes import Node, global_id, register
from graph.refusal import ErrorCode, Refused
from graph.request import Context, Info
from graph.risk import RiskFlag, flag_of
from graph.standings import (
    ConceptMastery,
    ConceptProgress,
    StudentProgress,
    concept_progress,
    key_of,
    keys_of,
    mastery_page,
    progress_of,
)
from graph.student_pages import STUDENT_PAGES
from graph.timelines import EventType, LearningEvent, TimelineOrder, period_of, timeline_of
from graph.trends import StudentTrends, trends_of
from rules.access import Role, Scope, Viewer, may_read_student, may_see_flags
from rules.kinds import Kind

FLAG_ORDER = Keyset("student-flags", (int, str, str))
ClassroomId = Annotated[
    strawberry.ID | None,
    strawberry.argument(description="The key of a class: only its evidence counts, under its policy. Without: all."),
]


@strawberry.type(description="A student, as far as you may see them.")
class Student(Node, Fresh):
    """Made by `students_of` only, which decides who exists for the viewer."""

    key: str = strawberry.field(description="The tenant's own key of the student, as arguments take it.")
    zone: str = strawberry.field(description="The IANA time zone of the student's local days.")
    display_name: str | None = strawberry.field(
        description="The student's name, for the student, guardians and staff; null for machines, or when none is kept."
    )
    ties: strawberry.Private[StudentTies]

    @strawberry.field(
        description="What the evidence says the student can do, by concept key. Concepts named in `conceptIds` are "
        "answered also where there is no evidence; else every concept the student has met."
    )
    async def mastery(
        self,
        info: Info,
        concept_ids: Annotated[
            list[strawberry.ID] | None, strawberry.argument(description="Only these concepts, at most 200 keys.")
        ] = None,
        subject_id: Annotated[
            strawberry.ID | None, strawberry.argument(description="Only concepts of the subject with this key.")
        ] = None,
        classroom_id: ClassroomId = None,
        first: First = FIRST_DEFAULT,
        after: After = None,
    ) -> Connection[ConceptMastery] | None:
        """One statement for all students of the answer."""
        ask = MasteryAsk(
            classroom=classroom_id or "",
            subject=subject_id,
            concepts=keys_of(concept_ids, field="conceptIds"),
        )
        return await mastery_page(info.context, self.key, ask, first=first, after=after)

    @strawberry.field(
        description="The student's work, the soonest due first and work without a due date last: what is open, what is "
        "overdue, what it scored."
    )
    async def assignments(
        self,
        info: Info,
        classroom_id: Annotated[
            strawberry.ID | None, strawberry.argument(description="Only work of the class with this key.")
        ] = None,
        statuses: Annotated[
            list[AssignmentStatus] | None, strawberry.argument(description="Only work that stands so.")
        ] = None,
        first: First = FIRST_DEFAULT,
        after: After = None,
    ) -> Connection[StudentAssignment] | None:
        """One statement for all students of the answer."""
        return await student_work(
            info.context, self.key, classroom=classroom_id, statuses=statuses, first=first, after=after
        )

    @strawberry.field(description="All concepts of the student together.")
    async def progress(self, info: Info, classroom_id: ClassroomId = None) -> StudentProgress | None:
        """One transaction for all students of the answer."""
        return await progress_of(info.context, self.key, classroom_id or "")

    @strawberry.field(description="How far the student is with one concept, over all classes.")
    async def concept_progress(
        self,
        info: Info,
        concept_id: Annotated[strawberry.ID, strawberry.argument(description="The key of the concept.")],
    ) -> ConceptProgress | None:
        """NOT_STARTED for a concept that no event of the student named."""
        return await concept_progress(info.context, self.key, key_of(concept_id, field="conceptId"))

    @strawberry.field(
        description="The student's history, event by event, ordered by (occurredAt, seq). Corrections, and events that "
        "do not count, are shown to staff only."
    )
    async def timeline(
        self,
        info: Info,
        classroom_id: Annotated[
            strawberry.ID | None, strawberry.argument(description="Only events of the class with this key.")
        ] = None,
        types: Annotated[list[EventType] | None, strawberry.argument(description="Only events of these types.")] = None,
        from_: Annotated[
            date | None,
            strawberry.argument(name="from", description="The first local day, inclusive, in the student's zone."),
        ] = None,
        to: Annotated[
            date | None,
            strawberry.argument(
                description="The last local day, inclusive, in the student's zone; at most 366 days after `from`."
            ),
        ] = None,
        order: Annotated[
            TimelineOrder | None,  # Strawberry 0.341 cannot print an enum's default
            strawberry.argument(description="Which end comes first; the oldest, when left out."),
        ] = None,
        first: First = FIRST_DEFAULT,
        after: After = None,
    ) -> Connection[LearningEvent] | None:
        """Read from the log itself."""
        since, until = period_of(from_, to, self.ties.zone)
        ask = TimelineAsk(
            student=self.key,
            is_for_staff=_is_staff(info.context.viewer, self.ties),
            since=since,
            until=until,
            classroom=classroom_id,
            kinds=None if types is None else tuple(Kind[type.name] for type in types),
            is_newest_first=order is TimelineOrder.NEWEST_FIRST,
        )
        return await timeline_of(info.context, ask, first=first, after=after)

    @strawberry.field(
        description="How the student's mastery index has moved: a snapshot for each of the last 90 days, and the trend."
    )
    async def trends(self, info: Info) -> StudentTrends | None:
        """One transaction for all students of the answer."""
        return await trends_of(info.context, self.key)

    @strawberry.field(
        description="The raised risk flags of the student, the most severe first; teachers see those of their own "
        "classes. For staff only: students and guardians are refused."
    )
    @allow(Role.TEACHER, Role.ADMIN, scope=Scope.READ)
    async def risk_flags(
        self, info: Info, first: First = FIRST_DEFAULT, after: After = None
    ) -> Connection[RiskFlag] | None:
        """A teacher who is also the student's guardian is no staff here."""
        if not _is_staff(info.context.viewer, self.ties):
            raise Refused(ErrorCode.FORBIDDEN, "You may not use 'riskFlags'.")
        place = FLAG_ORDER.read(after)
        rows = await _flags_of(info.context, self.ties, place=place, limit=limit_of(first))
        return page_of(
            rows,
            first=first,
            after=after,
            cursor_of=lambda row: FLAG_ORDER.write(-row[1].severity, row[0], row[1].reason),
            node_of=lambda row: flag_of(row[0], row[1], self.freshness),
        )


async def students_of(context: Context, keys: Iterable[str], point: Freshness) -> dict[str, Student]:
    """Those of these students that exist for the viewer; `point` is what `fresh` answered before.

    One statement for all students that the operation asks for at the same moment.
    """
    wanted = list(keys)
    found = await batched(context, "students", lambda keys: _ties_of(context, keys)).load_many(wanted)
    return {ties.student: _student(context.viewer, ties, point) for ties in found if ties is not None}


async def _ties_of(context: Context, keys: list[str]) -> dict[str, StudentTies]:
    viewer = context.viewer
    async with tenant_transaction(context.pool, viewer.tenant, read_only=True) as connection:
        found = await visibility.of_students(connection, viewer.tenant, keys, viewer=viewer.key, now=context.now)
    return {key: ties for key, ties in found.items() if _may_read(viewer, ties)}


def _may_read(viewer: Viewer, ties: StudentTies) -> bool:
    return may_read_student(viewer, ties.student, is_linked=ties.is_linked, is_taught=ties.is_taught)


def _is_staff(viewer: Viewer, ties: StudentTies) -> bool:
    return may_see_flags(viewer, is_taught=ties.is_taught)


def _student(viewer: Viewer, ties: StudentTies, point: Freshness) -> Student:
    # A machine may read numbers; names stay with people.
    is_person = may_read_student(
        replace(viewer, scopes=frozenset()), ties.student, is_linked=ties.is_linked, is_taught=ties.is_taught
    )
    return Student(
        id=global_id("Student", ties.student),
        key=ties.student,
        zone=ties.zone,
        display_name=ties.display_name if is_person else None,
        freshness=point,
        ties=ties,
    )


async def _flags_of(
    context: Context, ties: StudentTies, *, place: tuple[int, str, str] | None, limit: int
) -> list[tuple[str, Flag]]:
    viewer = context.viewer
    sees_all = may_see_flags(viewer, is_taught=False)

    async def load(asked: list[StudentTies]) -> dict[StudentTies, list[tuple[str, Flag]]]:
        within = None if sees_all else {each.student: each.taught_in for each in asked}
        async with tenant_transaction(context.pool, viewer.tenant, read_only=True) as connection:
            found = await flags_of_students(
                connection, viewer.tenant, [t.student for t in asked], within=within, after=place, limit=limit
            )
        return {each: found.get(each.student, []) for each in asked}

    return await batched(context, ("flags", place, limit), load).load(ties) or []


async def _student_nodes(context: Context, keys: Sequence[str], point: Freshness) -> Mapping[str, Node]:
    return await students_of(context, keys, point)


register("Student", _student_nodes)


@strawberry.type
class StudentQuery:
    """The root field of a student."""

    @strawberry.field(description="One student; null when there is none with this key that you may see.")
    @allow(*PEOPLE, scope=Scope.READ)
    @read_at_once(STUDENT_PAGES.page_of)
    async def student(
        self,
        info: Info,
        id: Annotated[strawberry.ID, strawberry.argument(description="The key of the student.")],
        min_seq: MinSeq = None,
    ) -> Student | None:
        """Freshness first, then whether the student exists for the viewer."""
        point = await fresh(info.context, min_seq)
        return (await students_of(info.context, [id], point)).get(id)
