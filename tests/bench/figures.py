"""Numbers of a measurement: percentiles, medians, the machine they hold for, and the tables they are shown in."""

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[2]
FOLDER = PROJECT / "docs" / "bench"

Figures = dict[str, Any]
"""What one bench found: JSON values, by name; `claims` are the sentences with their limits."""


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile: a value that really occurred. `values` may be in any order, but not empty."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def milliseconds(seconds: Sequence[float]) -> dict[str, float]:
    """The distribution of some waits, in milliseconds."""
    if not seconds:
        return {}
    points = {f"p{percent}": round(percentile(seconds, percent) * 1000, 2) for percent in (50, 95, 99)}
    return {**points, "max": round(max(seconds) * 1000, 2)}


def median(values: Sequence[float]) -> float:
    """The median, to 4 significant digits."""
    return float(f"{statistics.median(values):.4g}")


def machine(postgres: str) -> dict[str, str]:
    """What the figures hold for."""
    return {
        "cpu": _cpu(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{_kilobytes('/proc/meminfo', 'MemTotal') / 2**20:.1f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "postgres": postgres,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _commit(),
    }


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _kilobytes(path: str, name: str) -> int:
    for line in Path(path).read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    return 0


def _commit() -> str:
    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=PROJECT, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    commit = git("rev-parse", "--short=12", "HEAD")
    if not commit:
        return "none yet"
    return commit + (" with changes" if git("status", "--porcelain", "--", ":!docs/bench") else "")


def write(name: str, figures: Figures) -> None:
    """Keep the figures of one bench, and show all that are kept in docs/bench/README.md."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps(figures, indent=2) + "\n")
    (FOLDER / "README.md").write_text(page())


def page() -> str:
    """docs/bench/README.md from the files beside it."""
    lines = [
        "# Measurements",
        "",
        "Written by `make bench` (`python -m tests.bench`); the numbers of each run stand in the JSON file beside this",
        "page. What a bench compares, and why that is fair, is the docstring of its module in `tests/bench/`. Absolute",
        "numbers hold for the machine named; ratios travel.",
    ]
    for path in sorted(FOLDER.glob("*.json")):
        found = json.loads(path.read_text())
        lines += ["", f"## {path.stem}", "", found["about"], ""]
        lines += _table(["figure", "measured", "limit", "holds"], [_claim(claim) for claim in found["claims"]])
        on = ", ".join(f"{name} {value}" for name, value in found["machine"].items())
        lines += ["", f"Size `{found['size']}`. {on}."]
    return "\n".join(lines) + "\n"


def claim(
    name: str, value: float | str, *, unit: str = "", limit: float | None = None, least: float | None = None
) -> Figures:
    """One line of the page; `limit` is the most that `value` may be, `least` the least."""
    found = {"name": name, "value": value, "unit": unit, "limit": limit}
    return found if least is None else {**found, "least": least}


def bound_of(found: Mapping[str, Any]) -> tuple[str, bool]:
    """How a claim is bounded, in words, and whether that holds; "" where it is not."""
    value, limit, least = found["value"], found["limit"], found.get("least")
    if least is not None:
        return f"≥ {least:g}", value >= least
    return ("", True) if limit is None else (f"≤ {limit:g}", value <= limit)


def _claim(found: Mapping[str, Any]) -> list[str]:
    value, unit = found["value"], found["unit"]
    shown = f"{value:,}" if isinstance(value, int | float) else str(value)
    bound, holds = bound_of(found)
    if not bound:
        return [found["name"], f"{shown} {unit}".strip(), "", ""]
    return [found["name"], f"{shown} {unit}".strip(), f"{bound} {unit}".strip(), "yes" if holds else "NO"]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]
