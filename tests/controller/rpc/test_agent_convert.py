"""What nodes say, read within bounds: what is stored of it is as short as the agent's own rules have it."""

from __future__ import annotations

from google.protobuf import timestamp_pb2

from controller.rpc import agent_convert
from instar.v1 import agent_service_pb2, operation_pb2

AT = timestamp_pb2.Timestamp(seconds=1_900_000_000)


def test_what_a_node_says_of_an_operation_is_cut_to_what_people_can_use() -> None:
    status = operation_pb2.OperationStatus(
        operation_id="op-1",
        fence=1,
        component="web",
        state=operation_pb2.OPERATION_STATE_ABORTED,
        reason="r" * 999,
        message="m" * 9999,
        change_time=AT,
    )
    step = operation_pb2.StepRecord(
        operation_id="op-1",
        index=1,
        step=operation_pb2.STEP_SOAK,
        start_time=AT,
        end_time=AT,
        evidence={f"{number:02}{'k' * 99}": "v" * 9999 for number in range(99)},
    )
    read = agent_convert.report(agent_service_pb2.Report(operations=[status], steps=[step]), is_full=False)
    assert (len(read.operations[0].reason), len(read.operations[0].message)) == (64, 512)
    evidence = read.steps[0].evidence
    assert [key[:2] for key in evidence] == [f"{number:02}" for number in range(16)]
    assert {(len(key), len(value)) for key, value in evidence.items()} == {(64, 1024)}
