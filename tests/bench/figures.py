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


def tried() -> dict[str, str]:
    """Settings to try on api and worker, as `BENCH_SETTINGS="WORKER_CONCURRENCY=2 ..."`; told beside the figures."""
    return dict(part.split("=", 1) for part in os.environ.get("BENCH_SETTINGS", "").split())


def machine(postgres: str) -> dict[str, str]:
    """What the figures hold for."""
    asked = {"settings": " ".join(f"{name}={value}" for name, value in tried().items())} if tried() else {}
    return {
        "cpu": _cpu(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{_kilobytes('/proc/meminfo', 'MemTotal') / 2**20:.1f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "postgres": postgres,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _commit(),
        **asked,
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
    return page_of({path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))})


def page_of(kept: Mapping[str, Figures]) -> str:
    """The page that shows these figures, by the name of their bench."""
    lines = [
        "# Measurements",
        "",
        "Written by `make bench` (`python -m tests.bench`); the numbers of each run stand in the JSON file beside this",
        "page. What a bench compares, and why that is fair, is the docstring of its module in `tests/bench/`. Absolute",
        "numbers hold for the machine named; ratios travel.",
    ]
    for name, found in kept.items():
        lines += ["", f"## {name}", "", found["about"], ""]
        lines += _table(["figure", "measured", "limit", "holds"], [_claim(claim) for claim in found["claims"]])
        on = ", ".join(f"{part} {value}" for part, value in found["machine"].items())
        lines += ["", f"Size `{found['size']}`. {on}."]
    return "\n".join(lines) + "\n"


def claim(
    name: str, value: float | str, *, unit: str = "", limit: float | None = None, least: float | None = None
) -> Figures:
    """One line of the page; `limit` is the most that `value` may be, `least` the least."""
    found = {"name": name, "value": value, "unit": unit, "limit": limit}
    return found if least is None else {**found, "least": least}


def bound(found: Mapping[str, Any]) -> str:
    """The limit of a claim, in words; empty where it has none."""
    sign, value = ("≥", found["least"]) if "least" in found else ("≤", found["limit"])
    return "" if value is None else f"{sign} {value:g} {found['unit']}".strip()


def holds(found: Mapping[str, Any]) -> bool:
    """Whether a claim is within its limit; one without a limit is."""
    if "least" in found:
        return bool(found["value"] >= found["least"])
    return found["limit"] is None or bool(found["value"] <= found["limit"])


def _claim(found: Mapping[str, Any]) -> list[str]:
    value = found["value"]
    shown = f"{value:,}" if isinstance(value, int | float) else str(value)
    verdict = ("yes" if holds(found) else "NO") if bound(found) else ""
    return [found["name"], f"{shown} {found['unit']}".strip(), bound(found), verdict]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]
