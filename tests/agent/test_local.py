"""What people of a node ask its agent: real sockets; a wrong request changes nothing and says why."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from agent import depot, local
from agent.config import layout
from agent.core import admission, model
from tests.agent import launches

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TEXT = 'name = "web"\nversion = "{0}"\ndriver = "{1}"\ncommand = ["main.sh"]\n{2}'


class Node:
    """A node that remembers what it was asked, and admits as the real one does."""

    def __init__(self, current: str) -> None:
        self.taken: list[model.Assignment] = []
        self.statuses: list[model.OperationStatus] = []
        self.outcomes: dict[str, model.OperationStatus] = {}
        self.current = current
        self.fence = 7

    def take_local(self, assignment: model.Assignment) -> None:
        self.taken.append(assignment)
        ledger = admission.Ledger(self.fence, {}, None, {"web": self.current}, frozenset(), frozenset(), None)
        answer = admission.admit(assignment, ledger, is_from_here=True)
        is_begun = answer.verdict is admission.Verdict.BEGIN
        state = model.OperationState.ACCEPTED if is_begun else model.OperationState.REFUSED
        told = (assignment.operation_id, assignment.fence, assignment.component, state, None, None)
        self.statuses.append(model.OperationStatus(*told, answer.reason, answer.message, NOW))

    def outcome(self, operation_id: str) -> model.OperationStatus | None:
        return self.outcomes.get(operation_id)

    def full_report(self) -> model.Report:
        return model.Report(operations=tuple(self.statuses), conditions=())

    def hello_facts(self) -> model.HelloFacts:
        return model.HelloFacts("boot", "token", "1.2.3", (), self.fence)


@pytest.fixture
def root() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="il-"))  # tmp_path is too long for socket paths
    yield path
    shutil.rmtree(path)


def made(root: Path, old: str = "handover", new: str = "handover", more: str = "") -> tuple[local.Desk, Node, str, str]:
    """A desk over a depot with two releases; the older one is current."""
    disk = depot.Depot(layout.Layout(root, root))
    disk.prepare()
    first = launches.launch(root, TEXT.format("1.0.0", old, "")).digest
    second = launches.launch(root, TEXT.format("2.0.0", new, more)).digest
    disk.point_current("web", first)
    node = Node(first)
    return local.Desk(node, disk, lambda: NOW), node, first, second


def asked(desk: local.Desk, **request: object) -> dict[str, Any]:
    answer = desk.answer(request)
    assert ("ok" in answer) != ("error" in answer)
    return cast("dict[str, Any]", answer.get("ok") or answer["error"])


def test_a_rollback_is_an_ordinary_operation_with_the_highest_fence(root: Path) -> None:
    desk, node, first, second = made(root)
    answer = asked(desk, verb="change", component="web", kind="UPGRADE", to_digest=second, discard_writes=True)
    assert (answer["operation_id"], answer["state"]) == ("local/20260102T030405.000000Z/web", "ACCEPTED")
    [assignment] = node.taken
    assert (assignment.fence, assignment.from_digest, assignment.to_digest) == (7, first, second)
    assert (assignment.to_version, assignment.method) == ("2.0.0", model.Method.HOT_SWAP)
    assert (assignment.discard_writes, assignment.start_by, assignment.hold_before) == (True, None, None)
    assert asked(desk, verb="operation", operation_id=answer["operation_id"]) == answer


def test_how_an_operation_ended_is_told_after_it_was_forgotten(root: Path) -> None:
    desk, node, _, second = made(root)
    begun = asked(desk, verb="change", component="web", kind="UPGRADE", to_digest=second)
    [told] = node.statuses
    node.statuses.clear()
    node.outcomes[told.operation_id] = replace(told, state=model.OperationState.PERMANENT)
    assert asked(desk, verb="operation", operation_id=begun["operation_id"])["state"] == "PERMANENT"


def test_a_later_fence_of_a_controller_outranks_what_was_begun_here() -> None:
    ledger = admission.Ledger(7, {}, None, {"web": "sha256:a"}, frozenset(), frozenset(), None)
    base = {"attempt": 1, "component": "web", "kind": model.ChangeKind.UPGRADE, "method": model.Method.RESTART}
    times = dict.fromkeys(("deadline", "soak_duration", "min_healthy_duration", "healthy_deadline"), timedelta(1))
    more = {"from_digest": "sha256:a", "to_digest": "sha256:b", "to_version": "2.0.0", "hold_before": None}

    def verdict(operation_id: str, fence: int) -> admission.Verdict:
        rest: dict[str, Any] = {**base, **times, **more, "start_by": None, "soak_requests_min": 0}
        assignment = model.Assignment(operation_id=operation_id, fence=fence, **rest)
        return admission.admit(assignment, ledger, is_from_here=admission.is_local(operation_id)).verdict

    assert verdict("local/1/web", 7) is admission.Verdict.BEGIN
    assert verdict("01ARZ", 7) is not admission.Verdict.BEGIN
    assert verdict("01ARZ", 8) is admission.Verdict.BEGIN
    assert verdict("local/1/web", 6) is not admission.Verdict.BEGIN


@pytest.mark.parametrize("kind", ["START", "STOP"])
def test_starting_and_stopping_leave_the_version(root: Path, kind: str) -> None:
    desk, node, first, _ = made(root)
    asked(desk, verb="change", component="web", kind=kind)
    assert (node.taken[0].kind.value, node.taken[0].from_digest, node.taken[0].to_digest) == (kind, first, "")


@pytest.mark.parametrize(
    ("driver", "more", "method"),
    [
        ("handover", "", "HOT_SWAP"),
        ("held", "", "RESTART"),
        ("process", "", "RESTART"),
        ("acme.thing", "", "RESTART"),
        ("handover", 'hot_swap_from = ">=1.0.0"', "HOT_SWAP"),
        ("handover", 'hot_swap_from = ">=1.5.0"', "RESTART"),
    ],
)
def test_the_gentlest_method_that_is_allowed_is_chosen(root: Path, driver: str, more: str, method: str) -> None:
    desk, node, _, second = made(root, new=driver, more=more)
    asked(desk, verb="change", component="web", kind="UPGRADE", to_digest=second)
    asked(desk, verb="change", component="web", kind="UPGRADE", to_digest=second, method="RESTART")
    assert [each.method.value for each in node.taken] == [method, "RESTART"]


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"verb": "dance"}, "unknown_verb", "verb"),
        ({"verb": None}, "unknown_verb", "verb"),
        ({"component": "Web"}, "invalid_request", "component"),
        ({"component": "db"}, "not_installed", "component"),
        ({"component": 5}, "invalid_request", "component"),
        ({"kind": "REMOVE"}, "invalid_request", "kind"),
        ({"to_digest": "sha256:x"}, "invalid_request", "digest"),
        ({"to_digest": f"sha256:{'0' * 64}"}, "release_missing", "to_digest"),
        ({"to_digest": ""}, "invalid_request", "to_digest"),
        ({"method": "GENTLE"}, "invalid_request", "method"),
        ({"verb": "operation", "operation_id": "none"}, "unknown_operation", "operation_id"),
    ],
)
def test_a_wrong_request_changes_nothing_and_names_its_field(
    root: Path, changes: dict[str, object], code: str, field: str
) -> None:
    desk, node, _, second = made(root)
    good = {"verb": "change", "component": "web", "kind": "UPGRADE", "to_digest": second}
    answer = asked(desk, **{**good, **changes})
    assert (answer["code"], answer["field"]) == (code, field)
    assert answer["message"].startswith("cannot ")
    assert node.taken == []


def test_what_is_current_already_is_not_gone_to(root: Path) -> None:
    desk, node, first, _ = made(root)
    assert asked(desk, verb="change", component="web", kind="UPGRADE", to_digest=first)["code"] == "already_current"
    assert node.taken == []


@contextlib.asynccontextmanager
async def serving(desk: local.Desk, path: Path) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(desk.serve(path))
        async with asyncio.timeout(10):
            while not await _takes(path):  # noqa: ASYNC110  # a socket sets no event
                await asyncio.sleep(0.01)
        yield
        task.cancel()


async def _takes(path: Path) -> bool:
    try:
        _reader, writer = await asyncio.open_unix_connection(path)
    except OSError:
        return False
    writer.close()
    return True


async def exchanged(path: Path, line: bytes) -> dict[str, Any]:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(line)
    answer = await reader.read()
    writer.close()
    return cast("dict[str, Any]", json.loads(answer))


async def test_one_line_is_asked_and_one_is_answered_at_a_socket_of_its_owner_alone(root: Path) -> None:
    desk, *_ = made(root)
    path = root / "agent.sock"
    path.touch()  # of an earlier life
    async with serving(desk, path):
        assert path.stat().st_mode & 0o777 == 0o600
        answer = await exchanged(path, b'{"verb": "status"}\n')
        assert answer["ok"]["agent_version"] == "1.2.3"
        assert (await exchanged(path, b"hello\n"))["error"]["code"] == "invalid_request"
        assert (await exchanged(path, b"[]\n"))["error"]["code"] == "invalid_request"
        assert (await exchanged(path, b"x" * 5000 + b"\n"))["error"]["code"] == "invalid_request"


async def test_who_asks_nothing_is_hung_up_on(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "PATIENCE_SECONDS", 0.05)
    desk, *_ = made(root)
    path = root / "agent.sock"
    async with serving(desk, path):
        reader, writer = await asyncio.open_unix_connection(path)
        assert await reader.read() == b""
        writer.close()


async def test_a_node_whose_socket_cannot_be_made_goes_on(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    desk, *_ = made(root)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(desk.serve(root / ("x" * 200)))
        async with asyncio.timeout(10):
            while not caplog.records:  # noqa: ASYNC110  # a log sets no event
                await asyncio.sleep(0.01)
        task.cancel()
    assert "cannot answer" in caplog.text
