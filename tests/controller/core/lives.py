"""Lives of rollouts for properties: plans of every shape, and events that may happen to them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from hypothesis import strategies as st

from controller.core import effects, errors, events, invariants, model, progress, rollout
from tests.controller.core import scenario

F = model.Finding
State = model.OperationState
R = model.RolloutState
K = model.ChangeKind

NODES = ("a", "b", "c", "d", "e")
OTHERS = ("x", "y")  # have the component, and do not change
JOINING = ("p", "q")
ZONES = ("", "north", "south")
SECONDS = timedelta(seconds=1)

KEEPING = (K.START, K.STOP, K.RESTART)
DOWN, FROZEN, FREE = model.Standing(down="not connected"), model.Standing(frozen="frozen"), model.Standing()
UNWELL = model.Standing(unwell="its component web is unhealthy")

HOLDS = tuple(
    (model.RuleHold("errors", state, scenario.START, node_id),)
    for state, node_id in ((model.RuleState.FIRING, None), (model.RuleState.UNKNOWN, model.NodeId("a")))
)

policies = st.builds(
    model.Policy,
    max_parallel=st.integers(0, 3),
    max_failures=st.integers(0, 2),
    max_infrastructure_failures=st.sampled_from([None, None, 1, 3]),
    unknown_deadline=st.sampled_from([20 * SECONDS, 300 * SECONDS]),
    healthy_deadline=st.just(60 * SECONDS),
    progress_deadline=st.just(240 * SECONDS),
    floor_percent=st.sampled_from([0, 0, 30, 60, 80]),
    domain_label=st.sampled_from(["", "zone"]),
    domain_max_parallel=st.integers(1, 2),
    is_promoted_by_hand=st.booleans(),
    offline=st.sampled_from(model.OfflinePolicy),
    offline_deadline=st.just(100 * SECONDS),
    join=st.sampled_from(model.JoinPolicy),
    revert_max_parallel=st.integers(0, 2),
    deadline=st.sampled_from([None, None, 900 * SECONDS]),
    hold_while_firing=st.sampled_from([(), (), ("errors",)]),
)
analyses = st.builds(
    model.Analysis,
    metrics=st.just(scenario.analysis({}).metrics),
    duration=st.just(60 * SECONDS),
    inconclusive=st.sampled_from(model.Doubt),
    inconclusive_after=st.sampled_from([60 * SECONDS, 600 * SECONDS]),
    unknown=st.sampled_from([model.Doubt.HOLD, model.Doubt.FAIL]),
    unknown_after=st.sampled_from([20 * SECONDS, 300 * SECONDS]),
)
# Open for ten minutes of each half hour, from the start on.
HOURLY = tuple(model.Window(timedelta(minutes=30 * number), timedelta(minutes=10)) for number in range(48))


@st.composite
def rollouts(draw: st.DrawFn, *, has_windows: bool = True) -> model.Rollout:
    """An accepted rollout: plain, over several hops, or of two components; with or without what limits it."""
    strategy = draw(st.sampled_from(model.Strategy))
    kind = draw(st.sampled_from([None, None, None, K.REMOVE, *KEEPING]))
    policy = draw(policies)
    if has_windows:
        policy = replace(policy, windows=draw(st.sampled_from([(), (), HOURLY])))
    if strategy is model.Strategy.BLUE_GREEN:
        policy = replace(policy, max_parallel=0, floor_percent=0, domain_label="")
    waves = tuple(draw(wave_plans(kind)))
    nodes = {change.node_id for wave in waves for change in wave.changes}
    plan = model.Plan(
        fingerprint="",
        waves=waves,
        unchanged=tuple(map(model.NodeId, OTHERS)),
        blast_radius=model.BlastRadius(len(nodes), len(nodes) + len(OTHERS), 0),
        operation_p95=30 * SECONDS,
    )
    request = model.UpgradeRequest(
        component=model.ComponentName("web"),
        target_version="" if kind else "1.2.0",
        strategy=strategy,
        parameters=_parameters(strategy, draw(st.none() | analyses)),
        policy=policy,
        install=kind is None,
        name="spring",
        kind=kind,
        is_revertible=draw(st.sampled_from([True, True, True, False])),
        approval_deadline=draw(st.sampled_from([None, None, 120 * SECONDS])),
    )
    return rollout.create(model.RolloutId("r1"), request, plan, actor="ann", at=scenario.START)


def _parameters(strategy: model.Strategy, analysis: model.Analysis | None) -> model.Parameters | None:
    return model.CanaryParameters(1, analysis) if strategy is model.Strategy.CANARY else None


@st.composite
def wave_plans(draw: st.DrawFn, kind: model.ChangeKind | None) -> list[model.Wave]:
    names = NODES[: draw(st.integers(1, len(NODES)))]
    zones = {name: draw(st.sampled_from(ZONES)) for name in names}
    stuck = {name: draw(st.sampled_from(["", "", "", "nothing leads back"])) for name in names}
    hops = draw(st.sampled_from([["1.0.0", "1.2.0"], ["1.0.0", "1.1.0", "1.2.0"]])) if kind is None else ["1.0.0"]
    parts: list[tuple[model.Change, ...]] = []
    if kind is not None:
        parts = _cut([change(name, kind, "1.0.0", "1.0.0", zones[name]) for name in names], draw(st.integers(0, 2)))
    for start, end in itertools.pairwise(hops):
        made = [replace(change(each, K.UPGRADE, start, end, zones[each]), no_way_back=stuck[each]) for each in names]
        parts += _cut(made, draw(st.integers(0, 2)))
    if kind is None and draw(st.booleans()):
        more = tuple(change(each, K.INSTALL, "", "3.0.0", zones[each], component="cache") for each in names[:2])
        parts[-1] = (*parts[-1], *more)
    bakes = [draw(st.sampled_from([0, 0, 30])) for _ in parts]
    is_canary = draw(st.booleans())
    return [
        model.Wave(index, is_canary and index == 1, part, bakes[index - 1] * SECONDS)
        for index, part in enumerate(parts, 1)
    ]


def _cut(changes: list[model.Change], first: int) -> list[tuple[model.Change, ...]]:
    return [tuple(part) for part in (changes[:first], changes[first:]) if part]


def change(
    name: str, kind: model.ChangeKind, start: str, end: str, zone: str, *, component: str = "web"
) -> model.Change:
    end = "" if kind is K.REMOVE else end
    return model.Change(
        node_id=model.NodeId(name),
        component=model.ComponentName(component),
        kind=kind,
        method=model.Method.HOT_SWAP,
        from_version=start,
        from_digest=scenario.digest(f"{component} {start}") if start else model.Digest(""),
        to_version=end,
        to_digest=scenario.digest(f"{component} {end}") if end else model.Digest(""),
        domain=zone,
    )


ORDERS = ("begin", "approve", "deny", "pause", "resume", "promote", "cancel", "retry", "revert", "emergency")


class Script:
    """Draws one event after the other, each a little later than the one before."""

    def __init__(self, data: st.DataObject, state: model.Rollout, *, is_version_sound: bool = False) -> None:
        self.draw = data.draw
        self.state = state
        self.at = scenario.START
        faults = [model.Fault.INFRASTRUCTURE, model.Fault.COMMAND, None]
        self.faults = st.sampled_from(faults if is_version_sound else [model.Fault.VERSION, *faults])
        states = [each for each in State if not (is_version_sound and each is State.COMMITTED)]
        self.states = st.sampled_from([*states, State.HELD, State.PERMANENT])
        self.kinds = [
            "begin",
            *["report"] * 8,
            "tick",
            "due",
            "due",
            "absent",
            "standing",
            "standing",
            "join",
            "remove",
        ]
        self.kinds += ["judged", "judged"] if state.request.parameters else []
        self.findings = st.sampled_from([each for each in F if not (is_version_sound and each is F.WORSE)])
        self.kinds += ["rules"] if state.request.policy.hold_while_firing else []
        self.kinds += ["approve", "deny", "pause", "resume", "promote", "cancel", "retry"]
        self.kinds += [] if is_version_sound else ["revert", "emergency"]

    def event(self) -> events.Event:
        self.at += self.draw(st.sampled_from([0, 1, 7, 45])) * SECONDS
        kind = self.draw(st.sampled_from(self.kinds if self.state.wave else ["begin", "approve", *self.kinds]))
        if kind in ORDERS:
            return order(kind, self)
        if kind == "due":
            self.at = max(self.at, rollout.next_deadline(self.state) or self.at)
        if kind in ("tick", "due"):
            return events.Ticked(self.at)
        return self.report() if kind == "report" else self.happening(kind)

    def happening(self, kind: str) -> events.Event:
        if kind == "absent":
            since, self.at = self.at, self.at + timedelta(minutes=self.draw(st.integers(0, 9)))
            standings = tuple((node_id, self.standing()) for node_id in self.some_nodes())
            return events.ControllerAbsent(since, self.at, self.at + timedelta(minutes=1), standings)
        if kind == "rules":
            return events.RulesChanged(self.at, self.draw(st.sampled_from([(), (), *HOLDS])))
        if kind == "judged":
            ago, finding = self.draw(st.sampled_from([0, 0, 0, 9])) * SECONDS, self.draw(self.findings)
            return judged(self.at, finding, self.at - ago)
        if kind == "join":
            name, zone = self.draw(st.sampled_from(JOINING)), self.draw(st.sampled_from(ZONES))
            kind_of = self.state.request.kind or K.UPGRADE
            joining = change(name, kind_of, "1.0.0", "1.0.0" if kind_of in KEEPING else "1.2.0", zone)
            return events.NodeJoined(self.at, (joining,))
        node_id = model.NodeId(self.draw(st.sampled_from(self.known())))
        if kind == "remove":
            return events.NodeRemoved(self.at, node_id)
        return events.StandingChanged(self.at, node_id, self.standing())

    def standing(self) -> model.Standing:
        return self.draw(st.sampled_from([DOWN, FROZEN, UNWELL, replace(UNWELL, frozen="frozen"), FREE, FREE]))

    def some_nodes(self) -> list[model.NodeId]:
        names = st.sampled_from(self.known())
        return [model.NodeId(name) for name in self.draw(st.lists(names, max_size=3, unique=True))]

    def names(self) -> list[str]:
        return sorted({key.node_id for key in self.state.changes})

    def known(self) -> list[str]:
        """Name the nodes that count, those among them that may join later."""
        return sorted({*self.names(), *OTHERS, *JOINING})

    def report(self) -> events.NodeReported:
        key = self.draw(st.sampled_from(sorted(self.state.changes, key=repr)))
        at = self.state.changes[key]
        statuses = (self.status(at),) if self.draw(st.integers(0, 3)) else ()
        wanted = progress.wanted(at)
        version = self.draw(st.sampled_from(["1.0.0", wanted.to_version or "1.0.0"]))
        healthy_for = self.draw(st.sampled_from([0, 10])) * SECONDS
        runs = scenario.installed(version, healthy_for, component=key.component)
        runs = replace(runs, is_stopped=self.draw(st.booleans()))
        is_full = self.draw(st.booleans())
        components = (runs,) if self.draw(st.integers(0, 2)) else ()
        conditions = self.draw(st.sampled_from([(), (), (scenario.condition("journal_failed"),)]))
        return events.NodeReported(self.at, key.node_id, statuses, components, is_full, conditions)

    def status(self, at: model.Progress) -> model.OperationStatus:
        latest = at.operation_id or model.OperationId("r1/0/nobody/web/forward/1")
        operation_id = self.draw(st.sampled_from([latest] * 4 + [model.OperationId(latest[:-1] + "0")]))
        state, fault = self.draw(self.states), self.draw(self.faults)
        step = self.draw(st.sampled_from([model.Step.SWITCH, model.Step.COMMIT]))
        return status(operation_id, state, fault, step=step)


def order(kind: str, script: Script) -> events.Event:
    at = script.at
    orders: dict[str, events.Event] = {
        "begin": events.Began(at),
        "approve": events.Approved(at, "bob", "order", script.state.plan.fingerprint),
        "deny": events.Denied(at, "bob", "order"),
        "pause": events.Paused(at, "ann", "order"),
        "resume": events.Resumed(at, "ann", "order"),
        "promote": events.Promoted(at, "ann", "order"),
        "cancel": events.CancelRequested(at, "ann", "order"),
        "retry": events.RetryRequested(at, "ann", "order"),
        "revert": events.RevertRequested(at, "ann", "order"),
        "emergency": events.RevertRequested(at, "ann", "order", is_emergency=True, time_limit=90 * SECONDS),
    }
    return orders[kind]


def status(
    operation_id: model.OperationId, state: State, fault: model.Fault | None, *, step: model.Step | None = None
) -> model.OperationStatus:
    reason = "because" if fault else ""
    name = model.ComponentName("web")
    return model.OperationStatus(operation_id, 1, name, state, step, fault, reason, "", scenario.START)


def judged(at: datetime, finding: model.Finding, looked_at: datetime) -> events.Judged:
    return events.Judged(at, model.Judgement(looked_at, timedelta(), 1, finding, (), finding.value))


@dataclass(frozen=True, slots=True)
class Taken:
    """An event that a rollout took, and what it decided."""

    event: events.Event
    before: model.Rollout
    decision: rollout.Decision


def play(data: st.DataObject, script: Script, *, events_max: int = 50) -> list[Taken]:
    """Take some events, checking every state on the way; refused ones change nothing."""
    taken: list[Taken] = []
    for _ in range(data.draw(st.integers(0, events_max))):
        event, before = script.event(), script.state
        try:
            decision = rollout.step(before, event)
        except (errors.IllegalEventError, errors.RefusedError):
            continue
        broken = (*invariants.violations(decision.rollout), *invariants.missteps(before, decision))
        assert not broken, (broken, event, told(decision.rollout), [type(each.event).__name__ for each in taken])
        script.state = decision.rollout
        taken.append(Taken(event, before, decision))
    return taken


def told(state: model.Rollout) -> list[str]:
    """Say how a rollout stands, shortly."""
    each = [
        f"{key.wave}/{key.node_id}/{key.component} {at.state and at.state.value} {at.fault} {at.reason} "
        f"reverting={at.is_reverting} touched={at.is_touched} proven={at.is_proven} dropped={at.is_skipped}"
        for key, at in sorted(state.changes.items(), key=repr)
    ]
    return [f"{state.state.value} in wave {state.wave}: {state.reason}", *each]


# How a life ends.


def end(state: model.Rollout, at: datetime, *, answers: bool, rounds_max: int) -> model.Rollout:
    """Let time go on until the end: nothing stands against a node any more, and people say what they are asked."""
    current, now = state, at
    if current.approval is not None and current.state is R.PENDING:
        current = approved(current, now)
    if current.state is R.PENDING:
        current = rollout.step(current, events.Began(now)).rollout
    for node_id in sorted(current.standings):
        current = rollout.step(current, events.StandingChanged(now, node_id, FREE)).rollout
    current = rollout.step(current, events.RulesChanged(now, ())).rollout
    for _ in range(rounds_max):
        if current.state.is_terminal:
            break
        current = urged(current, now)
        due = rollout.next_deadline(current)
        now = max(now, due) if due is not None and not answers else now + 10 * SECONDS
        for key in sorted(current.changes, key=repr) if answers else ():
            current = rollout.step(current, answer(current, key, now)).rollout
        if not current.state.is_terminal:
            current = rollout.step(current, events.Ticked(now)).rollout
    return current


def approved(state: model.Rollout, at: datetime) -> model.Rollout:
    """Approve what can still be approved; the time of anything else is over."""
    current = rollout.step(state, events.Ticked(at)).rollout
    if current.approval is None or current.approval.state is not model.ApprovalState.WAITING:
        return current
    return rollout.step(current, events.Approved(at, "bob", "order", state.plan.fingerprint)).rollout


def urged(state: model.Rollout, at: datetime) -> model.Rollout:
    """Resume what is paused, and promote what waits for it."""
    waits = rollout.waiting_for(state, at)
    if state.state is R.PAUSED:
        return rollout.step(state, events.Resumed(at, "ann", "order")).rollout
    if waits is not None and waits.code in ("promotion_by_hand", "analysis_unknown", "analysis_inconclusive"):
        return rollout.step(state, events.Promoted(at, "ann", "order")).rollout
    return state


def answer(state: model.Rollout, key: model.ChangeKey, at: datetime) -> events.NodeReported:
    """Say that the latest operation of a node is done, or held where it has to be; a cancelled one was given up."""
    each = state.changes[key]
    if each.operation_id is None or each.state is None:
        return events.NodeReported(at, key.node_id)
    effect = next((one for one in _owed(state) if one.operation_id == each.operation_id), None)
    if isinstance(effect, effects.Cancel):
        return events.NodeReported(at, key.node_id, (status(each.operation_id, State.ABORTED, None),))
    is_held = state.request.strategy is model.Strategy.BLUE_GREEN and not each.is_reverting
    if is_held and each.state in progress.HOLDS and not _may_commit(each, effect):
        is_switched = isinstance(effect, effects.Proceed) or each.step is model.Step.COMMIT
        step = model.Step.COMMIT if is_switched else model.Step.SWITCH
        return events.NodeReported(at, key.node_id, (status(each.operation_id, State.HELD, None, step=step),))
    wanted = progress.wanted(each)
    told = status(each.operation_id, State.PERMANENT, None)
    runs = scenario.installed(wanted.to_version, timedelta(hours=1), component=key.component)
    runs = replace(runs, is_stopped=wanted.kind is K.STOP)
    return events.NodeReported(at, key.node_id, (told,), (runs,) if wanted.to_version else (), is_full=True)


def _owed(state: model.Rollout) -> Iterator[effects.Cancel | effects.Proceed]:
    return (each for each in rollout.outstanding(state) if isinstance(each, effects.Cancel | effects.Proceed))


def _may_commit(each: model.Progress, effect: effects.Effect | None) -> bool:
    return isinstance(effect, effects.Proceed) and effect.hold_before is None and each.step is model.Step.COMMIT


def assigned(taken: list[Taken]) -> Iterator[effects.Assign]:
    return (each for one in taken for each in one.decision.effects if isinstance(each, effects.Assign))
