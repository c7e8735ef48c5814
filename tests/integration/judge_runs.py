"""Runs rollouts behind the judge again and again, and counts what became of them.

python -m tests.integration.judge_runs --runs 20 -o json
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


async def _runs(count: int) -> dict[str, list[Outcome]]:
    found: dict[str, list[Outcome]] = defaultdict(list)
    async with houses.up() as judged:
        for number in range(count):
            for arm in ARMS:
                outcome = _outcome(await judged.roll_out(arm.fails_every))
                found[arm.name].append(outcome)
                _say(f"{number + 1} {arm.name}: {outcome.state}, {outcome.message}", file=sys.stderr)
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
    parser.add_argument("--runs", type=int, default=20, help="of each arm")
    parser.add_argument("-o", "--output", choices=["json"], default="json")
    found = asyncio.run(_runs(parser.parse_args().runs))
    _say(json.dumps({arm.name: _document(arm, found[arm.name]) for arm in ARMS}, indent=2))
    is_held = all((each.state, each.finding) == arm.wanted for arm in ARMS for each in found[arm.name])
    return 0 if is_held else 1


if __name__ == "__main__":
    sys.exit(main())
