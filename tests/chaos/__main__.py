"""`make chaos`: many seeded crash runs, one after the other; ends with status 1 when a promise was broken.

`make crashpoints`: no dice, a cut at every message between a process and Postgres.
"""

import argparse
import asyncio
import subprocess
import sys

from tests.chaos.breaks import BREAKS, broken_tree
from tests.chaos.cluster import PROJECT
from tests.chaos.crashpoints import run as run_crash_points
from tests.chaos.run import crash_run
from tests.chaos.script import plan_of

SEEDS, FAULTS = 10, 30
ALL = "all"
BY_CRASH_POINTS = frozenset({"late-delete"})  # no fault from outside fits in between
SHOWN_CHARACTERS = 160


def main() -> int:
    """Read the arguments, run, print a line per fault and per run."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("what", nargs="?", choices=["crashes", "crashpoints"], default="crashes")
    parser.add_argument("--seed", type=int, help="the first seed, and the only one unless --seeds is given")
    parser.add_argument("--seeds", type=int, help=f"how many; {SEEDS} unless --seed is given")
    parser.add_argument("--faults", type=int, default=FAULTS, help="faults in each run")
    parser.add_argument(
        "--break", dest="broken", choices=[*BREAKS, ALL], help="run a copy with this wrong design in it"
    )
    asked = parser.parse_args()
    if asked.what == "crashpoints":
        if asked.broken == ALL:
            parser.error("crash points are asked of one wrong design at a time")
        return _crash_points(asked.broken)
    first = 1 if asked.seed is None else asked.seed
    count = asked.seeds or (SEEDS if asked.seed is None else 1)
    seeds = range(first, first + count)
    if asked.broken is None:
        return _runs(seeds, asked.faults)
    if asked.broken == ALL:
        return _all_caught(seeds, asked.faults)
    caught = _caught(asked.broken, seeds, asked.faults)
    _say(caught or f"{asked.broken} kept every promise in {len(seeds)} runs")
    return 1 if caught else 0


def _crash_points(broken: str | None) -> int:
    if broken is None:
        return asyncio.run(run_crash_points(say=_say))
    with broken_tree(PROJECT, broken) as tree:  # the product runs in the process of the run: that of the copy
        _say(f"{broken}: {BREAKS[broken].about}")
        return subprocess.run([sys.executable, "-m", "tests.chaos", "crashpoints"], cwd=tree, check=False).returncode


def _runs(seeds: range, faults: int) -> int:
    broken = 0
    for seed in seeds:
        report = asyncio.run(crash_run(plan_of(seed, faults), say=_say))
        _say(report.text if report.failures else report.summary)
        broken += bool(report.failures)
    _say(f"{len(seeds) - broken} of {len(seeds)} runs kept every promise")
    return 1 if broken else 0


def _caught(name: str, seeds: range, faults: int) -> str | None:
    """Run a wrong design seed after seed until a promise breaks: a row of the table in docs/decisions/0004."""
    _say(f"{name}: {BREAKS[name].about}")
    with broken_tree(PROJECT, name) as tree:
        for seed in seeds:
            report = asyncio.run(crash_run(plan_of(seed, faults), tree=tree, say=_say))
            _say("\n".join([report.summary, *report.failures[:1]]))
            if report.failures:
                return f"| `{name}` | seed {seed} | {report.failures[0][:SHOWN_CHARACTERS]} |"
    return None


def _all_caught(seeds: range, faults: int) -> int:
    """Every wrong design that is to be caught; 1 when one was not."""
    rows = {name: _caught(name, seeds, faults) for name in BREAKS if name not in BY_CRASH_POINTS}
    for name, row in rows.items():
        _say(row or f"| `{name}` | NOT CAUGHT in {len(seeds)} seeds | |")
    return 0 if all(rows.values()) else 1


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
