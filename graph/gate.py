"""The one gate of a process: what an operation may cost, how many run at once, and how long the next one waits."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from graph.budgets import Budgets
from graph.costs import COST_MAX
from graph.documents import Documents, Malformed, Plan
from graph.refusal import ErrorCode, Refused
from graph.wire import Ask
from rules.access import Viewer


class Gate:
    """Lets `places` operations run; another waits `wait_seconds_max` and is then refused as OVERLOADED.

    With `budgets`, each operation is charged to its viewer before it runs.
    """

    def __init__(self, *, places: int = 100, wait_seconds_max: float = 0.5, budgets: Budgets | None = None) -> None:
        self._places = asyncio.Semaphore(places)
        self._wait_seconds_max = wait_seconds_max
        self._budgets = budgets

    @asynccontextmanager
    async def passing(self) -> AsyncIterator[None]:
        """Hold a place for the length of the block. Raises Refused with OVERLOADED."""
        if not self.enter():
            await self._wait()
        try:
            yield
        finally:
            self.leave()

    @property
    def is_open(self) -> bool:
        """Whether a place is free at this moment."""
        return not self._places.locked()

    def enter(self) -> bool:
        """Take a place if one is free at this moment; who got one must `leave`."""
        if not self.is_open:
            return False
        with suppress(StopIteration):  # a semaphore that is not locked gives its place at once
            self._places.acquire().send(None)
        return True

    def leave(self) -> None:
        """Give the place to the next."""
        self._places.release()

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(self._wait_seconds_max):
                await self._places.acquire()
        except TimeoutError:
            raise Refused(ErrorCode.OVERLOADED, "The service is busy; try again shortly.") from None

    def planned(self, documents: Documents, ask: Ask, viewer: Viewer) -> Plan:
        """What is asked for, where its viewer may still have documents read. Raises Refused or Malformed."""
        if self._budgets is None:
            return documents.asked(ask)
        self._budgets.refuse_debtors(viewer)
        try:
            return documents.asked(ask)
        except (Malformed, Refused):
            self._budgets.charge_wrong_document(viewer)
            raise

    def charge_known(self, plan: Plan, variables: dict[str, Any], viewer: Viewer) -> dict[str, Any] | None:
        """Charge an operation whose document was read before, as `planned` and then `charge` do. Raises Refused."""
        if self._budgets is not None:
            self._budgets.refuse_debtors(viewer)
        return self.charge(plan, variables, viewer)

    def charge(self, plan: Plan, variables: dict[str, Any], viewer: Viewer) -> dict[str, Any] | None:
        """Charge an operation to its viewer and tell what stands in `extensions.cost`, if anything. Raises Refused."""
        points = plan.bill.price.of(variables)
        if points > COST_MAX:
            raise Refused(
                ErrorCode.QUERY_TOO_COMPLEX,
                f"The operation costs {points} points, the limit is {COST_MAX}: ask for less, or smaller pages.",
                extensions={"cost": {"requested": points, "max": COST_MAX}},
            )
        if self._budgets is None:
            return None
        return self._budgets.spend(
            viewer, points=points, fields=plan.bill.fields, events=plan.bill.events.of(variables)
        )
