"""Mutants: changes of the code that break a rule, and the tests that must fail for each.

`python -m tests.support.mutants [NAME ...]` copies the tree, applies one change at a time and runs the tests named
beside it. It exits with 1 if a mutant survives, with 2 if
the tests fail without any. Not part of `make test`: it takes some minutes.
"""

# ruff: noqa: E501 - the texts to replace are as long as they are
import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
COPIED = ("server", "graph", "jobs", "db", "rules", "tests", "docs", "pyproject.toml")
SECONDS_MAX = 300
AT_ONCE = 2


@dataclass(frozen=True, slots=True)
class Mutant:
    """One broken rule: texts to replace, each found exactly once in its file, and the tests that must notice."""

    name: str
    edits: tuple[tuple[str, str, str], ...]  # (file, old, new)
    tests: tuple[str, ...]


LAWS = ("tests/laws",)
MUTANTS = (
    Mutant(
        "shortcut taken for corrected work",
        (("jobs/fold.py", "    replayed |= corrected | {(student, ALL_CLASSES) for student, _ in corrected}\n", ""),),
        ("tests/graph/test_corrections.py", "tests/laws/test_corrections.py"),
    ),
    Mutant(
        "an excuse reaches back only",
        (("rules/corrections.py", "if item not in excused and (since is None or event.key > since):",
          "if (item not in excused or event.key > excused[item].key) and (since is None or event.key > since):"),),
        ("tests/rules/test_corrections.py",),
    ),
    Mutant(
        "a regrade from before the reopening",
        (("rules/corrections.py", "is None or regrade.key > since", "is None or since < regrade.key or True"),),
        ("tests/rules/test_corrections.py",),
    ),
    Mutant(
        "a late event leaves closed days as they are",
        (("jobs/fold.py", "any(event.occurred_at < until for event in events)", "False"),),
        ("tests/jobs/test_closing.py", "tests/laws/test_days.py"),
    ),
    Mutant(
        "a correction leaves closed days as they are",
        (("jobs/fold.py", "found = {student for student, _ in work.replayed if locked[student].closed_until is not None}", "found: set[str] = set()"),),
        ("tests/jobs/test_closing.py", "tests/laws/test_days.py"),
    ),
    Mutant(
        "an older worker folds on",
        (("jobs/drain.py", "if level != self.level:", "if level < self.level:"),),
        ("tests/jobs/test_releases.py",),
    ),
    Mutant(
        "order by arrival",
        (
            ("rules/outcome.py", "ordered = sorted(events, key=_key_of)", "ordered = list(events)"),
            ("jobs/fold.py", "    ordered = sorted(events, key=lambda event: event.key)\n", "    ordered = list(events)\n"),
            ("rules/outcome.py", "if last is not None and any(event.key <= last for event in events):", "if False:"),
            ("rules/outcome.py", "        if last is not None and key <= last:\n            raise OutOfOrder(after=last, got=key)\n", ""),
        ),
        LAWS,
    ),
    Mutant(
        "ties by arrival",
        (("rules/outcome.py", "any(event.key <= last for event in events)", "any(event.key[0] < last[0] for event in events)"),
         ("rules/outcome.py", "        if last is not None and key <= last:\n            raise OutOfOrder(after=last, got=key)\n", "")),
        LAWS,
    ),
    Mutant(
        "outbox row deleted before the fold commits",
        (
            (
                "jobs/drain.py",
                "                    batch = Batch(tuple(rows), ",
                "                    await outbox.delete(connection, tenant, claimed)\n"
                '                    await connection.execute(\n                        "COMMIT; BEGIN; SET LOCAL '
                "sightline.tenant = '%d'\" % tenant\n                    )\n                    batch = Batch(tuple(rows), ",
            ),
        ),
        ("tests/jobs/test_drain.py", *LAWS),
    ),
    Mutant(
        "enqueue before commit",
        (
            (
                "db/recorder.py",
                "        with within(self._tracer, span):\n",
                "        with within(self._tracer, span):\n                for sent in submissions:\n"
                "                    self._wake.mark(tenant, shard_of(classroom=sent.event.classroom, "
                "student=sent.event.student))\n",
            ),
        ),
        ("tests/jobs/test_drain.py",),
    ),
    Mutant(
        "sweep removed",
        (("jobs/worker.py", "asyncio.create_task(sweep.run(workplace.stop))", "asyncio.create_task(asyncio.sleep(0))"),),
        ("tests/jobs/test_sweep.py",),
    ),
    Mutant(
        "sweep drains nothing",
        (("jobs/sweep.py", "            await self._drain_shard(*shard)\n", "            pass\n"),),
        ("tests/jobs/test_sweep.py",),
    ),
    Mutant(
        "conflict overwrites",
        (
            (
                "db/evidence.py",
                "    on conflict (tenant, source, event_id) do nothing\n    returning id, seq\n",
                "    on conflict (tenant, source, event_id) do update set seq = excluded.seq, "
                "fingerprint = excluded.fingerprint, received_at = excluded.received_at\n"
                "    returning id, seq\n",
            ),
        ),
        ("tests/laws/test_once.py", "tests/jobs/test_fold.py"),
    ),
    Mutant(
        "conflict overwrites inside a batch",
        (("db/evidence.py", "first_of.setdefault((sent.event.source, sent.event.event_id), place)", "first_of[sent.event.source, sent.event.event_id] = place"),),
        ("tests/laws/test_once.py",),
    ),
    Mutant(
        "conflict answered as a duplicate",
        (("db/evidence.py", "if sent.fingerprint == stored.stored_hash else Status.CONFLICT", "if True else Status.CONFLICT"),),
        ("tests/jobs/test_fold.py",),
    ),
    Mutant(
        "UTC instead of local days",
        (("rules/calendar.py", "return instant.astimezone(zone_of(zone)).date()", "return instant.date()"),
         ("rules/calendar.py", "tzinfo=zone_of(zone)).astimezone(UTC)", "tzinfo=UTC)")),
        ("tests/jobs/test_sweep.py",),
    ),
    Mutant(
        "median over one student",
        (("rules/risk.py", "MEDIAN_STUDENTS_MIN = 2", "MEDIAN_STUDENTS_MIN = 1"),),
        ("tests/rules/test_risk.py",),
    ),
    Mutant(
        "median counts students without work",
        (("rules/outcome.py", "if (rate := completion_of(one.view)) is not None}", "if (rate := completion_of(one.view) or 0) is not None}"),),
        ("tests/jobs/test_sweep.py", "tests/rules/test_risk.py", "tests/rules/test_outcome.py"),
    ),
    Mutant(
        "shortcut taken for a re-grade",
        (("jobs/fold.py", "    replayed |= revised | {(student, ALL_CLASSES) for student, _ in revised}\n", ""),),
        LAWS,
    ),
    Mutant(
        "re-grade in another class forgets the view over all classes",
        (("jobs/fold.py", "replayed |= revised | {(student, ALL_CLASSES) for student, _ in revised}", "replayed |= revised"),),
        LAWS,
    ),
    Mutant(
        "void ignored in the shortcut",
        (("jobs/fold.py", "            replayed |= {(student, classroom), (student, ALL_CLASSES)}\n", "            pass\n"),),
        LAWS,
    ),
    Mutant(
        "void before its target ignored",
        (("jobs/fold.py", "        elif not entry.is_out:\n", "        else:\n"),),
        LAWS,
    ),
    Mutant(
        "no row locks",
        (
            ("db/assessment.py", "order by classroom for update", "order by classroom"),
            ("db/assessment.py", "order by student for update", "order by student"),
        ),
        ("tests/jobs/test_drain.py", "tests/laws/test_batches.py"),
    ),
    Mutant(
        "claim without skipping locked rows",
        (("db/outbox.py", "for update skip locked", "for update"),),
        ("tests/jobs/test_drain.py",),
    ),
    Mutant(
        "claim without its settings",
        (
            (
                "db/outbox.py",
                '"SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off"',
                '"SET LOCAL enable_seqscan = on"',
            ),
        ),
        ("tests/jobs/test_drain.py",),
    ),
    Mutant(
        "positions like a bigserial's",
        (
            (
                "db/evidence.py",
                "    update tenant_head set seq = seq + $2 where tenant = $1 returning seq - $2 as base\n",
                "    select (extract(epoch from clock_timestamp()) * 1000000)::bigint as base, $2::int as unused\n",
            ),
        ),
        ("tests/laws/test_order.py",),
    ),
    Mutant(
        "unrostered event folded",
        (
            (
                "jobs/fold.py",
                "return student in self.students and (not classroom or classroom in self.zones)",
                "return True",
            ),
        ),
        ("tests/laws", "tests/jobs/test_fold.py"),
    ),
    Mutant(
        "view not replayed on TOUCH",
        (("jobs/fold.py", "replayed = set(views_to_replay)", "replayed: set[ViewKey] = set()"),),
        LAWS,
    ),
    Mutant(
        "class not assessed on TOUCH",
        (("jobs/fold.py", "found = {row.classroom for row in self.claimed if row.classroom}", "found = {row.classroom for row in self.claimed if row.classroom and row.student}"),),
        LAWS,
    ),
    Mutant(
        "poison blamed on whoever replays it",
        (("jobs/fold.py", "raise Unfoldable(ordered[bad - 1]) from error", "raise"),),
        ("tests/jobs/test_drain.py",),
    ),
    *(
        Mutant(f"compiled: {name}", ((file, old, new),), ("tests/graph/test_compiled.py",))
        for name, file, old, new in (
            ("unknown field taken", "graph/decoding.py", "forbid_unknown_fields=True", "forbid_unknown_fields=False"),
            ("unbounded Int", "graph/decoding.py", "(Annotated[int, msgspec.Meta(ge=INT_MIN, le=INT_MAX)], None)", "(int, None)"),
            ("unbounded Float", "graph/decoding.py", "(Annotated[float, msgspec.Meta(gt=-EXACT_BELOW, lt=EXACT_BELOW)], None)", "(float, None)"),
            ("ID left a number", "graph/decoding.py", "(str | int, str)", "(str | int, None)"),
            ("null out of place", "graph/shapes.py", "            elif is_required:\n                raise _Unshaped\n", ""),
            ("null within a list", "graph/shapes.py", "        if is_required and None in value:\n            raise _Unshaped\n", ""),
            ("object of another class", "graph/shapes.py", "        if source.__class__ is not expected:\n            raise _Unshaped\n", ""),
            ("guarded field", "graph/shapes.py", ' or "access_guarded" in field.extensions', ""),
            ("directive ignored", "graph/shapes.py", "        if node.directives:\n            raise Unknown\n", ""),
            ("rule not asked", "graph/compiled.py", "        if not self.rule.admits(context.viewer):\n            return None\n", ""),
            ("told twice", "graph/compiled.py", "return outcome if info.path.prev is None else", "return"),
        )
    ),
    Mutant(
        "page: a class shown to whoever asks",
        (
            ("db/class_pages.py", "case when ties.is_teacher or a.is_admin then <classroom> end", "<classroom>"),
            ("graph/pages.py", " or not self.may_see(viewer, ask, found)", ""),
        ),
        ("tests/graph/test_pages.py",),
    ),
    Mutant(
        "page: a position that is not counted yet",
        (("graph/pages.py", "found.seq < seq_min", "found.seq < 0"),),
        ("tests/rows/test_freshness.py",),
    ),
    *(
        Mutant(f"kept: {name}", ((file, old, new),), ("tests/laws/test_kept.py",))
        for name, file, old, new in (
            ("whatever the class's number", "db/class_pages.py", "concat(s.change_no, '@', s.assessed_at)", "concat('@', s.assessed_at)"),
            ("whatever was restored", "db/class_pages.py", "concat(s.change_no, '@', s.assessed_at)", "concat(s.change_no, '@')"),
            ("names of students", "db/class_pages.py", "and not _shows_students(part.parts)", ""),
            ("one page for another", "graph/together.py", "statement, ask.key, ask.values)", "statement, ask.key)"),
            ("for ever", "graph/kept.py", "oldest.since >= oldest_since", "True"),
        )
    ),
    *(
        Mutant(f"page: {name}", ((file, old, new),), ("tests/graph/test_pages.py",))
        for name, file, old, new in (
            ("a student shown to whoever asks", "graph/pages.py", " or not self.may_see(viewer, ask, found)", ""),
            ("a doubt written out", "graph/pages.py", " or DOUBT in found.text", ""),
            ("answers that change places", "graph/together.py", "keys, held, found, strict", "keys, held, found[::-1], strict"),
            ("the events of those who left", "db/class_pages.py", "<= $2 + interval '24 hours' {behind} and {_ENROLLED}", "<= $2 + interval '24 hours' {behind}"),
            ("what was voided shown to the student", "db/student_pages.py", "array['EVENT_VOIDED', 'SUBMISSION_REGRADED'])", "array['SUBMISSION_REGRADED'])"),
            ("consent that was revoked", "db/student_pages.py", " and g.revoked_at is null", ""),
            ("half rounded up", "db/student_pages.py", " and (g.score_sum / g.score_count) % 2 = 1", ""),
        )
    ),
    Mutant(
        "board: shown to whoever asks",
        (
            ("db/boards.py", "case when ties.is_teacher or $5::boolean then <classroom> end", "<classroom>"),
            ("graph/boards.py", "            or not may_see_class(viewer, is_teacher=found.is_teacher, is_enrolled=found.is_enrolled)\n", ""),
        ),
        ("tests/graph/test_boards.py",),
    ),
    *(
        Mutant(f"board: {name}", ((file, old, new),), ("tests/graph/test_boards.py",))
        for name, file, old, new in (
            ("another class's mastery", "graph/boards.py", "is_of_student and not self", "not is_of_student and not self"),
            ("more than the items of a page", "graph/boards.py", "len(by_key) > 1 or ", ""),
            ("what a correction emptied", "db/boards.py", "            and (s.count > 0 or s.rank > 0 or s.last_accessed_at is not null)\n", ""),
            ("every policy of the class", "db/boards.py", " and p.version = k.policy_version", ""),
            ("who has left the class", "db/boards.py", "and m.started <= today.day and (m.ended is null or m.ended > today.day)\n        order", "and m.started <= today.day\n        order"),
            ("teachers among the rows", "db/boards.py", "m.role = 'STUDENT' and m.started <= today.day\n", "m.started <= today.day\n"),
            ("microseconds cut to milliseconds", "db/written.py", "SS.US", "SS.MS"),
        )
    ),
)  # fmt: skip


def planted(mutant: Mutant, tree: Path) -> None:
    """Apply a mutant to a tree. Raises ValueError where the code has moved on and the mutant no longer fits."""
    for file, old, new in mutant.edits:
        path = tree / file
        text = path.read_text()
        if text.count(old) != 1:
            raise ValueError(f"{mutant.name}: {file} holds {text.count(old)} times: {old!r}")
        path.write_text(text.replace(old, new))


def killers_of(mutant: Mutant) -> list[str]:
    """The tests that fail for a mutant, run in a copy of the tree; empty if it survives."""
    with tempfile.TemporaryDirectory(prefix="sightline-mutant-") as folder:
        tree = Path(folder)
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, tree / name)
        planted(mutant, tree)
        command = [sys.executable, "-m", "pytest", "-q", "-x", "--tb=no", "-p", "no:cacheprovider", *mutant.tests]
        environment = {**os.environ, "PYTHONPATH": str(tree), "LAWS_HASTY": "1"}
        run = subprocess.run(
            command, cwd=tree, env=environment, capture_output=True, text=True, timeout=SECONDS_MAX, check=False
        )
        if run.returncode not in (0, 1):
            raise RuntimeError(f"{mutant.name}: the tests did not run\n{run.stdout[-2_000:]}{run.stderr[-2_000:]}")
        return re.findall(r"^(?:FAILED|ERROR) (\S+?::.+?)(?: - .*)?$", run.stdout, re.MULTILINE)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.support.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", help="only mutants with one of these texts in their name")
    asked = parser.parse_args(arguments)
    chosen = [m for m in MUTANTS if not asked.names or any(name in m.name for name in asked.names)]
    control = Mutant("nothing", (), tuple(sorted({test for mutant in chosen for test in mutant.tests})))
    if failing := killers_of(control):
        print(f"these fail without any mutant, so that no kill means anything: {failing}", file=sys.stderr)
        return 2
    survivors = 0
    with ThreadPoolExecutor(AT_ONCE) as running:
        for mutant, killers in zip(chosen, running.map(killers_of, chosen), strict=True):
            survivors += not killers
            print(f"| {mutant.name} | {'<br>'.join(f'`{one}`' for one in killers) or '**survived**'} |", flush=True)
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
