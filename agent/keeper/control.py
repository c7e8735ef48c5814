"""The keeper's end of a component's control socket: words out, answers and notices in.

Rules kept here: every word has a deadline; what was not answered when the connection broke is said again on the next
one, for repeating a word is success; the peer must be the process it is taken for; what a component says is checked
before it is believed. Nothing here ever waits. Left out: what the words mean for an instance.
"""

import json
import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from agent.keeper import errors, fields, loop, processes

MESSAGE_MAX_BYTES = 16 * 1024  # of the protocol
DESCRIPTORS_MAX = 64  # listeners that one answer may carry
PENDING_MAX = 64  # words on their way to one instance
RETRY_FIRST_SECONDS = 0.02  # a component that is starting listens within this order of time
RETRY_MAX_SECONDS = 1.0
STATES = frozenset({"starting", "prepared", "active", "paused", "draining", "drained"})
PEER = struct.Struct("3i")  # struct ucred: pid, uid, gid


@dataclass(frozen=True, slots=True)
class Status:
    """What a component last said of itself."""

    state: str
    served: int
    in_flight: int
    accepted: int
    protocol: int
    worker_deaths: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """A component's answer to a word.

    Args:
        refusal: None when it obeyed.
        names: Of the descriptors, for "listeners".
        descriptors: The receiver owns them.
        body: What it said beyond its status.
    """

    status: Status | None
    refusal: errors.RequestError | None
    names: tuple[str, ...] = ()
    descriptors: tuple[int, ...] = ()
    body: fields.Body = field(default_factory=dict)


@dataclass(slots=True)
class _Pending:
    word: str
    datagram: bytes
    timer: loop.Timer
    on_answer: Callable[[Answer], None]


class Conversation:
    """One instance's control socket, connected again whenever it breaks.

    Args:
        pid: The component's; it must be the one that listens. This keeper's own pid will do before the component has
            begun to listen by itself, for then only that child has the socket.
        on_status: Called with every believable message.
    """

    def __init__(self, on: loop.Loop, path: Path, pid: int, on_status: Callable[[Status], None]) -> None:
        self._loop = on
        self._path = path
        self._pids = (pid, os.getpid())
        self._on_status = on_status
        self._pending: dict[int, _Pending] = {}
        self._last_id = 0
        self._socket: socket.socket | None = None
        self._retry: loop.Timer | None = None
        self._retry_seconds = RETRY_FIRST_SECONDS
        self._is_closed = False
        self._connect()

    def ask(
        self, word: str, timeout_seconds: float, on_answer: Callable[[Answer], None], body: fields.Body | None = None
    ) -> None:
        """Say a word; the answer, or why there is none, is called back exactly once."""
        if self._is_closed:
            on_answer(_no_answer("instance_gone", f"cannot say {word}: the instance has ended"))
            return
        if len(self._pending) >= PENDING_MAX:
            on_answer(_no_answer("too_many", f"cannot say {word}: {PENDING_MAX} words wait for an answer already"))
            return
        self._last_id += 1
        word_id = self._last_id
        late = _no_answer("instance_timeout", f"cannot get an answer to {word} within {timeout_seconds:g} s")
        timer = self._loop.call_later(timeout_seconds, lambda: self._settle(word_id, late))
        more = {} if body is None else {"body": body}
        datagram = json.dumps({"word": word, "id": word_id, **more}).encode()
        self._pending[word_id] = _Pending(word, datagram, timer, on_answer)
        self._send(datagram)

    def close(self) -> None:
        """End it; what waits is told that the instance is gone."""
        self._is_closed = True
        if self._retry is not None:
            self._retry.cancel()
        self._disconnect()
        for word_id in list(self._pending):
            self._settle(word_id, _no_answer("instance_gone", "cannot get an answer: the instance has ended"))

    def _connect(self) -> None:
        if self._is_closed:
            return
        caller = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        try:
            caller.connect(str(self._path))
            self._check_peer(caller)
        except OSError:
            caller.close()
            self._retry = self._loop.call_later(self._retry_seconds, self._connect)
            self._retry_seconds = min(2 * self._retry_seconds, RETRY_MAX_SECONDS)
            return
        self._socket = caller
        self._loop.watch(caller.fileno(), loop.READ, self._on_readable)
        if not self._pending:
            self.ask("hello", RETRY_MAX_SECONDS, lambda _: None)
            return
        for pending in list(self._pending.values()):
            self._send(pending.datagram)

    def _check_peer(self, caller: socket.socket) -> None:
        pid, uid, _ = PEER.unpack(caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size))
        if pid not in self._pids or uid not in (0, os.geteuid(), processes.user_of(pid)):
            raise PermissionError(f"cannot trust {self._path}: process {pid} of user {uid} listens there")

    def _send(self, datagram: bytes) -> None:
        if self._socket is None:
            return
        try:
            self._socket.send(datagram)
        except OSError:
            self._disconnect()

    def _disconnect(self) -> None:
        if self._socket is None:
            return
        self._loop.unwatch(self._socket.fileno())
        self._socket.close()
        self._socket = None
        if not self._is_closed:
            self._retry = self._loop.call_later(self._retry_seconds, self._connect)

    def _on_readable(self, _: int) -> None:
        assert self._socket is not None  # noqa: S101  # only a connected socket is watched
        try:
            datagram, descriptors, _, _ = socket.recv_fds(
                self._socket, MESSAGE_MAX_BYTES, DESCRIPTORS_MAX, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        except OSError:
            datagram, descriptors = b"", []
        if not datagram:
            self._disconnect()
            return
        self._retry_seconds = RETRY_FIRST_SECONDS
        self._take(datagram, tuple(descriptors))

    def _take(self, datagram: bytes, descriptors: tuple[int, ...]) -> None:
        try:
            body = json.loads(datagram)
        except ValueError:
            body = None
        status = _status(body)
        pending = isinstance(body, dict) and self._pending.get(body.get("id", 0))
        if status is None or not pending or pending.word != "listeners":
            for descriptor in descriptors:
                os.close(descriptor)
            descriptors = ()
        if status is None:
            return
        self._on_status(status)
        if pending:
            self._settle(body["id"], _answer(body, status, descriptors))

    def _settle(self, word_id: int, answer: Answer) -> None:
        pending = self._pending.pop(word_id, None)
        if pending is not None:
            pending.timer.cancel()
            pending.on_answer(answer)


def _no_answer(code: str, message: str) -> Answer:
    return Answer(None, errors.RequestError(code, message))


def _status(body: object) -> Status | None:
    """Read what every message carries; None for what no component of this protocol says."""
    if not isinstance(body, dict) or body.get("state") not in STATES:
        return None
    counts = [body.get(name, 0) for name in ("served", "in_flight", "accepted", "protocol", "worker_deaths")]
    if any(not isinstance(count, int) for count in counts):
        return None
    return Status(body["state"], *counts)


def _answer(body: dict[str, object], status: Status, descriptors: tuple[int, ...]) -> Answer:
    names = body.get("names")
    said = body.get("body")
    answer = Answer(
        status,
        None,
        tuple(map(str, names)) if isinstance(names, list) else (),
        descriptors,
        said if isinstance(said, dict) else {},
    )
    if body.get("ok") is True:
        return answer
    return replace(answer, refusal=errors.RequestError("instance_refused", str(body.get("error"))))
