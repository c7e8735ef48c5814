"""The gate: whether a wave may be followed by the next one.

Rules kept: pure counts, never ratios; only faults of the version itself revert, all others fail (G8), each with its own
budget; missing data holds (G7). Left out: when it is asked, and what follows from its verdict (`rollout`).
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


def decide(tally: model.Tally, unassigned: int, policy: model.Policy, *, may_be_empty: bool = False) -> Verdict:
    """Decide on the wave that is out, in the light of all changes so far.

    One failure more than may be reverts or fails the rollout at once, however many nodes are healthy. A wave is
    promoted once each of its changes, and each of the waves before it, is done, was dropped, or has failed within that
    number; a wave of which no change is done is not promoted, unless all of it was dropped.

    Args:
        tally: Where the changes of the rollout stand.
        unassigned: Changes of the wave that wait for an operation.
        policy: How many may fail.
        may_be_empty: All changes of the wave were dropped, and what others have shown is enough.
    """
    if tally.version_failed > policy.max_failures:
        return _revert(tally, f"{policy.max_failures} may fail")
    if tally.infrastructure_failed > policy.infrastructure_failures_max:
        return _fail(tally, f"{policy.infrastructure_failures_max} may fail")
    if unassigned or tally.holding or tally.settling or tally.retrying:
        return Verdict(model.Gate.HOLD)
    if tally.wave_done or may_be_empty:
        return Verdict(model.Gate.PROMOTE)
    nothing = "nothing of the wave is done"
    if tally.version_failed:
        return _revert(tally, nothing)
    return _fail(tally, nothing) if tally.infrastructure_failed else Verdict(model.Gate.FAIL, "nothing_done", nothing)


def _revert(tally: model.Tally, why: str) -> Verdict:
    return Verdict(model.Gate.REVERT, "version_failed", f"the version failed on {_nodes(tally.version_failed)}; {why}")


def _fail(tally: model.Tally, why: str) -> Verdict:
    failed = f"{_nodes(tally.infrastructure_failed)} could not be changed, by no fault of the version"
    return Verdict(model.Gate.FAIL, "infrastructure_failed", f"{failed}; {why}")


def _nodes(count: int) -> str:
    return f"{count} node" if count == 1 else f"{count} nodes"
