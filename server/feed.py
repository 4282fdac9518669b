"""Feeding a replay to a running service: its roster by mutations, then its events at a chosen speed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from time import monotonic
from typing import Any

from rules.evidence import EventInput, Lane
from server.replay import SCHOOL, Replay
from server.sender import Service

BATCH_EVENTS = 500
SAVES_AT_ONCE = 16
Entry = tuple[str, dict[str, Any]]  # a mutation and its input


def roster_entries(replays: Sequence[Replay]) -> Iterator[list[Entry]]:
    """What to save, in lists whose entries do not need each other; a later list may need the earlier ones."""
    yield [
        (
            "saveCatalog",
            {
                "subjects": [{"key": key, "name": name} for key, name in sorted({r.subject for r in replays})],
                "concepts": [
                    {"key": key, "name": name, "subjectId": subject}
                    for key, name, subject in sorted(
                        {(*concept, r.subject[0]) for r in replays for concept in r.concepts}
                    )
                ],
            },
        ),
        ("saveSchool", {"key": SCHOOL.key, "name": SCHOOL.name, "zone": SCHOOL.zone}),
    ]
    yield [
        ("saveClassroom", {"key": room.key, "name": room.name, "schoolId": room.school})
        for room in (replay.classroom for replay in replays)
    ] + [("saveStudent", {"key": key}) for key in sorted({s.key for replay in replays for s in replay.students})]
    # Students before work: assigning a work to a class is one transaction, assigning all work to each student is many.
    yield [
        (
            "saveEnrollment",
            {
                "classroomId": stay.classroom,
                "personId": stay.person,
                "role": stay.role.value,
                "startsOn": stay.started.isoformat(),
                "endsOn": stay.ended and stay.ended.isoformat(),
            },
        )
        for replay in replays
        for stay in replay.enrollments()
    ]
    yield [
        (
            "saveAssignment",
            {
                "key": work.key,
                "classroomId": work.classroom,
                "title": work.title,
                "kind": work.kind.value,
                "dueAt": work.due_at and work.due_at.isoformat(),
                "conceptIds": list(work.concepts),
            },
        )
        for replay in replays
        for work in replay.assignments
    ]


async def save_roster(service: Service, replays: Sequence[Replay], *, stop: asyncio.Event) -> int:
    """Save all that the events speak of, SAVES_AT_ONCE at a time; returns how many entries were saved."""
    saved = 0
    for entries in roster_entries(replays):
        for start in range(0, len(entries), SAVES_AT_ONCE):
            if stop.is_set():
                return saved
            some = entries[start : start + SAVES_AT_ONCE]
            async with asyncio.TaskGroup() as saving:
                for mutation, entry in some:
                    saving.create_task(service.save(mutation, entry))
            saved += len(some)
            if saved % 1_000 < SAVES_AT_ONCE:
                print(f"  {saved} entries of the roster saved", flush=True)
    return saved


def utc_now() -> datetime:
    """The time of day; the one place of the replay that asks for it."""
    return datetime.now(UTC)


def moment(event: EventInput) -> datetime:
    """When an event of a replay happened; every one of them says so."""
    assert event.occurred_at is not None
    return event.occurred_at


async def feed(
    service: Service,
    events: Sequence[EventInput],
    *,
    days_per_second: float,
    stop: asyncio.Event,
    clock: Callable[[], datetime] = utc_now,
) -> None:
    """Send events in the order of time: `days_per_second` days of the class in a second, 0 as fast as they are taken.

    The log takes no event of tomorrow: what lies in the future is stamped when it is sent, and not sent at speed 0,
    so that loading a class again changes nothing.
    """
    if not days_per_second:
        now = clock()
        past = [event for event in events if moment(event) <= now]
        if len(past) < len(events):
            print(f"  {len(events) - len(past)} events are still to come and left out: --speed sends them", flush=True)
        events = past
    started, printed = monotonic(), 0.0
    lane = Lane.LIVE if days_per_second else Lane.BACKFILL
    place = 0
    while place < len(events) and not stop.is_set():
        elapsed = monotonic() - started
        end = _due_end(events, place, days=elapsed * days_per_second) if days_per_second else len(events)
        batch = events[place : min(end, place + BATCH_EVENTS)]
        if not batch:
            await asyncio.sleep(0.05)
            continue
        now = clock()
        await service.record([replace(event, lane=lane.value, occurred_at=min(moment(event), now)) for event in batch])
        place += len(batch)
        if monotonic() - printed >= 1:
            printed = monotonic()
            print(_line(service, place, len(events), moment(batch[-1]), printed - started), flush=True)
    if place:
        print(_line(service, place, len(events), moment(events[place - 1]), monotonic() - started), flush=True)


def _due_end(events: Sequence[EventInput], place: int, *, days: float) -> int:
    """The first place from `place` on whose event has not happened yet, `days` after the first of all."""
    first = moment(events[0])
    while place < len(events) and (moment(events[place]) - first).total_seconds() <= days * 86_400:
        place += 1
    return place


def _line(service: Service, place: int, total: int, at: datetime, elapsed: float) -> str:
    rate = place / elapsed if elapsed else 0.0
    return f"{elapsed:6.1f} s  {at.date()}  {place}/{total}  {service.tally.line()}  {rate:.0f} events/s"
