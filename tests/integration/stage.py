"""A real controller, real nodes and a real client under a folder of their own, for tests that kill parts of them.

Rules kept: everything is a process of its own, started as an operator would start it, and killed by its own process id;
whoever waits has a deadline; when a test fails, the ends of the logs go with the failure.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import psutil
from google.protobuf import duration_pb2

from agent import journal, processes
from agent.core import operation, transitions
from controller.cli import connection
from controller.cli.demo import api, bundles, exchange, fleet, load, ports, process, record
from instar.v1 import node_pb2, operation_pb2, rollout_pb2

REQUESTS_PER_SECOND = 80.0  # over all nodes: enough that a lost connection shows, little enough for a busy machine
WAIT_SECONDS = 60.0  # for anything that has to come true
JOURNAL_POLL_SECONDS = 0.005  # a step of which the agent shall not see the end may last some tens of milliseconds
HEARTBEAT_PERIOD = "1s"
SOAK = timedelta(seconds=3)  # long enough to be killed in
DEADLINE = timedelta(seconds=40)
MIN_HEALTHY = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Stage:
    """What runs."""

    root: Path
    controller: fleet.Controller
    nodes: Sequence[fleet.Node]
    link: connection.Connection
    loads: list[process.Process] = field(default_factory=list)

    @property
    def node(self) -> fleet.Node:
        """The only node."""
        (node,) = self.nodes
        return node

    async def start_load(self) -> None:
        """Begin to ask, and return when answers come."""
        started = await fleet.start_load(self.nodes, self.root, requests_per_second=REQUESTS_PER_SECOND)
        self.loads.append(started)
        await process.until("requests are answered", self._is_answered, seconds=WAIT_SECONDS)

    async def stop_load(self) -> None:
        """End the asking, if it has begun."""
        for one in self.loads:
            await one.stop()

    async def requests(self) -> Sequence[record.Record]:
        """End the asking; everything that was asked."""
        await self.stop_load()
        return tuple(record.read(self.root / "requests.tsv"))

    async def start_upgrade(
        self,
        source: bundles.Source,
        strategy: rollout_pb2.Strategy.ValueType = rollout_pb2.STRATEGY_IMMEDIATE,
        deadline: timedelta = DEADLINE,
    ) -> rollout_pb2.Rollout:
        """Ask for an upgrade, or for the install of the first version; each node has the deadline until COMMIT."""
        request = rollout_pb2.UpgradeRequest(
            component=bundles.COMPONENT,
            target_version=source.version,
            strategy=strategy,
            install=source is bundles.FIRST,
            policy=rollout_pb2.Policy(
                soak_duration=_duration(SOAK if source is not bundles.FIRST else timedelta(seconds=0.2)),
                min_healthy_duration=_duration(MIN_HEALTHY),
                healthy_deadline=_duration(deadline),
            ),
        )
        return await api.start(self.link, request, request_id=f"test-{source.version}")

    async def end_of(self, rollout: rollout_pb2.Rollout) -> rollout_pb2.Rollout:
        """Wait until a rollout has ended."""
        return await self.seen(rollout, lambda one: one.state in api.TERMINAL)

    async def seen(
        self, rollout: rollout_pb2.Rollout, condition: Callable[[rollout_pb2.Rollout], bool]
    ) -> rollout_pb2.Rollout:
        """Wait until a state of a rollout meets a condition."""
        latest = rollout
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                async with aclosing(api.watch(self.link, rollout.rollout_id)) as states:
                    async for latest in states:
                        if condition(latest):
                            return latest
        except TimeoutError as error:
            raise AssertionError(f"cannot wait any longer; the rollout is {latest}") from error
        raise AssertionError(f"the rollout ended first: {latest}")

    async def reported(self, condition: Callable[[node_pb2.ComponentStatus], bool]) -> None:
        """Wait until the controller has heard of the only node's component what meets a condition."""

        async def is_so() -> bool:
            (node,) = await api.nodes(self.link)
            return node.connected and any(condition(component) for component in node.components)

        await process.until("the node reports it", is_so, seconds=WAIT_SECONDS)

    async def _is_answered(self) -> bool:
        path = self.root / "requests.tsv"
        return path.exists() and {one.node_id for one in record.read(path)} == {node.id for node in self.nodes}


def _alone(folder: Path) -> fleet.Controller:
    return fleet.Controller(folder, None, HEARTBEAT_PERIOD)


@asynccontextmanager
async def up(nodes: int, made: Callable[[Path], fleet.Controller] = _alone) -> AsyncIterator[Stage]:
    """A controller, as it is made, and nodes that run 1.0.0, under load; 1.1.0 is published."""
    root = Path(tempfile.mkdtemp(prefix="it-"))  # short: sockets live in it
    async with AsyncExitStack() as started:
        started.callback(shutil.rmtree, root, ignore_errors=True)
        try:
            stage = await _set_up(nodes, made(root / "controller"), root, started)
            await stage.start_load()
            yield stage
        except BaseException as error:
            _add_logs(error, root)
            raise


def _add_logs(error: BaseException, root: Path) -> None:
    for log in sorted(root.rglob("*.log")):
        error.add_note(f"--- {log.relative_to(root)}\n{process.tail(log)}")


async def _set_up(number: int, controller: fleet.Controller, root: Path, started: AsyncExitStack) -> Stage:
    started.push_async_callback(controller.stop)
    await controller.start()
    link = await started.enter_async_context(controller.connect())
    stage = Stage(root, controller, [fleet.Node(f"n{i}", root / f"n{i}", controller) for i in range(number)], link)
    for node in stage.nodes:
        await node.enrol()
        started.push_async_callback(node.stop)
        await node.start()
    started.push_async_callback(stage.stop_load)
    for source in (bundles.FIRST, bundles.NEXT):
        await controller.publish(source)

    async def are_connected() -> bool:
        return sum(node.connected for node in await api.nodes(link)) == number

    await process.until("the nodes are connected", are_connected, seconds=WAIT_SECONDS)
    installed = await stage.end_of(await stage.start_upgrade(bundles.FIRST))
    assert installed.state == rollout_pb2.ROLLOUT_STATE_SUCCEEDED, installed
    return stage


class Watch:
    """A client of a node's keeper that follows its instances."""

    def __init__(self, keeper: processes.Keeper) -> None:
        self._keeper = keeper

    async def until(self, version: str, *states: processes.InstanceState) -> processes.Instance:
        """Wait until an instance of a version comes into one of some states."""
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                event = await self._keeper.events.get()
                if event.instance.version == version and event.instance.state in states:
                    return event.instance


@asynccontextmanager
async def watching(node: fleet.Node) -> AsyncIterator[Watch]:
    """Follow the instances of a node from now on."""
    keeper = await processes.Keeper.connect(node.run_dir / "keeper.sock")
    try:
        await keeper.watch()
        yield Watch(keeper)
    finally:
        await keeper.close()


async def inspect(node: fleet.Node) -> processes.Inspection:
    """What a node's keeper holds."""
    keeper = await processes.Keeper.connect(node.run_dir / "keeper.sock")
    try:
        return await keeper.inspect()
    finally:
        await keeper.close()


async def instances(node: fleet.Node) -> Sequence[processes.Instance]:
    """The living instances of a node."""
    held = (await inspect(node)).instances
    return [one for one in held if one.state is not processes.InstanceState.EXITED]


def agent_pid(node: fleet.Node) -> int | None:
    """The agent of a node: the keeper's child that was given the node's configuration."""
    for child in psutil.Process(node.keeper.pid).children():
        try:
            if str(node.config_file) in child.cmdline() and child.status() != psutil.STATUS_ZOMBIE:
                return child.pid
        except psutil.NoSuchProcess:
            continue
    return None


def kill_agent(node: fleet.Node) -> int:
    """SIGKILL the agent of a node.

    Returns:
        Its process id.
    """
    pid = agent_pid(node)
    assert pid is not None, "the agent does not run"
    os.kill(pid, signal.SIGKILL)
    return pid


def journalled(node: fleet.Node, rollout: rollout_pb2.Rollout) -> operation.Operation | None:
    """The first operation of a rollout as the node's journal has it, whether or not the agent runs."""
    for history in journal.read(node.state_dir).operations:
        found = history.latest.operation
        if found.assignment.operation_id.startswith(rollout.rollout_id):
            return found
    return None


async def phase_reached(node: fleet.Node, rollout: rollout_pb2.Rollout, phase: transitions.Phase) -> None:
    """Wait until the node's journal has an operation of a rollout in a phase."""
    async with asyncio.timeout(WAIT_SECONDS):
        while (found := journalled(node, rollout)) is None or found.phase is not phase:  # noqa: ASYNC110 it is another process's
            await asyncio.sleep(JOURNAL_POLL_SECONDS)


async def version_of(node: fleet.Node) -> str:
    """The version that answers on a node; empty when nobody does."""
    try:
        return (await load.ask_once(exchange.Address(ports.HOST, node.port))).version
    except exchange.LostError:
        return ""


def lost(requests: Sequence[record.Record]) -> Sequence[record.Record]:
    """The requests that failed."""
    return [one for one in requests if one.failure is not None]


def steps(rollout: rollout_pb2.Rollout) -> set[str]:
    """Names of the steps that the rollout's operations are in."""
    return {operation_pb2.Step.Name(change.step).removeprefix("STEP_") for change in rollout.changes}


def _duration(span: timedelta) -> duration_pb2.Duration:
    message = duration_pb2.Duration()
    message.FromTimedelta(span)
    return message
