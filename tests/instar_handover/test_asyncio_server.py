"""A real component process, spoken to as a keeper does."""

import json
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import instar_handover
from agent.keeper import processes, spawn

PATIENCE_SECONDS = 20.0
SERVICE = Path(__file__).with_name("service.py")


class Component:
    """The component's process and all its sockets."""

    def __init__(self, root: Path) -> None:
        self.web = _listener(root / "web", socket.SOCK_STREAM)
        self.probe = _listener(root / "probe", socket.SOCK_STREAM)
        self.control = root / "control"
        words = _listener(self.control, socket.SOCK_SEQPACKET)
        environment = {
            "PYTHONPATH": str(Path(instar_handover.__file__).parents[1]),
            "LISTEN_FDS": "2",
            "LISTEN_FDNAMES": "web:instar-probe",
            "INSTAR_CONTROL_FD": "5",
        }
        program = spawn.Program(
            [sys.executable, str(SERVICE), "unix:unused"],
            environment,
            root,
            descriptors=(self.web.fileno(), self.probe.fileno(), words.fileno()),
        )
        self.spawned = spawn.spawn(program)
        words.close()
        self.connection = self.connect_control()
        self.last_id = 0
        self.notices: list[dict[str, Any]] = []

    def connect_control(self) -> socket.socket:
        caller = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        caller.settimeout(PATIENCE_SECONDS)
        caller.connect(str(self.control))
        return caller

    def say(self, word: str) -> dict[str, Any]:
        self.last_id += 1
        self.connection.send(json.dumps({"word": word, "id": self.last_id}).encode())
        while (answer := json.loads(self.connection.recv(16384))).get("id") != self.last_id:
            self.notices.append(answer)
        return dict(answer)

    def until_notice(self, word: str) -> dict[str, Any]:
        while not any(notice["word"] == word for notice in self.notices):
            self.notices.append(json.loads(self.connection.recv(16384)))
        return next(notice for notice in self.notices if notice["word"] == word)

    def until_status(self, **wanted: object) -> None:
        until = time.monotonic() + PATIENCE_SECONDS
        while not wanted.items() <= self.say("status").items():
            assert time.monotonic() < until, wanted

    def exit(self) -> processes.Exit:
        assert select.select([self.spawned.pidfd], [], [], PATIENCE_SECONDS)[0], "it does not end"
        return processes.reap(self.spawned.pidfd)

    def end(self) -> None:
        processes.signal_group(self.spawned.pid, signal.SIGKILL)
        select.select([self.spawned.pidfd], [], [], PATIENCE_SECONDS)
        processes.reap(self.spawned.pidfd)
        os.close(self.spawned.pidfd)
        os.close(self.spawned.report)
        for each in (self.web, self.probe, self.connection):
            each.close()


@pytest.fixture
def component() -> Iterator[Component]:
    root = Path(tempfile.mkdtemp(prefix="ih-"))
    made = Component(root)
    try:
        yield made
    finally:
        made.end()
        shutil.rmtree(root)


@pytest.fixture
def active(component: Component) -> Component:
    component.until_status(state="prepared")
    assert component.say("activate")["ok"]
    return component


def _listener(path: Path, kind: int) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, kind)
    made.bind(str(path))
    made.listen(16)
    return made


def call(listener: socket.socket) -> socket.socket:
    caller = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    caller.settimeout(PATIENCE_SECONDS)
    caller.connect(listener.getsockname())
    return caller


def ask(caller: socket.socket, line: bytes) -> bytes:
    caller.sendall(line)
    return read_line(caller)


def read_line(caller: socket.socket) -> bytes:
    answer = b""
    while not answer.endswith(b"\n") and (chunk := caller.recv(4096)):
        answer += chunk
    return answer


def test_a_prepared_instance_serves_its_probe_listener_and_leaves_the_shared_one_alone(component: Component) -> None:
    component.until_status(state="prepared")
    with call(component.web) as waiting, call(component.probe) as probe:
        waiting.sendall(b"early\n")
        assert ask(probe, b"well?\n") == b"more well?\n"
        status = component.say("status")
        assert (status["state"], status["accepted"], status["served"]) == ("prepared", 0, 0)
        component.say("activate")
        assert read_line(waiting) == b"more early\n"  # it waited in the queue that all instances share


def test_a_paused_instance_serves_what_it_has_with_the_end_announced_and_can_be_resumed(active: Component) -> None:
    with call(active.web) as mine, call(active.web) as other:
        assert ask(mine, b"1\n") == b"more 1\n"
        assert active.say("pause")["state"] == "paused"
        with call(active.web) as late:
            late.sendall(b"late\n")
            assert ask(mine, b"2\n") == b"close 2\n"
            assert mine.recv(1) == b""
            assert active.say("resume")["state"] == "active"
            assert read_line(late) == b"more late\n"
            assert ask(other, b"3\n") == b"more 3\n"


def test_an_accepted_connection_that_has_sent_nothing_counts_and_gets_its_grace(active: Component) -> None:
    with call(active.web) as silent:
        active.until_status(accepted=1)
        active.say("drain")
        assert active.say("status")["state"] == "draining"
        assert ask(silent, b"just in time\n") == b"close just in time\n"
        assert active.until_notice("drained")["served"] == 1
    assert active.exit() == processes.Exit(0, None)


def test_an_idle_connection_is_closed_after_the_grace_and_a_busy_one_is_not(active: Component) -> None:
    with call(active.web) as idle, call(active.web) as busy:
        assert ask(idle, b"1\n") == b"more 1\n"
        busy.sendall(b"hold\n")
        active.until_status(in_flight=1)
        active.say("drain")
        assert idle.recv(1) == b""
        assert active.say("status")["in_flight"] == 1
        assert ask(busy, b"done\n") == b"close done\n"
    assert active.exit() == processes.Exit(0, None)


def test_a_drain_can_be_turned_back_while_a_connection_lives(active: Component) -> None:
    with call(active.web) as busy:
        busy.sendall(b"hold\n")
        active.until_status(in_flight=1)
        active.say("drain")
        assert active.say("resume")["state"] == "active"
        assert ask(busy, b"1\n") == b"more 1\n"


def test_the_probe_listener_is_served_while_draining_and_does_not_hold_the_end_up(active: Component) -> None:
    with call(active.web) as busy, call(active.probe) as probe:
        busy.sendall(b"hold\n")
        active.until_status(in_flight=1)
        active.say("drain")
        assert ask(probe, b"well?\n") == b"more well?\n"
        assert ask(busy, b"done\n") == b"close done\n"
        assert active.exit() == processes.Exit(0, None)


def test_an_illegal_or_unknown_word_is_answered_and_changes_nothing(component: Component) -> None:
    component.until_status(state="prepared")
    for word in ("pause", "resume", "jump"):
        answer = component.say(word)
        assert (answer["ok"], answer["state"]) == (False, "prepared")
        assert answer["error"].startswith("cannot")


def test_a_new_control_connection_replaces_the_old_one_and_losing_both_changes_nothing(active: Component) -> None:
    first = active.connection
    active.connection = active.connect_control()
    assert active.say("hello")["state"] == "active"
    assert first.recv(16384) == b""
    first.close()
    active.connection.close()
    with call(active.web) as mine:
        assert ask(mine, b"1\n") == b"more 1\n"
    active.connection = active.connect_control()
    assert active.say("hello")["state"] == "active"


def test_listeners_are_handed_over_by_name_and_the_peer_is_the_component_itself(active: Component) -> None:
    active.connection.close()
    active.connection = active.connect_control()
    pid = int.from_bytes(active.connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 4), sys.byteorder)
    assert pid == active.spawned.pid
    active.connection.send(b'{"word": "listeners", "id": 1}')
    datagram, descriptors, _, _ = socket.recv_fds(active.connection, 16384, 8)
    assert json.loads(datagram)["names"] == ["web"]
    (descriptor,) = descriptors
    with socket.socket(fileno=descriptor) as taken:
        assert taken.getsockname() == active.web.getsockname()


def test_sigterm_drains(active: Component) -> None:
    with call(active.web) as busy:
        busy.sendall(b"hold\n")
        active.until_status(in_flight=1)
        os.kill(active.spawned.pid, signal.SIGTERM)
        active.until_status(state="draining")
        assert ask(busy, b"done\n") == b"close done\n"
    assert active.exit() == processes.Exit(0, None)


def test_started_by_hand_it_serves_on_its_own_address_until_it_is_told_to_end(tmp_path: Path) -> None:
    environment = {"PYTHONPATH": str(Path(instar_handover.__file__).parents[1])}
    spawned = spawn.spawn(spawn.Program([sys.executable, str(SERVICE), "unix:web"], environment, tmp_path))
    until = time.monotonic() + PATIENCE_SECONDS
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        while caller.connect_ex(os.path.relpath(tmp_path / "web")) != 0:
            assert time.monotonic() < until
        assert ask(caller, b"1\n") == b"more 1\n"
        os.kill(spawned.pid, signal.SIGTERM)
        assert caller.recv(1) == b""
    assert select.select([spawned.pidfd], [], [], PATIENCE_SECONDS)[0]
    assert processes.reap(spawned.pidfd) == processes.Exit(0, None)
    os.close(spawned.pidfd)
    os.close(spawned.report)
