"""What documents of strangers cost: CPU of the worst of them, and how long another caller waits meanwhile.

Each document of `tests/graph/hostile.py` is read, guarded, validated and, where it is sound, executed by fresh
documents of the toy schema; the best of some rounds counts, since the machine's noise is not the document's. Then one
client posts all of them, one after another, to a served toy while another asks for one field. Clients and server share
a process of one thread, so the CPU it used between that question and its answer is the wait, without what others of
the machine added; it holds the clients' own work too.
"""

import asyncio
from time import process_time

from graph.answers import refusal
from graph.documents import Documents, Malformed
from graph.refusal import Refused
from tests.bench.figures import Figures, claim, percentile
from tests.graph.hostile import HOSTILE
from tests.graph.toy import Toy, context, served, toy_schema

ROUNDS = {"small": 2, "full": 7}
MILLISECONDS_MAX = 50.0
SENDABLE = [text for text, _ in HOSTILE.values() if not any("\ud800" <= letter <= "\udfff" for letter in text)]


async def _answered(text: str) -> float:
    """CPU seconds from the text to its answer."""
    documents, asker = Documents(toy_schema()), context()
    begun = process_time()
    try:
        plan = documents.plan(text, None)
        if plan.kind.value != "subscription":
            await documents.execute(plan, {}, asker)
    except Malformed:
        pass
    except Refused as refused:
        refusal(refused)
    return process_time() - begun


async def _waits(toy: Toy, meanwhile: asyncio.Task[None] | None, count: int) -> list[float]:
    """How long a caller of one field waits, in CPU seconds: `count` times, or until something has ended."""
    waits: list[float] = []
    while len(waits) < count if meanwhile is None else not meanwhile.done():
        begun = process_time()
        await toy.post("{ echo }")
        waits.append(process_time() - begun)
    return waits


async def run(size: str) -> Figures:
    """Measure."""
    await _answered("{ pupil { name } }")  # the first validation of a process loads its rules
    best = {case: float("inf") for case in HOSTILE}
    for _ in range(ROUNDS[size]):
        for case, (text, _) in HOSTILE.items():
            best[case] = min(best[case], await _answered(text))
    dearest = sorted(best, key=best.__getitem__, reverse=True)

    async def flood(toy: Toy) -> None:
        for text in SENDABLE * ROUNDS[size]:
            toy.documents._plans.clear()
            await toy.post(text)

    async with served() as toy:
        await _waits(toy, None, 50)
        alone = await _waits(toy, None, 100 * ROUNDS[size])
        crowded = await _waits(toy, asyncio.create_task(flood(toy)), 0)
    claims = [
        claim(f"CPU of the dearest of {len(best)}: {dearest[0]}", round(best[dearest[0]] * 1e3, 2), unit="ms",
              limit=MILLISECONDS_MAX),
        claim(f"CPU of the tenth: {dearest[9]}", round(best[dearest[9]] * 1e3, 2), unit="ms"),
        claim("another caller's wait, alone, p95", round(percentile(alone, 95) * 1e3, 2), unit="ms"),
        claim("another caller's wait, beside all of them, p50", round(percentile(crowded, 50) * 1e3, 2), unit="ms"),
        claim("another caller's wait, beside all of them, p95", round(percentile(crowded, 95) * 1e3, 2), unit="ms",
              limit=MILLISECONDS_MAX),
    ]  # fmt: skip
    milliseconds = {case: round(best[case] * 1e3, 2) for case in dearest}
    return {"postgres": "none", "claims": claims, "milliseconds": milliseconds}
