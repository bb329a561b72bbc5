"""``python -m tests.sim --seeds 1000 [--from N] [--kind learning] [--mutants] [--json]``"""

import argparse
import json
import sys
import time

from rich.console import Console
from rich.progress import Progress

from tests.sim.campaign import Verdict, Worlds, run_mutants, run_worlds, summed
from tests.sim.kinds import KINDS
from tests.sim.mutants import MUTANTS


def main() -> int:
    """Run a campaign; the last line on stdout is JSON. Returns 1 if anything is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many worlds")
    parser.add_argument("--from", type=int, default=0, dest="begin", help="the first seed")
    parser.add_argument("--kind", choices=sorted(KINDS), default="", help="of all worlds")
    parser.add_argument("--mutants", action="store_true", help="hunt the mutants, too")
    parser.add_argument("--json", action="store_true", help="print nothing but the line of JSON")
    options = parser.parse_args()
    began_s = time.monotonic()
    worlds: list[Worlds] = []
    verdicts: list[Verdict] = []
    console = Console(stderr=True, quiet=options.json)
    with Progress(console=console) as progress:
        bar = progress.add_task("worlds", total=options.seeds)
        for found in run_worlds(options.begin, options.seeds, options.kind):
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
    report = summed(worlds, verdicts)
    line = {
        "seeds": report.seeds,
        "faults": report.faults,
        "learning": report.learning,
        "violations": len(report.violations),
        "mutants_caught": report.mutants_caught,
        "mutants": report.mutants,
        "seconds": round(time.monotonic() - began_s, 1),
    }
    print(json.dumps(line))
    return 1 if report.violations or report.mutants_caught < report.mutants else 0


if __name__ == "__main__":
    sys.exit(main())
