"""TLS, Unix sockets, and several sockets at once, swapped under load."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
import trustme

from agent import processes
from tests.agent.keeper import node
from tests.instar_handover import http_load, swaps

T = TypeVar("T")
OURS = ("stream_service.py", ("python", "stream_service.py"))
ASGI = ("starlette_app.py", ("python", "-m", "instar_handover", "serve", "asgi", "starlette_app:app"))


def certified(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """Make a certificate for a server, and the context of clients that trust it."""
    authority, pem = trustme.CA(), folder / "both.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(pem)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return pem, context


@pytest.mark.parametrize("program", ["ours", "asgi"])
async def test_a_tls_service_is_swapped_without_a_failed_request_and_its_probes_stay_plain(
    a_node: node.Node, tmp_path: Path, program: str
) -> None:
    pem, context = certified(tmp_path)
    if program == "ours":
        make = swaps.maker(a_node, *OURS, environment={"CERTIFICATE": str(pem)})
    else:
        make = swaps.maker(a_node, ASGI[0], (*ASGI[1], "--certfile", str(pem)))
    kinds = [http_load.PLAIN] if program == "ours" else http_load.KINDS
    keeper = await a_node.attached()
    old = await swaps.serving(keeper, make(swaps.OLD))
    async with http_load.on(a_node.address, kinds, context) as seen:
        await seen.until_served(swaps.OLD, 40)
        new = await swaps.switched(keeper, make(swaps.NEW), old)
        await seen.until_served(swaps.NEW, 40)
        ended = await swaps.committed(keeper, new, old)
        await seen.until_served(swaps.NEW, 20)
        async with http_load.on(str(a_node.run / f"{new.id}.probe"), [http_load.PLAIN]) as probed:
            await probed.until_served(swaps.NEW, 3)
    assert (seen.failures, probed.failures) == ([], [])
    assert (ended.exit_code, ended.served) == (0, seen.by_version[swaps.OLD])


@pytest.mark.parametrize("program", [OURS, ASGI])
async def test_tcp_and_unix_sockets_of_one_service_are_swapped_together(
    a_node: node.Node, program: tuple[str, tuple[str, ...]]
) -> None:
    keeper = await a_node.attached()
    path = str(a_node.run / "local.sock")
    await keeper.listen("web.local", f"unix:{path}")
    make = swaps.maker(a_node, *program, sockets=("web.http", "web.local"))
    old = await swaps.serving(keeper, make(swaps.OLD))
    async with contextlib.AsyncExitStack() as loads:
        both = [
            await loads.enter_async_context(http_load.on(address, [http_load.PLAIN]))
            for address in (a_node.address, path)
        ]
        for seen in both:
            await seen.until_served(swaps.OLD, 20)
        new = await swaps.switched(keeper, make(swaps.NEW), old)
        for seen in both:
            await seen.until_served(swaps.NEW, 20)
        ended = await swaps.committed(keeper, new, old)
        for seen in both:
            await seen.until_served(swaps.NEW, 20)
    assert [seen.failures for seen in both] == [[], []]
    assert (ended.exit_code, ended.served) == (0, sum(seen.by_version[swaps.OLD] for seen in both))


async def test_a_socket_that_is_not_named_is_left_alone_and_one_that_is_unknown_is_refused(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    await keeper.listen("web.local", f"unix:{a_node.run / 'local.sock'}")
    both = ("web.http", "web.local")
    make = swaps.maker(a_node, ASGI[0], (*ASGI[1], "--socket", "http"), sockets=both)
    old = await swaps.serving(keeper, make(swaps.OLD))
    _, waiting = await asyncio.open_unix_connection(str(a_node.run / "local.sock"))
    async with http_load.on(a_node.address, [http_load.PLAIN]) as seen:
        await seen.until_served(swaps.OLD, 5)
    assert seen.failures == []

    async def is_left_alone() -> bool:
        await keeper.say(old.id, processes.Word.STATUS, node.WORD_TIMEOUT)
        return (await node.find(keeper, old.id)).accepted == 0

    await node.until(is_left_alone)
    waiting.close()
    spec = swaps.maker(a_node, ASGI[0], (*ASGI[1], "--socket", "absent"), sockets=both)(swaps.NEW)
    await keeper.start(spec)
    ended = await node.reaches(keeper, spec.id, processes.InstanceState.EXITED)
    assert ended.exit_code == 1
    assert "cannot serve socket 'absent'" in (a_node.run / f"{spec.id}.log").read_text()


class Tls:
    """A TLS client that decides itself which bytes it sends, and when."""

    def __init__(self, address: tuple[str, int], context: ssl.SSLContext) -> None:
        self.socket = socket.create_connection(address, node.PATIENCE_SECONDS)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")
        self._until_done(self._tls.do_handshake)
        self.socket.sendall(self._outgoing.read())

    def record(self, data: bytes) -> bytes:
        self._tls.write(data)
        return self._outgoing.read()

    def read(self) -> bytes:
        return self._until_done(lambda: self._tls.read(65536))

    def _until_done(self, step: Callable[[], T]) -> T:
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                self.socket.sendall(self._outgoing.read())
                if data := self.socket.recv(65536):
                    self._incoming.write(data)
                else:
                    self._incoming.write_eof()


REQUEST = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"


async def test_a_tls_request_of_which_only_a_part_has_arrived_is_answered_and_a_silent_client_holds_nothing_up(
    a_node: node.Node, tmp_path: Path
) -> None:
    pem, context = certified(tmp_path)
    keeper = await a_node.attached()
    make = swaps.maker(a_node, *OURS, environment={"CERTIFICATE": str(pem)})
    old = await swaps.serving(keeper, make(swaps.OLD))
    slow, silent = await asyncio.to_thread(both, a_node.address, context)
    with slow.socket, silent.socket:
        record = slow.record(REQUEST)
        slow.socket.sendall(record[:10])
        await keeper.say(old.id, processes.Word.DRAIN, node.WORD_TIMEOUT)
        assert await asyncio.to_thread(silent.read) == b""  # the end, after the grace; no goodbye is said to it
        slow.socket.sendall(record[10:])
        answer = await asyncio.to_thread(slow.read)
        assert answer.endswith(b"hello")
        ended = await node.reaches(keeper, old.id, processes.InstanceState.EXITED)
    assert (ended.exit_code, ended.served) == (0, 3)


def both(address: tuple[str, int], context: ssl.SSLContext) -> tuple[Tls, Tls]:
    """Connect two clients and let each be served once."""
    clients = Tls(address, context), Tls(address, context)
    for each in clients:
        each.socket.sendall(each.record(REQUEST))
        assert each.read().endswith(b"hello")
    return clients
