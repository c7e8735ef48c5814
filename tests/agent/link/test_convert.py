"""What one end writes, the other reads: the agent's edge against the controller's, for every member and field."""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any

import pytest

from agent.core import model, session
from agent.link import convert
from controller.core import errors
from controller.core import model as controller_model
from controller.engine import commands
from controller.rpc import agent_convert
from instar.v1 import agent_service_pb2, node_pb2, operation_pb2
from tests.controller.rpc import small_engine

NOW = datetime(2030, 1, 1, 12, 30, 15, 250_000, tzinfo=UTC)
COMPONENT = model.ComponentStatus(
    "web",
    "1.1.0",
    "sha256:b",
    "sha256:a",
    model.Health.HEALTHY,
    timedelta(seconds=12, milliseconds=5),
    (model.Instance("web-1", "sha256:b", 812, model.InstanceState.ACTIVE, 431, restarts=3),),
    is_stopped=True,
)
STATUS = model.OperationStatus(
    "r/1", 8, "web", model.OperationState.ABORTED, model.Step.SOAK, model.Fault.VERSION, "probe", "it failed", NOW
)
RECORD = model.StepRecord(
    "r/1", 3, model.Step.SOAK, NOW, NOW + timedelta(seconds=5), is_success=False, evidence={"a": "b"}
)
LOW = model.Condition("disk_low", "", "less than 256 MiB are free", NOW)
COUNTED = model.Metric("requests", "web", 7.0, model.SeriesKind.COUNTER, life=1234)
METRICS = (model.Metric("cpu", "web", 0.25), COUNTED)
GONE = (("errors", "web"), ("load", ""))
REPORT = model.Report(METRICS, (COMPONENT,), ("old",), (STATUS,), (RECORD,), (LOW,), GONE)
OWN = {"is_kept", "started_at_seconds", "is_broken"}  # of an instance: what only its own node needs


def plain(value: object) -> Any:  # noqa: ANN401 both models become the same nested builtins
    """Names and builtins only, so that the two models can be compared."""
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, tuple | frozenset):
        return [plain(item) for item in value]
    if hasattr(value, "__dataclass_fields__"):
        told = [field.name for field in fields(value) if field.name not in OWN]  # type: ignore[arg-type]  # it is one
        return {name: plain(getattr(value, name)) for name in told}
    return value


def told(report: model.Report) -> controller_model.NodeReport:
    message = convert.heartbeat(session.SendHeartbeat(2, NOW, report, is_full=False))
    return agent_convert.heartbeat(message.heartbeat)


def test_a_report_arrives_as_it_was_meant() -> None:
    assert plain(told(REPORT)) == plain(REPORT) | {"is_full": False, "sent_at": NOW}


def test_what_an_agent_without_kinds_tells_is_told_apart_by_its_name() -> None:
    names = ("a_total", "a_count", "a_sum", 'a_bucket{le="1"}', 'a_total{code="500"}', "total", "load", "a_total_now")
    message = agent_service_pb2.Report(metrics=[node_pb2.Metric(name=name, value=1) for name in names])
    read = agent_convert.report(message, is_full=False)
    kinds = [metric.kind.name for metric in read.metrics]
    assert kinds == ["COUNTER"] * 5 + ["GAUGE"] * 3
    assert read.sent_at is None


def test_the_number_of_a_life_is_no_larger_than_windows_have_room_for() -> None:
    message = agent_service_pb2.Report(metrics=[node_pb2.Metric(name="a_total", life=2**64 - 1)])
    assert agent_convert.report(message, is_full=False).metrics[0].life == 2**63 - 1


@pytest.mark.parametrize("conditions", [(), (LOW,), None], ids=["nothing wrong", "something wrong", "unchanged"])
def test_conditions_arrive_and_unchanged_ones_are_left_out(conditions: tuple[model.Condition, ...] | None) -> None:
    assert plain(told(model.Report(conditions=conditions)).conditions) == plain(conditions)


def test_a_question_for_a_log_and_its_answer_arrive() -> None:
    asked = agent_service_pb2.ConnectResponse(
        read_log=agent_service_pb2.ReadLog(request_id=7, component="web", max_bytes=99)
    )
    assert convert.response(asked, NOW) == session.Commanded(model.ReadLog(7, "web", 99))
    text = model.LogText(7, "web-1", "the last line\n", "")
    message = convert.request(session.SendLogText(5, text), "n-1")
    assert message.sequence == 5
    assert plain(agent_convert.log_text(message.log_text)) == plain(text)


@pytest.mark.parametrize("health", model.Health)
def test_every_health_arrives(health: model.Health) -> None:
    (component,) = told(model.Report(components=(replace(COMPONENT, health=health),))).components
    assert component.health.name == health.name


@pytest.mark.parametrize("state", model.InstanceState)
def test_every_instance_state_arrives(state: model.InstanceState) -> None:
    instances = (replace(COMPONENT.instances[0], state=state),)
    (component,) = told(model.Report(components=(replace(COMPONENT, instances=instances),))).components
    assert component.instances[0].state.name == state.name


@pytest.mark.parametrize("state", model.OperationState)
def test_every_operation_state_arrives(state: model.OperationState) -> None:
    (status,) = told(model.Report(operations=(replace(STATUS, state=state),))).operations
    assert status.state.name == state.name


@pytest.mark.parametrize("step", [*model.Step, None])
def test_every_step_arrives(step: model.Step | None) -> None:
    (status,) = told(model.Report(operations=(replace(STATUS, step=step),))).operations
    assert plain(status.step) == plain(step)
    if step is not None:
        (record,) = told(model.Report(steps=(replace(RECORD, step=step),))).steps
        assert record.step.name == step.name


@pytest.mark.parametrize("fault", [*model.Fault, None])
def test_every_fault_arrives(fault: model.Fault | None) -> None:
    (status,) = told(model.Report(operations=(replace(STATUS, fault=fault),))).operations
    assert plain(status.fault) == plain(fault)


def test_a_hello_arrives_as_it_was_meant() -> None:
    facts = model.HelloFacts("boot", "token", "1.0.0", ("driver.handover",), 7, {"zone": "a"})
    message = convert.hello(session.SendHello(1, facts, REPORT), "n-1")
    assert message.sequence == 1
    heard = agent_convert.hello(message.hello)
    expected = asdict(facts) | {"capabilities": frozenset(facts.capabilities)}
    assert {name: getattr(heard, name) for name in expected} == expected
    assert (heard.node_id, heard.report.is_full) == ("n-1", True)
    assert plain(heard.report) == plain(REPORT) | {"is_full": True, "sent_at": None}


@pytest.mark.parametrize("kind", controller_model.ChangeKind)
@pytest.mark.parametrize("method", controller_model.Method)
@pytest.mark.parametrize("hold_before", [controller_model.Step.SWITCH, controller_model.Step.COMMIT, None])
def test_an_assignment_arrives_as_it_was_meant(
    kind: controller_model.ChangeKind, method: controller_model.Method, hold_before: controller_model.Step | None
) -> None:
    asked = replace(small_engine.assign(), kind=kind, method=method, hold_before=hold_before)
    heard = convert.response(agent_convert.command(asked), NOW)
    assert isinstance(heard, session.Commanded)
    assert isinstance(heard.command, model.Assign)
    assert plain(heard.command.assignment) == plain(asked)


def test_an_assignment_without_a_latest_start_has_none() -> None:
    message = agent_convert.command(small_engine.assign())
    message.assign.ClearField("start_by")
    heard = convert.response(message, NOW)
    assert isinstance(heard, session.Commanded)
    assert isinstance(heard.command, model.Assign)
    assert heard.command.assignment.start_by is None


@pytest.mark.parametrize(
    ("asked", "taken"),
    [
        (
            commands.ProceedCommand(
                controller_model.OperationId("r/1"), 8, controller_model.Step.SWITCH, controller_model.Step.COMMIT
            ),
            model.Proceed("r/1", 8, model.Step.SWITCH, model.Step.COMMIT),
        ),
        (
            commands.ProceedCommand(controller_model.OperationId("r/1"), 8, controller_model.Step.COMMIT, None),
            model.Proceed("r/1", 8, model.Step.COMMIT, None),
        ),
        (
            commands.CancelCommand(controller_model.OperationId("r/1"), 8, "why"),
            model.Cancel("r/1", 8, "why"),
        ),
    ],
    ids=["proceed to the next hold", "proceed to the end", "cancel"],
)
def test_the_other_commands_arrive(asked: small_engine.Command, taken: model.Command) -> None:
    assert convert.response(agent_convert.command(asked), NOW) == session.Commanded(taken)


def test_the_words_of_the_session_arrive() -> None:
    period, later = timedelta(seconds=30), NOW + timedelta(seconds=1)
    grant = commands.SessionGrant(controller_model.SessionId("s"), 4, period, NOW)
    echo = convert.heartbeat(session.SendHeartbeat(2, NOW, model.Report(), is_full=False)).heartbeat.send_time
    ack = agent_convert.acknowledgement(5, echo_send_time=echo, server_time=NOW, heartbeat_period=period)
    bare = agent_convert.acknowledgement(1, echo_send_time=None, server_time=NOW, heartbeat_period=period)
    assert convert.response(agent_convert.welcome(grant, 1), later) == session.Welcomed(later, "s", 4, 1, period, NOW)
    assert convert.response(ack, later) == session.Acknowledged(later, 5, NOW, NOW, period)
    assert convert.response(bare, later) == session.Acknowledged(later, 1, None, NOW, period)
    assert convert.response(agent_convert.full_report_request(6), later) == session.FullReportRequested(6)
    assert convert.response(agent_convert.go_away(period), later) == session.WentAway(period)


@pytest.mark.parametrize(
    ("message", "rule"),
    [
        (agent_service_pb2.Proceed(), "cannot read proceed: STEP_UNSPECIFIED is not one of STEP_SWITCH, STEP_COMMIT"),
        (agent_service_pb2.Proceed(step=operation_pb2.STEP_SOAK), "STEP_SOAK is not one of"),
        (
            agent_service_pb2.Proceed(step=operation_pb2.STEP_SWITCH, hold_before=operation_pb2.STEP_SOAK),
            "STEP_SOAK is not one of",
        ),
        (agent_service_pb2.Proceed(step=99), "cannot read proceed"),  # type: ignore[arg-type]  # a later enum
    ],
    ids=["step is not set", "no such hold", "no such next hold", "step is not known"],
)
def test_a_proceed_whose_holds_this_agent_cannot_keep_is_an_error(
    message: agent_service_pb2.Proceed, rule: str
) -> None:
    with pytest.raises(convert.MessageError, match=rule):
        convert.response(agent_service_pb2.ConnectResponse(proceed=message), NOW)


def test_an_assignment_with_a_hold_that_this_agent_cannot_keep_is_an_error() -> None:
    message = agent_convert.command(replace(small_engine.assign(), hold_before=controller_model.Step.SOAK))
    with pytest.raises(convert.MessageError, match="cannot read assign: STEP_SOAK is not one of"):
        convert.response(message, NOW)


def test_a_kind_of_message_that_came_later_is_passed_over() -> None:
    assert convert.response(agent_service_pb2.ConnectResponse(), NOW) is None


@pytest.mark.parametrize(
    "assign",
    [
        agent_service_pb2.Assign(method=operation_pb2.METHOD_RESTART),
        agent_service_pb2.Assign(kind=operation_pb2.CHANGE_KIND_UPGRADE, method=99),  # type: ignore[arg-type]  # a later enum
    ],
    ids=["kind is not set", "method is not known"],
)
def test_an_assignment_that_cannot_be_read_is_an_error(assign: agent_service_pb2.Assign) -> None:
    with pytest.raises(convert.MessageError, match="cannot read assign"):
        convert.response(agent_service_pb2.ConnectResponse(assign=assign), NOW)


@pytest.mark.parametrize(
    ("report", "field"),
    [
        (
            agent_service_pb2.Report(components=[node_pb2.ComponentStatus(version="1.0.0", health=9)]),  # type: ignore[arg-type]  # a later enum
            "components.health",
        ),
        (
            agent_service_pb2.Report(
                components=[node_pb2.ComponentStatus(version="1.0.0", instances=[node_pb2.Instance()])]
            ),
            "components.instances.state",
        ),
        (agent_service_pb2.Report(components=[node_pb2.ComponentStatus(version="one")]), "components.version"),
        (agent_service_pb2.Report(operations=[operation_pb2.OperationStatus()]), "operations.state"),
        (agent_service_pb2.Report(steps=[operation_pb2.StepRecord(step=77)]), "steps.step"),  # type: ignore[arg-type]  # a later enum
    ],
    ids=["health", "instance state", "version", "operation state", "step"],
)
def test_a_report_that_cannot_be_read_names_its_field(report: agent_service_pb2.Report, field: str) -> None:
    with pytest.raises(errors.InvalidRequestError, match="cannot read") as caught:
        agent_convert.report(report, is_full=False)
    assert caught.value.field == field


def test_an_instant_outside_of_time_names_its_field() -> None:
    report = agent_service_pb2.Report(steps=[operation_pb2.StepRecord(step=operation_pb2.STEP_FETCH)])
    report.steps[0].start_time.seconds = 1 << 60
    with pytest.raises(errors.InvalidRequestError) as caught:
        agent_convert.report(report, is_full=False)
    assert caught.value.field == "steps.start_time"
