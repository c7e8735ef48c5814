"""Swaps of real services by a real keeper."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

from agent import processes
from tests.agent.keeper import node

OLD = "1.0.0"
NEW = "1.1.0"
LONG = timedelta(minutes=5)
HERE = Path(__file__).parent

Make = Callable[[str], processes.InstanceSpec]


def maker(
    a_node: node.Node,
    program: str,
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    sockets: Sequence[str] = ("web.http",),
) -> Make:
    """Tell how a version of a program of this folder is started."""
    source = (HERE / program).read_text()

    def make(version: str) -> processes.InstanceSpec:
        released = a_node.release(version, source=source, name=program)
        return dataclasses.replace(released, command=command, environment=environment or {}, sockets=sockets)

    return make


def with_environment(make: Make, **environment: str) -> Make:
    """Start it with more in its environment."""

    def make_with(version: str) -> processes.InstanceSpec:
        made = make(version)
        return dataclasses.replace(made, environment={**made.environment, **environment})

    return make_with


async def serving(keeper: processes.Keeper, spec: processes.InstanceSpec) -> processes.Instance:
    """Start an instance and let it serve as the committed one."""
    made = await node.prepared(keeper, spec)
    await keeper.say(made.id, processes.Word.ACTIVATE, node.WORD_TIMEOUT)
    await keeper.keep(spec.component, made.id)
    return await node.find(keeper, made.id)


async def switched(
    keeper: processes.Keeper, spec: processes.InstanceSpec, old: processes.Instance
) -> processes.Instance:
    """Start the new version, mark it, activate it and pause the old one."""
    new = await node.prepared(keeper, spec)
    await keeper.mark("op-1", new.id, old.id, LONG)
    await keeper.say(new.id, processes.Word.ACTIVATE, node.WORD_TIMEOUT)
    await keeper.say(old.id, processes.Word.PAUSE, node.WORD_TIMEOUT)
    return await node.find(keeper, new.id)


async def committed(keeper: processes.Keeper, new: processes.Instance, old: processes.Instance) -> processes.Instance:
    """Commit the new version and drain the old one to its end; returns how it ended."""
    outcome = await keeper.commit("op-1", new.id)
    assert outcome.decision is processes.Decision.COMMITTED
    await keeper.keep("web", new.id)
    await keeper.say(old.id, processes.Word.DRAIN, node.WORD_TIMEOUT)
    return await node.reaches(keeper, old.id, processes.InstanceState.EXITED)


async def aborted(keeper: processes.Keeper, new: processes.Instance, old: processes.Instance) -> None:
    """Go back: the old one resumes first."""
    await keeper.say(old.id, processes.Word.RESUME, node.WORD_TIMEOUT)
    await keeper.say(new.id, processes.Word.PAUSE, node.WORD_TIMEOUT)
    await keeper.say(new.id, processes.Word.DRAIN, node.WORD_TIMEOUT)
    await node.is_gone(keeper, new.id)
    await keeper.unmark("op-1")
    await keeper.stop(new.id, timedelta(seconds=5))
