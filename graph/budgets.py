"""Budgets: what each viewer may ask for at once and go on asking for, in points, root fields and events.

They are kept in each process, in memory: a budget shared over Redis would add a round trip to every operation, and an
outage of Redis would have to end in this anyway. So `n` api processes give a viewer up to `n` budgets.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil
from time import monotonic
from typing import Any

from graph.refusal import ErrorCode, Refused
from rules.access import Role, Viewer

KEYS_MAX = 100_000  # of one kind of budget; what is full again is forgotten first
ROUNDING = 1e-6  # moments are floating point, amounts are whole
WRONG_DOCUMENT_POINTS = 250  # reading and judging a document that then cannot run takes milliseconds

Key = tuple[int, str]


class Bucket:
    """One kind of budget for many keys: it holds `most`, and gains `a_second` until it is full again."""

    def __init__(self, name: str, *, most: int, a_second: float) -> None:
        self.name, self.most, self.a_second = name, most, a_second
        self._full_at: dict[Key, float] = {}  # when each will be full again; one that is full is not kept

    def left(self, key: Key, now: float) -> float:
        """What a key may take now; below zero while it has debts."""
        return self.most - max(0.0, self._full_at.get(key, 0.0) - now) * self.a_second

    def take(self, key: Key, amount: int, now: float) -> float:
        """Take, whether it is there or not, and tell what is left; debts end at as much as the bucket holds."""
        left = max(self.left(key, now) - amount, -float(self.most))
        self._full_at[key] = now + (self.most - left) / self.a_second
        if len(self._full_at) > KEYS_MAX:
            self._forget(now)
        return left

    def _forget(self, now: float) -> None:
        self._full_at = {key: full_at for key, full_at in self._full_at.items() if full_at > now}
        while len(self._full_at) > KEYS_MAX * 9 // 10:  # all are in use: those who took least get theirs back early
            for key in sorted(self._full_at, key=self._full_at.__getitem__)[: KEYS_MAX // 10]:
                del self._full_at[key]


@dataclass(frozen=True, slots=True)
class Limits:
    """The budgets of one kind of viewer. A machine's events are counted for its tenant, all else for the viewer."""

    points: Bucket
    fields: Bucket | None
    events: Bucket


def _people() -> Limits:
    return Limits(
        Bucket("points", most=10_000, a_second=200.0),
        Bucket("root fields", most=100, a_second=100 / 60),  # 003-32
        Bucket("events", most=1_000, a_second=1_000 / 60),
    )


def _machines(events_a_second: int) -> Limits:
    return Limits(
        Bucket("points", most=100_000, a_second=20_000.0),
        None,  # their own measure is events (C9)
        Bucket("events", most=max(1_000, events_a_second), a_second=float(events_a_second)),
    )


@dataclass(slots=True)
class Budgets:
    """The budgets of one process."""

    integrator_events_a_second: int = 10_000
    clock: Callable[[], float] = monotonic
    _people: Limits = field(default_factory=_people, init=False)
    _machines: Limits = field(init=False)

    def __post_init__(self) -> None:
        self._machines = _machines(self.integrator_events_a_second)

    def spend(self, viewer: Viewer, *, points: int, fields: int, events: int) -> dict[str, Any]:
        """Charge an operation, and tell `extensions.cost`. Raises Refused with RATE_LIMITED, having charged nothing."""
        limits, key, event_key = self._of(viewer)
        now = self.clock()
        wanted = [(limits.points, key, points)]
        if limits.fields is not None and fields:
            wanted.append((limits.fields, key, fields))
        if events:
            wanted.append((limits.events, event_key, events))
        for bucket, of, amount in wanted:
            left = bucket.left(of, now)
            if amount > left + ROUNDING:
                raise _limited(bucket, left=left, amount=amount, requested=points)
        for bucket, of, amount in wanted[1:]:
            bucket.take(of, amount, now)
        return _cost(limits.points, points, limits.points.take(key, points, now))

    def charge_wrong_document(self, viewer: Viewer) -> None:
        """Charge what could not run, into debt if need be."""
        limits, key, _ = self._of(viewer)
        limits.points.take(key, WRONG_DOCUMENT_POINTS, self.clock())

    def refuse_debtors(self, viewer: Viewer) -> None:
        """Raise Refused for whoever sent so many wrong documents that no more of theirs are read for now."""
        limits, key, _ = self._of(viewer)
        left = limits.points.left(key, self.clock())
        if left < 0:
            raise _limited(limits.points, left=left, amount=1, requested=1)

    def _of(self, viewer: Viewer) -> tuple[Limits, Key, Key]:
        key = (viewer.tenant, viewer.key)
        if Role.INTEGRATOR in viewer.roles:
            return self._machines, key, (viewer.tenant, "")
        return self._people, key, key


def _cost(points: Bucket, requested: int, left: float) -> dict[str, Any]:
    throttle = {"max": points.most, "available": max(0, int(left + ROUNDING)), "restoreRate": int(points.a_second)}
    return {"requested": requested, "throttle": throttle}


def _limited(bucket: Bucket, *, left: float, amount: int, requested: int) -> Refused:
    seconds = max(1, ceil((min(amount, bucket.most) - left) / bucket.a_second - ROUNDING))
    return Refused(
        ErrorCode.RATE_LIMITED,
        f"Too many {bucket.name}: at most {bucket.most} at once, then {bucket.a_second:g} a second.",
        extensions={
            "limit": bucket.name,
            "retryAfterSeconds": seconds,
            **({"cost": _cost(bucket, requested, left)} if bucket.name == "points" else {}),
        },
    )
