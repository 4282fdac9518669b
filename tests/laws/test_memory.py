"""What workers know: those who remember their last folds leave, row by row, what those leave who remember nothing."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.live import Live
from db.pool import Pool
from jobs.drain import Drain
from jobs.memory import Memory
from rules.evidence import LearningEvent
from tests.laws.world import INPUTS, INSTANTS, RATIOS, World, claim_limits, histories, law, plans, voids_of

TABLES = (
    "risk_change", "risk_flag", "classroom_state", "student_state", "view_state", "work", "standing", "unrostered",
    "dead_letter",
)  # fmt: skip
STEPS = st.sampled_from([*["record"] * 6, "void", "again", *["input"] * 3, *["clock"] * 3, "assess"])
HOURS = st.sampled_from([1, 3, 12, 24, 48, 24 * 9])


@pytest.mark.feature("000-08", "000-11", "A")
@law(examples=16)
@given(data=st.data())
async def test_whatever_workers_remember_they_leave_the_rows_of_those_who_remember_nothing(
    data: st.DataObject, pool: Pool, live: Live
) -> None:
    """Three in turns, one of whom remembers little; what is recorded waits or not, roster and clock go on."""
    plan, to_come = data.draw(plans()), data.draw(histories(at_least=8, at_most=14))
    ours, theirs = await World.of(pool, live, plan), await World.of(pool, live, plan)
    workers = [ours.mill.drain, *(Drain(pool, ours.mill.clock, live, memory=Memory(class_rows_max=n)) for n in (99, 9))]
    theirs.mill.drain = Drain(pool, theirs.mill.clock, live, memory=Memory(class_rows_max=0, student_rows_max=0))
    told: list[LearningEvent] = []
    for number, step in enumerate(data.draw(st.lists(STEPS, min_size=8, max_size=16), label="steps")):
        ours.mill.drain = data.draw(st.sampled_from(workers))
        size = data.draw(st.integers(1, 3))
        piece = to_come[:size] if step == "record" else _said_of(data, told, step, number)
        to_come = to_come[len(piece) :] if step == "record" else to_come
        told += piece if step != "void" else []
        one, hours = data.draw(st.sampled_from(INPUTS)), data.draw(HOURS)
        limit = data.draw(st.one_of(st.none(), claim_limits), label="folded up to")
        for world in (ours, theirs):
            await world.record(piece)
            if step == "input":
                await world.change(one)
            elif step == "clock":
                world.mill.clock.now += timedelta(hours=hours)
            elif step == "assess":
                await world.assess()
            await (world.quiesce() if limit is None else world.fold_some(limit))
        assert await _rows_of(ours) == await _rows_of(theirs)
    await ours.quiesce()
    await ours.is_as_rebuilt()


def _said_of(data: st.DataObject, told: Sequence[LearningEvent], step: str, number: int) -> list[LearningEvent]:
    """A void of something told, or the same again under another id."""
    if not told or step not in ("void", "again"):
        return []
    first = data.draw(st.sampled_from(told))
    if step == "void":
        return [replace(voids_of([first])[0], event_id=f"v{number}")]
    ratio = data.draw(st.sampled_from(RATIOS)) if first.ratio is not None else None
    return [replace(first, event_id=f"a{number}", occurred_at=data.draw(st.sampled_from(INSTANTS)), ratio=ratio)]


async def _rows_of(world: World) -> dict[str, list[Any]]:
    """Every row that folds write, flags as they came and went among them."""
    found: dict[str, list[Any]] = {}
    for table in TABLES:
        statement = f"select to_jsonb(t) - 'tenant' - 'traceparent' from {table} t where tenant = $1"  # noqa: S608
        found[table] = sorted(str(row[0]) for row in await world.mill.rows(statement))
    return found
