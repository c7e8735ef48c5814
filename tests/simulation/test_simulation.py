from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.simulation import planted, world

NODES = 5
STORY_MINUTES = 15  # in which, over both seeds, each fault that is asked for comes
# Found within moments; `make planted` looks for all of them.
QUICK = planted.PLANTS[2:3]


# Seed 9, as it was drawn then, once found a revert, ordered after the rollout's end, of what another component had
# come to require.
SEEDS = (1, 9)


def test_whatever_fails_and_is_ordered_nothing_is_violated_and_every_rollout_ends() -> None:
    faults: set[str] = set()
    granted: set[str] = set()
    refusals: set[str] = set()
    for seed in SEEDS:
        outcome = world.run(seed, NODES, story_minutes=STORY_MINUTES)
        assert outcome.violations == []
        assert outcome.virtual_seconds >= 60 * STORY_MINUTES
        assert len(outcome.rollouts) >= 2
        faults |= outcome.faults.keys()
        granted |= outcome.granted.keys()
        refusals |= outcome.refusals.keys()
    assert faults >= {
        *("message lost", "message repeated", "message overtaken", "message held up", "nodes cut off", "nodes slow"),
        *("nodes cut off one way, up", "nodes cut off one way, down", "agent killed", "power cut", "node's clock set"),
        *("node's disk full", "node's disk fails", "controller killed", "controller killed between commit and send"),
        *("controller stands still", "controller wakes past its lease", "controller's clock set", "commit refused"),
        *("commit of unknown end", "stale write refused"),
    }
    assert {"start", "pause", "revert", "cordon", "freeze"} <= granted
    assert "illegal_event" in refusals


def test_the_same_seed_gives_the_same_trace_in_another_process_and_another_seed_another() -> None:
    hashes = []
    for seed, hash_seed in (("3", "1"), ("3", "2"), ("4", "1")):
        command = [sys.executable, "-m", "tests.simulation", "--seeds", "1", "--first-seed", seed, "--nodes", "3"]
        command += ["--story-minutes", "5"]
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        ran = subprocess.run(command, env=environment, capture_output=True, check=True)
        hashes.append(json.loads(ran.stdout)["trace_hash"])
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.slow
@pytest.mark.parametrize("plant", QUICK, ids=[each.name for each in QUICK])
def test_a_planted_bug_is_found(plant: planted.Plant) -> None:
    assert planted.look_for(plant).violation
