"""Runs rollouts behind the judge again and again, and counts what became of them.

python -m tests.integration.judge_runs --runs 20 --source both -o json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from tests.integration import judged as houses


@dataclass(frozen=True, slots=True)
class Arm:
    """A kind of release, and what has to become of it."""

    name: str
    fails_every: int
    wanted: tuple[str, str]


ARMS = (
    Arm("harmful", houses.HARMFUL_FAILS_EVERY, ("REVERTED", "WORSE")),
    Arm("harmless", houses.HARMLESS_FAILS_EVERY, ("SUCCEEDED", "NO_WORSE")),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one rollout."""

    state: str
    finding: str
    elapsed_seconds: float
    message: str


async def _runs(source: houses.Source, count: int) -> dict[str, list[Outcome]]:
    found: dict[str, list[Outcome]] = defaultdict(list)
    async with houses.up(source) as judged:
        for number in range(count):
            for arm in ARMS:
                outcome = _outcome(await judged.roll_out(arm.fails_every))
                found[arm.name].append(outcome)
                said = f"{outcome.state}, {outcome.message} after {outcome.elapsed_seconds:g} s"
                _say(f"{source.value} {number + 1} {arm.name}: {said}", file=sys.stderr)
    return found


def _outcome(rollout: Any) -> Outcome:  # noqa: ANN401  # JSON
    record = rollout["judging"] or {}
    judgement = record.get("decided") or {"finding": "NONE", "elapsed": "0s", "message": rollout["message"]}
    seconds = float(judgement["elapsed"].removesuffix("s"))
    return Outcome(rollout["state"], judgement["finding"], seconds, judgement["message"])


def _document(arm: Arm, found: list[Outcome]) -> dict[str, object]:
    seconds = sorted(each.elapsed_seconds for each in found)
    held = sum((each.state, each.finding) == arm.wanted for each in found)
    others = [f"{each.state} {each.finding}" for each in found if (each.state, each.finding) != arm.wanted]
    return {
        "runs": len(found),
        "held": held,
        "others": others,
        "decided_after_seconds": {"median": seconds[len(seconds) // 2], "max": seconds[-1]},
    }


def _say(line: str, *, file: Any = sys.stdout) -> None:  # noqa: ANN401  # either stream
    print(line, file=file, flush=True)


def main() -> int:
    """Run, and print one JSON document; 0 where every verdict was right."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20, help="of each arm, from each source")
    parser.add_argument("--source", choices=["both", *(each.value for each in houses.Source)], default="both")
    parser.add_argument("-o", "--output", choices=["json"], default="json")
    given = parser.parse_args()
    sources = houses.Source if given.source == "both" else [houses.Source(given.source)]
    found = {source: asyncio.run(_runs(source, given.runs)) for source in sources}
    told = {
        source.value: {arm.name: _document(arm, outcomes[arm.name]) for arm in ARMS}
        for source, outcomes in found.items()
    }
    _say(json.dumps(told, indent=2))
    is_held = all(
        (each.state, each.finding) == arm.wanted
        for outcomes in found.values()
        for arm in ARMS
        for each in outcomes[arm.name]
    )
    return 0 if is_held else 1


if __name__ == "__main__":
    sys.exit(main())
