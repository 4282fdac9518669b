"""A district for tests: one fresh tenant, and short ways to write the rows that readers read."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import count
from typing import Any
from uuid import UUID

import msgspec

from db.outbox import shard_of
from db.pool import Pool, tenant_transaction
from tests.support.tenants import fresh_tenant

NOW = datetime(2026, 3, 11, 9, 30, tzinfo=UTC)  # a Wednesday
TODAY = date(2026, 3, 11)
TERM_START = date(2026, 1, 7)


@dataclass(slots=True)
class District:
    """One tenant's rows. Times default to NOW, classes to "7b", students are rostered by `enroll`."""

    pool: Pool
    tenant: int
    seqs: "count[int]"

    async def put(self, table: str, **columns: Any) -> None:
        """Insert one row."""
        names = ", ".join(columns)
        places = ", ".join(f"${place}" for place in range(2, len(columns) + 2))
        async with tenant_transaction(self.pool, self.tenant) as connection:
            await connection.execute(
                f"insert into {table} (tenant, {names}) values ($1, {places})",  # noqa: S608 - names of our own
                self.tenant,
                *columns.values(),
            )

    async def run(self, statement: str, *arguments: Any) -> None:
        """Run one statement whose $1 is the tenant."""
        async with tenant_transaction(self.pool, self.tenant) as connection:
            await connection.execute(statement, self.tenant, *arguments)

    async def school(self, key: str = "north", *, zone: str | None = None) -> None:
        await self.put("school", school=key, name=f"School {key}", zone=zone)

    async def classroom(self, key: str = "7b", *, school: str | None = None, zone: str | None = None) -> None:
        await self.put("classroom", classroom=key, name=f"Class {key}", school=school, zone=zone, created_at=NOW)

    async def person(self, key: str, name: str) -> None:
        await self.put("person", person=key, display_name=name)

    async def student(self, key: str) -> None:
        await self.put("student", student=key, created_at=NOW)

    async def enroll(
        self, person: str, classroom: str = "7b", *, started: date = TERM_START, ended: date | None = None
    ) -> None:
        """Enroll a student, and put them on the roster when they are new."""
        await self.run("insert into student values ($1, $2, null, now()) on conflict do nothing", person)
        await self.put("enrollment", classroom=classroom, person=person, role="STUDENT", started=started, ended=ended)

    async def teach(
        self, person: str, classroom: str = "7b", *, started: date = TERM_START, ended: date | None = None
    ) -> None:
        await self.put("enrollment", classroom=classroom, person=person, role="TEACHER", started=started, ended=ended)

    async def guard(self, guardian: str, student: str, *, revoked_at: datetime | None = None) -> None:
        await self.put("guardian_link", guardian=guardian, student=student, consent_at=NOW, revoked_at=revoked_at)

    async def assignment(self, key: str, classroom: str = "7b", **columns: Any) -> None:
        defaults = {"title": f"Work {key}", "concepts": ["fractions"], "created_at": NOW}
        await self.put("assignment", assignment=key, classroom=classroom, **{**defaults, **columns})

    async def rates(self, classroom: str = "7b", **columns: Any) -> None:
        await self.put("classroom_state", classroom=classroom, assessed_at=NOW, **columns)

    async def flag(
        self,
        student: str,
        reason: str,
        severity: int | None,
        *,
        overall: int | None = None,
        classroom: str = "7b",
        evidence: dict[str, Any] | None = None,
    ) -> None:
        """A raised flag; severity None writes the memory of one that has cleared."""
        await self.put(
            "risk_flag",
            classroom=classroom,
            student=student,
            reason=reason,
            severity=severity,
            overall=None if severity is None else overall or severity,
            raised_at=None if severity is None else NOW,
            evidence=msgspec.json.encode(evidence or {}).decode(),
            clears_when=f"Clears when {student} is back.",
        )

    async def event(
        self,
        event_id: str,
        student: str,
        *,
        classroom: str = "7b",
        source: str = "lms",
        occurred_at: datetime = NOW,
        kind: str = "CONTENT_VIEWED",
        is_waiting: bool = False,
        **columns: Any,
    ) -> int:
        """An event in the log with its key; folded unless it waits. Returns its seq."""
        seq = next(self.seqs)
        named: dict[str, Any] = {"source": source, "event_id": event_id, "id": UUID(int=seq), "seq": seq}
        received_at = max(occurred_at, NOW - timedelta(days=1))
        await self.put("event_key", **named, fingerprint=b"f" * 16, received_at=received_at)
        defaults = {"revision": 0, "payload": "{}", "recorded_by": "lms"}
        await self.put(
            "event",
            **named,
            received_at=received_at,
            kind=kind,
            occurred_at=occurred_at,
            student=student,
            classroom=classroom,
            **{**defaults, **columns},
        )
        if is_waiting:
            await self.wait(seq, student, classroom)
        await self.run("update tenant_head set seq = $2 where tenant = $1", seq)
        return seq

    async def wait(
        self, seq: int, student: str, classroom: str = "7b", *, lane: int = 0, received_at: datetime = NOW
    ) -> None:
        """A row of the outbox."""
        await self.put(
            "outbox",
            shard=shard_of(classroom=classroom, student=student),
            lane=lane,
            occurred_at=received_at,
            seq=seq,
            kind="EVENT",
            student=student,
            classroom=classroom,
            received_at=received_at,
        )

    async def void(self, event_id: str, *, source: str = "lms", by: str = "v1", seq: int = 900) -> None:
        """A void of an event."""
        await self.put(
            "correction",
            target_source=source,
            target_event_id=event_id,
            source=source,
            event_id=by,
            kind="EVENT_VOIDED",
            seq=seq,
            reason="sent twice",
            at=NOW,
        )


async def open_district(pool: Pool, *, zone: str = "UTC") -> District:
    """Make a tenant with the log's month of March 2026."""
    tenant = await fresh_tenant(pool, zone=zone)
    district = District(pool, tenant, count(1))
    await district.run("select make_event_partitions(date '2026-03-01', 1) where $1::bigint > 0")
    return district
