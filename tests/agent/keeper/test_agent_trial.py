"""Which agent runs: trials of new ones, early deaths, and what an earlier keeper left."""

import asyncio
import itertools
import json
import shutil
import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pytest

from agent import processes
from agent.keeper import agent_trial, digest, marks
from agent.processes import agents
from tests.agent.keeper import node
from tests.agent.keeper.test_instances import refused

LONG = timedelta(minutes=5)
SLEEPS = "import sys, time; open(sys.argv[1] + '.sleeps', 'w').close(); time.sleep(600)"
CRASHES = "raise SystemExit(3)"
IGNORES = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
# The packaged agent sleeps, or crashes where a file says so; a release has a module that says what it does.
AGENT = """
import importlib.util, os, sys, time
if importlib.util.find_spec('behaviour') is not None:
    import behaviour
elif os.path.exists(sys.argv[1]):
    raise SystemExit(4)
time.sleep(600)
"""

H, P = agent_trial.Happening, agent_trial.Phase


@pytest.mark.parametrize(("phase", "happening"), list(itertools.product(P, H)))
def test_what_the_table_does_not_list_raises_and_what_it_lists_leads_where_it_says(
    phase: agent_trial.Phase, happening: agent_trial.Happening
) -> None:
    outcome = (
        marks.Outcome("op", marks.ROLLED_BACK, marks.AGENT_ASKED, "")
        if phase in {P.ENDING, *agent_trial.OVER}
        else None
    )
    trial = agent_trial.Trial("op", phase, outcome)
    expected = agent_trial.TRANSITIONS[phase].get(happening)
    if expected is None:
        with pytest.raises(agent_trial.IllegalHappeningError):
            agent_trial.step(trial, happening, "why")
    else:
        after = agent_trial.step(trial, happening, "why")
        assert after.phase is expected
        assert (after.outcome is None) == (expected in {P.PARKING, P.TRYING})
        assert outcome is None or after.outcome == outcome


def release(a_node: node.Node, behaviour: str) -> tuple[str, Path]:
    """Unpack a release of an agent."""
    tree = a_node.state / "tree"
    tree.mkdir()
    (tree / "behaviour.py").write_text(behaviour)
    found = digest.tree_digest(tree)
    target = a_node.state / "releases" / found.removeprefix("sha256:")
    shutil.rmtree(target, ignore_errors=True)
    tree.rename(target)
    return found, target


def point(a_node: node.Node, pointer: str, target: Path) -> None:
    """Let a pointer of the component name a release."""
    folder = a_node.state / "components" / "instar-agent"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / pointer).symlink_to(target)


async def watched(a_node: node.Node) -> processes.Keeper:
    """Start the keeper anew, over an agent."""
    a_node.kill()
    a_node.start(sys.executable, "-c", AGENT, str(a_node.state / "crash"))
    return await a_node.attached()


async def shown(keeper: processes.Keeper) -> list[tuple[str, agents.Role]]:
    """Digest and role of each agent."""
    return [(seen.digest, seen.role) for seen in await keeper.agents()]


async def shows(keeper: processes.Keeper, *expected: tuple[str, agents.Role]) -> None:
    """Wait until exactly these agents live."""

    async def is_so() -> bool:
        return await shown(keeper) == list(expected)

    await node.until(is_so)


def _exists(path: Path) -> Callable[[], Awaitable[bool]]:
    async def is_there() -> bool:
        return await asyncio.to_thread(path.exists)

    return is_there


async def test_a_new_agent_runs_after_the_old_one_has_parked_and_takes_over_at_the_commit(a_node: node.Node) -> None:
    keeper, old = await watched(a_node), await a_node.client()
    await shows(keeper, ("", agents.Role.MAIN))
    found, directory = release(a_node, SLEEPS)
    await keeper.agent_trial("op-1", "new", found, directory, LONG)
    await keeper.agent_trial("op-1", "new", found, directory, LONG)
    assert await shown(keeper) == [("", agents.Role.MAIN)]
    assert (await keeper.inspect()).trial_operation_id is None
    async with asyncio.TaskGroup() as group:
        parked = group.create_task(old.agent_park("op-1"))
        await shows(keeper, ("", agents.Role.PARKED), (found, agents.Role.TRIAL))
        assert (await keeper.inspect()).trial_operation_id == "op-1"
        outcome = await keeper.agent_commit("op-1")
        assert outcome.decision is processes.Decision.COMMITTED
        await shows(keeper, (found, agents.Role.MAIN))
        assert not parked.done()
        parked.cancel()
    assert await keeper.agent_commit("op-1") == outcome
    point(a_node, "current", directory)
    keeper = await watched(a_node)  # the decision outlives the keeper
    await shows(keeper, (found, agents.Role.MAIN))
    assert await keeper.agent_commit("op-1") == outcome
    assert outcome in (await keeper.inspect()).outcomes
    with refused("mark_conflict"):
        await keeper.agent_trial("op-1", "new", found, directory, LONG)


@pytest.mark.parametrize(
    ("behaviour", "seconds", "is_aborted", "cause"),
    [
        (CRASHES, 300.0, False, processes.Cause.INSTANCE_DIED),
        (IGNORES, 0.5, False, processes.Cause.INSTANCE_DIED),
        (IGNORES, 300.0, True, processes.Cause.AGENT_ASKED),
    ],
)
async def test_a_trial_that_fails_lets_the_old_agent_go_on_only_when_the_new_one_is_gone(
    a_node: node.Node,
    behaviour: str,
    seconds: float,
    is_aborted: bool,  # noqa: FBT001  # of the table
    cause: processes.Cause,
) -> None:
    keeper, old = await watched(a_node), await a_node.client()
    await shows(keeper, ("", agents.Role.MAIN))
    [before] = await keeper.agents()
    found, directory = release(a_node, behaviour)
    await keeper.agent_trial("op-1", "new", found, directory, timedelta(seconds=seconds))
    async with asyncio.timeout(node.PATIENCE_SECONDS), asyncio.TaskGroup() as group:
        parked = group.create_task(old.agent_park("op-1"))
        if is_aborted:
            await shows(keeper, ("", agents.Role.PARKED), (found, agents.Role.TRIAL))
            group.create_task(keeper.agent_abort("op-1"))
        await parked
        assert [seen.pid for seen in await keeper.agents()] == [before.pid]
    outcome = await keeper.agent_commit("op-1")
    assert (outcome.decision, outcome.cause) == (processes.Decision.ROLLED_BACK, cause)
    await old.agent_park("op-1")  # answered at once: it is over


async def test_a_trial_that_the_keeper_did_not_survive_leaves_the_old_version(a_node: node.Node) -> None:
    keeper, old = await watched(a_node), await a_node.client()
    found, directory = release(a_node, IGNORES)
    await keeper.agent_trial("op-1", "new", found, directory, LONG)
    parked = asyncio.ensure_future(old.agent_park("op-1"))
    await shows(keeper, ("", agents.Role.PARKED), (found, agents.Role.TRIAL))
    left = [seen.pid for seen in await keeper.agents()]
    a_node.kill()
    with refused("keeper_gone"):
        await parked
    keeper = await watched(a_node)
    await shows(keeper, ("", agents.Role.MAIN))
    assert all(node.is_over(pid) for pid in left)
    with refused("mark_unknown"):
        await keeper.agent_commit("op-1")


async def test_a_version_that_dies_early_three_times_is_left_and_remembered(a_node: node.Node) -> None:
    bad, bad_directory = release(a_node, CRASHES)
    good, good_directory = release(a_node, SLEEPS)
    point(a_node, "current", bad_directory)
    point(a_node, "permanent", good_directory)
    keeper = await watched(a_node)
    await shows(keeper, (good, agents.Role.MAIN))
    assert (await keeper.inspect()).bad_agent_digests == (bad,)
    await node.until(_exists(a_node.state / "crash.sleeps"))  # until it runs, the child has what the keeper had
    keeper = await watched(a_node)
    await shows(keeper, (good, agents.Role.MAIN))
    assert (await keeper.inspect()).bad_agent_digests == (bad,)
    with refused("digest_bad"):
        await keeper.agent_trial("op-1", "new", bad, bad_directory, LONG)


async def test_no_version_is_bad_where_not_even_the_packaged_agent_lives(a_node: node.Node) -> None:
    bad, directory = release(a_node, CRASHES)
    point(a_node, "current", directory)
    point(a_node, "permanent", directory)
    (a_node.state / "crash").touch()
    keeper = await watched(a_node)
    seen: list[tuple[str, ...]] = []

    async def was_taken_back() -> bool:
        seen.append((await keeper.inspect()).bad_agent_digests)
        return (bad,) in seen and seen[-1] == ()

    await node.until(was_taken_back)


async def test_a_release_that_was_changed_on_disk_is_not_run_and_not_blamed(a_node: node.Node) -> None:
    damaged, directory = release(a_node, SLEEPS)
    (directory / "behaviour.py").write_text("tampered = True")
    point(a_node, "current", directory)
    point(a_node, "permanent", directory)
    keeper = await watched(a_node)
    await shows(keeper, ("", agents.Role.MAIN))
    assert damaged not in (await keeper.inspect()).bad_agent_digests


async def test_the_pointers_say_which_agent_is_started_again(a_node: node.Node) -> None:
    keeper = await watched(a_node)
    await shows(keeper, ("", agents.Role.MAIN))
    [before] = await keeper.agents()
    assert await keeper.agent_restart() == ""
    assert [seen.pid for seen in await keeper.agents()] == [before.pid]
    found, directory = release(a_node, SLEEPS)
    point(a_node, "current", directory)
    assert await keeper.agent_restart() == found
    await shows(keeper, (found, agents.Role.MAIN))
    assert (await keeper.inspect()).bad_agent_digests == ()


async def test_rubbish_in_the_memory_is_as_if_forgotten(a_node: node.Node) -> None:
    for rubbish in ("", "[]", json.dumps({"early_deaths": {}, "bad": 3, "outcomes": []})):
        (a_node.state / "agent.json").write_text(rubbish)
        keeper = await watched(a_node)
        await shows(keeper, ("", agents.Role.MAIN))
