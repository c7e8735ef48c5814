"""The story of a node that comes in over TLS: token, certificate, its next one, leave to come back, and a double of it.

Rules kept here: who gets no answer asks again with the same key, and has to get the same certificate; a key that was
copied locks out whoever has it, and the node is in quarantine, wherever the controller died in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from grpc import aio

from controller.cli.demo import ports
from instar.v1 import fleet_service_pb2, fleet_service_pb2_grpc
from tests.faults import callers, lives, stage
from tests.security import house as houses
from tests.security import nodes

Result = TypeVar("Result")
NAME = "coming in"
NODE = "n1"


async def _come_in(house: lives.House, home: houses.House) -> None:
    """All of it, while lives come and go.

    Raises:
        stage.Violation: Something that was acknowledged is not so.
    """
    home.address = house.address
    token = await _again(house, lambda: nodes.token(home, NODE))
    host, own, second = nodes.Host(home, NODE), nodes.key(), nodes.key()
    await _again(house, lambda: host.enrol(token, own))
    await _again(house, lambda: host.enrol(token, own))
    _same(host, "who enrols again with the same key")
    await _welcome(house, host)
    first = host.pair
    await _again(house, lambda: host.renew(second))
    await _again(house, lambda: host.renew(second))
    _same(host, "who asks again for the next certificate")
    await _welcome(house, host)
    await _again(house, lambda: nodes.permit(home, NODE))
    double = nodes.Host(home, NODE, [first])
    said = await nodes.refusal(_again(house, lambda: double.renew(nodes.key())))
    if not said:
        raise stage.Violation("a double of a key got a certificate")
    await nodes.refusal(_again(house, lambda: double.renew(nodes.key())))
    if await _again(house, host.connect) == "welcome":
        raise stage.Violation("the node is let in, though its key was copied")
    if not await _again(house, lambda: _quarantine(home)):
        raise stage.Violation("the node is locked, and not in quarantine")


async def tell(house: lives.House) -> lives.Passed:
    """Tell the story to its end, with authorities of its own, to a controller that dies where it shall.

    Returns:
        What was passed before the controller was asked to end.
    """
    (port,) = ports.free(1)
    home = houses.House(house.folder, enrol_listen=f"{ports.HOST}:{port}")
    config = house.folder / "controller.toml"
    config.write_text(f'[tls]\nenrol_listen = "{ports.HOST}:{port}"\n', encoding="utf-8")
    house.configure(config)
    living = asyncio.ensure_future(house.live())
    try:
        await _come_in(house, home)
        life = await house.listening()
        passed = [*house.passed, *life.passed]
        await house.stop()
        return passed
    finally:
        living.cancel()
        house.kill()
        await asyncio.gather(living, return_exceptions=True)


async def _again(house: lives.House, work: Callable[[], Awaitable[Result]]) -> Result:
    """Do some work until it is answered."""
    while True:
        await house.listening()
        try:
            return await work()
        except aio.AioRpcError as error:
            if error.code() not in callers.LOST:
                raise
            await asyncio.sleep(stage.POLL_SECONDS)


async def _welcome(house: lives.House, host: nodes.Host) -> None:
    async with asyncio.timeout(lives.PATIENCE_SECONDS):
        while await _again(house, host.connect) != "welcome":  # noqa: ASYNC110  # it lies in another process
            await asyncio.sleep(stage.POLL_SECONDS)


def _same(host: nodes.Host, who: str) -> None:
    one, other = host.had[-2:]
    if one.certificate != other.certificate:
        raise stage.Violation(f"{who} gets another certificate")
    host.had.pop()


async def _quarantine(home: houses.House) -> str:
    async with home.channel(home.client()) as channel:
        asked = fleet_service_pb2.GetNodeRequest(node_id=NODE)
        answer = await fleet_service_pb2_grpc.FleetServiceStub(channel).GetNode(asked, timeout=nodes.SECONDS)
    return answer.node.quarantine_reason
