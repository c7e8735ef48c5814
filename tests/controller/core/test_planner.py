from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.core import model, planner
from tests.controller.core import scenario

pytestmark = pytest.mark.core

FLEET = [scenario.node(f"n{number}", zone="ab"[number % 2]) for number in range(12)]
RELEASES = [scenario.release("1.0.0"), scenario.release("1.1.0")]


def request(nodes: int = 2, selector: str = "") -> model.UpgradeRequest:
    return model.UpgradeRequest(
        component=model.ComponentName("web"),
        target_version="1.1.0",
        strategy=model.Strategy.CANARY,
        selector=selector,
        parameters=model.CanaryParameters(nodes),
        name="spring",
    )


@given(st.permutations(FLEET), st.permutations(RELEASES))
def test_the_plan_does_not_depend_on_the_order_in_which_the_fleet_is_told(
    nodes: list[model.Node], releases: list[model.Release]
) -> None:
    assert planner.plan(request(), nodes, releases) == planner.plan(request(), FLEET, RELEASES)


@given(st.sets(st.integers(0, 11)), st.integers(1, 11))
def test_each_selected_node_is_in_exactly_one_wave_or_unchanged(upgraded: set[int], canary: int) -> None:
    nodes = [scenario.node(f"n{number}", "1.1.0" if number in upgraded else "1.0.0") for number in range(12)]
    made = planner.plan(request(canary), nodes, RELEASES)
    planned = [change.node_id for wave in made.waves for change in wave.changes]
    assert sorted((*planned, *made.unchanged)) == sorted(node.id for node in nodes)
    assert all(len(wave.changes) <= canary for wave in made.waves if wave.is_canary)
    assert [wave.index for wave in made.waves] == list(range(1, len(made.waves) + 1))


@given(st.integers(0, 11))
def test_the_fingerprint_follows_every_fact_that_counts_and_no_other(number: int) -> None:
    def fingerprint(node: model.Node) -> str:
        nodes = [*FLEET[:number], node, *FLEET[number + 1 :]]
        return planner.plan(request(selector="zone"), nodes, RELEASES).fingerprint

    node = FLEET[number]
    known = fingerprint(node)
    assert fingerprint(replace(node, is_connected=False, fence=7, labels={**node.labels, "rack": "7"})) == known
    for other in (
        replace(node, labels={"zone": "c"}),
        replace(node, labels={}),
        replace(node, capabilities=node.capabilities | {"driver.module"}),
        replace(node, bad_digests={scenario.digest("web 6.6.6"): "crashed"}),
        replace(node, components=scenario.node("x", "1.0.1").components),
    ):
        assert fingerprint(other) != known
