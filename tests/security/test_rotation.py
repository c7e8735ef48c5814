"""37: authorities, the listeners' certificate and every agent's are replaced in the middle of a rollout, under load.

The controller, gRPC, the links and the certificates are real; what the twenty nodes do to a component takes no time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from grpc import aio

from agent import identity
from agent.core import model
from agent.link import loop, transport
from controller import releases
from controller.cli import release_commands
from controller.cli.demo import ports
from controller.trust import authorities, certificates
from instar.v1 import (
    fleet_service_pb2,
    fleet_service_pb2_grpc,
    release_service_pb2_grpc,
    rollout_pb2,
    rollout_service_pb2,
    rollout_service_pb2_grpc,
)
from tests.security import house, nodes

K = house.K
NODES = 20
MIDDLE = 7  # so many have begun, and the last of them works on, while everything is replaced
VERSION = "1.0.0"


@dataclass
class Node:
    """A node behind a real link, as `agent.link` sees it: each operation is begun once, and done at once.

    Args:
        order: Those that have begun, in that order; one in the middle is not done until it shall be.
    """

    host: nodes.Host
    digest: str
    order: list[Node]
    is_slow: bool = False
    begun: list[str] = field(default_factory=list)
    statuses: dict[str, model.OperationStatus] = field(default_factory=dict)
    link: loop.Link | None = None

    def hello_facts(self) -> model.HelloFacts:
        name = self.host.node_id
        return model.HelloFacts(
            boot_id="boot",
            instance_token=name,
            agent_version="0.1.0",
            capabilities=("driver.handover",),
            highest_fence=0,
        )

    def full_report(self) -> model.Report:
        hour = timedelta(hours=1)
        shown = model.ComponentStatus("web", VERSION, self.digest, self.digest, model.Health.HEALTHY, hour)
        components = (shown,) if self.begun and not self.is_slow else ()
        return model.Report(components=components, operations=tuple(self.statuses.values()), conditions=())

    def take_command(self, command: model.Order) -> None:
        assert isinstance(command, model.Assign)
        asked = command.assignment
        if asked.operation_id not in self.begun:
            self.begun.append(asked.operation_id)
            self.order.append(self)
            self.is_slow = len(self.order) == MIDDLE
            state = model.OperationState.RUNNING if self.is_slow else model.OperationState.PERMANENT
            self.statuses[asked.operation_id] = model.OperationStatus(
                asked.operation_id, asked.fence, "web", state, None, None, "", "", house.now()
            )
        assert self.link is not None
        self.link.wake()

    def finish(self) -> None:
        """Be done."""
        self.is_slow = False
        self.statuses = {
            key: replace(each, state=model.OperationState.PERMANENT, changed_at=house.now())
            for key, each in self.statuses.items()
        }
        assert self.link is not None
        self.link.wake()

    async def read_log(self, asked: model.ReadLog) -> model.LogText:
        return model.LogText(asked.request_id, error="there is none")

    def acknowledged(self, operations: tuple[model.OperationStatus, ...], steps: tuple[model.StepRecord, ...]) -> None:
        del steps
        for each in operations:
            if each.state is model.OperationState.PERMANENT:
                self.statuses.pop(each.operation_id, None)

    def identity(self) -> identity.Identity:
        """What the next connection shows; a new one trusts what the controller has last said."""
        return identity.Identity(
            node_id=self.host.node_id,
            name="",
            serial=len(self.host.had),
            issued_at=house.now(),
            not_after=house.now(),
            enrol_address="",
            certificate=self.host.pair.certificate.decode(),
            key=self.host.pair.key.decode(),
            authorities=self.host.trusted,
        )

    async def live(self) -> None:
        self.link = loop.Link(
            transport.GrpcTransport(self.host.home.address, self.identity),
            node_id=self.host.node_id,
            now=house.now,
            draw=lambda: 0.5,
        )
        await self.link.run(self)

    async def renew(self) -> None:
        """As `agent.link.renewal` does it."""
        await self.host.renew()
        assert self.link is not None
        await self.link.move()


@dataclass
class Users:
    """Users of the API: one that stays connected, and one that comes anew for each call."""

    home: house.House
    pair: house.Pair
    calls: int = 0

    async def ask(self) -> None:
        async with self.home.channel(self.pair, self.home.roots) as staying:
            while True:
                await self._call(staying)
                async with self.home.channel(self.pair, self.home.roots) as fresh:
                    await self._call(fresh)
                await asyncio.sleep(0.02)

    async def _call(self, channel: aio.Channel) -> None:
        stub = fleet_service_pb2_grpc.FleetServiceStub(channel)
        await stub.ListNodes(fleet_service_pb2.ListNodesRequest(), timeout=nodes.SECONDS)
        self.calls += 1


async def test_37_everything_is_replaced_in_the_middle_of_a_rollout_and_nothing_is_lost(tmp_path: Path) -> None:
    (port,) = ports.free(1)
    home = house.House(tmp_path, enrol_listen=f"127.0.0.1:{port}")
    folder = home.state_dir / "ca"
    async with home.serving(), asyncio.TaskGroup() as group, _stopped(group) as running:
        digest = await _publish(home, tmp_path)
        order: list[Node] = []
        made = [Node(nodes.Host(home, f"n-{number:02}"), digest, order) for number in range(NODES)]
        for node in made:
            await node.host.enrol(await nodes.token(home, node.host.node_id))
            running(node.live())
        users = Users(home, home.client())
        running(users.ask())
        await _until(lambda: all(node.link is not None and node.link.is_open for node in made))
        rollout_id = await _begin(home)
        first = {kind: certificates.pem(home.known.signing(kind).certificate) for kind in K}

        await _until(lambda: len(order) == MIDDLE)
        for kind in (K.AGENTS, K.SERVERS):
            authorities.begin_rotation(folder, kind, house.now())
            await _together(node.renew for node in made)  # whoever renews hears of the authority to come
            authorities.sign_with_new(folder, kind, house.now(), is_forced=True)
            await _together(node.renew for node in made)
            authorities.drop_old(folder, kind, house.now(), is_forced=True)
        await _together(node.renew for node in made)  # no connection is left of what is trusted no longer
        assert len(order) == MIDDLE
        order[-1].finish()

        state, attempts = await _ended(home, rollout_id)
        assert state == rollout_pb2.ROLLOUT_STATE_SUCCEEDED
        assert attempts == [1] * NODES
        assert [len(node.begun) for node in made] == [1] * NODES  # no command was lost, and none came twice
        calls = users.calls
        await _until(lambda: users.calls > calls)  # nobody's call has failed: whoever fails ends the whole group
        now = authorities.load(folder)
        assert all(certificates.pem(now.signing(kind).certificate) != first[kind] for kind in (K.AGENTS, K.SERVERS))
        assert all(len(node.host.had) == 6 for node in made)


async def _begin(home: house.House) -> str:
    """A rollout of one node after the other, each after some time."""
    async with home.channel(home.client()) as channel:
        wanted = rollout_pb2.UpgradeRequest(
            component="web",
            target_version=VERSION,
            strategy=rollout_pb2.STRATEGY_ROLLING,
            install=True,
            policy=rollout_pb2.Policy(max_parallel=1),
        )
        wanted.policy.min_healthy_duration.FromMilliseconds(100)
        stub = rollout_service_pb2_grpc.RolloutServiceStub(channel)
        asked = rollout_service_pb2.StartUpgradeRequest(upgrade=wanted, request_id="r-1")
        return (await stub.StartUpgrade(asked, timeout=nodes.SECONDS)).rollout.rollout_id


async def _ended(home: house.House, rollout_id: str) -> tuple[int, list[int]]:
    async with home.channel(home.client()) as channel, asyncio.timeout(4 * nodes.SECONDS):
        stub = rollout_service_pb2_grpc.RolloutServiceStub(channel)
        async for answer in stub.WatchRollout(rollout_service_pb2.WatchRolloutRequest(rollout=rollout_id)):
            if answer.rollout.state not in (rollout_pb2.ROLLOUT_STATE_PENDING, rollout_pb2.ROLLOUT_STATE_RUNNING):
                return answer.rollout.state, [each.attempt for each in answer.rollout.changes]
    raise AssertionError(rollout_id)


async def _publish(home: house.House, folder: Path) -> str:
    tree = folder / "web"
    tree.mkdir()
    manifest = f'name = "web"\nversion = "{VERSION}"\ndriver = "handover"\ncommand = ["python", "main.py"]\n'
    (tree / "instar.toml").write_text(manifest, encoding="utf-8")
    (tree / "main.py").write_text("print()\n", encoding="utf-8")
    bundle = releases.build(tree, folder / "web.tar")
    async with home.channel(home.client()) as channel:
        stub = release_service_pb2_grpc.ReleaseServiceStub(channel)
        await stub.PublishRelease(release_commands._sent(bundle, folder / "web.tar"), timeout=nodes.SECONDS)
    return bundle.digest


async def _together(renewals: Iterable[Callable[[], Coroutine[None, None, None]]]) -> None:
    async with asyncio.TaskGroup() as group:
        for each in renewals:
            group.create_task(each())


@contextlib.asynccontextmanager
async def _stopped(group: asyncio.TaskGroup) -> AsyncIterator[Callable[[Any], None]]:
    """Run things beside the block, and end them with it."""
    tasks: list[asyncio.Task[None]] = []
    yield lambda work: tasks.append(group.create_task(work))
    for task in tasks:
        task.cancel()


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(nodes.SECONDS):
        while not condition():  # noqa: ASYNC110  # what is waited for has no event
            await asyncio.sleep(0.02)
