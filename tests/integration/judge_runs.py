"""Runs rollouts behind the judge again and again, and counts what became of them.

python -m tests.integration.judge_runs --runs 20 --source both -o json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.integration import judged as houses
from tests.integration import notes, trials


@dataclass(frozen=True, slots=True)
class Arm:
    """A kind of release, and what has to become of it."""

    name: str
    fails_percent: float
    wanted: tuple[str, str, int]


ARMS = (
    Arm("harmful", trials.WHOLE.harmful_percent, ("REVERTED", "WORSE", 1)),
    Arm("harmless", trials.WHOLE.harmless_percent, ("SUCCEEDED", "NO_WORSE", 2)),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one rollout.

    Args:
        became: The state of the rollout, what was found, and the wave in which that was.
        requests: From the end of the rollout before on.
        failed_percent: Of what the new version answered.
    """

    became: tuple[str, str, int]
    elapsed_seconds: float
    message: str
    requests: notes.Told
    failed_percent: float


async def _runs(source: houses.Source, count: int) -> dict[str, list[Outcome]]:
    found: dict[str, list[Outcome]] = defaultdict(list)
    async with houses.up(trials.WHOLE, is_scraped=source is houses.Source.PROMETHEUS) as judged:
        for number in range(count):
            for arm in ARMS:
                rollout = await judged.roll_out(arm.fails_percent, source)
                outcome = _outcome(rollout, judged.requests.since(), judged.newest)
                found[arm.name].append(outcome)
                _say(f"{source.value} {number + 1} {arm.name}: {_line(outcome)}", file=sys.stderr)
    return found


def _outcome(rollout: Any, told: notes.Told, version: str) -> Outcome:  # noqa: ANN401  # JSON
    record = rollout["judging"] or {}
    judgement = record.get("decided") or {"finding": "NONE", "elapsed": "0s", "message": rollout["message"]}
    return Outcome(
        became=(rollout["state"], judgement["finding"], rollout["wave"]),
        elapsed_seconds=float(judgement["elapsed"].removesuffix("s")),
        message=judgement["message"],
        requests=told,
        failed_percent=100 * told.failed.get(version, 0) / max(told.answered.get(version, 0), 1),
    )


def _line(outcome: Outcome) -> str:
    state, finding, wave = outcome.became
    requests = outcome.requests
    return (
        f"{state} in wave {wave}, {finding} after {outcome.elapsed_seconds:g} s, {outcome.message}; "
        f"{outcome.failed_percent:.2f} % of what the new version answered failed; "
        f"{requests.per_second:.1f} requests/s, p99 {requests.p99_ms} ms, {requests.lost} lost"
    )


def _document(arm: Arm, found: Sequence[Outcome]) -> dict[str, object]:
    failed = [each.failed_percent for each in found]
    return {
        "runs": len(found),
        "held": sum(each.became == arm.wanted for each in found),
        "others": [" ".join(map(str, each.became)) for each in found if each.became != arm.wanted],
        "decided_after_seconds": _spread([each.elapsed_seconds for each in found]),
        "failed_percent": _spread(failed),
        "requests_per_second": _spread([each.requests.per_second for each in found]),
        "p99_ms": _spread([each.requests.p99_ms or 0.0 for each in found]),
        "lost": sum(each.requests.lost for each in found),
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    ordered = sorted(round(each, 3) for each in values)
    return {"min": ordered[0], "median": ordered[len(ordered) // 2], "max": ordered[-1]}


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
    is_held = all(each.became == arm.wanted for by_arm in found.values() for arm in ARMS for each in by_arm[arm.name])
    return 0 if is_held else 1


if __name__ == "__main__":
    sys.exit(main())
