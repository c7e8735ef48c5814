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
        rules: All by which it was looked, by name.
        watches: Where a rule is anything but INACTIVE.
        looked: The nodes that were looked at, by component.
    """

    looked_at: datetime
    rules: Mapping[str, model.Rule]
    watches: HashTrieMap[Key, model.Watch]
    looked: Mapping[model.ComponentName, frozenset[model.NodeId]]


def holds(board: Board | None, rollout: model.Rollout, at: datetime) -> tuple[model.RuleHold, ...]:
    """Name the rules of the policy that keep a rollout where it is, one entry for each, by name.

    Args:
        board: None where nobody has looked since the controller is up.
        rollout: The rollout.
        at: Now.
    """
    found = (_hold(board, name, rollout, at) for name in sorted(rollout.request.policy.hold_while_firing))
    return tuple(each for each in found if each is not None)


def sights(board: Board) -> Mapping[str, Mapping[model.NodeId | None, bool | None]]:
    """Say of each rule where it is anything but INACTIVE, and whether it fires there; None where nobody can tell."""
    found: dict[str, dict[model.NodeId | None, bool | None]] = {name: {} for name in board.rules}
    for (name, node_id), watch in board.watches.items():
        found[name][node_id] = None if watch.state is S.UNKNOWN else watch.state is S.FIRING
    return found


def is_held(watched: model.Watched) -> bool:
    """Tell whether a rule that stands so keeps rollouts that name it."""
    return watched.watch.state in _HOLDING


def reason(watched: model.Watched) -> model.Reason:
    """Say of one that is held that it fires, or that nobody can tell."""
    where, since = watched.node_id or "the fleet", watched.watch.since
    if watched.watch.state is S.FIRING:
        return model.Reason("rule_firing", f"rule {watched.rule} fires on {where}", since)
    return model.Reason("rule_unknown", f"nobody can tell whether rule {watched.rule} fires on {where}", since)


def is_news(board: Board | None, rollout: model.Rollout, keys: Iterable[model.ChangeKey]) -> bool:
    """Tell whether a rule that does not keep the rollout yet does so by one of these changes."""
    known = {each.rule for each in rollout.rule_holds}
    names = [each for each in rollout.request.policy.hold_while_firing if each not in known]
    if board is None or not names:
        return False
    rules = [board.rules[name] for name in names if name in board.rules]
    changes = [rollout.changes[key] for key in keys if key in rollout.changes]
    return any(_kept_by(board, rule, each) is not None for rule in rules for each in changes)


def _hold(board: Board | None, name: str, rollout: model.Rollout, at: datetime) -> model.RuleHold | None:
    rule = None if board is None else board.rules.get(name)
    if board is None or rule is None:
        before = (each.since for each in rollout.rule_holds if each.rule == name and each.state is S.UNKNOWN)
        return model.RuleHold(name, S.UNKNOWN, min(before, default=at), None)
    found = [each for each in _found(board, rule, rollout) if each is not None]
    return min(found, key=lambda each: (each.state is S.UNKNOWN, each.since, each.node_id or ""), default=None)


def _found(board: Board, rule: model.Rule, rollout: model.Rollout) -> Iterator[model.RuleHold | None]:
    if rule.scope is model.RuleScope.FLEET:
        yield _held(rule, None, board.watches.get((rule.name, None)))
        return
    for each in rollout.changes.values():
        yield _kept_by(board, rule, each)


def _kept_by(board: Board, rule: model.Rule, each: model.Progress) -> model.RuleHold | None:
    """Say how a rule keeps a rollout by one of its changes; one that has not begun, or was dropped, keeps nothing."""
    if rule.scope is model.RuleScope.FLEET or not each.attempt or each.is_skipped:
        return None
    node_id, component = each.change.node_id, each.change.component
    is_there = component == rule.component and each.change.kind is not model.ChangeKind.REMOVE
    if is_there and each.assigned_at is not None and node_id not in board.looked.get(component, ()):
        return model.RuleHold(rule.name, S.UNKNOWN, each.assigned_at, node_id)
    return _held(rule, node_id, board.watches.get((rule.name, node_id)))


def _held(rule: model.Rule, node_id: model.NodeId | None, watch: model.Watch | None) -> model.RuleHold | None:
    if watch is None or watch.state not in _HOLDING:
        return None
    return model.RuleHold(rule.name, watch.state, watch.since, node_id)
