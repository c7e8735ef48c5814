"""The words of the golden scenarios of the planner and of the rollout: text in, values of the core, text out."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from controller.core import effects, errors, events, invariants, model, planner, rollout
from tests import datadriven

START = datetime(2026, 1, 1, tzinfo=UTC)
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
_DURATIONS = ("min_healthy_duration", "healthy_deadline", "progress_deadline", "unknown_deadline", "soak_duration")
_COUNTS = ("max_parallel", "max_failures", "soak_requests_min")
_FLAGS = ("restart_allowed", "discard_writes")


def digest(text: str) -> model.Digest:
    return model.Digest("sha256:" + hashlib.sha256(text.encode()).hexdigest() if text else "")


def duration(text: str) -> timedelta:
    found = re.fullmatch(r"(-?[0-9.]+)(ms|s|m|h)", text)
    assert found is not None, f"{text!r} is no duration"
    return timedelta(seconds=float(found[1]) * _UNITS[found[2]])


def policy(arguments: dict[str, str]) -> model.Policy:
    values: dict[str, timedelta | int] = {name: duration(arguments[name]) for name in _DURATIONS if name in arguments}
    values |= {name: int(arguments[name]) for name in _COUNTS if name in arguments}
    values |= {name: True for name in _FLAGS if name in arguments}
    return model.Policy(**values)  # type: ignore[arg-type] # each name has the type that its table says


def request(arguments: dict[str, str]) -> model.UpgradeRequest:
    canary = model.CanaryParameters(int(arguments["canary"])) if "canary" in arguments else None
    strategy = model.Strategy.CANARY if canary else model.Strategy.IMMEDIATE
    kind = model.ChangeKind[arguments["kind"]] if "kind" in arguments else None
    return model.UpgradeRequest(
        component=model.ComponentName(arguments.get("component", "web")),
        target_version=arguments.get("target", "" if kind else "1.1.0"),
        strategy=model.Strategy[arguments["strategy"]] if "strategy" in arguments else strategy,
        selector=arguments.get("selector", ""),
        parameters=canary,
        policy=policy(arguments),
        install="install" in arguments,
        name="spring",
        kind=kind,
    )


def release(version: str, driver: str = "handover", component: str = "web", **more: str) -> model.Release:
    methods = more["methods"].split(",") if "methods" in more else list(model.Method.__members__)
    required = [each.split(":") for each in filter(None, more.get("requires", "").split(";"))]
    return model.Release(
        component=model.ComponentName(component),
        version=version,
        digest=digest(f"{component} {version}"),
        size_bytes=10240,
        driver=driver,
        manifest_json="{}",
        published_at=START,
        publisher="ci",
        methods=frozenset(model.Method[each] for each in methods),
        state=state_schema(more),
        hot_swap_from=more.get("hot_swap_from", ""),
        requirements=tuple(model.Requirement(model.ComponentName(name), versions) for name, versions in required),
    )


def state_schema(words: dict[str, str]) -> model.StateSchema | None:
    if "schema" not in words:
        return None
    ways = (each.split(">") for each in filter(None, words.get("migrations", "").split(",")))
    return model.StateSchema(
        schema=int(words["schema"]),
        reads=tuple(int(each) for each in filter(None, words.get("reads", "").split(","))),
        has_snapshot="snapshot" in words,
        migrations=tuple(model.Migration(int(start), int(end)) for start, end in ways),
    )


def installed(
    version: str, healthy_for: timedelta, health: model.Health = model.Health.HEALTHY, component: str = "web"
) -> model.InstalledComponent:
    of = digest(f"{component} {version}")
    return model.InstalledComponent(model.ComponentName(component), version, of, of, health, healthy_for)


def condition(code: str, component: str = "") -> model.Condition:
    return model.Condition(code, component, f"{code} it is", START)


def node(name: str, version: str = "1.0.0", **labels: str) -> model.Node:
    components = {model.ComponentName("web"): installed(version, timedelta(hours=1))} if version else {}
    return model.Node(
        id=model.NodeId(name),
        labels=labels,
        capabilities=frozenset({"driver.handover", "driver.process"}),
        agent_version="0.1.0",
        fence=0,
        is_connected=True,
        last_seen_at=START,
        components=components,
    )


def since_start(at: datetime) -> str:
    return f"{(at - START).total_seconds():g}s"


class Planning:
    """The commands of ``testdata/plan``: a fleet, releases, plans."""

    def __init__(self) -> None:
        self.nodes: list[model.Node] = []
        self.releases: list[model.Release] = []

    def handle(self, case: datadriven.Case) -> str:
        match case.command:
            case "fleet":
                self.nodes = [self._node(line.split()) for line in case.input.splitlines()]
                return f"{len(self.nodes)} nodes"
            case "releases":
                self.releases = [self._release(line.split()) for line in case.input.splitlines()]
                return f"{len(self.releases)} releases"
            case "plan":
                return self._plan(dict(case.arguments), case.input)
            case _:
                raise AssertionError(f"{case.position}: no command {case.command}")

    def _release(self, words: list[str]) -> model.Release:
        pairs = {name: value for name, equals, value in (word.partition("=") for word in words) if equals}
        return release(*(word for word in words if "=" not in word), **pairs)

    def _node(self, words: list[str]) -> model.Node:
        name, version, *rest = words
        made = node(name, "" if version == "-" else version)
        pairs = dict(word.split("=") for word in rest)
        drivers = pairs.pop("drivers", "handover,process")
        bad = {digest(f"web {each}"): "health_probe_failed" for each in filter(None, pairs.pop("bad", "").split(","))}
        return replace(
            made,
            is_connected=pairs.pop("connected", "yes") == "yes",
            components=dict(self._components(made, pairs)),
            conditions=tuple(condition(each, "web") for each in filter(None, pairs.pop("conditions", "").split(","))),
            capabilities=frozenset(f"driver.{each}" for each in drivers.split(",")),
            bad_digests=bad,
            labels=pairs,
        )

    def _components(
        self, made: model.Node, pairs: dict[str, str]
    ) -> Iterable[tuple[model.ComponentName, model.InstalledComponent]]:
        is_stopped = pairs.pop("stopped", "no") == "yes"
        permanent = pairs.pop("permanent", "")
        for name, each in made.components.items():
            held = digest(f"web {permanent}") if permanent else each.permanent_digest
            yield name, replace(each, is_stopped=is_stopped, permanent_digest=held)
        for other in filter(None, pairs.pop("also", "").split(",")):
            found = installed(other.partition(":")[2], timedelta(hours=1), component=other.partition(":")[0])
            yield found.name, found

    def _plan(self, arguments: dict[str, str], selector: str) -> str:
        asked = request(arguments | {"selector": selector.strip()})
        try:
            made = planner.plan(asked, self.nodes, self.releases)
        except errors.InstarError as error:
            kind = type(error).__name__.removesuffix("Error")
            return f"{kind} {error.code}: {error}\n  {error.field} = {error.value!r}; {error.rule}"
        return "\n".join(_describe_plan(made))


def _describe_plan(made: model.Plan) -> Iterable[str]:
    for wave in made.waves:
        yield f"wave {wave.index}{', the canary' if wave.is_canary else ''}"
        for each in wave.changes:
            versions = f"{each.from_version or 'nothing'} -> {each.to_version or 'nothing'}"
            yield f"  {each.node_id} {each.kind.value} {versions} by {each.method.value}"
            if each.no_way_back:
                yield f"    but {each.no_way_back}"
    if made.unchanged:
        yield f"unchanged: {', '.join(made.unchanged)}"
    yield f"fingerprint {made.fingerprint[:12]}"


def _in_order_of_names(made: model.Plan) -> model.Plan:
    """Undo the shuffle, which would make a scenario hard to read."""
    changes = iter(sorted((each for wave in made.waves for each in wave.changes), key=lambda each: each.node_id))
    waves = (replace(wave, changes=tuple(itertools.islice(changes, len(wave.changes)))) for wave in made.waves)
    return replace(made, waves=tuple(waves))


class Rolling:
    """The commands of ``testdata/rollout``: one rollout, and what happens to it."""

    def __init__(self) -> None:
        self.state: model.Rollout | None = None

    def handle(self, case: datadriven.Case) -> str:
        arguments = dict(case.arguments)
        if case.command == "rollout":
            return self._create(arguments)
        if case.command == "show":
            return "\n".join(self._show())
        if case.command == "outstanding":
            return "\n".join(_describe_effect(each) for each in rollout.outstanding(self._rollout)) or "nothing"
        made = [self._event(case.command, arguments, name) for name in arguments.get("node", "-").split(",")]
        return "\n".join(line for event in made for line in self._step(event)) or "nothing changes"

    @property
    def _rollout(self) -> model.Rollout:
        assert self.state is not None, "the first command is rollout"
        return self.state

    def _create(self, arguments: dict[str, str]) -> str:
        version = "" if "install" in arguments and "fresh" not in arguments else "1.0.0"
        names = arguments["nodes"].split(",")
        fresh = arguments.get("fresh", "").split(",")
        nodes = [self._node(name, "" if name in fresh else version, arguments) for name in names]
        asked = request(arguments)
        first, second = ({"schema": "1", "snapshot": "yes"}, {"schema": "2"}) if "schemas" in arguments else ({}, {})
        ways = {"migrations": "1>2"} if second else {}
        releases = [release("1.0.0", **first), release("1.1.0", **second, **ways)]
        plan = _in_order_of_names(planner.plan(asked, nodes, releases))
        self.state = rollout.create(model.RolloutId("r1"), asked, plan, actor="ann", at=START)
        waves = "; ".join(", ".join(each.node_id for each in wave.changes) for wave in plan.waves)
        return f"{self.state.state.value}: {waves}"

    def _node(self, name: str, version: str, arguments: dict[str, str]) -> model.Node:
        made = node(name, version)
        is_stopped = arguments.get("kind") == "START"
        components = {key: replace(each, is_stopped=is_stopped) for key, each in made.components.items()}
        return replace(made, components=components)

    def _event(self, command: str, arguments: dict[str, str], name: str) -> events.Event:
        at = START + duration(arguments["at"])
        match command:
            case "begin":
                return events.Began(at)
            case "tick":
                return events.Ticked(at)
            case "absent":
                since, until = START + duration(arguments["since"]), START + duration(arguments["judge_from"])
                return events.ControllerAbsent(since, at, until)
            case "revert":
                return events.RevertRequested(at, arguments["by"], arguments.get("because", "it"))
            case "report":
                return self._report(at, model.NodeId(name), arguments)
            case _:
                raise AssertionError(f"no command {command}")

    def _report(self, at: datetime, node_id: model.NodeId, arguments: dict[str, str]) -> events.NodeReported:
        components: tuple[model.InstalledComponent, ...] = ()
        if "runs" in arguments:
            health = model.Health[arguments.get("health", "HEALTHY")]
            found = installed(arguments["runs"], duration(arguments.get("healthy_for", "0s")), health)
            components = (replace(found, is_stopped="stopped" in arguments),)
        statuses = self._statuses(at, node_id, arguments)
        conditions = tuple(condition(each) for each in filter(None, arguments.get("conditions", "").split(",")))
        return events.NodeReported(at, node_id, statuses, components, "full" in arguments, conditions)

    def _statuses(
        self, at: datetime, node_id: model.NodeId, arguments: dict[str, str]
    ) -> tuple[model.OperationStatus, ...]:
        if "state" not in arguments:
            return ()
        latest = next(each for key, each in self._rollout.changes.items() if key.node_id == node_id).operation_id
        told = model.OperationStatus(
            operation_id=model.OperationId(arguments.get("operation", latest or "")),
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

    def _step(self, event: events.Event) -> Iterable[str]:
        before = self._rollout
        try:
            decision = rollout.step(before, event)
        except (errors.IllegalEventError, errors.RefusedError) as error:
            assert self._rollout is before
            yield str(error)
            return
        self.state = decision.rollout
        assert not invariants.violations(decision.rollout)
        for key in decision.changed:
            yield _describe_change(decision.rollout.changes[key])
        if _standing(before) != _standing(self._rollout):
            yield _standing(self._rollout)
        yield from map(_describe_effect, decision.effects)

    def _show(self) -> Iterable[str]:
        state = self._rollout
        yield _standing(state)
        due = rollout.next_deadline(state)
        yield f"  next deadline {since_start(due) if due else 'none'}"
        for wave in state.plan.waves:
            for change in wave.changes:
                yield _describe_change(state.changes[model.ChangeKey(wave.index, change.node_id, change.component)])


def _standing(state: model.Rollout) -> str:
    why = f", {state.reason}: {state.message}" if state.reason else ""
    return f"{state.state.value} in wave {state.wave} of {len(state.plan.waves)}{why}"


def _describe_change(each: model.Progress) -> str:
    words = [f"  {each.change.node_id} {each.state.value if each.state else 'waits'}"]
    words += [f"at {each.step.value}"] if each.step else []
    words += [f"({each.reason})"] if each.reason else []
    words += ["proven"] if each.is_proven else []
    words += ["touched"] if each.is_touched else []
    words += [f"until {since_start(each.deadline_at)}"] if each.deadline_at else []
    words += [] if each.is_judgeable else ["not to be judged"]
    return " ".join(words)


def _describe_effect(effect: effects.Effect) -> str:
    match effect:
        case effects.Assign(change=change):
            versions = f"{change.from_version or 'nothing'} -> {change.to_version or 'nothing'}"
            start_by = since_start(effect.start_by)
            return f"> assign {effect.operation_id}: {change.kind.value} {versions}, start by {start_by}"
        case effects.Cancel():
            return f"> cancel {effect.operation_id}: {effect.reason}"
        case effects.RememberBad():
            return f"> remember bad on {effect.node_id}: {effect.reason}"
