"""Who may call what, against a real controller: every role at every method, and scopes by label."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from grpc import aio
from grpc_health.v1 import health_pb2  # type: ignore[import-untyped]  # ships no stubs

from controller.core import roles
from controller.rpc import errors as rpc_errors
from controller.rpc import policies, principals
from instar.v1 import (
    fleet_service_pb2,
    release_service_pb2,
    release_service_pb2_grpc,
    rollout_pb2,
    rollout_service_pb2,
    trigger_service_pb2,
)
from tests import documents
from tests.agent import bundles
from tests.security import posts

Reach, Role = policies.Reach, roles.Role
API = [each for each in posts.methods() if "AgentService" not in each.path]
LABELS: Mapping[str, Mapping[str, str]] = {
    "web-1": {"team": "web", "zone": "a"},
    "web-2": {"team": "web", "zone": "b"},
    "db-1": {"team": "db", "zone": "a"},
}
WEB = "team=web"


def test_41_every_method_of_every_service_has_a_policy_and_the_door_answers_no_other() -> None:
    services = (*posts.SERVICES, health_pb2.DESCRIPTOR.services_by_name["Health"])
    served = {f"/{service.full_name}/{method.name}" for service in services for method in service.methods}
    assert set(policies.POLICIES) == served
    for method in served:
        policy = policies.POLICIES[method]
        assert (policy.kind is None) is method.startswith("/grpc.health.v1.Health/"), method
        assert bool(policy.roles) is (policy.kind is principals.Kind.API), method
        assert policy.kind is not principals.Kind.API or Role.ADMIN in policy.roles, method


def test_the_page_says_of_every_method_who_may_and_what_a_scope_means(*, is_rewriting: bool) -> None:
    def rows() -> Iterator[str]:
        yield "| method | is about | " + " | ".join(role.value for role in Role) + " |"
        yield "|" + " --- |" * (2 + len(Role))
        for method, policy in sorted(policies.POLICIES.items()):
            service, _, name = method.rpartition("/")
            if policy.kind is principals.Kind.API:
                marks = " | ".join("x" if role in policy.roles else "" for role in Role)
                yield f"| `{service.rpartition('.')[2]}/{name}` | {policy.reach.name.lower()} | {marks} |"

    documents.check(documents.DOCS / "authorisation.md", {"policies": rows}, is_rewriting=is_rewriting)


async def status(post: posts.Post, method: posts.Method, shown: posts.Metadata) -> grpc.StatusCode:
    """What comes of an empty request."""
    try:
        await method.call(post.channel, method.request(), shown)
    except aio.AioRpcError as failure:
        return failure.code()
    return grpc.StatusCode.OK


async def test_each_role_may_call_what_its_row_says_and_nothing_else(tmp_path: Path) -> None:
    async with posts.serving(tmp_path) as post:
        for role in Role:
            shown = post.somebody(role.value, posts.grant(role))
            for method in posts.methods():
                policy = policies.POLICIES[method.path]
                is_denied = await status(post, method, shown) is grpc.StatusCode.PERMISSION_DENIED
                assert is_denied is (role not in policy.roles), (role, method.path)


async def test_without_a_role_or_as_an_agent_nothing_of_the_api_is_to_be_had(tmp_path: Path) -> None:
    async with posts.serving(tmp_path) as post:
        for shown in (post.somebody("nobody"), post.agent("n-1")):
            for method in API:
                assert await status(post, method, shown) is grpc.StatusCode.PERMISSION_DENIED, method.path


async def test_a_role_for_some_nodes_reaches_as_far_as_its_row_says_where_nothing_lies_within(tmp_path: Path) -> None:
    """Empty requests name nothing that lies within: only what is about no node, or is a list, is answered."""
    async with posts.serving(tmp_path) as post:
        shown = post.somebody("team", *(posts.grant(role, WEB) for role in Role if role is not Role.PUBLISHER))
        for method in API:
            policy = policies.POLICIES[method.path]
            is_denied = await status(post, method, shown) is grpc.StatusCode.PERMISSION_DENIED
            assert is_denied is (policy.reach not in (Reach.ANY, Reach.LIST)), method.path


@pytest.fixture
async def post(tmp_path: Path) -> AsyncIterator[posts.Post]:
    async with posts.serving(tmp_path) as found, found.nodes(LABELS):
        yield found


def web(post: posts.Post) -> posts.Metadata:
    """What somebody shows who operates, approves and views for one team."""
    wanted = (Role.OPERATOR, Role.APPROVER, Role.VIEWER)
    return post.somebody("ann", *(posts.grant(role, WEB) for role in wanted))


async def test_a_scope_shows_its_nodes_and_no_others(post: posts.Post) -> None:
    shown = web(post)
    listed = await post.ask("ListNodes", fleet_service_pb2.ListNodesRequest(), shown)
    assert posts.names(listed.nodes) == ["web-1", "web-2"]
    listed = await post.ask("ListNodes", fleet_service_pb2.ListNodesRequest(selector="zone=a"), shown)
    assert posts.names(listed.nodes) == ["web-1"]
    for node_id in ("db-1", "n-99"):  # what is not there is refused in the same words
        error = await post.refused("GetNode", fleet_service_pb2.GetNodeRequest(node_id=node_id), shown)
        assert (error.code, error.field) == (rpc_errors.PERMISSION_DENIED, "node_id")
        assert node_id not in str(error)
    states = fleet_service_pb2.ListRuleStatesRequest(node_id="db-1")
    assert not (await post.ask("ListRuleStates", states, shown)).standings


async def test_a_scope_lets_act_on_its_nodes_and_on_no_others(post: posts.Post) -> None:
    shown = web(post)
    found = await post.ask("CordonNode", fleet_service_pb2.CordonNodeRequest(node_id="web-1", reason="disk"), shown)
    assert found.node.cordon_reason == "disk"
    for method in ("CordonNode", "UncordonNode", "QuarantineNode", "RemoveNode", "ReadLog", "ExplainNode"):
        request = posts.METHODS[method].request(node_id="db-1")
        assert (await post.refused(method, request, shown)).code == rpc_errors.PERMISSION_DENIED
    listed = await post.ask("ListNodes", fleet_service_pb2.ListNodesRequest(), post.operator)
    assert [each.cordon_reason for each in listed.nodes] == ["", "disk", ""]


async def test_a_scope_moves_no_node_into_another_one(post: posts.Post) -> None:
    label = fleet_service_pb2.LabelNodeRequest(node_id="web-1", labels={"team": "db"})
    assert (await post.refused("LabelNode", label, web(post))).code == rpc_errors.PERMISSION_DENIED


@pytest.mark.parametrize(
    ("selector", "is_within"),
    [(WEB, True), ("zone=a,team=web", True), ("team in (web)", True), ("zone=b", False), ("", False), ("team", False)],
)
async def test_a_scope_freezes_and_lifts_only_what_repeats_its_terms(
    post: posts.Post, selector: str, *, is_within: bool
) -> None:
    shown = web(post)
    freeze = fleet_service_pb2.Freeze(selector=selector, reason="holidays")
    freeze.start_time.FromDatetime(datetime.now(UTC))  # noqa: TID251  # as a client would say it
    request = fleet_service_pb2.AddFreezeRequest(freeze=freeze)
    if not is_within:
        assert (await post.refused("AddFreeze", request, shown)).field == "freeze.selector"
        freeze_id = (await post.ask("AddFreeze", request, post.operator)).freeze.freeze_id
        lift = fleet_service_pb2.RemoveFreezeRequest(freeze_id=freeze_id, reason="over")
        assert (await post.refused("RemoveFreeze", lift, shown)).field == "freeze_id"
        return
    freeze_id = (await post.ask("AddFreeze", request, shown)).freeze.freeze_id
    await post.ask("RemoveFreeze", fleet_service_pb2.RemoveFreezeRequest(freeze_id=freeze_id, reason="over"), shown)


def upgrade(selector: str, name: str, **more: object) -> rollout_pb2.UpgradeRequest:
    found = rollout_pb2.UpgradeRequest(
        component="web",
        target_version="1.0.0",
        selector=selector,
        strategy=rollout_pb2.STRATEGY_IMMEDIATE,
        install=True,
        name=name,
    )
    found.MergeFrom(rollout_pb2.UpgradeRequest(**more))  # type: ignore[arg-type]  # fields by name
    return found


async def publish(post: posts.Post) -> None:
    """Publish web 1.0.0."""
    text = 'name = "web"\nversion = "1.0.0"\ndriver = "handover"\ncommand = ["python", "main.py"]\n'
    data = bundles.bundle({"instar.toml": text.encode(), "main.py": b"pass\n"})
    header = release_service_pb2.PublishReleaseHeader(digest=bundles.digest_of(data), size_bytes=len(data))
    stub = release_service_pb2_grpc.ReleaseServiceStub(post.channel)
    parts = [
        release_service_pb2.PublishReleaseRequest(header=header),
        release_service_pb2.PublishReleaseRequest(chunk=data),
    ]
    await stub.PublishRelease(iter(parts), metadata=post.operator)


async def start(post: posts.Post, wanted: rollout_pb2.UpgradeRequest, shown: posts.Metadata) -> str:
    request = rollout_service_pb2.StartUpgradeRequest(upgrade=wanted, request_id=wanted.name)
    found: str = (await post.ask("StartUpgrade", request, shown)).rollout.rollout_id
    return found


async def test_a_scope_plans_and_starts_what_lies_wholly_within(post: posts.Post) -> None:
    await publish(post)
    shown = web(post)
    for selector in ("zone=a", "", "team in (web, db)"):
        for method, request in (
            ("PlanUpgrade", rollout_service_pb2.PlanUpgradeRequest(upgrade=upgrade(selector, "wide"))),
            ("StartUpgrade", rollout_service_pb2.StartUpgradeRequest(upgrade=upgrade(selector, "wide"))),
        ):
            error = await post.refused(method, request, shown)
            assert (error.code, error.field) == (rpc_errors.PERMISSION_DENIED, "selector"), (method, selector)
    planned = rollout_service_pb2.PlanUpgradeRequest(upgrade=upgrade(WEB, "within"))
    plan = (await post.ask("PlanUpgrade", planned, shown)).plan
    assert {change.node_id for wave in plan.waves for change in wave.changes} == {"web-1", "web-2"}
    assert await start(post, upgrade("team=web,zone=a", "within"), shown)


async def test_a_scope_supersedes_nobody(post: posts.Post) -> None:
    await publish(post)
    taken = upgrade(WEB, "mine", conflict=rollout_pb2.CONFLICT_POLICY_SUPERSEDE)
    request = rollout_service_pb2.StartUpgradeRequest(upgrade=taken, request_id="1")
    assert (await post.refused("StartUpgrade", request, web(post))).field == "conflict"


VERBS = ("PauseRollout", "ResumeRollout", "PromoteRollout", "CancelRollout", "RetryRollout", "RevertRollout")


async def test_a_scope_sees_and_leads_rollouts_of_which_every_node_lies_within(post: posts.Post) -> None:
    await publish(post)
    shown = web(post)
    both = await start(post, upgrade("zone=a", "both"), post.operator)
    alone = await start(post, upgrade("zone=b", "alone"), post.operator)  # nobody said so, but it is
    listed = await post.ask("ListRollouts", rollout_service_pb2.ListRolloutsRequest(), shown)
    assert [each.rollout_id for each in listed.rollouts] == [alone]
    for name in (both, "both", "nowhere"):
        for method in (*VERBS, "GetRollout", "ExplainRollout", "GetAnalysis", "WatchRollout"):
            error = await post.refused(method, posts.METHODS[method].request(rollout=name), shown)
            assert (error.code, error.field) == (rpc_errors.PERMISSION_DENIED, "rollout"), (method, name)
    pause = rollout_service_pb2.PauseRolloutRequest(rollout=alone, reason="lunch")
    assert (await post.ask("PauseRollout", pause, shown)).rollout.state == rollout_pb2.ROLLOUT_STATE_PAUSED
    await post.ask(
        "LabelNode", fleet_service_pb2.LabelNodeRequest(node_id="web-2", labels={"team": "db"}), post.operator
    )
    assert (await post.refused("PauseRollout", pause, shown)).code == rpc_errors.PERMISSION_DENIED


async def test_a_scope_approves_what_lies_within_unless_the_same_person_asked(post: posts.Post) -> None:
    await publish(post)
    shown, other = web(post), post.somebody("bob", posts.grant(Role.APPROVER, WEB))
    for selector, name in ((WEB, "web"), ("team=db", "db")):
        wanted = upgrade(selector, name)
        wanted.approval_deadline.FromTimedelta(timedelta(hours=1))
        await start(post, wanted, shown if name == "web" else post.operator)
    listed = await post.ask("ListApprovals", rollout_service_pb2.ListApprovalsRequest(), other)
    assert [each.rollout_name for each in listed.approvals] == ["web"]
    for method in ("ApproveRollout", "DenyRollout"):
        error = await post.refused(method, posts.METHODS[method].request(rollout="db"), other)
        assert error.code == rpc_errors.PERMISSION_DENIED
    request = rollout_service_pb2.ApproveRolloutRequest(rollout="web")
    assert (await post.refused("ApproveRollout", request, shown)).code == "approval_by_requester"
    assert (await post.ask("ApproveRollout", request, other)).rollout.name == "web"


async def test_of_a_release_a_scope_learns_only_of_its_own_nodes(post: posts.Post) -> None:
    await publish(post)
    request = release_service_pb2.GetReleaseRequest(component="web", version="1.0.0")
    found = await post.ask("GetRelease", request, web(post))
    assert (found.release.version, found.left_by) == ("1.0.0", 0)


async def test_what_is_of_the_whole_fleet_is_out_of_reach_of_a_scope(post: posts.Post) -> None:
    shown = web(post)
    for method, policy in policies.POLICIES.items():
        if policy.reach is Reach.FLEET and policy.kind is principals.Kind.API:
            name = method.rpartition("/")[2]
            error = await post.refused(name, posts.METHODS[name].request(), shown)
            assert error.code == rpc_errors.PERMISSION_DENIED, method


async def test_what_is_refused_for_want_of_a_role_is_on_the_record(post: posts.Post) -> None:
    shown = post.somebody("vic", posts.grant(Role.VIEWER))
    before = await post.ask("GetStatistics", fleet_service_pb2.GetStatisticsRequest(), post.operator)
    fire = trigger_service_pb2.FireTriggerRequest(name="x", reason="y")
    assert (await post.refused("FireTrigger", fire, shown)).code == rpc_errors.PERMISSION_DENIED
    after = await post.ask("GetStatistics", fleet_service_pb2.GetStatisticsRequest(), post.operator)
    assert after.statistics.refused == before.statistics.refused + 1
