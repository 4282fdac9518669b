"""Designs that must not pass: each is a small change to a copy of the project, which a crash run has to catch."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.folders import reachable_folder

LEFT_OUT = shutil.ignore_patterns(".venv", ".git", ".*_cache", "__pycache__", ".sightline", ".hypothesis")


@dataclass(frozen=True, slots=True)
class Break:
    """One wrong design: (file, text that is there, text instead)."""

    about: str
    changes: tuple[tuple[str, str, str], ...]


def _answered_at_the_insert(pause: str) -> tuple[tuple[str, str, str], ...]:
    """The recorder answers its senders inside the transaction; `pause` is what it does before the COMMIT."""
    return (
        (
            "db/recorder.py",
            "await self._record_durably(tenant, submissions, recorded_by, traceparent, transaction)\n",
            "await self._record_durably(tenant, submissions, recorded_by, traceparent, transaction, calls)\n",
        ),
        (
            "db/recorder.py",
            "        transaction: Transaction,\n    ) -> list[Answer]:",
            "        transaction: Transaction,\n        calls: Sequence[_Call],\n    ) -> list[Answer]:",
        ),
        (
            "db/recorder.py",
            "                    return await record_all(\n",
            "                    answers = await record_all(\n",
        ),
        (
            "db/recorder.py",
            "                        traceparent=traceparent,\n                    )\n",
            "                        traceparent=traceparent,\n                    )\n"
            "                    _tell(calls, answers)\n" + pause + "                    return answers\n",
        ),
    )


TWO_TRANSACTIONS = """\
                    queued = await connection.fetch(
                        "delete from outbox where tenant = $1 and xmin = pg_current_xact_id()::xid"
                        " returning to_jsonb(outbox)::text",
                        tenant,
                    )
                    await connection.execute(f"COMMIT; BEGIN; SET LOCAL sightline.tenant = '{tenant:d}'")
                    await connection.execute(
                        "insert into outbox select r.* from unnest($1::text[]) as q (waits),"
                        " jsonb_populate_record(null::outbox, q.waits::jsonb) as r",
                        [row[0] for row in queued],
                    )
                    return answers
"""

BREAKS = {
    "early-delete": Break(
        "outbox rows are deleted in a transaction before the fold's",
        (
            (
                "jobs/drain.py",
                "                    batch = Batch(tuple(rows), ",
                "                    await outbox.delete(connection, tenant, rows)\n"
                "                    await connection.execute(\n"
                "                        f\"COMMIT; BEGIN; SET LOCAL sightline.tenant = '{tenant:d}'\"\n"
                "                    )\n"
                "                    batch = Batch(tuple(rows), ",
            ),
        ),
    ),
    "two-transactions": Break(
        "events are committed in one transaction, their outbox rows in the next",
        (
            (
                "db/recorder.py",
                "                    return await record_all(\n",
                "                    answers = await record_all(\n",
            ),
            (
                "db/recorder.py",
                "                        traceparent=traceparent,\n                    )\n",
                "                        traceparent=traceparent,\n                    )\n" + TWO_TRANSACTIONS,
            ),
        ),
    ),
    "fixed-job-id": Break(
        "a shard has one job id, results are kept as arq keeps them, and the sweep leaves the work to the jobs too",
        (
            ("db/wake.py", "{tenant}:{number}:{generation}", "{tenant}:{number}"),
            ("jobs/worker.py", "name=FUNCTION, keep_result=0", "name=FUNCTION, keep_result=3600"),
            (
                "jobs/worker.py",
                "clock=workplace.clock, drain_shard=workplace.drain_shard)\n",
                "clock=workplace.clock,\n"
                "                  drain_shard=lambda tenant, shard: workplace.waker.wake({(tenant, shard)}))\n",
            ),
        ),
    ),
    "no-sweep": Break(
        "nothing looks for outbox rows whose wake-up was lost",
        (("jobs/sweep.py", "in await shards.waiting(self._pool):", "in []:  # type: ignore[var-annotated]"),),
    ),
    "pubsub-only": Break(
        "subscribers wait for messages alone: no slow check, nobody is woken when Redis comes back",
        (
            ("graph/streams.py", "seconds_max=IDLE_WAIT_SECONDS * random.uniform(0.75, 1.25)", "seconds_max=3600"),
            ("graph/patrol.py", "engine.live.remind(moved)", "pass"),
            ("graph/patrol.py", "engine.live.ring(", "list("),
            ("db/live.py", "                self._wake_all()\n", ""),
        ),
    ),
    "no-slow-check": Break(
        "subscribers wait for messages, and are woken when Redis comes back, but never look by themselves",
        (
            ("graph/streams.py", "seconds_max=IDLE_WAIT_SECONDS * random.uniform(0.75, 1.25)", "seconds_max=3600"),
            ("graph/patrol.py", "engine.live.remind(moved)", "pass"),
            ("graph/patrol.py", "engine.live.ring(", "list("),
        ),
    ),
    "early-answer": Break(
        # A commit that is sent right after the answer is not enough to be seen: it overtakes the answer on its way.
        "senders are answered at the insert, and a timer of 10 ms gathers the commits",
        _answered_at_the_insert("                    await asyncio.sleep(0.01)\n"),
    ),
    "answer-before-commit": Break(
        # The commit leaves in the same turn of the loop and overtakes the answer: a crash point surely fits between.
        "senders are answered at the insert, just before the COMMIT is sent",
        _answered_at_the_insert(""),
    ),
    "late-delete": Break(
        "outbox rows are deleted in a transaction after the fold's, and nobody looks whether they are folded already",
        (
            (
                "jobs/drain.py",
                "                    await outbox.delete(connection, tenant, rows)\n"
                "                    if attempt.token:\n",
                "                    await connection.execute(\n"
                "                        f\"COMMIT; BEGIN; SET LOCAL sightline.tenant = '{tenant:d}'\"\n"
                "                    )\n"
                "                    await outbox.delete(connection, tenant, rows)\n"
                "                    if attempt.token:\n",
            ),
            (
                "rules/outcome.py",
                "if event.occurred_at <= last_at and event.key <= last:",
                "if event.occurred_at is None:",
            ),
            ("rules/outcome.py", "if last_at is not None and at <= last_at:", "if last_at is None and not events:"),
        ),
    ),
    "no-row-locks": Break(
        "a fold reads classes and students without locking them",
        (
            ("db/assessment.py", "order by classroom for update", "order by classroom"),
            ("db/assessment.py", "order by student for update", "order by student"),
        ),
    ),
}


class Outdated(Exception):
    """The project no longer has the text that a break changes: write the break anew."""


def changed_files(project: Path, name: str) -> dict[str, str]:
    """The texts of the files that a break changes. Raises Outdated."""
    texts: dict[str, str] = {}
    for file, there, instead in BREAKS[name].changes:
        text = texts.get(file) or (project / file).read_text()
        if text.count(there) != 1:
            raise Outdated(f"{name}: {file} has {text.count(there)} times {there!r}")
        texts[file] = text.replace(there, instead)
    return texts


@contextmanager
def broken_tree(project: Path, name: str) -> Iterator[Path]:
    """A copy of the project with one break in it, removed at the end. Raises Outdated."""
    texts = changed_files(project, name)
    with reachable_folder() as folder:
        tree = folder / "tree"
        shutil.copytree(project, tree, ignore=LEFT_OUT)
        for file, text in texts.items():
            (tree / file).write_text(text)
        yield tree
