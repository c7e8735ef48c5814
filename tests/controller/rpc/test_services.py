"""The services of the API over real gRPC, before an engine that notes what it is asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from grpc import aio

from controller import clock
from controller.core import errors, model
from controller.rpc import convert
from controller.rpc import errors as rpc_errors
from instar.v1 import fleet_service_pb2, release_pb2, release_service_pb2, rollout_pb2, rollout_service_pb2
from tests.controller.rpc import scripted_engine, test_rollout_convert
from tests.controller.rpc.scripted_engine import ACTOR

NOW = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
UPGRADE = rollout_pb2.UpgradeRequest(component="web", target_version="1.1.0", strategy=rollout_pb2.STRATEGY_CANARY)
REQUEST = model.UpgradeRequest(model.ComponentName("web"), "1.1.0", model.Strategy.CANARY)
VERBS = ("revert", "pause", "resume", "promote", "cancel", "retry")
ROLLOUT = test_rollout_convert.rollout()
GRAPH = model.VersionGraph(edges=(model.Edge(model.ComponentName("web"), "", "1.0.0"),))


class StillClock(clock.SystemClock):
    """A clock that stands still."""

    def now(self) -> datetime:
        return NOW


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[scripted_engine.Stage]:
    async with scripted_engine.standing(tmp_path, StillClock()) as found:
        yield found


async def test_a_plan_is_what_the_engine_says(stage: scripted_engine.Stage) -> None:
    stage.engine.answers["plan"] = ROLLOUT.plan
    answer = await stage.ask("PlanUpgrade", rollout_service_pb2.PlanUpgradeRequest(upgrade=UPGRADE))
    assert stage.engine.asked("plan") == ((REQUEST,), {"actor": ACTOR})
    assert answer.plan.fingerprint == "f"
    assert answer.plan.estimate.reason == "the policy's own times"


async def test_a_start_names_its_actor_and_carries_a_saved_plan_where_there_is_one(
    stage: scripted_engine.Stage,
) -> None:
    stage.engine.answers["start_upgrade"] = ROLLOUT
    request = rollout_service_pb2.StartUpgradeRequest(upgrade=UPGRADE, request_id="ci-1")
    answer = await stage.ask("StartUpgrade", request)
    assert stage.engine.asked("start_upgrade") == (
        (REQUEST,),
        {"request_id": "ci-1", "actor": ACTOR, "saved": None},
    )
    assert answer.rollout.rollout_id == "r-1"
    stage.engine.calls.clear()
    request.plan.CopyFrom(rollout_pb2.Plan(fingerprint="abc", facts={"policy": "x", "graph": "y"}))
    await stage.ask("StartUpgrade", request)
    _, named = stage.engine.asked("start_upgrade")
    assert named["saved"] == model.Plan("abc", (), (), facts=(("graph", "y"), ("policy", "x")))


@pytest.mark.parametrize(
    ("request_id", "plan", "field"),
    [
        ("", None, "request_id"),
        ("a b", None, "request_id"),
        ("x" * 129, None, "request_id"),
        ("a", rollout_pb2.Plan(), "plan.fingerprint"),
    ],
)
async def test_a_start_that_cannot_be_done_once_is_refused(
    stage: scripted_engine.Stage, request_id: str, plan: rollout_pb2.Plan | None, field: str
) -> None:
    request = rollout_service_pb2.StartUpgradeRequest(upgrade=UPGRADE, request_id=request_id, plan=plan)
    found = await stage.refused("StartUpgrade", request)
    assert isinstance(found, errors.InvalidRequestError)
    assert found.field == field


@pytest.mark.parametrize("verb", VERBS)
async def test_each_verb_is_done_to_the_rollout_that_is_named_with_actor_and_reason(
    stage: scripted_engine.Stage, verb: str
) -> None:
    stage.engine.answers |= {"rollout": ROLLOUT, verb: ROLLOUT}
    name = f"{verb.capitalize()}Rollout"
    request = getattr(rollout_service_pb2, f"{name}Request")
    answer = await stage.ask(name, request(rollout="spring", reason="lunch"))
    assert stage.engine.asked("rollout") == (("spring",), {})
    assert stage.engine.asked(verb) == ((ROLLOUT.id,), {"reason": "lunch", "actor": ACTOR})
    assert answer.rollout.rollout_id == "r-1"


@pytest.mark.parametrize("verb", VERBS)
async def test_no_verb_is_done_without_a_reason_or_to_what_is_not_there(
    stage: scripted_engine.Stage, verb: str
) -> None:
    name = f"{verb.capitalize()}Rollout"
    request = getattr(rollout_service_pb2, f"{name}Request")
    for reason in ("", "x" * 1025):
        found = await stage.refused(name, request(rollout="spring", reason=reason))
        assert (found.code, found.field) == ("reason_invalid", "reason")
        assert str(found).startswith(f"cannot {verb} the rollout")
    stage.engine.answers["rollout"] = scripted_engine.not_found("rollout")
    found = await stage.refused(name, request(rollout="x", reason="lunch"))
    assert isinstance(found, errors.NotFoundError)


async def test_a_watch_from_a_revision_that_is_not_known_is_told_to_start_anew(stage: scripted_engine.Stage) -> None:
    stage.engine.answers["rollout"] = ROLLOUT
    request = rollout_service_pb2.WatchRolloutRequest(rollout="r-1", after_revision=ROLLOUT.revision + 1)
    with pytest.raises(aio.AioRpcError) as caught:
        await stage.stubs.WatchRollout(request, metadata=stage.metadata).read()
    found = rpc_errors.from_rpc(caught.value)
    assert (caught.value.code(), found.code) == (grpc.StatusCode.FAILED_PRECONDITION, "revision_unknown")
    assert "start anew after revision 0" in str(found)


@pytest.mark.parametrize("verb", ["approve", "deny"])
async def test_an_approval_is_given_and_denied_by_who_shows_the_token_with_or_without_a_reason(
    stage: scripted_engine.Stage, verb: str
) -> None:
    stage.engine.answers[verb] = ROLLOUT
    name = f"{verb.capitalize()}Rollout"
    request = getattr(rollout_service_pb2, f"{name}Request")
    for reason in ("looked at it", ""):
        answer = await stage.ask(name, request(rollout="spring", reason=reason))
        assert stage.engine.asked(verb) == (("spring",), {"reason": reason, "actor": ACTOR})
        assert answer.rollout.rollout_id == "r-1"
        stage.engine.calls.clear()
    found = await stage.refused(name, request(rollout="spring", reason="x" * 1025))
    assert (found.code, found.field) == ("request_invalid", "reason")


@pytest.mark.parametrize(("page_size", "limit"), [(0, 100), (7, 7), (5000, 1000)])
async def test_approvals_are_listed_up_to_a_bound(stage: scripted_engine.Stage, page_size: int, limit: int) -> None:
    stage.engine.answers["approvals"] = (test_rollout_convert.DENIED, test_rollout_convert.ASKED)
    request = rollout_service_pb2.ListApprovalsRequest(decided=True, page_size=page_size)
    answer = await stage.ask("ListApprovals", request)
    assert stage.engine.asked("approvals") == ((limit,), {"with_decided": True})
    assert [one.state for one in answer.approvals] == [
        rollout_pb2.APPROVAL_STATE_DENIED,
        rollout_pb2.APPROVAL_STATE_WAITING,
    ]


@pytest.mark.parametrize("verb", ["approve", "deny"])
async def test_a_refused_decision_arrives_with_its_code(stage: scripted_engine.Stage, verb: str) -> None:
    stage.engine.answers[verb] = errors.RefusedError(
        f"cannot {verb} rollout spring: it is late", code="approval_expired", field="rollout", value="r-1", rule="early"
    )
    name = f"{verb.capitalize()}Rollout"
    with pytest.raises(aio.AioRpcError) as caught:
        await stage.ask(name, getattr(rollout_service_pb2, f"{name}Request")(rollout="spring"))
    found = rpc_errors.from_rpc(caught.value)
    assert (type(found), found.code, found.field) == (errors.RefusedError, "approval_expired", "rollout")


async def test_why_is_a_chain_of_reasons(stage: scripted_engine.Stage) -> None:
    chain = (model.Reason("waits", "it waits", NOW), model.Reason("paused", "ann paused it"))
    stage.engine.answers |= {"explain_rollout": chain, "explain_node": chain[1:]}
    request = rollout_service_pb2.ExplainRolloutRequest(rollout="spring", node_id="n-1")
    answer = await stage.ask("ExplainRollout", request)
    assert stage.engine.asked("explain_rollout") == (("spring", "n-1"), {})
    assert [one.code for one in answer.reasons] == ["waits", "paused"]
    answer = await stage.ask("ExplainNode", fleet_service_pb2.ExplainNodeRequest(node_id="n-1"))
    assert stage.engine.asked("explain_node") == (("n-1",), {})
    assert [one.message for one in answer.reasons] == ["ann paused it"]


async def test_an_emergency_has_five_minutes_where_nobody_says_otherwise(stage: scripted_engine.Stage) -> None:
    stage.engine.answers["roll_back_emergency"] = ((ROLLOUT,), model.FreezeId("f-1"))
    request = rollout_service_pb2.RollBackEmergencyRequest(component="web", selector="zone=a", reason="fire")
    answer = await stage.ask("RollBackEmergency", request)
    told = (("web", "zone=a", timedelta(minutes=5)), {"reason": "fire", "actor": ACTOR})
    assert stage.engine.asked("roll_back_emergency") == told
    assert ([one.rollout_id for one in answer.rollouts], answer.freeze_id) == (["r-1"], "f-1")


@pytest.mark.parametrize(
    ("reason", "limit", "field"),
    [
        ("", timedelta(minutes=5), "reason"),
        ("fire", timedelta(), "time_limit"),
        ("fire", timedelta(seconds=-1), "time_limit"),
        ("fire", timedelta(days=2), "time_limit"),
    ],
)
async def test_an_emergency_without_a_reason_or_a_sane_limit_is_refused(
    stage: scripted_engine.Stage, reason: str, limit: timedelta, field: str
) -> None:
    request = rollout_service_pb2.RollBackEmergencyRequest(reason=reason, time_limit=convert.duration(limit))
    found = await stage.refused("RollBackEmergency", request)
    assert found.field == field


async def test_labels_are_set_and_taken_away(stage: scripted_engine.Stage) -> None:
    stage.engine.answers |= {"label_node": scripted_engine.node(), "metrics": ()}
    request = fleet_service_pb2.LabelNodeRequest(node_id="n-1", labels={"zone": "b"}, removed_keys=["old"])
    answer = await stage.ask("LabelNode", request)
    assert stage.engine.asked("label_node") == (("n-1", {"zone": "b"}, ("old",)), {"actor": ACTOR})
    assert answer.node.node_id == "n-1"
    found = await stage.refused("LabelNode", fleet_service_pb2.LabelNodeRequest(node_id="n-1"))
    assert found.field == "labels"


@pytest.mark.parametrize(("method", "call"), [("CordonNode", "cordon_node"), ("QuarantineNode", "quarantine_node")])
async def test_a_node_is_kept_from_work_with_actor_and_reason(
    stage: scripted_engine.Stage, method: str, call: str
) -> None:
    stage.engine.answers |= {call: scripted_engine.node(), "metrics": ()}
    request = getattr(fleet_service_pb2, f"{method}Request")
    answer = await stage.ask(method, request(node_id="n-1", reason="disk"))
    assert stage.engine.asked(call) == (("n-1",), {"reason": "disk", "actor": ACTOR})
    assert answer.node.node_id == "n-1"
    assert (await stage.refused(method, request(node_id="n-1"))).field == "reason"


async def test_a_node_is_let_to_work_again_and_forgotten(stage: scripted_engine.Stage) -> None:
    stage.engine.answers |= {"uncordon_node": scripted_engine.node(), "metrics": ()}
    answer = await stage.ask("UncordonNode", fleet_service_pb2.UncordonNodeRequest(node_id="n-1"))
    assert stage.engine.asked("uncordon_node") == (("n-1",), {"actor": ACTOR})
    assert answer.node.node_id == "n-1"
    stage.engine.answers["node"] = scripted_engine.node()
    await stage.ask("RemoveNode", fleet_service_pb2.RemoveNodeRequest(node_id="n-1", reason="scrapped"))
    assert stage.engine.asked("remove_node") == (("n-1",), {"reason": "scrapped", "actor": ACTOR})
    assert (await stage.refused("RemoveNode", fleet_service_pb2.RemoveNodeRequest(node_id="n-1"))).field == "reason"


async def test_the_work_of_the_fleet_is_counted(stage: scripted_engine.Stage) -> None:
    stage.engine.answers["statistics"] = model.Statistics(1, 2, 3, 4, 5, 6, timedelta(seconds=7), 8, 9, 10)
    answer = await stage.ask("GetStatistics", fleet_service_pb2.GetStatisticsRequest())
    assert (answer.statistics.queued, answer.statistics.refused) == (1, 10)


async def test_the_rules_of_the_monitor_are_listed_those_that_fire_first(stage: scripted_engine.Stage) -> None:
    measure = model.Measure(model.MeasureKind.LEVEL, "queue")
    rule = model.Rule("queue", model.ComponentName("web"), measure, fire_at=5.0, clear_at=3.0)
    fleet = model.Rule("all", rule.component, measure, 5.0, 3.0, scope=model.RuleScope.FLEET)
    firing = model.Watch(model.RuleState.FIRING, NOW, NOW, fired_at=NOW, value=7.0)
    pending, unknown = (model.Watch(each, NOW, NOW) for each in (model.RuleState.PENDING, model.RuleState.UNKNOWN))
    watched = (
        model.Watched("all", None, unknown),
        model.Watched("queue", model.NodeId("n-1"), pending),
        model.Watched("queue", model.NodeId("n-2"), firing),
    )
    stage.engine.answers |= {"rules": (rule, fleet), "rules_watched": watched, "rules_looked_at": NOW}
    answer = await stage.ask("ListRuleStates", fleet_service_pb2.ListRuleStatesRequest())
    assert stage.engine.asked("rules_watched") == (("", None), {})
    assert [(one.name, one.fleet, one.firing, one.pending, one.unknown) for one in answer.rules] == [
        ("all", True, 0, 0, 1),
        ("queue", False, 1, 1, 0),
    ]
    assert answer.rules[1].condition == "queue above 5, over 0:05:00, until at most 3"
    states = fleet_service_pb2.RuleState
    assert [(one.node_id, states.Name(one.state), one.HasField("value")) for one in answer.standings] == [
        ("n-2", "RULE_STATE_FIRING", True),
        ("", "RULE_STATE_UNKNOWN", False),
        ("n-1", "RULE_STATE_PENDING", False),
    ]
    assert answer.standings[0].fire_time.ToDatetime(UTC) == answer.look_time.ToDatetime(UTC) == NOW


async def test_of_very_many_standings_of_rules_the_first_are_told(stage: scripted_engine.Stage) -> None:
    watch = model.Watch(model.RuleState.UNKNOWN, NOW, NOW)
    watched = tuple(model.Watched("queue", model.NodeId(f"n-{number}"), watch) for number in range(1003))
    stage.engine.answers |= {"rules": (), "rules_watched": watched, "rules_looked_at": None}
    answer = await stage.ask("ListRuleStates", fleet_service_pb2.ListRuleStatesRequest(rule="queue"))
    assert (len(answer.standings), answer.left_out, answer.HasField("look_time")) == (1000, 3, False)


async def test_a_freeze_is_added_listed_and_lifted(stage: scripted_engine.Stage) -> None:
    first = model.Freeze(model.FreezeId("f-1"), "", NOW, None, "holidays", ACTOR)
    later = model.Freeze(model.FreezeId("f-0"), "", NOW + timedelta(days=1), None, "more", ACTOR)
    stage.engine.answers |= {"add_freeze": first, "freezes": (later, first)}
    freeze = fleet_service_pb2.Freeze(selector="zone=a", reason="holidays")
    answer = await stage.ask("AddFreeze", fleet_service_pb2.AddFreezeRequest(freeze=freeze))
    told = (("zone=a", NOW, None), {"reason": "holidays", "actor": ACTOR})
    assert stage.engine.asked("add_freeze") == told
    assert answer.freeze.freeze_id == "f-1"
    answer = await stage.ask("ListFreezes", fleet_service_pb2.ListFreezesRequest())
    assert [one.freeze_id for one in answer.freezes] == ["f-1", "f-0"]
    await stage.ask("RemoveFreeze", fleet_service_pb2.RemoveFreezeRequest(freeze_id="f-1", reason="over"))
    assert stage.engine.asked("remove_freeze") == (("f-1",), {"reason": "over", "actor": ACTOR})


async def test_a_freeze_is_neither_added_nor_lifted_without_a_reason(stage: scripted_engine.Stage) -> None:
    found = await stage.refused("AddFreeze", fleet_service_pb2.AddFreezeRequest())
    assert found.field == "freeze.reason"
    found = await stage.refused("RemoveFreeze", fleet_service_pb2.RemoveFreezeRequest(freeze_id="f-1"))
    assert found.field == "reason"


async def test_the_graph_is_declared_and_shown(stage: scripted_engine.Stage) -> None:
    stage.engine.answers |= {"graph": GRAPH, "put_graph": GRAPH}
    barrier = release_pb2.Barrier(version="1.4.0", bake_duration=convert.duration(timedelta(hours=1)))
    wanted = release_pb2.VersionGraph(component="web", edges=[release_pb2.Edge(to_version="1.0.0")], barriers=[barrier])
    answer = await stage.ask("PutGraph", release_service_pb2.PutGraphRequest(graph=wanted))
    barriers = (model.Barrier(model.ComponentName("web"), "1.4.0", timedelta(hours=1)),)
    assert stage.engine.asked("put_graph") == (("web", GRAPH.edges, barriers), {"actor": ACTOR})
    assert [one.to_version for one in answer.graph.edges] == ["1.0.0"]
    answer = await stage.ask("GetGraph", release_service_pb2.GetGraphRequest(component="web"))
    assert answer.graph.component == "web"
    found = await stage.refused("PutGraph", release_service_pb2.PutGraphRequest())
    assert found.field == "graph.component"


@pytest.mark.parametrize("reason", ["it eats disks", ""])
async def test_a_release_is_blocked_with_a_reason_and_opened_without(stage: scripted_engine.Stage, reason: str) -> None:
    stage.engine.answers["block_release"] = GRAPH
    request = release_service_pb2.BlockReleaseRequest(component="web", version="1.0.0", reason=reason)
    answer = await stage.ask("BlockRelease", request)
    assert stage.engine.asked("block_release") == (("web", "1.0.0"), {"reason": reason, "actor": ACTOR})
    assert answer.graph.component == "web"
    request.reason = "x" * 1025
    assert (await stage.refused("BlockRelease", request)).field == "reason"


async def test_a_channel_is_moved(stage: scripted_engine.Stage) -> None:
    channel = model.Channel(model.ComponentName("web"), "stable", "1.0.0", NOW, ACTOR)
    stage.engine.answers["promote_release"] = channel
    request = release_service_pb2.PromoteReleaseRequest(component="web", version="1.0.0", channel="stable")
    answer = await stage.ask("PromoteRelease", request)
    assert stage.engine.asked("promote_release") == (("web", "1.0.0", "stable"), {"actor": ACTOR})
    assert (answer.channel.name, answer.channel.version) == ("stable", "1.0.0")


async def test_a_refusal_of_the_engine_arrives_with_all_that_it_names(stage: scripted_engine.Stage) -> None:
    stage.engine.answers["plan"] = errors.RefusedError(
        "cannot plan: edge 1.0.0 is blocked", code="edge_blocked", field="target_version", value="1.0.0", rule="open"
    )
    found = await stage.refused("PlanUpgrade", rollout_service_pb2.PlanUpgradeRequest(upgrade=UPGRADE))
    assert type(found) is errors.RefusedError
    assert (found.code, found.field, found.value, found.rule) == ("edge_blocked", "target_version", "1.0.0", "open")
