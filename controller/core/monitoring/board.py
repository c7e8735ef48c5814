"""How all rules stand, and which of them keep a rollout where it is.

Rules kept: pure; what nobody has looked at is unknown, and so is a rule that is not watched any more (G7). Left out:
who looks, and when (`controller.metrics.monitor`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from rpds import HashTrieMap

from controller.core import model

Key = tuple[str, model.NodeId | None]  # the name of a rule, and a node; None for the fleet

S = model.RuleState
_HOLDING = frozenset({S.FIRING, S.UNKNOWN})


@dataclass(frozen=True, slots=True)
class Board:
    """What was found at the latest look.

    Args:
        looked_at: When that was.
        rules: All that are watched, by name.
        watches: Where a rule is anything but INACTIVE.
    """

    looked_at: datetime
    rules: Mapping[str, model.Rule]
    watches: HashTrieMap[Key, model.Watch]

    def held_by(self, name: str, node_id: model.NodeId | None) -> model.Watch | None:
        """Give how a rule stands somewhere, where that keeps a rollout."""
        found = self.watches.get((name, node_id))
        return found if found is not None and found.state in _HOLDING else None


def holds(board: Board | None, rollout: model.Rollout, at: datetime) -> tuple[model.RuleHold, ...]:
    """Name the rules of the policy that keep a rollout where it is, one entry for each, by name.

    Args:
        board: None where nobody has looked since the controller is up.
        rollout: The rollout.
        at: Now.
    """
    found = (_hold(board, name, rollout, at) for name in sorted(rollout.request.policy.hold_while_firing))
    return tuple(each for each in found if each is not None)


def is_news(board: Board | None, rollout: model.Rollout, node_ids: Iterable[model.NodeId]) -> bool:
    """Tell whether a rule that keeps the rollout by none of its nodes yet does so by one of these."""
    known = {each.rule for each in rollout.rule_holds}
    names = [each for each in rollout.request.policy.hold_while_firing if each not in known]
    return board is not None and any(board.held_by(name, node_id) for node_id in node_ids for name in names)


def _hold(board: Board | None, name: str, rollout: model.Rollout, at: datetime) -> model.RuleHold | None:
    rule = None if board is None else board.rules.get(name)
    if board is None or rule is None:
        before = (each.since for each in rollout.rule_holds if each.rule == name and each.state is S.UNKNOWN)
        return model.RuleHold(name, S.UNKNOWN, min(before, default=at), None)
    nodes: Iterable[model.NodeId | None] = (None,) if rule.scope is model.RuleScope.FLEET else _changed(rollout)
    found = ((watch, node_id) for node_id in nodes if (watch := board.held_by(name, node_id)) is not None)
    worst = min(found, key=lambda each: (each[0].state is S.UNKNOWN, each[0].since, each[1] or ""), default=None)
    return None if worst is None else model.RuleHold(name, worst[0].state, worst[0].since, worst[1])


def _changed(rollout: model.Rollout) -> Iterator[model.NodeId]:
    """Go through the nodes that the rollout has begun to change, and has not dropped."""
    for each in rollout.changes.values():
        if each.attempt and not each.is_skipped:
            yield each.change.node_id
