"""Closing days: when a day of the tenant has ended, or an earlier one has changed, its snapshots are made again."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime, timedelta
from time import monotonic

from db import closing, facts, fold_level
from db.closing import Day, Zones
from db.pool import COLLIDED, LOST, Connection, Pool, tenant_transaction
from db.projection import ViewKey
from rules.calendar import day_start, local_date
from rules.corrections import ALL_CLASSES, by_view
from rules.evidence import LearningEvent
from rules.index import MasteryIndex, history_of, indexes_at
from rules.kinds import FOLD_LEVEL, NewerWord

log = logging.getLogger(__name__)

KEPT_DAYS = 90  # C11
LOOK_SECONDS = 1.0
ROUND_STUDENTS = 200
STEP_STUDENTS = 4  # locked at once: who folds an event of one of them waits until their log is read
CLOSE_MS = 3_000
SINGLE_CLOSE_MS = 30_000  # a long history, alone
BUSY_RESTS = 2.0  # after each student closed while events are folded, times as long as that took
PATIENCE = timedelta(minutes=10)  # events go first: while any are being folded, a day may be closed this much later


class Closing:
    """One per worker; who is due stands in Postgres, and a student whom another worker holds is passed over."""

    def __init__(
        self,
        *,
        pool: Pool,
        clock: Callable[[], datetime],
        stop: asyncio.Event,
        is_busy: Callable[[], bool] = lambda: False,
        level: int = FOLD_LEVEL,
    ) -> None:
        self._pool = pool
        self._clock = clock
        self._stop = stop
        self._is_busy = is_busy
        self._level = level

    async def run(self) -> None:
        """Close what is due until told to stop; while Postgres is away, wait for it."""
        while not self._stop.is_set():
            try:
                if await self.once() == ROUND_STUDENTS:
                    continue
            except LOST as error:
                log.warning("postgres_away", extra={"error": type(error).__name__})
            except Exception:
                log.exception("closing_failed")  # the next round tries again
            await self._pause(LOOK_SECONDS)

    async def once(self) -> int:
        """One round; returns how many students' days were closed.

        It ends early once events are being folded: a fold waits for the students whose log is being read, and shares a
        core with us. Who has been due for too long is closed beside the folds, one by one, in a third of the time.
        """
        now = self._clock()
        was_busy = self._is_busy()
        moment = now - PATIENCE if was_busy else now
        by_tenant: dict[int, list[str]] = defaultdict(list)
        for tenant, student in await closing.due(self._pool, moment=moment, at_most=ROUND_STUDENTS):
            by_tenant[tenant].append(student)
        count = 0
        for tenant, students in by_tenant.items():
            size = 1 if was_busy else STEP_STUDENTS
            for start in range(0, len(students), size):
                if self._stop.is_set() or (self._is_busy() and not was_busy):
                    return count
                began = monotonic()
                count += await self._step(tenant, students[start : start + size], now=now)
                if was_busy:
                    await self._pause((monotonic() - began) * BUSY_RESTS)
        return count

    async def _pause(self, seconds: float) -> None:
        """Rest, unless the process stops meanwhile."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()

    async def _step(self, tenant: int, students: Sequence[str], *, now: datetime) -> int:
        """Close some; where that takes too long, each alone."""
        try:
            return await self.close(tenant, students, now=now)
        except (*COLLIDED, NewerWord) as error:
            log.info("closing_put_off", extra={"error": type(error).__name__})
        except LOST:
            if len(students) == 1:
                raise
            return sum([await self._step(tenant, [student], now=now) for student in students])
        except Exception:
            log.exception("closing_failed")  # these stay due; those after them must not wait for them
        return 0

    async def close(self, tenant: int, students: Sequence[str], *, now: datetime) -> int:
        """Make the snapshots of these students' ended days again, as far as they are due, and save what differs.

        Where nothing changed since the last time, only the days that ended since are made. Their state rows are
        locked meanwhile: an event that is folded before is in the log that is read, one that is folded after finds
        its day closed and opens it again.
        """
        held = fold_level.held(tenant)
        limit_ms, seconds = (CLOSE_MS, None) if len(students) > 1 else (SINGLE_CLOSE_MS, SINGLE_CLOSE_MS / 1_000)
        async with tenant_transaction(self._pool, tenant, limit_ms=limit_ms, settings=held) as connection:
            if await fold_level.of_tenant(connection, tenant) > self._level:
                return 0
            locked = await closing.lock(connection, tenant, students, moment=now)
            if not locked:
                return 0
            zones = await closing.zones(connection, tenant, locked)
            days = ended_days(now, zones.tenant)
            new = {student: _since(days, until, zones.tenant) for student, until in locked.items()}
            stored = await closing.stored(connection, tenant, locked)
            log = await facts.log_of_students(connection, tenant, locked, seconds=seconds)
            classes = await facts.rostered_classrooms(connection, tenant, {event.classroom for event in log})
            made = await indexes(connection, tenant, new, zones, by_view(log, classrooms=classes))
            kept = {key for key in stored if key[1] in days and key[1] not in new[key[0]]}
            await closing.save(connection, tenant, {key: i for key, i in made.items() if stored.get(key) != i})
            await closing.forget(connection, tenant, stored.keys() - made.keys() - kept)
            today = local_date(now, zones.tenant)
            await closing.close(
                connection,
                tenant,
                locked,
                until=day_start(today, zones.tenant),
                next_at=day_start(today + timedelta(days=1), zones.tenant),
            )
        return len(locked)


def ended_days(now: datetime, zone: str) -> list[date]:
    """The days of the tenant that have ended and are kept, the oldest first."""
    today = local_date(now, zone)
    return [today - timedelta(days=ago) for ago in range(KEPT_DAYS, 0, -1)]


def _since(days: Sequence[date], until: datetime | None, zone: str) -> list[date]:
    """Those of the days that had not ended at `until`; all of them where that is not known."""
    return [day for day in days if until is None or day_start(day, zone) >= until]


async def indexes(
    connection: Connection,
    tenant: int,
    days: Mapping[str, Sequence[date]],
    zones: Zones,
    views: Mapping[ViewKey, Sequence[LearningEvent]],
) -> dict[Day, MasteryIndex]:
    """The index of each student at the end of each of these days; a day without one is left out.

    `views` is the students' histories with their corrections, as the log has them.
    """
    details = await closing.details(connection, tenant, days)
    items = {event.item for student in days for event in views.get((student, ALL_CLASSES), ()) if event.item}
    difficulties = await closing.difficulties(connection, tenant, items)
    found: dict[Day, MasteryIndex] = {}
    for student, wanted in days.items():
        view = views.get((student, ALL_CLASSES))
        if not view or student not in zones.of or not wanted:
            continue
        history = history_of(view, details=details, difficulties=difficulties, zone=zones.of[student])
        for day, index in zip(wanted, indexes_at(history, _ends(wanted, zones.tenant)), strict=True):
            if index is not None:
                found[student, day] = index
    return found


def _ends(days: Iterable[date], zone: str) -> list[datetime]:
    return [day_start(day + timedelta(days=1), zone) for day in days]
