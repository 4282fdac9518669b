"""`make chaos`: many seeded crash runs, one after the other; ends with status 1 when a promise was broken.

`make crashpoints`: no dice, a cut at every message between a process and Postgres.
"""

import argparse
import asyncio
import subprocess
import sys
from pathlib import Path

from tests.chaos.breaks import BREAKS, broken_tree
from tests.chaos.cluster import PROJECT
from tests.chaos.crashpoints import run as run_crash_points
from tests.chaos.run import crash_run
from tests.chaos.script import plan_of

SEEDS, FAULTS = 10, 30


def main() -> int:
    """Read the arguments, run, print a line per fault and per run."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("what", nargs="?", choices=["crashes", "crashpoints"], default="crashes")
    parser.add_argument("--seed", type=int, help="the first seed, and the only one unless --seeds is given")
    parser.add_argument("--seeds", type=int, help=f"how many; {SEEDS} unless --seed is given")
    parser.add_argument("--faults", type=int, default=FAULTS, help="faults in each run")
    parser.add_argument("--break", dest="broken", choices=BREAKS, help="run a copy with this wrong design in it")
    parser.add_argument("--until-caught", action="store_true", help="stop at the first run that breaks a promise")
    asked = parser.parse_args()
    if asked.what == "crashpoints":
        return _crash_points(asked.broken)
    first = 1 if asked.seed is None else asked.seed
    count = asked.seeds or (SEEDS if asked.seed is None else 1)
    seeds = range(first, first + count)
    if asked.broken is None:
        return _runs(seeds, asked.faults, PROJECT, is_until_caught=asked.until_caught)
    with broken_tree(PROJECT, asked.broken) as tree:
        print(f"{asked.broken}: {BREAKS[asked.broken].about}", flush=True)
        return _runs(seeds, asked.faults, tree, is_until_caught=asked.until_caught)


def _crash_points(broken: str | None) -> int:
    if broken is None:
        return asyncio.run(run_crash_points(say=_say))
    with broken_tree(PROJECT, broken) as tree:  # the product runs in the process of the run: that of the copy
        _say(f"{broken}: {BREAKS[broken].about}")
        return subprocess.run([sys.executable, "-m", "tests.chaos", "crashpoints"], cwd=tree, check=False).returncode


def _runs(seeds: range, faults: int, tree: Path, *, is_until_caught: bool) -> int:
    done = broken = 0
    for seed in seeds:
        report = asyncio.run(crash_run(plan_of(seed, faults), tree=tree, say=_say))
        _say(report.text if report.failures else report.summary)
        done += 1
        broken += bool(report.failures)
        if broken and is_until_caught:
            break
    _say(f"{done - broken} of {done} runs kept every promise")
    return 1 if broken else 0


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
