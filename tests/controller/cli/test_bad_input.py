"""Bad input, by the real command line against a real controller: an error that names the field, nothing changed."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from grpc import aio

from controller import releases
from controller.rpc import errors as rpc_errors
from instar.v1 import (
    agent_service_pb2,
    agent_service_pb2_grpc,
    fleet_service_pb2,
    fleet_service_pb2_grpc,
    release_service_pb2,
    release_service_pb2_grpc,
    rollout_service_pb2,
    rollout_service_pb2_grpc,
)
from tests.controller.cli import house

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def home(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[house.House]:
    """One controller for all: none of the tests may change anything in it."""
    found = house.House(tmp_path_factory.mktemp("bad"))
    async with found.serving():
        await found.publish("1.0.0")
        async with found.nodes("n-1"):
            yield found


@dataclass(frozen=True)
class Standing:
    """All that a refusal must leave alone."""

    releases: str
    rollouts: str
    nodes: list[str]
    blobs: list[str]
    principals: str
    freezes: str
    graph: str


async def standing(home: house.House) -> Standing:
    metadata = (("authorization", f"Bearer {home.operator_token}"),)
    async with aio.insecure_channel(home.address) as channel:
        kept = await release_service_pb2_grpc.ReleaseServiceStub(channel).ListReleases(
            release_service_pb2.ListReleasesRequest(), metadata=metadata
        )
        going = await rollout_service_pb2_grpc.RolloutServiceStub(channel).ListRollouts(
            rollout_service_pb2.ListRolloutsRequest(), metadata=metadata
        )
        fleet = await fleet_service_pb2_grpc.FleetServiceStub(channel).ListNodes(
            fleet_service_pb2.ListNodesRequest(), metadata=metadata
        )
        freezes = await fleet_service_pb2_grpc.FleetServiceStub(channel).ListFreezes(
            fleet_service_pb2.ListFreezesRequest(), metadata=metadata
        )
        graph = await release_service_pb2_grpc.ReleaseServiceStub(channel).GetGraph(
            release_service_pb2.GetGraphRequest(component="web"), metadata=metadata
        )
    return Standing(
        releases=str(kept),
        rollouts=str(going),
        nodes=[
            f"{one.node_id} {one.fence} {one.operation_id} {one.components} {one.labels} {one.cordon_reason}"
            for one in fleet.nodes
        ],
        blobs=sorted(path.name for path in (home.state_dir / "releases" / "sha256").iterdir()),
        principals=(home.state_dir / "tokens" / "principals").read_text(),
        freezes=str(freezes),
        graph=str(graph),
    )


async def refused(home: house.House, code: int, field: str, *arguments: str | Path) -> house.Outcome:
    """Run a command that must be refused, and hold it to all that a refusal promises."""
    before = await standing(home)
    found = await home.instar(*arguments)
    assert found.code == code, found
    assert found.out == ""
    assert found.err.startswith("cannot ")
    assert field in found.err
    assert len(found.err.splitlines()) == 1
    assert await standing(home) == before
    return found


async def test_a_manifest_with_an_unknown_key_makes_no_bundle(home: house.House) -> None:
    tree = home.tree("7.0.0", 'colour = "red"\n')
    bundle = home.folder / "unknown.tar"
    await refused(home, 2, "colour", "release", "build", tree, "-o", bundle)
    assert not bundle.exists()


async def test_a_bundle_whose_manifest_has_an_unknown_key_is_not_published(home: house.House) -> None:
    bundle = home.folder / "made-elsewhere.tar"
    releases.build(home.tree("7.1.0", '[health]\nhttp = { pth = "/" }\n'), bundle)
    await refused(home, 8, "health.http.pth", "release", "publish", bundle)


async def test_a_bundle_whose_bytes_differ_from_its_digest_is_not_published(home: house.House) -> None:
    bundle = home.folder / "changed.tar"
    said = releases.build(home.tree("7.2.0"), bundle)
    before = await standing(home)
    changed = bundle.read_bytes()[:-1] + b"x"
    header = release_service_pb2.PublishReleaseHeader(digest=said.digest, size_bytes=said.size_bytes)
    parts = [
        release_service_pb2.PublishReleaseRequest(header=header),
        release_service_pb2.PublishReleaseRequest(chunk=changed),
    ]
    async with aio.insecure_channel(home.address) as channel:
        stub = release_service_pb2_grpc.ReleaseServiceStub(channel)
        with pytest.raises(aio.AioRpcError) as caught:
            await stub.PublishRelease(iter(parts), metadata=(("authorization", f"Bearer {home.operator_token}"),))
    found = rpc_errors.from_rpc(caught.value)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (found.code, found.field, found.value) == ("digest_mismatch", "digest", said.digest)
    assert await standing(home) == before


async def test_a_file_that_is_no_bundle_is_not_published(home: house.House) -> None:
    file = home.folder / "no.tar"
    file.write_bytes(os.urandom(2000))
    await refused(home, 8, "bundle", "release", "publish", file)
    await refused(home, 2, "FILE", "release", "publish", home.folder / "none.tar")


async def test_a_version_that_exists_keeps_its_bytes(home: house.House) -> None:
    tree = home.folder / "web-1.0.0"
    bundle = home.folder / "other.tar"
    (tree / "more.py").write_text("")
    releases.build(tree, bundle)
    await refused(home, 8, "version", "release", "publish", bundle)


@pytest.mark.parametrize("verb", ["plan", "start"])
@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("target_version", ("web", "9.9.9")),
        ("component", ("nothing", "1.0.0")),
        ("selector", ("web", "1.0.0", "--install", "--selector", "zone=nowhere")),
        ("selector", ("web", "1.0.0", "--install", "--selector", "zone=(")),
        ("component", ("web", "1.0.0")),
        ("parameters", ("web", "1.0.0", "--install", "--strategy", "immediate", "--canary-nodes", "1")),
        ("policy.healthy_deadline", ("web", "1.0.0", "--install", "--healthy-deadline", "1s")),
        ("parameters", ("web", "1.0.0", "--install", "--strategy", "rolling", "--percents", "5,100")),
        ("parameters", ("web", "1.0.0", "--install", "--strategy", "gradual", "--percents", "50,20")),
        ("policy.windows", ("web", "1.0.0", "--install", "--window", "22:00+4h Nowhere/Else")),
    ],
)
async def test_an_upgrade_that_cannot_be_is_refused_by_the_controller(
    home: house.House, verb: str, field: str, arguments: tuple[str, ...]
) -> None:
    await refused(home, 8, field, "upgrade", verb, *arguments)


async def test_a_second_controller_on_one_store_does_not_start(home: house.House) -> None:
    found = await refused(home, 8, "store", "controller", "serve", "--listen", "127.0.0.1:0")
    assert "another controller" in found.err


async def test_a_controller_on_an_address_that_is_taken_does_not_start(home: house.House, tmp_path: Path) -> None:
    arguments = ("controller", "serve", "--listen", home.address, "--state-dir", tmp_path / "other")
    found = await home.instar(*arguments)
    assert found.code == 8
    assert f"cannot listen on {home.address}" in found.err


@pytest.mark.parametrize("listen", ["0.0.0.0:7443", "192.0.2.7:7443", "[::]:7443"])
async def test_a_controller_listens_on_nothing_but_loopback(home: house.House, tmp_path: Path, listen: str) -> None:
    other = tmp_path / "other"
    await refused(home, 2, "listen", "controller", "serve", "--listen", listen, "--state-dir", other)
    assert not other.exists()


async def test_an_unknown_node_is_not_shown(home: house.House) -> None:
    await refused(home, 8, "node", "node", "show", "n-99")


@pytest.mark.parametrize("verb", ["show", "watch", "explain"])
async def test_an_unknown_rollout_is_neither_shown_nor_watched_nor_explained(home: house.House, verb: str) -> None:
    await refused(home, 8, "rollout", "rollout", verb, "r-none")


@pytest.mark.parametrize("verb", ["revert", "pause", "resume", "promote", "cancel", "retry"])
async def test_an_unknown_rollout_is_not_led(home: house.House, verb: str) -> None:
    await refused(home, 8, "rollout", "rollout", verb, "r-none", "--reason", "because")


@pytest.mark.parametrize(
    "arguments",
    [
        ("label", "n-99", "zone=b"),
        ("cordon", "n-99", "--reason", "because"),
        ("uncordon", "n-99"),
        ("quarantine", "n-99", "--reason", "because"),
        ("remove", "n-99", "--reason", "because"),
        ("explain", "n-99"),
    ],
)
async def test_nothing_is_decided_of_an_unknown_node(home: house.House, arguments: tuple[str, ...]) -> None:
    await refused(home, 8, "node", "node", *arguments)


@pytest.mark.parametrize("name", [("web", "9.9.9"), ("db", "1.0.0"), ("web", "")])
async def test_a_release_that_was_never_published_is_not_shown(home: house.House, name: tuple[str, str]) -> None:
    await refused(home, 8, "version", "release", "show", *name)


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("labels", ("node", "label", "n-1", "zone=a b")),
        ("reason", ("node", "cordon", "n-1", "--reason", "x" * 1025)),
        ("freeze.reason", ("freeze", "add", "--reason", "")),
        ("selector", ("freeze", "add", "--selector", "zone=(", "--reason", "because")),
        ("freeze.end_time", ("freeze", "add", "--until", "2020-01-01T00:00Z", "--reason", "because")),
        ("freeze", ("freeze", "remove", "f-none", "--reason", "because")),
        ("version", ("release", "block", "web", "9.9.9", "--reason", "because")),
        ("version", ("release", "promote", "web", "9.9.9", "stable")),
        ("channel", ("release", "promote", "web", "1.0.0", "1.0.0")),
        ("selector", ("rollback", "emergency", "--selector", "zone=(", "--reason", "because")),
        ("time_limit", ("rollback", "emergency", "--within", "0s", "--reason", "because")),
    ],
)
async def test_a_decision_that_cannot_be_is_refused_by_the_controller(
    home: house.House, field: str, arguments: tuple[str, ...]
) -> None:
    await refused(home, 8, field, *arguments)


@pytest.mark.parametrize(
    ("field", "graph"),
    [
        ("condition", '{"component": "web", "edges": [{"to_version": "1.0.0", "condition": "node.("}]}'),
        ("version", '{"component": "web", "edges": [{"to_version": "9.9.9"}]}'),
        ("from_versions", '{"component": "web", "edges": [{"to_version": "1.0.0", "from_versions": "~1"}]}'),
        ("version", '{"component": "web", "barriers": [{"version": "9.9.9"}]}'),
    ],
)
async def test_a_graph_that_cannot_be_is_not_declared(
    home: house.House, tmp_path: Path, field: str, graph: str
) -> None:
    file = tmp_path / "graph.json"
    file.write_text(graph)
    await refused(home, 8, field, "release", "graph", "set", file)


async def test_a_wrong_token_opens_nothing(home: house.House, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.token"
    wrong.write_text("wrong\n")
    await refused(home, 8, "token", "node", "list", "--token-file", wrong)
    await refused(home, 2, "--token-file", "node", "list", "--token-file", tmp_path / "none")


async def test_the_token_of_a_node_does_not_open_the_api(home: house.House) -> None:
    await refused(home, 8, "token", "release", "list", "--token-file", home.folder / "n-1.token")


async def test_the_token_of_one_node_does_not_open_the_session_of_another(home: house.House) -> None:
    before = await standing(home)
    token = (home.folder / "n-1.token").read_text().strip()
    hello = agent_service_pb2.ConnectRequest(
        sequence=1, hello=agent_service_pb2.Hello(node_id="n-2", protocol_versions=[1])
    )
    async with aio.insecure_channel(home.address) as channel:
        stub = agent_service_pb2_grpc.AgentServiceStub(channel)
        with pytest.raises(aio.AioRpcError) as caught:
            async for _ in stub.Connect(iter([hello]), metadata=(("authorization", f"Bearer {token}"),)):
                pass
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "node_id" in rpc_errors.from_rpc(caught.value).field
    assert await standing(home) == before


async def test_a_node_with_an_impossible_name_gets_no_token(home: house.House, tmp_path: Path) -> None:
    await refused(home, 2, "name", "node", "token", "../n", "--out", tmp_path / "token")
    assert not (tmp_path / "token").exists()


async def test_a_controller_that_is_not_there_ends_with_code_7(home: house.House) -> None:
    await refused(home, 7, "controller", "node", "list", "--controller", "127.0.0.1:1")


@pytest.mark.parametrize(
    ("word", "arguments"),
    [
        ("--soak-duration", ("upgrade", "start", "web", "1.0.0", "--soak-duration", "5")),
        ("--strategy", ("upgrade", "start", "web", "1.0.0", "--strategy", "sideways")),
        ("--max-failures", ("upgrade", "start", "web", "1.0.0", "--max-failures", "-1")),
        ("--timeout", ("rollout", "watch", "x", "--timeout", "soon")),
        ("--nope", ("node", "list", "--nope")),
        ("sideways", ("sideways",)),
    ],
)
async def test_what_is_no_command_ends_with_code_2(home: house.House, word: str, arguments: tuple[str, ...]) -> None:
    found = await home.instar(*arguments)
    assert (found.code, found.out) == (2, "")
    assert found.err.startswith("cannot ")
    assert word in found.err


async def test_help_needs_neither_the_wire_nor_the_store(home: house.House) -> None:
    assert (await home.instar("--help")).code == 0
    heavy = "{name for name in sys.modules if name.split('.')[0] in {'grpc', 'google', 'sqlalchemy', 'instar', 'rich'}}"
    code = f"import sys; from controller.cli import application; application.run(['--help']); print({heavy})"
    process = await home.instar("-c", code, program=sys.executable)
    assert process.out.splitlines()[-1] == "set()"
