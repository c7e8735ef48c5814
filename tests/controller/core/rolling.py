"""The words of the golden scenarios of the rollout: a plan, and what happens to it; `_` stands for a blank in a text.

A plan is given by ``nodes`` and ``canary``, or by lines under the command, one for each wave::

    wave canary bake=60s: a/web:1.0.0>1.1.0, b/web:1.0.0>1.1.0
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from controller.core import effects, errors, events, invariants, model, rollout
from tests import datadriven
from tests.controller.core import scenario

START = scenario.START
K = model.ChangeKind
NO_WAY = "no way leads back from state schema 2 to 1, and discard_writes is not set"
_LINE = re.compile(r"wave(?P<words>[^:]*): (?P<changes>.*)")
_CHANGE = re.compile(r"(?P<node>\w+)/(?P<component>\w+):(?P<start>[\d.]*)>(?P<end>[\d.]*)")
_DURATIONS = ("bake_duration", "offline_deadline", "deadline")
_COUNTS = ("max_infrastructure_failures", "floor_percent", "domain_max_parallel", "revert_max_parallel")
_KEEPING = (K.START, K.STOP, K.RESTART)


class Rolling:
    """The commands of ``testdata/rollout``: one rollout, and what happens to it."""

    def __init__(self) -> None:
        self.state: model.Rollout | None = None

    def handle(self, case: datadriven.Case) -> str:
        arguments = dict(case.arguments)
        arguments |= {name: arguments[name].replace("_", " ") for name in _TEXTS if name in arguments}
        match case.command:
            case "rollout":
                return self._create(arguments, case.input)
            case "show":
                return "\n".join(self._show())
            case "waiting":
                return "\n".join(_waiting(self._rollout, START + scenario.duration(arguments["at"])))
            case "outstanding":
                return "\n".join(_describe_effect(each) for each in rollout.outstanding(self._rollout)) or "nothing"
            case _:
                made = [self._event(case, arguments, name) for name in arguments.get("node", "-").split(",")]
                return "\n".join(line for event in made for line in self._step(event)) or "nothing changes"

    @property
    def _rollout(self) -> model.Rollout:
        assert self.state is not None, "the first command is rollout"
        return self.state

    def _create(self, arguments: dict[str, str], lines: str) -> str:
        asked = request(arguments)
        plan = planned(arguments, lines)
        self.state = rollout.create(model.RolloutId("r1"), asked, plan, actor="ann", at=START)
        return f"{self.state.state.value}: {_describe_waves(plan)}"

    def _event(self, case: datadriven.Case, arguments: dict[str, str], name: str) -> events.Event:
        at, node_id = START + scenario.duration(arguments["at"]), model.NodeId(name)
        match case.command:
            case "begin":
                return events.Began(at, planned(arguments, case.input) if "replan" in arguments else None)
            case "tick":
                return events.Ticked(at)
            case "absent":
                times = [START + scenario.duration(arguments[each]) for each in ("since", "judge_from")]
                return events.ControllerAbsent(times[0], at, times[1], _standings(arguments))
            case "standing":
                standing = model.Standing(*(arguments.get(word, "") for word in ("down", "frozen", "unwell")))
                return events.StandingChanged(at, node_id, standing)
            case "join":
                return events.NodeJoined(at, tuple(_changes(arguments, [name])))
            case "remove":
                return events.NodeRemoved(at, node_id)
            case "report":
                return self._report(at, node_id, arguments)
            case _:
                return _told(case.command, at, arguments, self._rollout.plan)

    def _report(self, at: datetime, node_id: model.NodeId, arguments: dict[str, str]) -> events.NodeReported:
        components = []
        for word in filter(None, arguments.get("runs", "").split("+")):
            version, _, name = word.partition("@")
            health = model.Health[arguments.get("health", "HEALTHY")]
            healthy_for = scenario.duration(arguments.get("healthy_for", "0s"))
            found = scenario.installed(version, healthy_for, health, component=name or "web")
            components.append(replace(found, is_stopped="stopped" in arguments))
        statuses = self._statuses(at, node_id, arguments)
        conditions = tuple(map(scenario.condition, filter(None, arguments.get("conditions", "").split(","))))
        return events.NodeReported(at, node_id, statuses, tuple(components), "full" in arguments, conditions)

    def _statuses(
        self, at: datetime, node_id: model.NodeId, arguments: dict[str, str]
    ) -> tuple[model.OperationStatus, ...]:
        if "state" not in arguments:
            return ()
        told = model.OperationStatus(
            operation_id=model.OperationId(arguments.get("operation", self._latest(node_id))),
            fence=1,
            component=model.ComponentName("web"),
            state=model.OperationState[arguments["state"]],
            step=model.Step[arguments["step"]] if "step" in arguments else None,
            fault=model.Fault[arguments["fault"]] if "fault" in arguments else None,
            reason=arguments.get("reason", ""),
            message="",
            changed_at=at,
        )
        return (told,)

    def _latest(self, node_id: model.NodeId) -> str:
        """Name the operation that the node had last."""
        known = [each for each in _in_order(self._rollout) if each.change.node_id == node_id and each.operation_id]
        return max(known, key=lambda each: (each.assigned_at or START, -each.wave)).operation_id or "" if known else ""

    def _step(self, event: events.Event) -> Iterable[str]:
        before = self._rollout
        try:
            decision = rollout.step(before, event)
        except (errors.IllegalEventError, errors.RefusedError) as error:
            assert self._rollout is before
            yield str(error)
            return
        self.state = decision.rollout
        assert invariants.violations(decision.rollout) == ()
        assert invariants.missteps(before, decision) == ()
        assert len(rollout.dropped(decision.rollout)) == decision.rollout.tally.skipped
        for key in decision.changed:
            yield describe_change(decision.rollout, decision.rollout.changes[key])
        if _standing(before) != _standing(self._rollout):
            yield _standing(self._rollout)
        if before.approval != self._rollout.approval:
            yield _approval(self._rollout.approval)
        yield from map(_describe_effect, decision.effects)

    def _show(self) -> Iterable[str]:
        state = self._rollout
        yield _standing(state)
        due = rollout.next_deadline(state)
        yield f"  next deadline {scenario.since_start(due) if due else 'none'}"
        if state.approval is not None:
            yield _approval(state.approval)
        yield from _describe_judging(state.judging)
        if state.stopped_for:
            yield f"  its clocks stood still for {state.stopped_for.total_seconds():g}s"
        yield from (describe_change(state, each) for each in _in_order(state))


# The plan.


def request(arguments: dict[str, str]) -> model.UpgradeRequest:
    asked = scenario.request(arguments)
    values: dict[str, object] = {name: scenario.duration(arguments[name]) for name in _DURATIONS if name in arguments}
    values |= {name: int(arguments[name]) for name in _COUNTS if name in arguments}
    policy = replace(
        asked.policy,
        is_promoted_by_hand="by_hand" in arguments,
        domain_label="zone" if "domains" in arguments else "",
        windows=tuple(_windows(arguments.get("windows", ""))),
        offline=model.OfflinePolicy[arguments.get("offline", "WAIT")],
        join=model.JoinPolicy[arguments.get("join", "IGNORE")],
        **values,  # type: ignore[arg-type] # each name has the type that its table says
    )
    parameters = asked.parameters
    if "verify" in arguments:
        parameters = model.BlueGreenParameters(scenario.duration(arguments["verify"]))
    deadline = scenario.duration(arguments["approval"]) if "approval" in arguments else None
    asked = replace(asked, approval_deadline=deadline)
    analysis = {"inconclusive", "unknown", "analysis"} & arguments.keys()
    if analysis and isinstance(parameters, model.CanaryParameters):
        parameters = replace(parameters, analysis=scenario.analysis(arguments))
    return replace(asked, policy=policy, parameters=parameters, is_revertible="unrevertible" not in arguments)


def judgement(arguments: dict[str, str], at: datetime) -> model.Judgement:
    """What somebody has found; looked at earlier where that is said."""
    looked_at = START + scenario.duration(arguments["looked_at"]) if "looked_at" in arguments else at
    finding = model.Finding[arguments["finding"]]
    return model.Judgement(looked_at, timedelta(), 1, finding, (), f"error rate is {finding.value}")


def _windows(text: str) -> Iterator[model.Window]:
    for each in filter(None, text.split(",")):
        opens, _, length = each.partition("+")
        yield model.Window(scenario.duration(opens), scenario.duration(length))


def planned(arguments: dict[str, str], lines: str) -> model.Plan:
    """Make a plan: a canary and the rest, or wave by wave."""
    waves = [_wave(index, line, arguments) for index, line in enumerate(lines.splitlines(), 1)]
    if not waves and arguments.get("nodes"):
        changes = list(_changes(arguments, arguments["nodes"].split(",")))
        first = int(arguments.get("canary", "0"))
        parts = [changes[:first], changes[first:]] if 0 < first < len(changes) else [changes]
        waves = [model.Wave(index, bool(first) and index == 1, tuple(part)) for index, part in enumerate(parts, 1)]
        bake = scenario.duration(arguments.get("bake_duration", "0s"))
        waves = [*(replace(each, bake_duration=bake) for each in waves[:-1]), waves[-1]]
    changing = dict.fromkeys(change.node_id for wave in waves for change in wave.changes)
    unchanged = tuple(model.NodeId(each) for each in filter(None, arguments.get("unchanged", "").split(",")))
    return model.Plan(
        fingerprint=arguments.get("fingerprint", ""),
        waves=tuple(waves),
        unchanged=unchanged,
        blast_radius=model.BlastRadius(len(changing), len(changing) + len(unchanged), 0),
        operation_p95=scenario.duration(arguments.get("p95", "0s")),
    )


def _wave(index: int, line: str, arguments: dict[str, str]) -> model.Wave:
    found = _LINE.fullmatch(line)
    assert found is not None, f"{line!r} is no wave"
    words = dict((*word.split("="), "")[:2] for word in found["words"].split())
    changes = []
    for text in found["changes"].split(", "):
        made = _CHANGE.fullmatch(text)
        assert made is not None, f"{text!r} is no change"
        changes.append(_change(arguments, made["node"], made["start"], made["end"], made["component"]))
    return model.Wave(index, "canary" in words, tuple(changes), scenario.duration(words.get("bake", "0s")))


def _changes(arguments: dict[str, str], names: Iterable[str]) -> Iterator[model.Change]:
    fresh = arguments.get("fresh", "").split(",") if "fresh" in arguments else []
    kind = model.ChangeKind[arguments["kind"]] if "kind" in arguments else None
    for name in names:
        is_new = name in fresh or ("install" in arguments and "fresh" not in arguments)
        start, end = "" if is_new else "1.0.0", "" if kind is K.REMOVE else "1.1.0"
        yield _change(arguments, name, start, start if kind in _KEEPING else end, kind=kind)


def _change(
    arguments: dict[str, str],
    name: str,
    start: str,
    end: str,
    component: str = "web",
    *,
    kind: model.ChangeKind | None = None,
) -> model.Change:
    where = dict(each.split(":") for each in filter(None, arguments.get("domains", "").split(",")))
    is_stuck = name in arguments.get("no_way_back", "").split(",") or (
        "schemas" in arguments and bool(start) and "discard_writes" not in arguments
    )
    found = K.INSTALL if not start else K.UPGRADE if end else K.REMOVE
    return model.Change(
        node_id=model.NodeId(name),
        component=model.ComponentName(component),
        kind=kind or found,
        method=model.Method.HOT_SWAP,
        from_version=start,
        from_digest=scenario.digest(f"{component} {start}") if start else model.Digest(""),
        to_version=end,
        to_digest=scenario.digest(f"{component} {end}") if end else model.Digest(""),
        no_way_back=NO_WAY if is_stuck else "",
        domain=where.get(name, ""),
    )


def _describe_judging(record: model.Judging | None) -> Iterator[str]:
    if record is None:
        return
    words = [f"  wave {record.wave} is judged from {scenario.since_start(record.began_at)} on"]
    words += [f"inconclusive at {scenario.since_start(record.inconclusive_at)}"]
    words += [f"unknown at {scenario.since_start(record.unknown_at)}"] if record.unknown_at else []
    words += [f"stood still for {record.stopped_for.total_seconds():g}s"] if record.stopped_for else []
    words += [f"held for being {record.doubt.value}"] if record.doubt else []
    words += [f"found {record.latest.finding.value}"] if record.latest else []
    if record.decided_at:
        found = record.decided.finding.value if record.decided else "nothing"
        words += [f"over at {scenario.since_start(record.decided_at)} with {found}"]
    words += [f"by {record.decided_by}"] if record.decided_by else []
    yield ", ".join(words)


# Orders.

_TEXTS = frozenset({"because", "down", "frozen", "unwell"})


_VERBS: Mapping[str, Callable[[datetime, str, str], events.Event]] = {
    "deny": events.Denied,
    "pause": events.Paused,
    "resume": events.Resumed,
    "promote": events.Promoted,
    "cancel": events.CancelRequested,
    "retry": events.RetryRequested,
}


def _told(command: str, at: datetime, arguments: dict[str, str], plan: model.Plan) -> events.Event:
    if command == "judged":
        return events.Judged(at, judgement(arguments, at))
    if command == "rules":
        return events.RulesChanged(at, tuple(_holds(at, arguments)))
    return _order(command, at, arguments, plan)


def _holds(at: datetime, arguments: dict[str, str]) -> Iterator[model.RuleHold]:
    """Which rules hold it: ``firing=errors:a,queue`` for one on node a and one on the fleet, ``unknown`` alike."""
    for state in (model.RuleState.FIRING, model.RuleState.UNKNOWN):
        for each in filter(None, arguments.get(state.value.lower(), "").split(",")):
            rule, _, node = each.partition(":")
            yield model.RuleHold(rule, state, at, model.NodeId(node) if node else None)


def _order(command: str, at: datetime, arguments: dict[str, str], plan: model.Plan) -> events.Event:
    actor, why = arguments["by"], arguments.get("because", "it")
    if command == "approve":
        seen, may = arguments.get("fingerprint", plan.fingerprint), "requester_may" in arguments
        return events.Approved(at, actor, arguments.get("because", ""), seen, requester_may=may)
    if command == "revert":
        limit = scenario.duration(arguments["limit"]) if "limit" in arguments else None
        return events.RevertRequested(at, actor, why, "emergency" in arguments, limit)
    return _VERBS[command](at, actor, why)


# What is said of it.


def _in_order(state: model.Rollout) -> Iterator[model.Progress]:
    yield from (state.changes[key] for key in state.plan.order.keys)
    last = len(state.plan.waves)
    yield from (state.changes[model.ChangeKey(last, each.node_id, each.component)] for each in state.joined)


def _describe_waves(plan: model.Plan) -> str:
    return "; ".join(", ".join(_named(plan, each, wave.index) for each in wave.changes) for wave in plan.waves)


def _named(plan: model.Plan, change: model.Change, wave: int) -> str:
    numbers = plan.order.of_node.get(change.node_id, ())
    if len(numbers) <= 1:
        return change.node_id
    return f"{change.node_id} {change.component} to {change.to_version or 'nothing'} ({wave})"


def _standings(arguments: dict[str, str]) -> tuple[tuple[model.NodeId, model.Standing], ...]:
    """Read ``frozen=`` and ``down=``, each the nodes that are so, and ``free=`` those that are so no more."""
    kinds = {
        "frozen": model.Standing(frozen="frozen"),
        "down": model.Standing(down="not connected"),
        "free": model.Standing(),
    }
    named = ((name, kinds[word]) for word in kinds for name in arguments.get(word, "").split("+") if name)
    return tuple((model.NodeId(name), standing) for name, standing in named)


def _standing(state: model.Rollout) -> str:
    why = f", {state.reason}: {state.message}" if state.reason else ""
    paused = f", {state.paused_because}" if state.paused_because else ""
    return f"{state.state.value} in wave {state.wave} of {len(state.plan.waves)}{why}{paused}"


def _approval(approval: model.Approval | None) -> str:
    assert approval is not None, "an approval is never taken away"
    if approval.state is model.ApprovalState.WAITING:
        return f"  approval for {approval.subject} WAITING until {scenario.since_start(approval.expires_at)}"
    by = f" by {approval.decider}" if approval.decider else ""
    at = scenario.since_start(approval.decided_at or START)
    return f"  approval {approval.state.value}{by} at {at}{': ' if approval.reason else ''}{approval.reason}"


def describe_change(state: model.Rollout, each: model.Progress) -> str:
    waits = "dropped" if each.is_skipped else "waits"
    words = [f"  {_named(state.plan, each.change, each.wave)} {each.state.value if each.state else waits}"]
    words += [f"at {each.step.value}"] if each.step else []
    words += ["dropped"] if each.is_skipped and each.state else []
    words += [f"({each.reason})"] if each.reason else []
    words += ["proven"] if each.is_proven else []
    words += ["touched"] if each.is_touched else []
    words += [f"until {scenario.since_start(each.deadline_at)}"] if each.deadline_at else []
    words += [] if each.is_judgeable else ["not to be judged"]
    return " ".join(words)


def _waiting(state: model.Rollout, at: datetime) -> Iterator[str]:
    found, until = rollout.waiting_for(state, at), rollout.next_time(state)
    since = f", since {scenario.since_start(found.since)}" if found and found.since else ""
    yield f"{found.code}: {found.message}{since}" if found else "nothing"
    if until:
        yield f"until {scenario.since_start(until)}"


def _describe_effect(effect: effects.Effect) -> str:
    match effect:
        case effects.Assign(change=change):
            versions = f"{change.from_version or 'nothing'} -> {change.to_version or 'nothing'}"
            start_by = f"start by {scenario.since_start(effect.start_by)}"
            within = f" within {_seconds(effect.deadline)}" if effect.hold_before else ""
            hold = f"{_held(effect.hold_before)}{within}"
            return f"> assign {effect.operation_id}: {change.kind.value} {versions}, {start_by}{hold}"
        case effects.Proceed():
            return f"> proceed {effect.operation_id} into {effect.step.value}{_held(effect.hold_before)}"
        case effects.Cancel():
            return f"> cancel {effect.operation_id}: {effect.reason}"
        case effects.RememberBad():
            return f"> remember bad on {effect.node_id}: {effect.reason}"
        case effects.BlockEdge():
            return f"> block {effect.component} {effect.to_version}: {effect.reason}"


def _held(hold_before: model.Step | None) -> str:
    return f", hold before {hold_before.value}" if hold_before else ""


def _seconds(span: timedelta) -> str:
    return f"{span.total_seconds():g}s"
