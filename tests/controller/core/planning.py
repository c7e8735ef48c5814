"""The words of the golden scenarios of the planner: a fleet, what is published and declared, requests, plans."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta

from controller.core import errors, feedback, model, planner, requests
from tests import datadriven
from tests.controller.core import scenario

_DURATIONS = (
    "min_healthy_duration",
    "healthy_deadline",
    "progress_deadline",
    "unknown_deadline",
    "soak_duration",
    "bake_duration",
    "offline_deadline",
    "deadline",
)
_COUNTS = (
    "max_parallel",
    "max_failures",
    "max_infrastructure_failures",
    "soak_requests_min",
    "floor_percent",
    "domain_max_parallel",
    "revert_max_parallel",
)
_FLAGS = ("restart_allowed", "discard_writes", "is_promoted_by_hand")
_DAYS = {name: number for number, name in enumerate(("mon", "tue", "wed", "thu", "fri", "sat", "sun"), start=1)}


class Planning:
    """The commands of ``testdata/plan``; an underscore stands for a blank where a value is a sentence."""

    def __init__(self) -> None:
        self.nodes: list[model.Node] = []
        self.releases: list[model.Release] = []
        self.graph = model.VersionGraph()
        self.freezes: tuple[model.Freeze, ...] = ()
        self.memory = feedback.Memory()
        self.rules: frozenset[str] = frozenset()
        self.saved: model.Plan | None = None
        self.asked: model.UpgradeRequest | None = None

    def handle(self, case: datadriven.Case) -> str:
        lines = [line.split() for line in case.input.splitlines()]
        match case.command:
            case "plan":
                return self._plan(dict(case.arguments), case.input.strip())
            case "join":
                return self._join(_node(lines[0]))
            case "differences":
                return self._differences()
            case _:
                return self._declare(case, lines)

    def _declare(self, case: datadriven.Case, lines: list[list[str]]) -> str:
        match case.command:
            case "fleet":
                self.nodes = [_node(words) for words in lines]
            case "releases":
                self.releases = [_release(words) for words in lines]
            case "graph":
                self.graph = _graph(lines)
            case "freezes":
                self.freezes = tuple(_freeze(words) for words in lines)
            case "rules":
                self.rules = frozenset(each for words in lines for each in words)
            case "past":
                self.memory = functools.reduce(feedback.record, _past(lines), feedback.Memory())
            case _:
                raise AssertionError(f"{case.position}: no command {case.command}")
        return f"{len(lines)} {_NOUNS.get(case.command, case.command)}"

    def _fleet(self) -> planner.Fleet:
        return planner.Fleet(
            nodes=self.nodes,
            releases=self.releases,
            graph=self.graph,
            freezes=self.freezes,
            holds=_holds,
            memory=self.memory,
            rules=self.rules,
            at=scenario.START,
        )

    def _plan(self, arguments: dict[str, str], selector: str) -> str:
        shown = set(arguments.pop("show", "").split(","))
        try:
            self.asked = request(arguments, selector)
            made = planner.plan(self.asked, self._fleet())
        except errors.InstarError as error:
            kind = type(error).__name__.removesuffix("Error")
            return f"{kind} {error.code}: {error}\n  {error.field} = {error.value!r}; {error.rule}"
        if "save" in arguments:
            self.saved = made
        return "\n".join(_describe(made, shown)) or "nothing"

    def _join(self, node: model.Node) -> str:
        assert self.saved is not None, "the first plan is saved"
        assert self.asked is not None
        changes = planner.join(self.asked, self._fleet(), node, self.saved)
        return "\n".join(_describe_change(each, is_named=True) for each in changes) or "nothing"

    def _differences(self) -> str:
        assert self.saved is not None, "the first plan is saved"
        assert self.asked is not None
        now = planner.plan(self.asked, self._fleet())
        is_same = self.saved.fingerprint == now.fingerprint
        assert is_same is (self.saved.facts == now.facts)
        return "\n".join(planner.differences(self.saved, now)) or "none"


_NOUNS = {"fleet": "nodes", "graph": "declarations", "past": "kinds of change"}


def request(arguments: dict[str, str], selector: str) -> model.UpgradeRequest:
    kind = model.ChangeKind[arguments["kind"]] if "kind" in arguments else None
    parameters = _parameters(arguments)
    usual = next((name for name, type_ in PARAMETERS.items() if type(parameters) is type_), "IMMEDIATE")
    also = (each.partition("=") for each in filter(None, arguments.get("also", "").split(",")))
    return model.UpgradeRequest(
        component=model.ComponentName(arguments.get("component", "web")),
        target_version=arguments.get("target", "" if kind else "1.1.0"),
        strategy=requests.strategy(arguments.get("strategy", usual)),
        selector=selector,
        parameters=parameters,
        policy=_policy(arguments),
        install="install" in arguments,
        name="spring",
        kind=kind,
        also=tuple(model.Target(model.ComponentName(name), version) for name, _, version in also),
        level=model.ValidationLevel[arguments.get("level", "NORMAL")],
        priority=int(arguments.get("priority", "0")),
        downgrade_allowed="downgrade_allowed" in arguments,
        approval_deadline=scenario.duration(arguments["approval"]) if "approval" in arguments else None,
    )


PARAMETERS = {
    "CANARY": model.CanaryParameters,
    "ROLLING": model.RollingParameters,
    "GRADUAL": model.GradualParameters,
    "BLUE_GREEN": model.BlueGreenParameters,
}


def _parameters(arguments: Mapping[str, str]) -> model.Parameters | None:
    if "canary" in arguments:
        return model.CanaryParameters(int(arguments["canary"]))
    if "batch" in arguments:
        return model.RollingParameters(int(arguments["batch"]))
    if "percents" in arguments:
        return model.GradualParameters(tuple(map(int, arguments["percents"].split(","))))
    return model.BlueGreenParameters(scenario.duration(arguments["verify"])) if "verify" in arguments else None


def _policy(arguments: Mapping[str, str]) -> model.Policy:
    values: dict[str, object] = {name: scenario.duration(arguments[name]) for name in _DURATIONS if name in arguments}
    values |= {name: int(arguments[name]) for name in _COUNTS if name in arguments}
    values |= {name: True for name in _FLAGS if name in arguments}
    values |= {"domain_label": arguments["domain"]} if "domain" in arguments else {}
    values |= {"offline": model.OfflinePolicy[arguments["offline"]]} if "offline" in arguments else {}
    values |= {"windows": tuple(map(_window, arguments["windows"].split(";")))} if "windows" in arguments else {}
    values |= {"hold_while_firing": tuple(arguments["rules"].split(","))} if "rules" in arguments else {}
    return model.Policy(**values)  # type: ignore[arg-type] # each name has the type that its table says


def _window(text: str) -> model.Window:
    """Read ``mon,tue@22+8h@Europe/Berlin``."""
    days, when, *zone = text.split("@")
    opens, _, lasts = when.partition("+")
    return model.Window(
        opens=timedelta(hours=float(opens)),
        duration=scenario.duration(lasts),
        days=frozenset(_DAYS.get(each, 9) for each in filter(None, days.split(","))),
        time_zone=zone[0] if zone else "UTC",
    )


def _pairs(words: Iterable[str]) -> dict[str, str]:
    return {name: value for name, equals, value in (word.partition("=") for word in words) if equals}


def _release(words: list[str]) -> model.Release:
    return scenario.release(*(word for word in words if "=" not in word), **_pairs(words))


def _graph(lines: Iterable[list[str]]) -> model.VersionGraph:
    edges, barriers, channels = list[model.Edge](), list[model.Barrier](), list[model.Channel]()
    for what, component, *rest in lines:
        name = model.ComponentName(component)
        match what:
            case "edge":
                edges.append(_edge(name, rest))
            case "barrier":
                barriers.append(model.Barrier(name, rest[0], scenario.duration(rest[1])))
            case _:
                channels.append(model.Channel(name, rest[0], rest[1], scenario.START, "ann"))
    return model.VersionGraph(tuple(edges), tuple(barriers), tuple(channels))


def _edge(component: model.ComponentName, words: list[str]) -> model.Edge:
    """Read ``any -> 2.0.0 cost=2`` or ``>=1.0.0,<2.0.0 -> 2.0.0 no_return``."""
    start, _, end, *rest = words
    said = _pairs(rest)
    methods = said.get("methods", "HOT_SWAP,RESTART").split(",")
    return model.Edge(
        component=component,
        from_versions="" if start == "any" else start,
        to_version=end,
        methods=frozenset(model.Method[each] for each in methods),
        blocked_because=said.get("blocked", "").replace("_", " "),
        condition=said.get("if", ""),
        is_no_return="no_return" in rest,
        cost=int(said.get("cost", "1")),
    )


def _holds(condition: str, node: model.Node) -> bool | None:
    """Read ``tier:gold``: the label is that; unknown where the node has no such label."""
    label, _, value = condition.partition(":")
    return node.labels[label] == value if label in node.labels else None


def _freeze(words: list[str]) -> model.Freeze:
    said = _pairs(words[1:])
    until = scenario.START + scenario.duration(said["until"]) if "until" in said else None
    return model.Freeze(
        id=model.FreezeId(said["id"]),
        selector="" if words[0] == "all" else words[0],
        since=scenario.START + scenario.duration(said["since"]),
        until=until,
        reason="an audit",
        actor="ann",
    )


def _past(lines: Iterable[list[str]]) -> Iterator[model.Outcome]:
    """Read ``web 1.0.0 1.1.0 HOT_SWAP small successes=9 median=10s p95=90s faults=1 others=2``: of one kind."""
    for component, from_version, to_version, method, node_class, *rest in lines:
        said = _pairs(rest)
        made = model.Outcome(
            operation_id=model.OperationId("r1/1/n1/web/forward/1"),
            node_id=model.NodeId("n1"),
            component=model.ComponentName(component),
            from_version="" if from_version == "-" else from_version,
            to_version=to_version,
            method=model.Method[method],
            node_class="" if node_class == "-" else node_class,
            is_success=True,
            is_version_fault=False,
            duration=scenario.duration(said.get("median", "10s")),
            at=scenario.START,
        )
        slow = replace(made, duration=scenario.duration(said.get("p95", said.get("median", "10s"))))
        count = int(said.get("successes", "0"))
        yield from [made] * (count - count // 2)
        yield from [slow] * (count // 2)
        yield from [replace(made, is_success=False, is_version_fault=True)] * int(said.get("faults", "0"))
        yield from [replace(made, is_success=False)] * int(said.get("others", "0"))


def _node(words: list[str]) -> model.Node:
    name, version, *rest = words
    made = scenario.node(name, "" if version == "-" else version)
    pairs = _pairs(rest)
    drivers = pairs.pop("drivers", "handover,process")
    bad = {_bad(each): "health_probe_failed" for each in filter(None, pairs.pop("bad", "").split(","))}
    drifted = filter(None, pairs.pop("conditions", "").split(","))
    return replace(
        made,
        is_connected=pairs.pop("connected", "yes") == "yes",
        cordoned_because=pairs.pop("cordoned", ""),
        quarantined_because=pairs.pop("quarantined", ""),
        components=dict(_components(made, pairs)),
        conditions=tuple(scenario.condition(each, "web") for each in drifted),
        capabilities=frozenset(f"driver.{each}" for each in drivers.split(",")),
        bad_digests=bad,
        labels=pairs,
    )


def _bad(text: str) -> model.Digest:
    """Read ``1.1.0`` for web, or ``db:1.1.0``."""
    component, _, version = text.rpartition(":")
    return scenario.digest(f"{component or 'web'} {version}")


def _components(
    made: model.Node, pairs: dict[str, str]
) -> Iterable[tuple[model.ComponentName, model.InstalledComponent]]:
    is_stopped = pairs.pop("stopped", "no") == "yes"
    permanent = pairs.pop("permanent", "")
    for name, each in made.components.items():
        held = scenario.digest(f"web {permanent}") if permanent else each.permanent_digest
        yield name, replace(each, is_stopped=is_stopped, permanent_digest=held)
    for other in filter(None, pairs.pop("also", "").split(",")):
        component, _, version = other.partition(":")
        found = scenario.installed(version, timedelta(hours=1), component=component)
        yield found.name, found


def _describe(made: model.Plan, shown: set[str]) -> Iterable[str]:
    is_named = len({each.component for wave in made.waves for each in wave.changes}) > 1
    for wave in made.waves:
        why = f", {wave.why}" if wave.why else ""
        bake = f", then {_seconds(wave.bake_duration)} of bake" if wave.bake_duration else ""
        yield f"wave {wave.index}{why}{bake}"
        assert wave.is_canary is wave.why.startswith("the canary")
        yield from (_describe_change(each, is_named=is_named) for each in wave.changes)
    if made.unchanged:
        yield f"unchanged: {', '.join(made.unchanged)}"
    yield from (f"left out: {each.node_id}, {each.code}: {each.message}" for each in made.excluded)
    if "warnings" in shown:
        yield from (f"warning {each.code}: {each.message}" for each in made.warnings)
    yield from _describe_figures(made, shown)
    if "advice" in shown:
        yield from (line for each in made.advice for line in _describe_advice(each))
        if made.advice_left_out:
            yield f"advice left out: {made.advice_left_out}"
    if "fingerprint" in shown:
        yield f"fingerprint {made.fingerprint[:12]}"


def _describe_figures(made: model.Plan, shown: set[str]) -> Iterable[str]:
    if "blast" in shown:
        radius = made.blast_radius
        domains = "".join(f", {name or 'none'}: {count}" for name, count in radius.domains)
        yield f"at risk: {radius.nodes} of {radius.of_nodes} nodes, {radius.first_wave} in the first wave{domains}"
    if "capacity" in shown:
        for each in made.capacity:
            after = _seconds(each.after)
            yield f"capacity in wave {each.wave}, after {after}: {each.available_min} of {each.total}"
    if "estimate" in shown:
        found = made.estimate
        yield f"takes {_seconds(found.median)}, {_seconds(found.p95)} on a bad day, by {found.why}"
        yield f"an operation takes up to {_seconds(made.operation_p95)}"


def _describe_advice(each: model.Advice) -> Iterable[str]:
    of = f" of class {each.node_class}" if each.node_class else ""
    versions = f"{each.from_version or 'nothing'} -> {each.to_version}"
    yield f"advice on {each.component} {versions} by {each.method.value} on {each.changes} nodes{of}"
    counts = f"{each.successes}/{each.version_failures}/{each.other_failures}"
    yield f"  succeeds {each.chance:.3f}, above {each.chance_low:.3f}, {counts}: {each.why}"
    yield f"  waves of {each.wave_nodes}: {each.why_wave}"
    if each.estimate is not None:
        found = each.estimate
        yield f"  takes {_seconds(found.median)}, {_seconds(found.p95)} on a bad day, by {found.why}"
    better = "neither" if each.better_method is None else each.better_method.value
    yield f"  better: {better}: {each.why_better}"


def _describe_change(each: model.Change, *, is_named: bool) -> str:
    versions = f"{each.from_version or 'nothing'} -> {each.to_version or 'nothing'}"
    named = f"{each.component} " if is_named else ""
    domain = f" in {each.domain}" if each.domain else ""
    why = f", since {each.why_method}" if each.why_method else ""
    back = f"\n    but {each.no_way_back}" if each.no_way_back else ""
    return f"  {each.node_id} {each.kind.value} {named}{versions} by {each.method.value}{domain}{why}{back}"


def _seconds(duration: timedelta) -> str:
    return f"{duration.total_seconds():g}s"
