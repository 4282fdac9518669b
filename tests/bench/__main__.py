"""`python -m tests.bench [NAME ...] [--size small|full]`: measure, print, and keep the figures."""

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable

from tests.bench import backlog, bulk, compiled, endurance, fanout, hostile, mixed, outage, page, peers, push, single
from tests.bench.figures import FOLDER, Figures, bound, holds, machine, write

BENCHES: dict[str, tuple[Callable[[str], Awaitable[Figures]], str]] = {
    "single": (single.run, single.__doc__ or ""),
    "compiled": (compiled.run, compiled.__doc__ or ""),
    "hostile": (hostile.run, hostile.__doc__ or ""),
    "push": (push.run, push.__doc__ or ""),
    "fanout": (fanout.run, fanout.__doc__ or ""),
    "peers": (peers.run, peers.__doc__ or ""),
    "bulk": (bulk.run, bulk.__doc__ or ""),
    "backlog": (backlog.run, backlog.__doc__ or ""),
    "mixed": (mixed.run, mixed.__doc__ or ""),
    "outage": (outage.run, outage.__doc__ or ""),
    "page": (page.run, page.__doc__ or ""),
    "endurance": (endurance.run, endurance.__doc__ or ""),
}


def main(arguments: list[str] | None = None) -> int:
    """Run the named benches; 1 when a limit is broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(BENCHES)}; all when left out")
    parser.add_argument("--size", choices=("small", "full"), default="full", help="small only tries the benches out")
    parser.add_argument("--dry", action="store_true", help="print, but keep nothing in docs/bench")
    asked = parser.parse_args(arguments)
    unknown = set(asked.names) - BENCHES.keys()
    if unknown:
        parser.error(f"no bench is named {', '.join(sorted(unknown))}")
    is_kept = True
    for name in asked.names or BENCHES:
        print(f"bench {name} ({asked.size}) ...", flush=True)
        figures = asyncio.run(measured(name, asked.size))
        for one in figures["claims"]:
            verdict = f"  ({bound(one)}: {'holds' if holds(one) else 'BROKEN'})" if bound(one) else ""
            is_kept = is_kept and holds(one)
            print(f"  {one['name']}: {one['value']} {one['unit']}{verdict}", flush=True)
        if not asked.dry:
            write(name, figures)
            print(f"  kept in {FOLDER / name}.json", flush=True)
    return 0 if is_kept else 1


async def measured(name: str, size: str) -> Figures:
    """What one bench found, with the machine it holds for."""
    run, about = BENCHES[name]
    found = await run(size)
    facts = machine(found.pop("postgres"))
    return {"about": about.strip().partition("\n")[0], "size": size, "machine": facts, **found}


if __name__ == "__main__":
    sys.exit(main())
