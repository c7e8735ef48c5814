"""The words that the scenarios of the core share: text in, values of the core out."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime, timedelta

from controller.core import model

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


def analysis(arguments: dict[str, str]) -> model.Analysis:
    measure = model.Measure(model.MeasureKind.RATIO, "errors_total", "requests_total")
    return model.Analysis(
        metrics=(model.JudgedMetric("error rate", measure),),
        inconclusive=model.Doubt[arguments.get("inconclusive", "HOLD")],
        unknown=model.Doubt[arguments.get("unknown", "HOLD")],
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
