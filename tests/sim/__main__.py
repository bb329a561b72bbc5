"""``python -m tests.sim --seeds 1000 [--from N] [--mutants] [--json]``"""

import argparse
import sys
import time
from collections.abc import Sequence

from rich.console import Console
from rich.progress import Progress

from perf.measuring import Machine, report
from tests.sim.campaign import Verdict, Worlds, run_mutants, run_worlds, summed
from tests.sim.mutants import MUTANTS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a campaign; the last line on stdout is JSON. Returns 1 if anything is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many worlds")
    parser.add_argument("--from", type=int, default=0, dest="begin", help="the first seed")
    parser.add_argument("--mutants", action="store_true", help="hunt the mutants, too")
    parser.add_argument("--json", action="store_true", help="print nothing but the line of JSON")
    parser.add_argument("--strict", action="store_true", help="exit 3 when others used the machine")
    options = parser.parse_args(arguments)
    machine = Machine()
    began_s = time.monotonic()
    worlds: list[Worlds] = []
    verdicts: list[Verdict] = []
    console = Console(stderr=True, quiet=options.json)
    with Progress(console=console) as progress:
        bar = progress.add_task("worlds", total=options.seeds)
        for found in run_worlds(options.begin, options.seeds):
            worlds.append(found)
            progress.advance(bar, found.seeds)
            for seed, text in found.violations:
                console.print(f"seed {seed}: {text}")
        if options.mutants:
            bar = progress.add_task("mutants", total=len(MUTANTS))
            for verdict in run_mutants():
                verdicts.append(verdict)
                progress.advance(bar)
                fate = f"killed by seed {verdict.seed}" if verdict.seed >= 0 else "SURVIVED"
                console.print(f"mutant {verdict.name}: {fate} {verdict.violation}")
    found = summed(worlds, verdicts)
    escaped = found.mutants - found.mutants_caught
    figures = {
        "seeds": found.seeds,
        "faults": found.faults,
        "violations": len(found.violations),
        "mutants_caught": found.mutants_caught,
        "mutants": found.mutants,
        "mutants_escaped": escaped if options.mutants else None,  # none were hunted
        "seconds": round(time.monotonic() - began_s, 1),
    }
    status = report("sim", options, machine, figures)
    return 1 if found.violations or escaped else status


if __name__ == "__main__":
    sys.exit(main())
