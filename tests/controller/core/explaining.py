"""The words of the golden scenarios of explanations: a rollout as it stands, and questions about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from rpds import HashTrieMap

from controller.core import approving, explain, model, progress
from tests import datadriven
from tests.controller.core import scenario

DIGESTS = {version: scenario.digest(f"web {version}") for version in ("", "1.0.0", "1.1.0", "1.2.0")}
_GOES_BACK = (model.RolloutState.REVERTING, model.RolloutState.REVERTED, model.RolloutState.STUCK)


class Explaining:
    """The commands of ``testdata/explain``; in arguments an underscore stands for a blank."""

    def __init__(self) -> None:
        self.known: list[model.Rollout] = []
        self.freezes: list[model.Freeze] = []

    def handle(self, case: datadriven.Case) -> str:
        arguments = _blanks(case.arguments.items())
        match case.command:
            case "rollout":
                self.known.append(_rollout(arguments, case.input.splitlines()))
                return f"wave {self.known[-1].wave} of {len(self.known[-1].plan.waves)}"
            case "freeze":
                self.freezes.append(_freeze(arguments))
                return f"{len(self.freezes)} in all"
            case "explain":
                return _tell(self._explain(arguments))
            case "node":
                return _tell(self._node(arguments))
            case _:
                raise AssertionError(f"{case.position}: no command {case.command}")

    def _explain(self, arguments: dict[str, str]) -> Iterable[model.Reason]:
        at = scenario.START + scenario.duration(arguments["at"])
        if "node" not in arguments:
            return explain.rollout(self.known[-1], at)
        standing = model.Standing(down=arguments.get("down", ""), frozen=arguments.get("frozen", ""))
        return explain.node_in(self.known[-1], model.NodeId(arguments["node"]), standing, at)

    def _node(self, arguments: dict[str, str]) -> Iterable[model.Reason]:
        at = scenario.START + scenario.duration(arguments["at"])
        made = scenario.node(arguments["name"], zone=arguments.get("zone", "a"))
        asked = replace(
            made,
            is_connected="offline" not in arguments,
            offline_since=_instant(arguments.get("gone")),
            last_seen_at=None if "never" in arguments else made.last_seen_at,
            cordoned_because=arguments.get("cordoned", ""),
            quarantined_because=arguments.get("quarantined", ""),
            conditions=(scenario.condition(model.JOURNAL_FAILED),) if "unwell" in arguments else (),
            bad_digests={DIGESTS[arguments["bad"]]: "probe_failed"} if "bad" in arguments else {},
        )
        return explain.node(asked, self.known, self.freezes, at)


def _blanks(arguments: Iterable[tuple[str, str]]) -> dict[str, str]:
    return {
        name: value.replace("_", " ") if name not in ("reason", "kind", "state", "step") else value
        for name, value in arguments
    }


def rollout(changes: list[model.Progress], *, state: model.RolloutState, wave: int) -> model.Rollout:
    """Make a rollout of these changes, with waves and tally that agree with them."""
    waves = (
        model.Wave(index, is_canary=False, changes=tuple(each.change for each in changes if each.wave == index))
        for index in range(1, max((each.wave for each in changes), default=0) + 1)
    )
    return model.Rollout(
        id=model.RolloutId("r1"),
        request=scenario.request({}),
        plan=model.Plan("f", tuple(waves), ()),
        state=state,
        actor="ann",
        created_at=scenario.START,
        changes=HashTrieMap({each.key: each for each in changes}),
        wave=wave,
        wave_started_at=scenario.START,
        tally=_tally(changes, state, wave),
    )


def _rollout(arguments: dict[str, str], lines: Iterable[str]) -> model.Rollout:
    found = [_line(line, arguments) for line in lines]
    changes = [each for each in found if isinstance(each, model.Progress)]
    made = rollout(changes, state=model.RolloutState[arguments["state"]], wave=int(arguments.get("wave", "1")))
    unchanged = tuple(each for each in found if isinstance(each, str))
    excluded = tuple(each for each in found if isinstance(each, model.Exclusion))
    words = {name: value for name, value in arguments.items() if name in ("selector", "kind", "install")}
    asked = scenario.request(words)
    deadline = scenario.duration(arguments["approval"]) if "approval" in arguments else None
    asked = replace(
        asked, policy=_policy(arguments), name=arguments.get("name", asked.name), approval_deadline=deadline
    )
    return replace(
        made,
        request=asked,
        approval=approving.requested(made.id, asked, made.plan, actor=made.actor, at=made.created_at),
        plan=replace(made.plan, unchanged=unchanged, excluded=excluded),
        created_at=scenario.START + scenario.duration(arguments.get("created", "0s")),
        ended_at=_instant(arguments.get("ended")),
        reason=arguments.get("reason", ""),
        message=arguments.get("message", ""),
        paused_at=_instant(arguments.get("paused")),
        paused_because=arguments.get("because", ""),
        bake_until=_instant(arguments.get("bake")),
        opens_at=_instant(arguments.get("opens")),
        standings=_standings(arguments),
    )


def _instant(since_start: str | None) -> datetime | None:
    """Read an instant, None for none."""
    return None if since_start is None else scenario.START + scenario.duration(since_start)


def _standings(arguments: dict[str, str]) -> HashTrieMap[model.NodeId, model.Standing]:
    if "elsewhere" not in arguments:
        return HashTrieMap()
    return HashTrieMap({model.NodeId(arguments["elsewhere"]): model.Standing(down="changed by rollout autumn")})


def _tally(changes: Iterable[model.Progress], state: model.RolloutState, wave: int) -> model.Tally:
    places = [(each, progress.place(each, is_going_back=state in _GOES_BACK)) for each in changes if each.attempt]
    counts = {place.value: sum(other is place for _, other in places) for _, place in places}
    counts["assigned"] = sum(each.wave == wave for each, _ in places)
    counts["wave_done"] = sum(each.wave == wave and place is progress.Place.DONE for each, place in places)
    return model.Tally(**counts)


def _policy(arguments: dict[str, str]) -> model.Policy:
    opens = (scenario.duration(arguments["opens"]),) if "opens" in arguments else ()
    return model.Policy(
        offline=model.OfflinePolicy[arguments.get("offline", "WAIT")],
        max_parallel=int(arguments.get("parallel", "0")),
        windows=tuple(model.Window(opens=each, duration=scenario.duration("2h")) for each in opens),
    )


def _line(line: str, rollout: dict[str, str]) -> model.Progress | model.Exclusion | model.NodeId:
    """Read what a rollout says of a node: ``a wave=1 PERMANENT``, ``a unchanged`` or ``a excluded=node_cordoned``."""
    name, *words = line.split()
    node_id = model.NodeId(name)
    if "unchanged" in words:
        return node_id
    flags = frozenset(word for word in words if "=" not in word)
    values = _blanks((word.partition("=")[0], word.partition("=")[2]) for word in words if "=" in word)
    if "excluded" in values:
        return model.Exclusion(node_id, values["excluded"].replace(" ", "_"), values["message"])
    return _change(node_id, values, flags, model.ChangeKind[rollout.get("kind", values.get("kind", "UPGRADE"))])


def _change(
    node_id: model.NodeId, values: dict[str, str], flags: frozenset[str], kind: model.ChangeKind
) -> model.Progress:
    states = [state for state in model.OperationState if state.value in flags]
    to_version = values.get("to", "1.1.0")
    change = model.Change(
        node_id=node_id,
        component=model.ComponentName(values.get("component", "web")),
        kind=kind,
        method=model.Method.HOT_SWAP,
        from_version=values.get("from", "1.0.0"),
        from_digest=DIGESTS[values.get("from", "1.0.0")],
        to_version=to_version,
        to_digest=DIGESTS[to_version],
        no_way_back=values.get("no_way_back", ""),
    )
    return model.Progress(
        change=change,
        wave=int(values.get("wave", "1")),
        attempt=int(values.get("attempt", "1" if states else "0")),
        is_reverting="back" in flags,
        state=states[0] if states else None,
        step=model.Step[values["step"]] if "step" in values else None,
        fault=model.Fault[values["fault"]] if "fault" in values else None,
        reason=values.get("reason", ""),
        message=values.get("message", ""),
        assigned_at=_instant(values.get("assigned")),
        committed_at=_instant(values.get("committed")),
        ended_at=_instant(values.get("ended")),
        deadline_at=_instant(values.get("due")),
        is_touched="touched" in flags,
        is_proven="proven" in flags,
        is_skipped="skipped" in flags,
        is_left="left" in flags,
    )


def _freeze(arguments: dict[str, str]) -> model.Freeze:
    return model.Freeze(
        id=model.FreezeId("f1"),
        selector=arguments.get("selector", ""),
        since=scenario.START + scenario.duration(arguments["since"]),
        until=_instant(arguments.get("until")),
        reason=arguments["because"],
        actor="ann",
    )


def _tell(reasons: Iterable[model.Reason]) -> str:
    """Write a chain as it is read: what is so, because of what, because of what."""
    lines: list[str] = []
    for each in reasons:
        since = "" if each.since is None else f", since {scenario.since_start(each.since)}"
        lines.append(f"{'  because ' if lines else ''}{each.message} [{each.code}{since}]")
    return "\n".join(lines)
