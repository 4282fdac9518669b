"""Short ways to make events, record them and fold them, for tests below the GraphQL edge."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from db.evidence import Answer, record
from db.live import Live
from db.outbox import SHARDS, Touch, touch
from db.pool import Pool, tenant_transaction
from jobs.drain import Drain
from rules.evidence import Kind, LearningEvent, Submission

START = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)  # a Monday


def submission(event: LearningEvent, *, payload: str | None = None) -> Submission:
    """An event as validation hands it on, its fingerprint over all its fields."""
    if payload is None:
        payload = '{"onlyIfHigher":true}' if event.only_if_higher else "{}"
    return Submission(event, hashlib.blake2b(repr(event).encode(), digest_size=16).digest(), payload=payload)


def graded(event_id: str, student: str, score: float, **fields: Any) -> LearningEvent:
    """A graded submission in class 7b on concept "fractions"; `at` is minutes after START."""
    minutes = fields.pop("at", 0)
    defaults: dict[str, Any] = {
        "source": "lms",
        "event_id": event_id,
        "kind": Kind.SUBMISSION_GRADED,
        "occurred_at": START + timedelta(minutes=minutes),
        "student": student,
        "classroom": "7b",
        "assignment": f"hw-{event_id}",
        "concepts": ("fractions",),
        "ratio": round(score * 1_000_000),
    }
    return LearningEvent(**{**defaults, **fields})


def void(event_id: str, target: LearningEvent, **fields: Any) -> LearningEvent:
    """A void of an event."""
    minutes = fields.pop("at", 0)
    defaults: dict[str, Any] = {
        "source": "lms",
        "event_id": event_id,
        "kind": Kind.EVENT_VOIDED,
        "occurred_at": START + timedelta(minutes=minutes),
        "student": target.student,
        "target_source": target.source,
        "target_event_id": target.event_id,
    }
    return LearningEvent(**{**defaults, **fields})


@dataclass(slots=True)
class Clock:
    """A clock that tests move."""

    now: datetime

    def __call__(self) -> datetime:
        return self.now


@dataclass(slots=True)
class Mill:
    """One tenant's way from events to projections, without processes: record, then drain every shard."""

    pool: Pool
    tenant: int
    clock: Clock
    drain: Drain

    @classmethod
    def of(cls, pool: Pool, tenant: int, live: Live, *, now: datetime) -> "Mill":
        clock = Clock(now)
        return cls(pool, tenant, clock, Drain(pool, clock, live))

    async def record(self, *events: LearningEvent) -> list[Answer]:
        """Store events in one batch."""
        async with tenant_transaction(self.pool, self.tenant) as connection:
            sent = [submission(event) for event in events]
            return await record(connection, self.tenant, sent, recorded_by="test", now=self.clock())

    async def touch(self, *touches: Touch) -> int:
        """Let the fold look again, as a roster change does."""
        async with tenant_transaction(self.pool, self.tenant) as connection:
            return await touch(connection, self.tenant, touches, now=self.clock())

    async def fold(self) -> int:
        """Drain every shard until nothing waits."""
        return sum([await self.drain.shard(self.tenant, shard) for shard in range(SHARDS)])

    async def recorded_and_folded(self, *batches: Sequence[LearningEvent]) -> None:
        """Record and fold batch after batch."""
        for batch in batches:
            await self.record(*batch)
            await self.fold()

    async def rows(self, statement: str, *arguments: Any) -> list[tuple[Any, ...]]:
        """Read rows with a statement whose $1 is the tenant."""
        async with tenant_transaction(self.pool, self.tenant, read_only=True) as connection:
            return [tuple(row) for row in await connection.fetch(statement, self.tenant, *arguments)]
