"""What the people of this very node may ask its agent, without a controller: a Unix socket, one line of JSON each way.

Rules kept here: only who may write to the socket may ask (mode 0600); a change that is asked here is an ordinary
operation, with an id that begins with `local/` and the highest fence that the node has seen: it begins only where the
node is free, it counts nothing up, and whatever the controller assigns later outranks it. Every answer comes in bounded
time. Left out: how an operation goes on (`agent.runner`), and the asking side (`agent.cli`).
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Never, Protocol

from agent import depot
from agent.config import layout, manifest, semver
from agent.config.errors import ConfigError
from agent.core import admission, model
from agent.drivers import registry
from agent.journal import records

REQUEST_BYTES_MAX = 4096  # a request has five short fields
PATIENCE_SECONDS = 5.0  # for a whole request to come; whoever asks has it ready
SOCKET_MODE = 0o600
BACKLOG = 8  # people at one node
DEADLINE = timedelta(minutes=10)  # until COMMIT, as the controller's policy has it by default
SOAK = timedelta(seconds=5)
HEALTHY_DURATION = timedelta(seconds=10)
HEALTHY_DEADLINE = timedelta(minutes=5)
KINDS = {kind.value: kind for kind in (model.ChangeKind.UPGRADE, model.ChangeKind.START, model.ChangeKind.STOP)}

Document = Mapping[str, object]

_logger = logging.getLogger(__name__)


class Node(Protocol):
    """The node, as far as it is asked."""

    def take_local(self, assignment: model.Assignment) -> None:
        """Take a change; it is answered by what the node reports."""
        ...

    def outcome(self, operation_id: str) -> model.OperationStatus | None:
        """How an operation ended that is reported no more."""
        ...

    def full_report(self) -> model.Report:
        """Everything that the node knows now."""
        ...

    def hello_facts(self) -> model.HelloFacts:
        """Who the node is."""
        ...


class RequestError(Exception):
    """A request that changes nothing.

    Args:
        message: One sentence for people; starts with "cannot".
        code: Stable, in snake_case.
        field: The field of the request that is wrong; empty where it is none.
    """

    def __init__(self, message: str, *, code: str, field: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.field = field


@dataclass(frozen=True, slots=True)
class Desk:
    """Where this node's people ask.

    Args:
        now: Wall clock; names operations.
    """

    node: Node
    disk: depot.Depot
    now: Callable[[], datetime]

    async def serve(self, path: Path) -> Never:
        """Answer at a Unix socket until cancelled; where it cannot be made, the node goes on without it.

        Raises:
            asyncio.CancelledError: The agent ends.
        """
        try:
            listener = _listener(path)
        except OSError as error:
            _logger.warning("cannot answer at %s: %s", path, error)
            await _for_ever()
        async with await asyncio.start_unix_server(self._attend, sock=listener, limit=REQUEST_BYTES_MAX):
            await _for_ever()

    async def _attend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                writer.write(json.dumps(await self._answer_line(reader)).encode() + b"\n")
                await writer.drain()
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    async def _answer_line(self, reader: asyncio.StreamReader) -> Document:
        try:
            request = json.loads(await reader.readline())
        except ValueError as error:  # too long, or no JSON
            return _error(RequestError(f"cannot read the request: {error}", code="invalid_request"))
        if not isinstance(request, dict):
            return _error(RequestError("cannot read the request: it is no object", code="invalid_request"))
        return self.answer(request)

    def answer(self, request: Document) -> Document:
        """Answer one request: {"ok": …} or {"error": {"code", "field", "message"}}."""
        verbs: Mapping[str, Callable[[Document], Document]] = {
            "status": self._status,
            "change": self._change,
            "operation": self._operation,
        }
        verb = verbs.get(str(request.get("verb", "")))
        if verb is None:
            rule = f"verbs are {', '.join(verbs)}"
            return _error(RequestError(f"cannot do {request.get('verb')!r}: {rule}", code="unknown_verb", field="verb"))
        try:
            return {"ok": verb(request)}
        except RequestError as error:
            return _error(error)
        except ConfigError as error:
            return _error(RequestError(str(error), code="invalid_request", field=error.field))

    def _status(self, _request: Document) -> Document:
        report, facts = self.node.full_report(), self.node.hello_facts()
        return {
            "agent_version": facts.agent_version,
            "highest_fence": facts.highest_fence,
            "conditions": [records.to_plain(each) for each in report.conditions or ()],
            "components": [records.to_plain(each) for each in report.components],
            "operations": [records.to_plain(each) for each in report.operations],
        }

    def _operation(self, request: Document) -> Document:
        operation_id = _text(request, "operation_id")
        for status in self.node.full_report().operations:
            if status.operation_id == operation_id:
                return _told(status)
        ended = self.node.outcome(operation_id)
        if ended is not None:
            return _told(ended)
        message = f"cannot find operation {operation_id!r}: this node does not remember it"
        raise RequestError(message, code="unknown_operation", field="operation_id")

    def _change(self, request: Document) -> Document:
        assignment = self._assignment(request)
        self.node.take_local(assignment)
        return self._operation({"operation_id": assignment.operation_id})

    def _assignment(self, request: Document) -> model.Assignment:
        component = layout.component_name(_text(request, "component"))
        kind = KINDS.get(_text(request, "kind"))
        if kind is None:
            message = f"cannot use kind = {request.get('kind')!r}: it is {', '.join(KINDS)}"
            raise RequestError(message, code="invalid_request", field="kind")
        pointers = self.disk.pointers(component)
        if pointers is None:
            message = f"cannot change {component}: it is not installed"
            raise RequestError(message, code="not_installed", field="component")
        digest = self._digest(request, pointers.current) if kind is model.ChangeKind.UPGRADE else pointers.current
        read = manifest.read(self.disk.release_dir(digest))
        return model.Assignment(
            operation_id=f"{admission.LOCAL_PREFIX}{self.now().strftime('%Y%m%dT%H%M%S.%fZ')}/{component}",
            fence=self.node.hello_facts().highest_fence,
            attempt=1,
            component=component,
            kind=kind,
            method=self._method(request, read, pointers.current),
            from_digest=pointers.current,
            to_digest=digest if kind is model.ChangeKind.UPGRADE else "",
            to_version=read.version,
            hold_before=None,
            start_by=None,
            deadline=DEADLINE,
            soak_duration=SOAK,
            soak_requests_min=0,  # nobody has said how busy this component is
            min_healthy_duration=HEALTHY_DURATION,
            healthy_deadline=HEALTHY_DEADLINE,
            discard_writes=request.get("discard_writes") is True,
        )

    def _digest(self, request: Document, current: str) -> str:
        digest = _text(request, "to_digest")
        layout.hex_of(digest)
        if not self.disk.has_release(digest):
            message = f"cannot go to {digest}: that release is not on this node"
            raise RequestError(message, code="release_missing", field="to_digest")
        if digest == current:
            raise RequestError(f"cannot go to {digest}: it is current", code="already_current", field="to_digest")
        return digest

    def _method(self, request: Document, read: model.Manifest, current: str) -> model.Method:
        """The method that was asked for; else the gentlest that the driver and the manifest allow."""
        asked = request.get("method")
        if asked is not None:
            if asked not in {method.value for method in model.Method}:
                message = f"cannot use method = {asked!r}: it is HOT_SWAP or RESTART"
                raise RequestError(message, code="invalid_request", field="method")
            return model.Method(asked)
        methods = registry.BUILT_IN.get(read.driver, ("", registry.RESTART))[1]
        from_version = manifest.read(self.disk.release_dir(current)).version
        is_allowed = not read.hot_swap_from or semver.matches(from_version, read.hot_swap_from)
        is_gentle = model.Method.HOT_SWAP in methods and (is_allowed or model.Method.RESTART not in methods)
        return model.Method.HOT_SWAP if is_gentle else model.Method.RESTART


def _listener(path: Path) -> socket.socket:
    """Bind; the mode stands before anybody can connect."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(str(path))
        path.chmod(SOCKET_MODE)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


async def _for_ever() -> Never:
    while True:
        await asyncio.Event().wait()


def _text(request: Document, key: str) -> str:
    value = request.get(key)
    if not isinstance(value, str) or not value:
        raise RequestError(f"cannot use {key} = {value!r}: it is a text", code="invalid_request", field=key)
    return value


def _told(status: model.OperationStatus) -> Document:
    plain = records.to_plain(status)
    assert isinstance(plain, dict)  # noqa: S101  # of a dataclass
    return plain


def _error(error: RequestError) -> Document:
    return {"error": {"code": error.code, "field": error.field, "message": str(error)}}
