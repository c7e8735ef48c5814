"""Streams that are open when the right to them ends: cut, and told why; and agents that act for another node."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from controller.config import settings
from controller.core import errors, roles
from controller.rpc import errors as rpc_errors
from controller.rpc import principals
from instar.v1 import (
    agent_service_pb2,
    agent_service_pb2_grpc,
    fleet_service_pb2,
    node_pb2,
    operation_pb2,
    rollout_pb2,
    rollout_service_pb2,
    rollout_service_pb2_grpc,
)
from tests.security import oidc, posts, test_authorisation

Kind, Role = principals.Kind, roles.Role
VIEWS = (posts.grant(Role.VIEWER),)


@pytest.fixture
async def post(tmp_path: Path) -> AsyncIterator[posts.Post]:
    async with posts.serving(tmp_path) as found:
        yield found


async def watching(post: posts.Post, shown: posts.Metadata) -> Any:  # noqa: ANN401  # a raw call
    """Watch a rollout that goes nowhere, beyond its first state."""
    request = rollout_service_pb2.WatchRolloutRequest(rollout="still")
    call: Any = rollout_service_pb2_grpc.RolloutServiceStub(post.channel).WatchRollout(request, metadata=shown)
    assert (await call.read()).rollout.name == "still"
    return call


async def start_still(post: posts.Post) -> None:
    """Begin a rollout that waits for an approval."""
    await test_authorisation.publish(post)
    wanted = test_authorisation.upgrade("", "still")
    wanted.approval_deadline.FromSeconds(3600)
    async with post.nodes({"n-0": {}}):
        await test_authorisation.start(post, wanted, post.operator)


async def test_38_a_denied_agent_is_cut_off_and_told_why(post: posts.Post) -> None:
    shown = post.agent("n-1")
    async with posts.session(post.channel, "n-1", shown) as call:
        post.register.deny(Kind.AGENT, "n-1", "its disk was stolen")
        error = await posts.ended(call)
    assert (error.code, str(error)) == ("principal_denied", "cannot let agent 'n-1' in: its disk was stolen")
    again: Any = agent_service_pb2_grpc.AgentServiceStub(post.channel).Connect(metadata=shown)
    assert (await posts.ended(again)).code == "principal_denied"


async def test_38_an_agent_whose_token_was_replaced_is_cut_off_and_the_others_stay(post: posts.Post) -> None:
    async with (
        posts.session(post.channel, "n-1", post.agent("n-1")) as call,
        posts.session(post.channel, "n-2", post.agent("n-2")) as other,
    ):
        post.agent("n-1")
        assert (await posts.ended(call)).code == "token_unknown"
        await other.write(heartbeat(2))
        assert (await other.read()).acknowledgement.sequence == 2


async def test_38_a_quarantined_node_is_cut_off_until_it_is_trusted_again(post: posts.Post) -> None:
    shown = post.agent("n-1")
    async with posts.session(post.channel, "n-1", shown) as call:
        odd = fleet_service_pb2.QuarantineNodeRequest(node_id="n-1", reason="odd answers")
        await post.ask("QuarantineNode", odd, post.operator)
        error = await posts.ended(call)
        assert (error.code, error.field) == ("node_quarantined", "node_id")
    again: Any = agent_service_pb2_grpc.AgentServiceStub(post.channel).Connect(metadata=shown)
    await again.write(posts.hello("n-1"))
    assert (await posts.ended(again)).code == "node_quarantined"
    await post.ask("UncordonNode", fleet_service_pb2.UncordonNodeRequest(node_id="n-1"), post.operator)
    async with posts.session(post.channel, "n-1", shown):
        pass


async def test_38_a_removed_node_is_cut_off_until_it_is_given_a_new_token(post: posts.Post) -> None:
    shown = post.agent("n-1")
    async with posts.session(post.channel, "n-1", shown) as call:
        gone = fleet_service_pb2.RemoveNodeRequest(node_id="n-1", reason="scrapped")
        await post.ask("RemoveNode", gone, post.operator)
        assert (await posts.ended(call)).code in ("principal_denied", "session_stale")
    again: Any = agent_service_pb2_grpc.AgentServiceStub(post.channel).Connect(metadata=shown)
    assert (await posts.ended(again)).code == "principal_denied"
    listed = await post.ask("ListNodes", fleet_service_pb2.ListNodesRequest(), post.operator)
    assert not listed.nodes
    async with posts.session(post.channel, "n-1", post.agent("n-1")):
        pass


async def test_38_a_watch_of_somebody_who_is_denied_or_forgotten_is_cut_and_the_others_stay(post: posts.Post) -> None:
    await start_still(post)
    ann, bob = (post.somebody(name, posts.grant(Role.VIEWER)) for name in ("ann", "bob"))
    denied, forgotten, kept = [await watching(post, shown) for shown in (ann, bob, post.operator)]
    post.register.deny(Kind.API, "ann", "she left")
    post.register.remove(Kind.API, "bob")
    assert (await posts.ended(denied)).code == "principal_denied"
    assert (await posts.ended(forgotten)).code == "token_unknown"
    approve = rollout_service_pb2.ApproveRolloutRequest(rollout="still")
    await post.ask("ApproveRollout", approve, post.somebody("eve", posts.grant(Role.APPROVER)))
    assert (await kept.read()).rollout.state != rollout_pb2.ROLLOUT_STATE_PENDING


async def test_38_a_watch_is_cut_when_its_role_or_its_scope_shrinks(post: posts.Post) -> None:
    await start_still(post)
    shown = post.somebody("ann", posts.grant(Role.VIEWER))
    call = await watching(post, shown)
    post.register.put(principals.Principal(Kind.API, "ann", (posts.grant(Role.VIEWER, "team=web"),)))
    assert (await posts.ended(call)).code == rpc_errors.PERMISSION_DENIED


async def test_38_a_watch_ends_with_the_token_that_opened_it(tmp_path: Path) -> None:
    issuer = oidc.Issuer()
    file = tmp_path / "keys.json"
    file.write_bytes(issuer.jwks())
    (tmp_path / "controller.toml").write_text(oidc.settings_text(f'jwks_file = "{file}"', 'leeway = "0s"'))
    known = settings.load({}, {}, tmp_path / "controller.toml").issuers
    async with posts.serving(tmp_path, issuers=known) as post:
        await start_still(post)
        now = time.time()  # noqa: TID251  # an issuer has its own clock
        call = await watching(post, posts.bearer(issuer.token(exp=now + 5)))
        error = await posts.ended(call)
    assert isinstance(error, errors.UnauthenticatedError)
    assert "expired" in str(error)


async def test_a_register_that_cannot_be_read_lets_nobody_in_and_cuts_nobody_off(post: posts.Post) -> None:
    async with posts.session(post.channel, "n-1", post.agent("n-1")) as call:
        file = post.settings.principals_file
        good = file.read_text()
        file.write_text("nonsense\n")
        error = await post.refused("ListNodes", fleet_service_pb2.ListNodesRequest(), post.operator)
        assert (type(error), error.code) == (errors.UnavailableError, "register_unreadable")
        file.write_text(good)
        await post.ask("ListNodes", fleet_service_pb2.ListNodesRequest(), post.operator)
        await call.write(heartbeat(2))
        assert (await call.read()).acknowledgement.sequence == 2


# 39: an agent is its node, in everything that it says and reads.


def heartbeat(sequence: int, report: agent_service_pb2.Report | None = None) -> agent_service_pb2.ConnectRequest:
    said = agent_service_pb2.Heartbeat(report=report or agent_service_pb2.Report(), full=True)
    return agent_service_pb2.ConnectRequest(sequence=sequence, heartbeat=said)


async def test_39_a_hello_for_another_node_is_refused(post: posts.Post) -> None:
    call: Any = agent_service_pb2_grpc.AgentServiceStub(post.channel).Connect(metadata=post.agent("n-1"))
    await call.write(posts.hello("n-2"))
    error = await posts.ended(call)
    assert (error.code, error.field) == (rpc_errors.PERMISSION_DENIED, "hello.node_id")
    listed = await post.ask("ListNodes", fleet_service_pb2.ListNodesRequest(), post.operator)
    assert not listed.nodes


async def test_39_a_later_hello_changes_no_identity(post: posts.Post) -> None:
    async with posts.session(post.channel, "n-1", post.agent("n-1")) as call:
        second = posts.hello("n-2")
        second.sequence = 2
        await call.write(second)
        assert (await posts.ended(call)).code == "heartbeat_expected"


async def test_39_a_report_is_about_the_node_of_its_stream_and_no_other(post: posts.Post) -> None:
    component = node_pb2.ComponentStatus(name="web", version="9.9.9", digest="sha256:" + "0" * 64)
    async with post.nodes({"n-2": {}}), posts.session(post.channel, "n-1", post.agent("n-1")) as call:
        await call.write(heartbeat(2, agent_service_pb2.Report(components=[component])))
        assert (await call.read()).acknowledgement.sequence == 2
        listed = await post.ask("ListNodes", fleet_service_pb2.ListNodesRequest(), post.operator)
        assert {each.node_id: len(each.components) for each in listed.nodes} == {"n-1": 1, "n-2": 0}


async def test_39_a_result_of_another_nodes_operation_changes_nothing(post: posts.Post) -> None:
    await test_authorisation.publish(post)
    async with posts.session(post.channel, "n-2", post.agent("n-2")) as victim:
        await test_authorisation.start(post, test_authorisation.upgrade("", "web"), post.operator)
        while not (said := await victim.read()).HasField("assign"):
            pass
        async with posts.session(post.channel, "n-1", post.agent("n-1")) as liar:
            told = agent_service_pb2.Report()
            status = told.operations.add(
                operation_id=said.assign.operation_id, fence=said.assign.fence, component="web"
            )
            status.state = operation_pb2.OPERATION_STATE_PERMANENT
            status.change_time.GetCurrentTime()
            await liar.write(heartbeat(2, told))
            assert (await liar.read()).HasField("acknowledgement")
        found = await post.ask("GetRollout", rollout_service_pb2.GetRolloutRequest(rollout="web"), post.operator)
        states = [each.state for each in found.rollout.changes if each.change.node_id == "n-2"]
        assert states == [operation_pb2.OPERATION_STATE_ASSIGNED]


async def test_39_an_answer_to_a_question_that_another_node_was_asked_reaches_nobody(post: posts.Post) -> None:
    async with (
        posts.session(post.channel, "n-2", post.agent("n-2")) as asked,
        posts.session(post.channel, "n-1", post.agent("n-1")) as liar,
    ):
        read = fleet_service_pb2.ReadLogRequest(node_id="n-2", component="web")
        answer = post.ask("ReadLog", read, post.operator)
        reading = asyncio.ensure_future(answer)
        while not (said := await asked.read()).HasField("read_log"):
            pass
        lie = agent_service_pb2.LogText(request_id=said.read_log.request_id, text="a lie")
        await liar.write(agent_service_pb2.ConnectRequest(sequence=2, log_text=lie))
        await liar.write(heartbeat(3))
        assert (await liar.read()).HasField("acknowledgement")
        truth = agent_service_pb2.LogText(request_id=said.read_log.request_id, text="the truth")
        await asked.write(agent_service_pb2.ConnectRequest(sequence=2, log_text=truth))
        assert (await reading).text == "the truth"


async def test_39_a_bundle_is_only_for_nodes_that_were_asked_to_run_it(post: posts.Post) -> None:
    await test_authorisation.publish(post)
    found = await post.ask("ListReleases", posts.METHODS["ListReleases"].request(), post.operator)
    digest = found.releases[0].digest
    shown, other = post.agent("n-1"), post.agent("n-2")
    async with posts.session(post.channel, "n-1", shown) as call, posts.session(post.channel, "n-2", other):
        read = agent_service_pb2.ReadBlobRequest(digest=digest)
        assert (await post.refused("ReadBlob", read, shown)).field == "digest"
        await test_authorisation.start(post, test_authorisation.upgrade("", "web"), post.operator)
        while not (await call.read()).HasField("assign"):
            pass
        assert (await post.ask("ReadBlob", read, shown)).chunk
