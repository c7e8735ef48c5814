"""The gate: whether a wave may be followed by the next one.

Rules kept: pure counts, never ratios; only faults of the version itself revert, all others fail (G8); missing data
holds (G7). Left out: when it is asked, and what follows from its verdict (`rollout`).
"""

from __future__ import annotations

from dataclasses import dataclass

from controller.core import model


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate says, and why.

    Args:
        reason: Short code; empty for HOLD and PROMOTE.
        message: One sentence for people.
    """

    gate: model.Gate
    reason: str = ""
    message: str = ""


def decide(tally: model.Tally, unassigned: int, policy: model.Policy) -> Verdict:
    """Decide on the wave that is out, in the light of all changes so far.

    One failure more than ``max_failures`` reverts or fails the rollout at once, however many nodes are healthy. A wave
    is promoted once each of its changes, and each of the waves before it, is done or has failed within that number;
    a wave of which no change is done is never promoted.

    Args:
        tally: Where the changes of the rollout stand.
        unassigned: Changes of the wave that have not had an operation yet.
        policy: How many may fail.
    """
    budget = f"{policy.max_failures} may fail"
    if tally.version_failed > policy.max_failures:
        return _revert(tally, budget)
    if tally.infrastructure_failed > policy.max_failures:
        return _fail(tally, budget)
    if unassigned or tally.holding or tally.settling or tally.retrying:
        return Verdict(model.Gate.HOLD)
    if tally.wave_done:
        return Verdict(model.Gate.PROMOTE)
    nothing = "nothing of the wave is done"
    return _revert(tally, nothing) if tally.version_failed else _fail(tally, nothing)


def _revert(tally: model.Tally, why: str) -> Verdict:
    return Verdict(model.Gate.REVERT, "version_failed", f"the version failed on {_nodes(tally.version_failed)}; {why}")


def _fail(tally: model.Tally, why: str) -> Verdict:
    failed = f"{_nodes(tally.infrastructure_failed)} could not be changed, by no fault of the version"
    return Verdict(model.Gate.FAIL, "infrastructure_failed", f"{failed}; {why}")


def _nodes(count: int) -> str:
    return f"{count} node" if count == 1 else f"{count} nodes"
