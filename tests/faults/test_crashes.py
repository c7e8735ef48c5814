"""One death of a controller at each boundary, over the real wire; all of them are `python -m tests.faults`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from instar.v1 import agent_service_pb2, fleet_service_pb2
from tests.faults import callers, coming_in, crashes, light_agents, lives, stage, stories, transitions


@pytest.fixture
async def source() -> AsyncIterator[lives.Source]:
    async with lives.source() as made:
        yield made


async def _install(teller: stories.Teller) -> None:
    """Publish, and roll out."""
    await teller.publish(stories.FIRST)
    await teller.runs("")
    await teller.caller.ended(await teller.start("install", stories.FIRST, install=True), "SUCCEEDED")
    await teller.runs(stories.FIRST)


async def _cordon(teller: stories.Teller) -> None:
    asked = fleet_service_pb2.CordonNodeRequest(node_id="n1", reason="a new disk")
    await teller.caller.act("fleet.CordonNode", asked, callers.Mark("node.cordon", "n1"))


@pytest.mark.slow
async def test_a_controller_that_is_killed_at_each_boundary_keeps_what_it_said_and_does_nothing_twice(
    source: lives.Source, tmp_path: Path
) -> None:
    points = [
        (transitions.BEFORE_COMMIT, "release.publish"),
        (transitions.AFTER_COMMIT, "rollout.start"),
        (transitions.BEFORE_SEND, "assign"),
        (transitions.AFTER_COMMIT, "operation ASSIGNED"),
        (transitions.BEFORE_COMMIT, "operation PERMANENT"),
        (transitions.BEFORE_ANSWER, "node.cordon"),
    ]
    house = lives.House(source, tmp_path, points)
    async with crashes.told(house) as teller:
        await _install(teller)
        await _cordon(teller)
        await crashes.judge(teller)
        given = {node_id: len(agent.operations) for node_id, agent in teller.agents.items()}
        await house.stop()
    crashes.check_store(house)
    assert house.armed == set()
    assert {boundary for boundary, _ in house.deaths} == {
        *(transitions.BEFORE_COMMIT, transitions.AFTER_COMMIT),
        *(transitions.BEFORE_SEND, transitions.BEFORE_ANSWER),
    }
    assert given == {"n1": 1, "n2": 1, "n3": 1}


@pytest.mark.slow
async def test_a_copied_key_is_locked_out_and_in_quarantine_wherever_the_controller_died_between_the_two(
    source: lives.Source, tmp_path: Path
) -> None:
    points = [(transitions.BEFORE_COMMIT, "node.quarantine"), (transitions.BEFORE_COMMIT, "Enrolling._lock_out")]
    house = lives.House(source, tmp_path, points)
    await coming_in.tell(house)
    assert house.armed == set()


@pytest.mark.slow
async def test_a_controller_that_acknowledges_before_it_commits_is_found_out(
    source: lives.Source, tmp_path: Path
) -> None:
    house = lives.House(source, tmp_path, [(transitions.BEFORE_COMMIT, "node.cordon")], is_hasty=True)
    async with crashes.told(house) as teller:
        await teller.runs("")
        await _cordon(teller)
        with pytest.raises(stage.Violation, match=r"node\.cordon n1 .*was acknowledged, and is not there"):
            await _cordon(teller)
        assert house.deaths == [(transitions.BEFORE_COMMIT, ("node.cordon",))]


def test_an_agent_notes_what_is_given_to_it_twice() -> None:
    agent = light_agents.Agent("n2", ())
    given = agent_service_pb2.Assign(operation_id="r-1/n2/web/1", fence=1, component="web", to_digest="sha256:a")
    agent.take(given)
    agent.take(given)  # the same again is no other
    assert (len(agent.operations), agent.twice) == (1, [])
    agent.take(agent_service_pb2.Assign(operation_id="r-9/n2/web/1", fence=2, component="web", to_digest="sha256:b"))
    assert agent.twice == ["r-9/n2/web/1 is given to n2 while it is at r-1/n2/web/1"]
    agent.take(agent_service_pb2.Assign(operation_id="r-8/n2/web/1", fence=2, component="web", to_digest="sha256:b"))
    assert agent.twice[1:] == ["r-8/n2/web/1 comes to n2 with a fence that is no higher"]


def test_each_transition_has_its_turn_at_one_boundary_and_the_same_in_each_run() -> None:
    names = ["rollout.start", "node.cordon", "operation ASSIGNED", "freeze.add", "rollout.wave", "rollout.pause"]
    turns = {name: transitions.turn(name, transitions.BEFORE_COMMIT) for name in names}
    assert set(turns.values()) > {transitions.BEFORE_COMMIT, transitions.AFTER_COMMIT}
    assert transitions.turn("assign", transitions.BEFORE_SEND) == transitions.BEFORE_SEND
    assert turns["operation ASSIGNED"] != transitions.BEFORE_ANSWER  # nobody is answered
    assert transitions.of_answer("RollBackEmergency") == "rollback.emergency"
    assert not transitions.is_act("ListNodes")
