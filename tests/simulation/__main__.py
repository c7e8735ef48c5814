"""`python -m tests.simulation --seeds N --nodes M [--first-seed S] [--planted] [-o json]`: run seeds, print JSON.

``--story-minutes`` says how long faults and orders go on in each run; then everything has to come to rest.

Exit code 1 when a seed found a violation; each violation names the command that repeats it. With ``--planted`` known
bugs are put into the product one at a time, and it is one that was not found which is a violation.
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
from collections.abc import Iterable, Sequence

from tests.simulation import planted, world


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--nodes", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--story-minutes", type=int, default=world.STORY_MINUTES)
    parser.add_argument("--planted", action="store_true")
    parser.add_argument("-o", "--output", choices=["json"], default="json")
    options = parser.parse_args(arguments)
    document = _look_for_planted() if options.planted else _run(options)
    sys.stdout.write(json.dumps(document, indent=1) + "\n")
    return 1 if document["violations"] else 0


def _run(options: argparse.Namespace) -> dict[str, object]:
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    outcomes: list[world.Outcome] = []
    with concurrent.futures.ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
        run = functools.partial(world.run, nodes=options.nodes, story_minutes=options.story_minutes)
        for outcome in pool.map(run, seeds):
            outcomes.append(outcome)
            found = "".join(f"\n  {each}" for each in outcome.violations)
            sys.stderr.write(f"[{len(outcomes)}/{options.seeds}] seed {outcome.seed}: {outcome.events} events{found}\n")
    return report(outcomes, options.nodes, options.story_minutes)


def _look_for_planted() -> dict[str, object]:
    found: dict[str, object] = {}
    missed: list[str] = []
    with concurrent.futures.ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
        for each in pool.map(planted.look_for, planted.PLANTS):
            sys.stderr.write(f"{each.name}: {each.violation or 'not found'}\n")
            found[each.name] = {"seed": each.seed, "violation": each.violation}
            missed += [] if each.violation else [f"a planted bug is found: {each.name} is not"]
    return {"seeds": planted.SEEDS, "nodes": planted.NODES, "planted": found, "violations": missed}


def report(outcomes: Sequence[world.Outcome], nodes: int, story_minutes: int) -> dict[str, object]:
    again = f"--nodes {nodes} --story-minutes {story_minutes} -o json"
    hashes = "".join(outcome.trace_hash for outcome in outcomes)
    return {
        "seeds": len(outcomes),
        "nodes": nodes,
        "virtual_seconds": round(sum(outcome.virtual_seconds for outcome in outcomes)),
        "virtual_seconds_min": round(min(outcome.virtual_seconds for outcome in outcomes)),
        "rollouts": sum(len(outcome.rollouts) for outcome in outcomes),
        "events": sum(outcome.events for outcome in outcomes),
        "faults": _summed(outcome.faults for outcome in outcomes),
        "orders": _summed(outcome.orders for outcome in outcomes),
        "granted": _summed(outcome.granted for outcome in outcomes),
        "refusals": _summed(outcome.refusals for outcome in outcomes),
        "ends": _summed(Counter(outcome.rollouts) for outcome in outcomes),
        "trace_hash": hashlib.sha256(hashes.encode()).hexdigest(),
        "violations": [
            {
                "seed": outcome.seed,
                "violation": violation,
                "repeat": f"python -m tests.simulation --first-seed {outcome.seed} --seeds 1 {again}",
            }
            for outcome in outcomes
            for violation in outcome.violations
        ],
    }


def _summed(counters: Iterable[Counter[str]]) -> dict[str, int]:
    return dict(sorted(sum(counters, Counter[str]()).items()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
