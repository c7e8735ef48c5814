"""`python -m tests.simulation --seeds N --nodes M [--first-seed S] [-o json]`: run seeds, print one JSON document.

Exit code 1 when a seed found a violation; each violation names the command that repeats it.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import functools
import hashlib
import json
import os
import sys
from collections import Counter
from collections.abc import Sequence

from tests.simulation import world


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--nodes", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("-o", "--output", choices=["json"], default="json")
    options = parser.parse_args(arguments)
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    outcomes: list[world.Outcome] = []
    with concurrent.futures.ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
        for outcome in pool.map(functools.partial(world.run, nodes=options.nodes), seeds):
            outcomes.append(outcome)
            found = f", {len(outcome.violations)} violations" if outcome.violations else ""
            sys.stderr.write(f"[{len(outcomes)}/{options.seeds}] seed {outcome.seed}: {outcome.events} events{found}\n")
    document = report(outcomes, options.nodes)
    sys.stdout.write(json.dumps(document, indent=1) + "\n")
    return 1 if document["violations"] else 0


def report(outcomes: Sequence[world.Outcome], nodes: int) -> dict[str, object]:
    faults: Counter[str] = sum((outcome.faults for outcome in outcomes), Counter())
    hashes = "".join(outcome.trace_hash for outcome in outcomes)
    return {
        "seeds": len(outcomes),
        "nodes": nodes,
        "virtual_seconds": round(sum(outcome.virtual_seconds for outcome in outcomes)),
        "virtual_seconds_min": round(min(outcome.virtual_seconds for outcome in outcomes)),
        "rollouts": sum(len(outcome.rollouts) for outcome in outcomes),
        "events": sum(outcome.events for outcome in outcomes),
        "faults": dict(sorted(faults.items())),
        "trace_hash": hashlib.sha256(hashes.encode()).hexdigest(),
        "violations": [
            {
                "seed": outcome.seed,
                "violation": violation,
                "repeat": f"python -m tests.simulation --first-seed {outcome.seed} --seeds 1 --nodes {nodes} -o json",
            }
            for outcome in outcomes
            for violation in outcome.violations
        ],
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
