"""Rollouts that somebody has to approve, from the command line: a real controller, the real program, real tokens."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from google.protobuf import timestamp_pb2

from controller.cli import failures
from instar.v1 import rollout_pb2, rollout_service_pb2
from tests.controller.cli import house, scripted

QUICK = ("--soak-duration", "0s", "--min-healthy-duration", "100ms")
INSTALL = ("upgrade", "start", "web", "1.0.0", "--install", *QUICK)
NOON = timestamp_pb2.Timestamp(seconds=int(datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()))
APPROVAL = rollout_pb2.Approval(
    rollout_id="r-1",
    rollout_name="spring",
    subject="web 1.1.0",
    requester="ci",
    expire_time=NOON,
    state=rollout_pb2.APPROVAL_STATE_WAITING,
)
WAITING = rollout_pb2.Rollout(
    rollout_id="r-1", name="spring", state=rollout_pb2.ROLLOUT_STATE_PENDING, approval=APPROVAL, waiting_for="bob"
)
DECIDED = rollout_pb2.Rollout(rollout_id="r-1", name="spring", state=rollout_pb2.ROLLOUT_STATE_RUNNING)
DECIDED.approval.CopyFrom(APPROVAL)
DECIDED.approval.state = rollout_pb2.APPROVAL_STATE_APPROVED
DECIDED.approval.decider, DECIDED.approval.reason = "bob", "looks good"
DECIDED.approval.decide_time.CopyFrom(NOON)


def printed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines on stdout, each with single blanks."""
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("verb", ["approve", "deny"])
def test_a_decision_names_the_rollout_and_may_say_why(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    name = f"{verb.capitalize()}Rollout"
    answer = getattr(rollout_service_pb2, f"{name}Response")(rollout=DECIDED)
    with scripted.controller(**{f"rollouts_{name}": answer}) as controller:
        assert scripted.instar("approval", verb, "spring", "-o", "json") == 0
        assert (controller.last.rollout, controller.last.reason) == ("spring", "")
        assert json.loads(capsys.readouterr().out)["approval"]["decider"] == "bob"
        assert scripted.instar("approval", verb, "spring", "--reason", "looks good") == 0
        assert controller.last.reason == "looks good"
    assert "approved by bob at 2026-03-01 12:00:00: looks good" in printed(capsys)


@pytest.mark.parametrize(("options", "decided", "limit"), [((), False, 100), (("--all", "--limit", "7"), True, 7)])
def test_what_waits_is_listed_and_what_was_decided_where_that_is_asked_for(
    options: tuple[str, ...], limit: int, capsys: pytest.CaptureFixture[str], *, decided: bool
) -> None:
    answer = rollout_service_pb2.ListApprovalsResponse(approvals=[APPROVAL, DECIDED.approval])
    with scripted.controller(rollouts_ListApprovals=answer) as controller:
        assert scripted.instar("approval", "list", *options) == 0
        assert (controller.last.decided, controller.last.page_size) == (decided, limit)
        lines = printed(capsys)
        assert "r-1 spring web 1.1.0 WAITING 2026-03-01 12:00:00 ci - -" in lines
        assert "r-1 spring web 1.1.0 APPROVED 2026-03-01 12:00:00 ci bob looks good" in lines
        assert scripted.instar("approval", "list", *options, "-o", "json") == 0
    assert [one["state"] for one in json.loads(capsys.readouterr().out)["approvals"]] == ["WAITING", "APPROVED"]


def test_a_list_of_rollouts_says_which_ones_have_to_be_approved(capsys: pytest.CaptureFixture[str]) -> None:
    answer = rollout_service_pb2.ListRolloutsResponse(rollouts=[WAITING, DECIDED])
    with scripted.controller(rollouts_ListRollouts=answer):
        assert scripted.instar("rollout", "list") == 0
    lines = printed(capsys)
    assert any("spring PENDING, to be approved" in line for line in lines)
    assert any("spring RUNNING -" in line for line in lines)


def test_a_time_to_approve_that_cannot_be_read_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with scripted.controller() as controller:
        assert scripted.instar(*INSTALL, "--approval-deadline", "soon") == failures.Exit.USAGE
    assert controller.asked == []
    assert "--approval-deadline" in capsys.readouterr().err


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[house.House]:
    found = house.House(tmp_path)
    async with found.serving():
        await found.publish("1.0.0")
        yield found


async def approver(home: house.House) -> tuple[str, str]:
    """Make the token of somebody else than the operator; how to show it."""
    file = home.folder / "bob.token"
    made = await home.instar("controller", "token", "bob", "--out", file, "-o", "json")
    assert (made.code, made.document) == (0, {"name": "bob", "token_file": str(file)})
    assert file.stat().st_mode & 0o777 == 0o600
    return "--token-file", str(file)


async def test_a_rollout_waits_is_approved_by_somebody_else_and_goes_to_its_end(home: house.House) -> None:
    bob = await approver(home)
    async with home.nodes("n-1", "n-2"):
        started = await home.instar(*INSTALL, "--name", "first", "--approval-deadline", "1h", "-o", "json")
        assert (started.code, started.document["state"]) == (0, "PENDING")
        assert started.document["approval"]["state"] == "WAITING"
        assert started.document["request"]["approval_deadline"] == "3600s"
        shown = await home.instar("rollout", "show", "first")
        assert "nothing more starts: somebody has to approve it until" in shown.out
        assert "to be approved" in (await home.instar("rollout", "list")).out
        explained = await home.instar("rollout", "explain", "first")
        assert "operator asked for it" in explained.out
        [waiting] = (await home.instar("approval", "list", "-o", "json")).document["approvals"]
        assert (waiting["rollout_name"], waiting["requester"]) == ("first", "operator")
        assert waiting["fingerprint"] == started.document["plan"]["fingerprint"]

        own = await home.instar("approval", "approve", "first")
        assert (own.code, own.out) == (8, "")
        assert own.err.startswith("cannot approve rollout first: operator asked for it")
        given = await home.instar("approval", "approve", "first", "--reason", "looks good", *bob, "-o", "json")
        assert (given.code, given.document["approval"]["decider"]) == (0, "bob")
        done = await home.instar("rollout", "watch", "first", "-o", "json")
        assert (done.code, done.document["state"]) == (0, "SUCCEEDED")
        for verb in ("approve", "deny"):
            late = await home.instar("approval", verb, "first", *bob)
            assert (late.code, late.out) == (8, "")
            assert "bob has approved it already" in late.err
        assert (await home.instar("approval", "list", "-o", "json")).document["approvals"] == []
        [used] = (await home.instar("approval", "list", "--all", "-o", "json")).document["approvals"]
        assert (used["state"], used["reason"]) == ("APPROVED", "looks good")


async def test_a_denied_and_an_overdue_rollout_are_cancelled_and_nothing_else_can_be_decided(home: house.House) -> None:
    bob = await approver(home)
    async with home.nodes("n-1"):
        await home.instar(*INSTALL, "--name", "risky", "--approval-deadline", "1h")
        denied = await home.instar("approval", "deny", "risky", "--reason", "too risky", *bob, "-o", "json")
        assert (denied.code, denied.document["state"], denied.document["reason"]) == (0, "CANCELLED", "approval_denied")
        assert "bob denied it: too risky" in denied.document["message"]
        ended = await home.instar(*INSTALL, "--name", "late", "--approval-deadline", "1s", "--watch", "-o", "json")
        assert (ended.code, ended.document["reason"]) == (5, "approval_expired")
        for name, why in (
            ("late", "nobody approved it until"),
            ("risky", "bob has denied it already"),
            ("none", "cannot find approval none"),
        ):
            refused = await home.instar("approval", "approve", name, *bob)
            assert (refused.code, refused.out) == (8, "")
            assert refused.err.startswith("cannot ")
            assert why in refused.err
        long = await home.instar(*INSTALL, "--approval-deadline", "9000h")
        assert (long.code, long.out) == (8, "")
        assert "approval_deadline" in long.err


async def test_neither_a_node_nor_a_stranger_approves(home: house.House) -> None:
    async with home.nodes("n-1"):
        await home.instar(*INSTALL, "--name", "first", "--approval-deadline", "1h")
        stranger = home.folder / "stranger.token"
        stranger.write_text("wrong\n")
        for token in (stranger, home.folder / "n-1.token"):
            for verb in ("approve", "deny"):
                refused = await home.instar("approval", verb, "first", "--token-file", token)
                assert (refused.code, refused.out) == (8, ""), refused
        assert (await home.instar("rollout", "show", "first", "-o", "json")).document["state"] == "PENDING"


async def test_a_controller_that_is_told_so_lets_who_asked_approve_what_waited_in_its_last_life(tmp_path: Path) -> None:
    home = house.House(tmp_path)
    async with home.serving():
        await home.publish("1.0.0")
        async with home.nodes("n-1"):
            await home.instar(*INSTALL, "--name", "first", "--approval-deadline", "1h")
    async with home.serving("127.0.0.1:0", "--self-approval", "allow"), home.nodes("n-1"):
        [waiting] = (await home.instar("approval", "list", "-o", "json")).document["approvals"]
        assert waiting["state"] == "WAITING"
        assert (await home.instar("approval", "approve", "first")).code == 0
        assert (await home.instar("rollout", "watch", "first")).code == 0
