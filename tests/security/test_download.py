"""Bundles on their way, and on the disk between verification and start: lines 12 to 17 of the fault matrix, and 66."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable
from datetime import timedelta
from pathlib import Path

import pytest
from grpc import aio

from agent import depot, processes
from agent.config import layout
from agent.core import model, secret
from agent.depot import metadata
from agent.link import transport
from instar.v1 import agent_service_pb2_grpc, operation_pb2
from tests.agent import bundles, live_node
from tests.agent.keeper import load
from tests.agent.keeper import node as keeper_node
from tests.security import controller, repository

PERMANENT, ABORTED = operation_pb2.OPERATION_STATE_PERMANENT, operation_pb2.OPERATION_STATE_ABORTED


async def test_12_a_download_that_drops_at_99_percent_resumes() -> None:
    signed, data = repository.Repository("web"), controller.web("1.0.0")
    signed.release("web", "1.0.0", data)
    drops = iter((True,))

    async def dropping(whole: bytes, offset: int) -> AsyncIterator[bytes]:
        end = len(whole) * 99 // 100 if next(drops, False) else len(whole)
        async for chunk in controller.honest(whole[:end], offset):
            yield chunk
        if end < len(whole):
            raise ConnectionError("the line is gone")

    async with controller.leading(signed.root) as (leader, node):
        leader.read_blob, leader.metadata = dropping, signed.served("web")
        ended = await leader.ended(leader.order("1.0.0", leader.publish(data)))
        assert await node.versions() == ["1.0.0"]
    assert ended.state == PERMANENT
    first, *others = leader.offsets
    assert first == 0
    assert others[0] >= len(data) * 98 // 100  # what had come was not asked for again


async def test_13_other_bytes_of_the_same_length_are_refused_and_right_ones_taken_afterwards() -> None:
    signed, data = repository.Repository("web"), controller.web("1.0.0")
    signed.release("web", "1.0.0", data)

    async def evil(whole: bytes, offset: int) -> AsyncIterator[bytes]:
        async for chunk in controller.honest(whole.replace(b"is_well", b"is_evil"), offset):
            yield chunk

    async with controller.leading(signed.root) as (leader, node):
        leader.read_blob, leader.metadata = evil, signed.served("web")
        digest = leader.publish(data)
        refused = await leader.ended(leader.order("1.0.0", digest))
        assert (refused.state, refused.reason) == (ABORTED, "digest_mismatch")
        assert refused.fault == operation_pb2.FAULT_INFRASTRUCTURE  # of the way, not of the version
        assert await node.versions() == []
        leader.read_blob = controller.honest
        assert (await leader.ended(leader.order("1.0.0", digest))).state == PERMANENT


async def read(port: int, store: depot.Depot, digest: str, bytes_max: int = layout.BUNDLE_BYTES_MAX) -> Path:
    """Fetch as the agent does."""
    incoming = store.receive(digest, bytes_max)
    try:
        async for chunk in transport.GrpcTransport(f"127.0.0.1:{port}", lambda: secret.Secret("a-token")).read_blob(
            digest, incoming.offset
        ):
            incoming.write(chunk)
        return incoming.complete()
    finally:
        incoming.close()


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[tuple[controller.Controller, int, depot.Depot]]:
    """A controller, its port, and a disk to fetch onto."""
    store = depot.Depot(layout.Layout(tmp_path, tmp_path))
    store.prepare()
    leader, server = controller.Controller(), aio.server()
    agent_service_pb2_grpc.add_AgentServiceServicer_to_server(leader, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield leader, port, store
    await server.stop(0)


async def endless(whole: bytes, _offset: int) -> AsyncIterator[bytes]:
    yield whole
    while True:
        yield bytes(controller.CHUNK_BYTES)


async def test_14_no_byte_is_taken_beyond_the_length_that_is_signed() -> None:
    signed, data = repository.Repository("web"), controller.web("1.0.0")
    signed.release("web", "1.0.0", data)
    async with controller.leading(signed.root) as (leader, node):
        leader.read_blob, leader.metadata = endless, signed.served("web")
        digest = leader.publish(data)
        refused = await leader.ended(leader.order("1.0.0", digest))
        assert (refused.state, refused.reason) == (ABORTED, "bundle_too_large")
        assert refused.fault == operation_pb2.FAULT_INFRASTRUCTURE  # of the way, not of the version
        assert f"at most {len(data)} bytes" in refused.message
        assert list((node.keeper.state / "incoming").glob("*[0-9a-f]")) == []
        leader.read_blob = controller.honest
        assert (await leader.ended(leader.order("1.0.0", digest))).state == PERMANENT


async def test_14_endless_data_ends_at_the_bound_and_leaves_nothing(
    served: tuple[controller.Controller, int, depot.Depot], tmp_path: Path
) -> None:
    leader, port, store = served
    leader.read_blob = endless
    with pytest.raises(depot.DepotError, match="at most 262144 bytes") as caught:
        await read(port, store, leader.publish(b"x"), 256 * 1024)
    assert caught.value.code == "bundle_too_large"
    assert list((tmp_path / "incoming").iterdir()) == []


async def test_14_a_sender_that_goes_silent_is_left_and_what_came_is_kept(
    served: tuple[controller.Controller, int, depot.Depot], monkeypatch: pytest.MonkeyPatch
) -> None:
    leader, port, store = served

    async def silent(whole: bytes, _offset: int) -> AsyncIterator[bytes]:
        yield whole[:4096]
        await asyncio.Event().wait()

    leader.read_blob = silent
    digest = leader.publish(bytes(8192))
    begun = store.receive(digest, layout.BUNDLE_BYTES_MAX)
    way = transport.GrpcTransport(f"127.0.0.1:{port}", lambda: secret.Secret("a-token")).read_blob(digest, 0)
    begun.write(await anext(way))
    monkeypatch.setattr(transport, "CHUNK_DEADLINE", timedelta(seconds=0.2))  # the first chunk takes what it takes
    with pytest.raises(transport.LinkError, match="nothing came"):
        await anext(way)
    begun.close()
    kept = store.receive(digest, layout.BUNDLE_BYTES_MAX)
    kept.close()
    assert kept.offset == 4096


def take(store: depot.Depot, pieces: Iterable[transport.Piece]) -> None:
    """Receive metadata as the agent does."""
    incoming = store.receive_metadata()
    try:
        for piece in pieces:
            incoming.write(piece.name, piece.content, is_last_piece=piece.is_last_piece)
        incoming.complete()
    finally:
        incoming.close()


@pytest.mark.parametrize("way", ["files", "bytes", "names", "twice", "mixed", "unended"])
async def test_14_endless_metadata_ends_at_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    monkeypatch.setattr(metadata, "BYTES_MAX", 100_000)
    store = depot.Depot(layout.Layout(tmp_path, tmp_path))
    store.prepare()
    endless = {
        "files": (transport.Piece(f"{number}.root.json", b"", is_last_piece=True) for number in itertools.count()),
        "bytes": (transport.Piece("timestamp.json", bytes(1000), is_last_piece=False) for _ in itertools.count()),
        "names": [transport.Piece("../../agent.toml.json", b"", is_last_piece=True)],
        "twice": [transport.Piece("timestamp.json", b"", is_last_piece=True)] * 2,
        "mixed": [transport.Piece(f"{number}.root.json", b"", is_last_piece=False) for number in range(2)],
        "unended": [transport.Piece("timestamp.json", b"", is_last_piece=False)],
    }
    with pytest.raises(depot.DepotError, match="cannot take the metadata") as caught:
        take(store, endless[way])
    assert caught.value.code == "metadata_unusable"
    assert not (tmp_path / "incoming" / "trust").exists()


async def test_15_a_sender_that_ignores_the_offset_spoils_one_try_and_not_the_next(
    served: tuple[controller.Controller, int, depot.Depot],
) -> None:
    leader, port, store = served
    data = bundles.bundle()
    digest = leader.publish(data)
    begun = store.receive(digest, layout.BUNDLE_BYTES_MAX)
    begun.write(data[:5000])
    begun.close()

    async def from_the_start(whole: bytes, _offset: int) -> AsyncIterator[bytes]:
        yield whole

    leader.read_blob = from_the_start
    with pytest.raises(depot.DepotError) as caught:
        await read(port, store, digest)
    assert caught.value.code == "digest_mismatch"
    assert (await read(port, store, digest)).read_bytes() == data
    assert leader.offsets == [5000, 0]


async def unpacked(made: keeper_node.Node) -> tuple[processes.Keeper, processes.InstanceSpec]:
    """A release that the real verifier's child has just let in."""
    keeper = await made.attached()
    data = bundles.bundle({"instar.toml": bundles.MANIFEST, "main.py": keeper_node.WEB_SERVICE.read_bytes()})
    verdict = await keeper.verify(f"sha256:{bundles.put(made.state, data)}", "web", "1.0.0")
    assert verdict.exit_code == 0, verdict.output
    spec = processes.InstanceSpec(
        id="web-1",
        component="web",
        version="1.0.0",
        digest=bundles.digest_of(data),
        release_dir=made.state / "releases" / bundles.hex_of(data),
        command=["python", "main.py"],
        sockets=["web.http"],
        stop_timeout=timedelta(seconds=5),
    )
    return keeper, spec


async def test_16_a_file_that_is_swapped_between_verification_and_start_is_not_run(short_path: Path) -> None:
    async with keeper_node.running(short_path) as made:
        keeper, spec = await unpacked(made)
        good, evil = spec.release_dir / "main.py", spec.release_dir / "evil.py"
        evil.write_text("raise SystemExit('not what was checked')")
        evil.rename(good)
        with pytest.raises(processes.KeeperError) as caught:
            await keeper.start(spec)
        assert caught.value.code == "digest_mismatch"
        assert (await keeper.inspect()).instances == ()


@pytest.mark.parametrize("name", ["main.py", "instar.toml"])
async def test_17_a_single_bit_that_rots_in_the_store_keeps_a_release_from_starting(
    short_path: Path, name: str
) -> None:
    async with keeper_node.running(short_path) as made:
        keeper, spec = await unpacked(made)
        started = await keeper_node.prepared(keeper, spec)
        await keeper.stop(started.id, timedelta(seconds=5))
        path = spec.release_dir / name
        whole = bytearray(path.read_bytes())
        whole[len(whole) // 2] ^= 1
        path.write_bytes(whole)
        with pytest.raises(processes.KeeperError) as caught:
            await keeper.start(spec)
        assert caught.value.code == "digest_mismatch"


HANGING = live_node.SERVICE.replace(
    b"        is_well = ", b"        if self._served:\n            await asyncio.sleep(3600)\n        is_well = "
)


async def test_66_a_health_probe_that_hangs_in_use_is_undone_and_fails_no_request() -> None:
    assert HANGING != live_node.SERVICE
    async with live_node.running() as made:
        old = await made.installed("1.0.0")
        bad = made.bundle("1.2.0", service=HANGING)
        async with load.on(made.address) as seen:
            ordered = made.assign("1.2.0", bad, old, soak_duration=timedelta(seconds=30))
            ended = await made.until_state(ordered, "ABORTED")
            await seen.until_served("1.0.0", 20)
        assert (ended["fault"], ended["reason"]) == (model.Fault.VERSION.value, "health_probe_failed")
        assert seen.failures == []
        assert seen.by_version["1.2.0"] > 0
        assert made.component()["digest"] == old
