from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from agent import depot
from agent.depot import pointers
from controller.core import gate, model
from tests.simulation import world

NODES = 6


# Seed 38 once found an agent that died after it had started, and before it had activated, what was current.
@pytest.mark.parametrize(("seed", "nodes"), [(1, NODES), (2, NODES), (38, 20)])
def test_whatever_fails_nothing_is_violated_and_every_rollout_ends(seed: int, nodes: int) -> None:
    outcome = world.run(seed, nodes)
    assert outcome.violations == []
    assert outcome.virtual_seconds >= world.STORY_SECONDS
    assert outcome.rollouts
    assert {"message lost", "message repeated", "agent killed", "controller killed", "power cut"} <= set(outcome.faults)


def test_the_same_seed_gives_the_same_trace_in_another_process_and_another_seed_another() -> None:
    hashes = []
    for seed, hash_seed in (("3", "1"), ("3", "2"), ("4", "1")):
        command = [sys.executable, "-m", "tests.simulation", "--seeds", "1", "--first-seed", seed, "--nodes", "3"]
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        ran = subprocess.run(command, env=environment, capture_output=True, check=True)
        hashes.append(json.loads(ran.stdout)["trace_hash"])
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_gate_that_promotes_whatever_happens_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def hasty(*_arguments: object, **_options: object) -> gate.Verdict:
        return gate.Verdict(model.Gate.PROMOTE)

    outcomes = _planted(monkeypatch, "controller.core.gate.decide", hasty)
    assert any("success keeps the budget" in found for found in outcomes)


def test_a_node_that_brings_nothing_up_after_a_power_cut_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(*_arguments: object) -> None:
        """Leave it down."""

    outcomes = _planted(monkeypatch, "agent.runner.upkeep.Upkeep._bring_up", nothing)
    assert any("nothing accepts" in found for found in outcomes)


def test_a_disk_that_collects_what_is_pointed_at_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(self: depot.Depot, keep: object, retain: object) -> tuple[str, ...]:
        del keep, retain
        for both in self.components().values():
            pointers.remove(self.release_dir(both.permanent))
        return ()

    outcomes = _planted(monkeypatch, "agent.depot.Depot.collect", forgetful)
    assert any(found.partition(": ")[2].startswith("G1") for found in outcomes)


def _planted(monkeypatch: pytest.MonkeyPatch, where: str, what: object) -> list[str]:
    """Run with a fault in the product; returns what the checkers found in the first seed that found anything."""
    monkeypatch.setattr(where, what)
    for seed in range(1, 6):
        if found := world.run(seed, NODES).violations:
            return found
    return []
