"""The keeper becomes another version of itself in place: same process, children, sockets, connections and token.

Rules kept here: the new code first reads the state, in a child of its own; nothing is handed over while anything is
half done; what fails before the execve, or the execve itself, leaves this image going on as if nothing had been asked.
Only the time that Python takes to start passes without a keeper, and nobody who serves needs one. Imported when it is
asked for, and by the image that follows. Left out: the form of the state (`succession_state`).
"""

import os
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.keeper import (
    agent_child,
    agent_release,
    agents,
    clients,
    entry,
    errors,
    instance,
    keeper_code,
    listeners,
    rooms,
    self_check,
    spawn,
    succession_state,
)

CHECK_SECONDS = 30.0  # for a digest, a start of Python, and reading some KiB
COMPLAINT_MAX = 500  # characters: the end of a traceback
STARTING_SECONDS = 60.0  # after this an instance that does not come up is nothing that could still be waited for
SIGNALS = (signal.SIGTERM, signal.SIGINT)  # blocked until the next image can take them


@dataclass(frozen=True, slots=True)
class Rooms:
    """All that has state."""

    known: rooms.Rooms
    connected: clients.Clients
    agents: agents.Agents
    life: keeper_code.Life


def begin(own: Rooms, release: agent_release.Release, client: clients.Client, request_id: object) -> None:
    """Check the release; then become it, and let that answer the request.

    Raises:
        errors.RequestError: busy, replace_failed or check_failed.
    """
    _refuse_busy(own, client)
    memory = succession_state.write(_state(own, release, None))

    def on_checked(exit_code: int | None, said: str) -> None:
        os.close(memory)
        try:
            _refuse_unfit(release, exit_code, said)
            _refuse_busy(own, client)
            _become(own, release, client, request_id)
        except errors.RequestError as refusal:
            clients.Reply(client, request_id).error(refusal)

    try:
        self_check.run(own.known.children, _check_program(own, release, memory), CHECK_SECONDS, on_checked)
    except errors.RequestError:
        os.close(memory)
        raise


def take_over(state: succession_state.State, own: Rooms, on_request: clients.Handler) -> None:
    """Go on where the image before this one stood, and answer whoever asked for it."""
    _hand_over(state.descriptors, is_inherited=False)
    for binding, descriptor in state.sockets:
        own.known.held.adopt(listeners.Listener(binding, socket.socket(fileno=descriptor)))
    for each in state.instances:
        own.known.live.adopt(each)
    for hold in state.holds:
        own.known.holds.put(*succession_state.hold_of(hold))
    own.known.marked.restore(state.marks)
    if state.agent is None:
        own.agents.start()
    else:
        own.agents.adopt(state.agent)
    if state.connections is not None:
        _take_connections(state.connections, own.connected, on_request)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _take_connections(
    taken: succession_state.Connections, connected: clients.Clients, on_request: clients.Handler
) -> None:
    connected.listen_on(socket.socket(fileno=taken.listener), on_request)
    for image in taken.clients:
        descriptor = succession_state.descriptor_of(image)
        client = connected.adopt(socket.socket(fileno=descriptor), on_request)
        client.go_on(image)
        if taken.owed is not None and taken.owed[0] == descriptor:
            client.send({"id": taken.owed[1], "ok": {}})


def _refuse_unfit(release: agent_release.Release, exit_code: int | None, said: str) -> None:
    if exit_code != 0 or said.strip() != keeper_code.READABLE:
        rule = said.strip()[-COMPLAINT_MAX:]
        raise errors.RequestError("replace_failed", f"cannot become {release.digest}: {rule}")


def _refuse_busy(own: Rooms, client: clients.Client) -> None:
    """Refuse while something is half done, of which the next image would not know."""
    now = own.known.loop.now()
    half_done = [each.id for each in own.known.live.all() if _is_half_done(each, now)]
    marks_half_done = [mark["operation_id"] for mark in own.known.marked.bodies()[0] if mark["is_rolling_back"]]
    is_at_work = not own.agents.is_settled or own.connected.are_waiting(client) or own.known.children.running
    if half_done or marks_half_done or is_at_work:
        rule = f"it is at work on {', '.join(map(str, (*half_done, *marks_half_done))) or 'a request'}"
        raise errors.RequestError("busy", f"cannot replace the keeper now: {rule}")


def _is_half_done(each: instance.Instance, now: float) -> bool:
    is_starting = each.state == instance.STARTING and now - each.started_at_monotonic < STARTING_SECONDS
    is_waited_for = each.launching is not None or each.stopping is not None or bool(each.parking) or each.is_ending
    return is_waited_for or (each.has_process and is_starting)


def _state(
    own: Rooms, release: agent_release.Release, owed: tuple[clients.Client, object] | None
) -> succession_state.State:
    listener, images = own.connected.images()
    asker = owed[0].image() if owed is not None else None
    return succession_state.State(
        instance_token=own.life.instance_token,
        lock=own.life.lock,
        release=release,
        sockets=tuple((listener.binding, listener.socket.fileno()) for listener in own.known.held.all()),
        instances=tuple(own.known.live.all()),
        holds=tuple(own.known.holds.images()),
        marks=own.known.marked.image(),
        agent=_agent(own.agents.main),
        connections=succession_state.Connections(
            listener,
            tuple(images),
            None if asker is None or owed is None else (succession_state.descriptor_of(asker), owed[1]),
        ),
    )


def _agent(main: agent_child.Child | None) -> agent_child.Inherited | None:
    if main is None:
        return None
    return agent_child.Inherited(main.release, main.instance_id, main.pid, main.pidfd, main.started_at)


def _check_program(own: Rooms, release: agent_release.Release, memory: int) -> spawn.Program:
    compiled = _compiled(own)

    def check() -> dict[str, str]:
        import shutil  # noqa: PLC0415  # only the forked child pays for it

        entry.check_release(release.directory, release.digest)
        shutil.rmtree(compiled, ignore_errors=True)
        return {}

    argv = [*_python(), keeper_code.CHECK_STATE, str(spawn.FIRST_DESCRIPTOR)]
    environment = _environment(own, release)
    del environment[
        "PYTHONDONTWRITEBYTECODE"
    ]  # what is compiled in the child costs the next image neither time nor memory
    return spawn.Program(argv, environment, Path.cwd(), descriptors=(memory,), check=check)


def _become(own: Rooms, release: agent_release.Release, client: clients.Client, request_id: object) -> None:
    """Execute the new image; returns only by raising."""
    state = _state(own, release, (client, request_id))
    memory = succession_state.write(state)
    argv = [*_python(), keeper_code.SUCCEED, str(memory), *own.life.arguments]
    handed = [memory, *state.descriptors]
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        _hand_over(handed, is_inherited=True)
        os.execve(sys.executable, argv, _environment(own, release))
    except OSError as error:
        _hand_over(handed, is_inherited=False)
        os.close(memory)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        raise errors.RequestError("replace_failed", f"cannot become {release.digest}: {error}") from error


def _hand_over(descriptors: Sequence[int], *, is_inherited: bool) -> None:
    for descriptor in descriptors:
        os.set_inheritable(descriptor, is_inherited)


def _environment(own: Rooms, release: agent_release.Release) -> dict[str, str]:
    return {**agent_release.environment(release), agent_release.COMPILED_PATH: str(_compiled(own))}


def _compiled(own: Rooms) -> Path:
    """Where the keeper's compiled code is, for a release is read-only; nobody else may write there."""
    return own.known.where.run / "keeper.compiled"


def _python() -> Sequence[str]:
    return (sys.executable, "-S", "-P", "-m", "agent.keeper")
