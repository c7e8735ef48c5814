from __future__ import annotations

import gc
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.core import advising, errors, feedback, model, planner, versions
from controller.core.analysis import power
from tests.controller.core import scenario

pytestmark = pytest.mark.core

FLEET = [scenario.node(f"n{number}", zone="ab"[number % 2]) for number in range(12)]
RELEASES = [scenario.release("1.0.0"), scenario.release("1.1.0")]
WEB, DB = model.ComponentName("web"), model.ComponentName("db")


def request(nodes: int = 2, selector: str = "") -> model.UpgradeRequest:
    return model.UpgradeRequest(
        component=WEB,
        target_version="1.1.0",
        strategy=model.Strategy.CANARY,
        selector=selector,
        parameters=model.CanaryParameters(nodes),
        name="spring",
    )


def plan(
    asked: model.UpgradeRequest,
    nodes: Iterable[model.Node],
    releases: Iterable[model.Release] = RELEASES,
    graph: model.VersionGraph = model.VersionGraph(),  # noqa: B008 it is frozen
) -> model.Plan:
    return planner.plan(asked, planner.Fleet(nodes, releases, graph, at=scenario.START))


@given(st.permutations(FLEET), st.permutations(RELEASES))
def test_the_plan_does_not_depend_on_the_order_in_which_the_fleet_is_told(
    nodes: list[model.Node], releases: list[model.Release]
) -> None:
    assert plan(request(), nodes, releases) == plan(request(), FLEET, RELEASES)


@given(st.sets(st.integers(0, 11)), st.integers(1, 11))
def test_each_selected_node_is_in_exactly_one_wave_or_unchanged(upgraded: set[int], canary: int) -> None:
    nodes = [scenario.node(f"n{number}", "1.1.0" if number in upgraded else "1.0.0") for number in range(12)]
    made = plan(request(canary), nodes)
    planned = [change.node_id for wave in made.waves for change in wave.changes]
    assert sorted((*planned, *made.unchanged)) == sorted(node.id for node in nodes)
    assert all(len(wave.changes) <= canary for wave in made.waves if wave.is_canary)
    assert [wave.index for wave in made.waves] == list(range(1, len(made.waves) + 1))


@given(st.integers(0, 11))
def test_the_fingerprint_follows_every_fact_that_counts_and_no_other(number: int) -> None:
    def fingerprint(node: model.Node) -> str:
        nodes = [*FLEET[:number], node, *FLEET[number + 1 :]]
        return plan(request(selector="zone"), nodes).fingerprint

    node = FLEET[number]
    known = fingerprint(node)
    assert fingerprint(replace(node, is_connected=False, fence=7, labels={**node.labels, "rack": "7"})) == known
    for other in (
        replace(node, labels={"zone": "c"}),
        replace(node, labels={}),
        replace(node, capabilities=node.capabilities | {"driver.module"}),
        replace(node, bad_digests={scenario.digest("web 6.6.6"): "crashed"}),
        replace(node, components=scenario.node("x", "1.0.1").components),
        replace(node, cordoned_because="maintenance"),
        replace(node, quarantined_because="cloned"),
    ):
        assert fingerprint(other) != known


def test_the_fingerprint_follows_every_field_of_the_policy_and_of_the_request() -> None:
    known = plan(request(), FLEET).fingerprint
    others = [
        replace(request(), policy=model.Policy(soak_duration=timedelta(seconds=6))),
        replace(request(), policy=model.Policy(windows=(model.Window(timedelta(), timedelta(hours=1)),))),
        replace(request(), parameters=model.CanaryParameters(3)),
        replace(request(), is_revertible=False),
    ]
    found = {plan(each, FLEET).fingerprint for each in others}
    assert len(found | {known}) == len(others) + 1
    assert plan(replace(request(), name="autumn"), FLEET).fingerprint == known


@st.composite
def memories(draw: st.DrawFn) -> feedback.Memory:
    found = feedback.Memory()
    for _ in range(draw(st.integers(0, 30))):
        made = model.Outcome(
            operation_id=model.OperationId("r1/1/n1/web/forward/1"),
            node_id=model.NodeId("n1"),
            component=WEB,
            from_version="1.0.0",
            to_version="1.1.0",
            method=draw(st.sampled_from(model.Method)),
            node_class="",
            is_success=draw(st.booleans()),
            is_version_fault=draw(st.booleans()),
            duration=timedelta(seconds=draw(st.integers(1, 100))),
            at=scenario.START,
        )
        found = feedback.record(found, made)
    return found


@given(memories())
def test_whatever_the_past_teaches_it_moves_no_wave_no_method_and_no_fingerprint(memory: feedback.Memory) -> None:
    known = plan(request(), FLEET)
    taught = planner.plan(request(), planner.Fleet(FLEET, RELEASES, memory=memory, at=scenario.START))
    assert [(each.component, each.changes) for each in taught.advice] == [(WEB, len(FLEET))]
    assert (taught.waves, taught.fingerprint, taught.facts) == (known.waves, known.fingerprint, known.facts)
    assert (taught.unchanged, taught.excluded, taught.warnings) == (known.unchanged, known.excluded, known.warnings)


def test_of_more_kinds_of_change_than_can_be_advised_on_those_of_most_nodes_are_told_and_the_others_counted() -> None:
    kinds = advising.ADVICE_MAX + 3
    nodes = [
        scenario.node(f"n{kind:02}-{number}", **{"class": f"c{kind:02}"}) for kind in range(kinds) for number in (1, 2)
    ]
    few = {"c01", "c05", "c34"}
    nodes = [each for each in nodes if each.labels["class"] not in few or each.id.endswith("1")]
    made = plan(request(), nodes)
    assert [each.node_class for each in made.advice] == sorted({node.labels["class"] for node in nodes} - few)
    assert made.advice_left_out == len(few)


# Two components over some versions, each of which may require the other in some versions.
ranges = st.sampled_from(["", ">=1.1.0", ">=1.2.0", "<1.2.0", "=1.0.0"])
requirements = st.one_of(st.none(), st.none(), ranges)


@st.composite
def published(draw: st.DrawFn) -> list[model.Release]:
    found = []
    for component, other in (("web", "db"), ("db", "web")):
        for version in ("1.0.0", "1.1.0", "1.2.0"):
            wanted = draw(requirements)
            words = {} if wanted is None else {"requires": f"{other}:{wanted}"}
            found.append(scenario.release(version, component=component, **words))
    return found


installed_versions = st.sampled_from(["1.0.0", "1.1.0", "1.2.0"])


@given(published(), st.lists(st.tuples(installed_versions, installed_versions), min_size=1, max_size=4), st.data())
def test_at_no_moment_of_a_plan_a_component_lacks_what_it_had_and_requires(
    releases: list[model.Release], pairs: list[tuple[str, str]], data: st.DataObject
) -> None:
    nodes = [_both(f"n{number}", *pair) for number, pair in enumerate(pairs)]
    barrier = data.draw(st.sampled_from([(), (model.Barrier(DB, "1.1.0", timedelta(hours=1)),)]))
    asked = model.UpgradeRequest(
        component=WEB,
        target_version=data.draw(installed_versions),
        strategy=model.Strategy.IMMEDIATE,
        also=(model.Target(DB, data.draw(installed_versions)),),
        level=model.ValidationLevel.PERMISSIVE,
        downgrade_allowed=True,
    )
    try:
        made = plan(asked, nodes, releases, model.VersionGraph(barriers=barrier))
    except errors.RefusedError as error:
        assert error.code in {"dependency_cycle", "no_node_left"}  # noqa: PT017 either is right
        return
    running = {node.id: {name: each.version for name, each in node.components.items()} for node in nodes}
    known = {(each.component, each.version): each for each in releases}
    for wave in made.waves:
        for change in wave.changes:
            here = running[change.node_id]
            assert here[change.component] == change.from_version
            lacked = _lacks(here, known)
            here[change.component] = change.to_version
            own = known[change.component, change.to_version]
            assert _lacks(here, known) <= lacked - {change.component} or not own.requirements
            assert change.component not in _lacks(here, known)


def _both(name: str, web: str, db: str) -> model.Node:
    node = scenario.node(name, web)
    other = scenario.installed(db, timedelta(hours=1), component="db")
    return replace(node, components={**node.components, other.name: other})


def _lacks(
    running: dict[model.ComponentName, str], known: dict[tuple[model.ComponentName, str], model.Release]
) -> set[model.ComponentName]:
    return {
        name
        for name, version in running.items()
        for each in known[name, version].requirements
        if not versions.matches(running[each.component], each.versions)
    }


@pytest.mark.parametrize("is_enabled", [True, False])
def test_planning_leaves_the_collector_as_it_was(*, is_enabled: bool) -> None:
    (gc.enable if is_enabled else gc.disable)()
    try:
        plan(request(), FLEET)
        with pytest.raises(errors.NotFoundError):
            plan(replace(request(), target_version="9.9.9"), FLEET)
        assert gc.isenabled() is is_enabled
    finally:
        gc.enable()


def test_so_many_waves_that_nobody_could_read_them_are_refused() -> None:
    many = [scenario.node(f"n{number}") for number in range(10_001)]
    asked = replace(request(), strategy=model.Strategy.ROLLING, parameters=None)
    with pytest.raises(errors.RefusedError, match="10001 waves"):
        plan(asked, many)


def test_a_canary_of_less_than_a_hundredth_is_warned_of() -> None:
    many = [scenario.node(f"n{number:03}") for number in range(101)]
    assert [each.code for each in plan(request(1), many).warnings] == ["small_canary", "no_analysis"]
    assert [each.code for each in plan(request(1), many[:100]).warnings] == ["no_analysis"]


def test_by_default_no_condition_is_known_to_hold_and_nothing_of_the_past() -> None:
    edge = model.Edge(WEB, "", "1.1.0", condition="node.connected")
    with pytest.raises(errors.RefusedError, match="unknown"):
        plan(request(), FLEET, graph=model.VersionGraph((edge,)))
    assert plan(request(), FLEET).estimate.why == "the times of the policy"


def test_an_analysis_names_a_source_that_is_configured() -> None:
    judged = model.CanaryParameters(1, replace(scenario.analysis({}), source="main"))
    asked = replace(request(1), parameters=judged)
    with pytest.raises(errors.InvalidRequestError, match="no other source is configured"):
        plan(asked, FLEET)
    found = planner.plan(asked, planner.Fleet(FLEET, RELEASES, sources=frozenset({"main"}), at=scenario.START))
    assert [each.code for each in found.warnings] == []
    assert found.fingerprint != plan(request(1), FLEET).fingerprint


def judged(nodes: int, *names: str) -> model.UpgradeRequest:
    """A request whose canary is judged by so many metrics."""
    analysis = scenario.analysis({})
    metrics = tuple(replace(analysis.metrics[0], name=name) for name in names)
    return replace(request(nodes), parameters=model.CanaryParameters(nodes, replace(analysis, metrics=metrics)))


def test_a_plan_with_an_analysis_says_what_is_compared_and_what_will_be_found() -> None:
    kept_back = [
        replace(scenario.node("x0"), cordoned_because="it"),
        replace(scenario.node("x1"), quarantined_because="it"),
        replace(scenario.node("x2"), is_connected=False),
        scenario.node("x3", version="1.1.0"),
        scenario.node("x4", version=""),
    ]
    habits = {"errors": power.Habit(events_per_minute=20, requests_per_minute=200)}
    asked = judged(2, "errors", "unmeasured")
    fleet = planner.Fleet([*FLEET, *kept_back], RELEASES, habits=habits, at=scenario.START)
    found = planner.plan(asked, fleet).forecast
    assert found is not None
    assert found.control_total == len(FLEET) - 2
    assert sorted((*found.canary_nodes, *found.control_nodes)) == sorted(node.id for node in FLEET)
    assert [each.metric for each in found.powers] == ["errors", "unmeasured"]
    assert found.powers[0].found_within is not None
    assert found.basis.endswith("only errors is measured yet")


def test_a_plan_says_that_nothing_is_measured_yet_and_none_is_forecast_without_an_analysis() -> None:
    found = plan(judged(2, "errors"), FLEET).forecast
    assert found is not None
    assert found.basis == "nothing of it is measured yet"
    assert plan(request(), FLEET).forecast is None
    done = [scenario.node(f"n{number}", "1.1.0") for number in range(3)]
    assert plan(judged(1, "errors"), done).forecast is None
