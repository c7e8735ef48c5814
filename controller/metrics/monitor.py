"""The performance monitor: looks at what nodes measure by the rules of the configuration, and keeps how each stands.

Theory of operation. A look asks the windows once for all rules that look at the same spans of time, for the nodes that
have their component, and makes one value of each (`observing`); the machine of a rule (`machine`) is stepped only where
the look may change something: most nodes are well, and stay so. What is not INACTIVE stands in a persistent map that
others may keep.

Rules kept: a look costs a bounded time, whatever is seen; what was stored of a rule, or is known of one that is
replaced while it is watched, counts only if the rule still says the same; what fires, or is about to, is stored, with
the instants of its clocks; what is merely unknown is found anew by the first look. Left out: when it looks, and the
writing (`controller.engine.rules`).
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Protocol

import numpy as np
from rpds import HashTrieMap

from controller.core import model
from controller.core.monitoring import board as boards
from controller.core.monitoring import machine, observing
from controller.metrics import figures

NODES_AT_ONCE = 1_000  # of which the windows are asked without a break: some ten milliseconds of the loop

_INSTANT = timedelta(microseconds=1)  # before the first look nobody has looked
S = model.RuleState
_PAST_PIECES = {model.RuleBasis.OWN_PAST: 1, model.RuleBasis.TRENDLINE: observing.LINE_PIECES}
Nodes = Mapping[model.ComponentName, Sequence[model.NodeId]]


class Windows(Protocol):
    """Where figures are."""

    def over(
        self,
        component: model.ComponentName,
        metrics: tuple[model.JudgedMetric, ...],
        nodes: tuple[model.NodeId, ...],
        bounds: Sequence[datetime],
    ) -> dict[str, figures.Figure]:
        """Say how each metric went over spans of time that follow each other, [node, span], by its name."""
        ...


class Monitor:
    """How the rules stand.

    Args:
        rules: What is always watched for.
        windows: Where the figures are.
    """

    def __init__(self, rules: Iterable[model.Rule], windows: Windows) -> None:
        self._always = {each.name: each for each in rules}
        self.rules: Mapping[str, model.Rule] = self._always
        self._windows = windows
        self._watches: dict[boards.Key, model.Watch] = {}
        self._shown: HashTrieMap[boards.Key, model.Watch] = HashTrieMap()
        self._looked: dict[model.ComponentName, frozenset[model.NodeId]] = {}
        self._judged: dict[str, model.Rule] = {}
        self._dropped: dict[boards.Key, model.Watched | None] = {}

    @property
    def is_idle(self) -> bool:
        """Whether a look would see nothing, and leave nothing to be written."""
        return not self.rules and not self._dropped

    def replace(self, rules: Iterable[model.Rule]) -> None:
        """Watch for these besides what is always watched for, from the next look on.

        How a rule stands that is no more, or says another thing now, is forgotten: the next look says so of what is
        stored. Rules that are stored have to be there again before `restore`.

        Args:
            rules: All of them; one whose name has always been there is not taken.
        """
        before, self.rules = self.rules, {each.name: each for each in rules} | self._always
        gone = {name for name, rule in before.items() if self.rules.get(name) != rule}
        for key in [each for each in self._watches if each[0] in gone]:
            if _is_kept(self._watches.pop(key)):
                self._dropped[key] = None
            self._shown = self._shown.discard(key)
        for name in gone:
            self._judged.pop(name, None)

    def restore(self, stored: Iterable[model.Watched], looked_at: datetime | None) -> tuple[boards.Key, ...]:
        """Take up what was stored; give the keys of what says nothing any more.

        Args:
            stored: How rules stood.
            looked_at: When that was last seen to be so; None for never.
        """
        stale = []
        for each in stored:
            key, rule = (each.rule, each.node_id), self.rules.get(each.rule)
            if rule is None or looked_at is None or each.of != repr(rule):
                stale.append(key)
            else:
                self._watches[key] = dataclasses.replace(each.watch, seen_at=max(each.watch.seen_at, looked_at))
        return tuple(stale)

    async def look(self, nodes: Nodes, at: datetime) -> dict[boards.Key, model.Watched | None]:
        """Look by every rule, and give what has to be stored of that now: None for what stands no longer.

        Others have the loop between some nodes and the next; what they add meanwhile is later than the look.

        Args:
            nodes: Nodes by component.
            at: Now.
        """
        changed, self._dropped = self._dropped, {}
        self._looked = {each: frozenset(having) for each, having in nodes.items()}
        self._judged = {}
        for (component, bounds), rules in _together(self.rules.values(), at).items():
            names = tuple(nodes.get(component, ()))
            seen = await self._seen(component, rules, names, bounds)
            for rule in rules:
                values = await _observed(rule, seen[rule.name])
                if self.rules.get(rule.name) == rule:  # it may have been replaced meanwhile
                    self._judged[rule.name] = rule
                    self._look(rule, names, values, at, changed)
        dropped, self._dropped = self._dropped, {}
        return changed | {key: None for key in dropped if key not in self._watches}

    async def _seen(
        self,
        component: model.ComponentName,
        rules: Sequence[model.Rule],
        nodes: tuple[model.NodeId, ...],
        bounds: tuple[datetime, ...],
    ) -> dict[str, observing.Seen]:
        """Ask the windows for the figures of some rules, some nodes at a time."""
        metrics = tuple(model.JudgedMetric(rule.name, rule.measure) for rule in rules)
        parts = [self._windows.over(component, metrics, (), bounds)]
        for first in range(0, len(nodes), NODES_AT_ONCE):
            parts.append(self._windows.over(component, metrics, nodes[first : first + NODES_AT_ONCE], bounds))
            await asyncio.sleep(0)
        return {rule.name: _joined([part[rule.name] for part in parts]) for rule in rules}

    def _look(
        self,
        rule: model.Rule,
        nodes: tuple[model.NodeId, ...],
        values: Sequence[float],
        at: datetime,
        changed: dict[boards.Key, model.Watched | None],
    ) -> None:
        where: Sequence[model.NodeId | None] = (None,) if rule.scope is model.RuleScope.FLEET else nodes
        for node_id, value in zip(where, values, strict=True):
            self._see(rule, (rule.name, node_id), None if math.isnan(value) else value, at, changed)
        for key in self._gone(rule.name, where):
            self._put(rule, key, self._watches.pop(key), None, changed)

    def board(self, at: datetime) -> boards.Board:
        """Give how all rules stand after a look, by which it was looked."""
        return boards.Board(at, dict(self._judged), self._shown, self._looked)

    def _see(
        self,
        rule: model.Rule,
        key: boards.Key,
        value: float | None,
        at: datetime,
        changed: dict[boards.Key, model.Watched | None],
    ) -> None:
        before = self._watches.get(key)
        if before is not None and _rests(rule, before, value):
            return
        after = machine.step(rule, before or machine.begin(at - _INSTANT), value, at)
        self._watches[key] = after
        self._put(rule, key, before, after, changed)

    def _put(
        self,
        rule: model.Rule,
        key: boards.Key,
        before: model.Watch | None,
        after: model.Watch | None,
        changed: dict[boards.Key, model.Watched | None],
    ) -> None:
        """Show how a rule stands now, and note it where it is to be stored or was."""
        if after is None or after.state is S.INACTIVE:
            self._shown = self._shown.discard(key)
        else:
            self._shown = self._shown.insert(key, after)
        if after is not None and _is_kept(after):
            if before is None or _clocks(before) != _clocks(after):
                changed[key] = model.Watched(key[0], key[1], after, repr(rule))
        elif before is not None and _is_kept(before):
            changed[key] = None

    def _gone(self, name: str, where: Sequence[model.NodeId | None]) -> list[boards.Key]:
        """Name the places of a rule at which it is looked no more."""
        present = set(where)
        return [key for key in self._watches if key[0] == name and key[1] not in present]


def _rests(rule: model.Rule, watch: model.Watch, value: float | None) -> bool:
    """Tell whether a look leaves a rule as it is: nothing is the case, or still nobody can tell and nothing fired."""
    if value is None:
        return watch.state is S.UNKNOWN and watch.fired_at is None
    return watch.state is S.INACTIVE and not machine.is_beyond(rule, value)


def _is_kept(watch: model.Watch) -> bool:
    return watch.state in (S.PENDING, S.FIRING) or watch.fired_at is not None


def _clocks(watch: model.Watch) -> tuple[object, ...]:
    return watch.state, watch.since, watch.fired_at, watch.clear_since


def _together(
    rules: Iterable[model.Rule], at: datetime
) -> dict[tuple[model.ComponentName, tuple[datetime, ...]], list[model.Rule]]:
    """Put rules together that look at the same spans of time: most of a look is finding these."""
    found: dict[tuple[model.ComponentName, tuple[datetime, ...]], list[model.Rule]] = {}
    for rule in rules:
        found.setdefault((rule.component, tuple(_bounds(rule, at))), []).append(rule)
    return found


def _joined(parts: Sequence[figures.Figure]) -> observing.Seen:
    return observing.Seen(
        np.concatenate([part.value for part in parts]), np.concatenate([part.exposure for part in parts])
    )


async def _observed(rule: model.Rule, seen: observing.Seen) -> Sequence[float]:
    """Make the values that a rule compares, some nodes at a time where they are not looked at together."""
    is_apart = rule.scope is model.RuleScope.NODE and rule.basis is not model.RuleBasis.PEERS
    parts: list[float] = []
    at_once = NODES_AT_ONCE if is_apart else max(1, len(seen.values))
    for first in range(0, max(1, len(seen.values)), at_once):
        parts += _values(rule, observing.Seen(seen.values[first:][:at_once], seen.exposures[first:][:at_once]))
        await asyncio.sleep(0)
    return parts


def _values(rule: model.Rule, seen: observing.Seen) -> Sequence[float]:
    pieces = _PAST_PIECES.get(rule.basis)
    if pieces is None:
        found = observing.observe(rule, seen)
    else:
        found = observing.observe(rule, _spans(seen, pieces, None), _spans(seen, 0, pieces))
    return [float(each) for each in found]


def looks_back(rule: model.Rule) -> timedelta:
    """Say how much of the time before a look a rule looks at."""
    return rule.window + (rule.past if rule.basis in _PAST_PIECES else timedelta())


def _bounds(rule: model.Rule, at: datetime) -> Iterator[datetime]:
    """Say where the spans that a rule looks at begin and end."""
    begins = at - rule.window
    parts = _PAST_PIECES.get(rule.basis, 0)
    yield from (begins - rule.past * (parts - number) / parts for number in range(parts))
    pieces = observing.PIECES if rule.basis is model.RuleBasis.TREND else 1
    yield from (begins + rule.window * number / pieces for number in range(pieces + 1))


def _spans(seen: observing.Seen, begin: int, end: int | None) -> observing.Seen:
    return observing.Seen(seen.values[:, begin:end], seen.exposures[:, begin:end])
