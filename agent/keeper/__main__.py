"""The keeper's command line and wiring.

    python -S -P -m agent.keeper --state DIR --run DIR [--config FILE] -- AGENT_ARGV...

and, between two versions of itself: --check-state DESCRIPTOR, and --succeed DESCRIPTOR before all the rest.

Rules kept here: one keeper per run directory, by a lock held for life; what lives is adopted before anybody can ask;
SIGTERM and SIGINT end the agent and the keeper and do to each component what its start declared, which is to leave it
serving where it said nothing. Left out: everything that the rooms do.
"""

import contextlib
import fcntl
import functools
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from agent.keeper import (
    adoption,
    agent_release,
    agent_verbs,
    agents,
    clients,
    disposable,
    entry,
    errors,
    fields,
    holds,
    instance,
    instances,
    keeper_code,
    listeners,
    lives,
    logs,
    loop,
    marks,
    orphans,
    places,
    rooms,
    specification,
    tasks,
    verbs,
)

TOKEN_BYTES = 16  # 128 random bits tell lives of keepers apart
SOCKET_PATH_MAX_BYTES = 107  # of sockaddr_un on Linux, without the closing zero
ALREADY_RUNS = 1
USAGE_ERROR = 2
USAGE = "usage: python -S -P -m agent.keeper --state DIR --run DIR [--config FILE] [-- AGENT_ARGV...]"


class Keeper:
    """All rooms of one keeper, wired."""

    def __init__(self, where: places.Places, agent_argv: Sequence[str], life: keeper_code.Life) -> None:
        self._where = where
        self._life = life
        self._loop = loop.Loop()
        self._code = keeper_code.Code(where, life.release, self._loop.now())
        self._is_ending = False
        self._held = listeners.Listeners(self._is_in_use, self._on_close)
        listening = lives.Listening(self._on_event, self._on_exit, self._on_forgotten)
        self._live = instances.Instances(self._loop, where, self._held, listening)
        self._clients = clients.Clients(self._loop, self._on_agent_gone, where.agent_uid)
        self._marked = marks.Marks(self._loop, where, self._live, self._clients.agent_silence_seconds)
        self._holds = holds.Holds(self._loop, where, self._held, self._live.is_served)
        self._agents = agents.Agents(self._loop, where, agent_argv, self._clients.is_agent_attached)

    def run(self, memory: int | None) -> None:
        """Adopt, or go on from the state in a memfd; serve, until told to end."""
        self._loop.on_signals(
            {
                signal.SIGTERM: lambda: self._shut_down(verbs.DECLARED),
                signal.SIGINT: lambda: self._shut_down(verbs.DECLARED),
                signal.SIGCHLD: orphans.Orphans(self._loop, self._live.lives.groups.is_clearing).on_child,
            }
        )
        if memory is None:
            adoption.adopt(self._loop, self._where, self._live, self._held, self._open)
        else:
            self._take_over(memory)
        self._loop.run()
        self._live.lives.cgroups.close()

    def _open(self) -> None:
        self._marked.restore()
        self._holds.restore(self._live.has_component)
        asked = self._verbs(self._rooms())
        self._where.socket.unlink(missing_ok=True)
        self._clients.listen(str(self._where.socket), asked.do)
        self._agents.start()

    def _take_over(self, memory: int) -> None:
        from agent.keeper import succession, succession_state  # noqa: PLC0415  # other keepers need neither

        known = self._rooms()
        own = succession.Rooms(known, self._clients, self._agents, self._life)
        succession.take_over(succession_state.read(memory), own, self._verbs(known).do)
        os.close(memory)

    def _rooms(self) -> rooms.Rooms:
        children = disposable.Disposables(self._loop, self._live.lives.groups)
        return rooms.Rooms(
            loop=self._loop,
            where=self._where,
            held=self._held,
            live=self._live,
            marked=self._marked,
            holds=self._holds,
            logs=logs.Logs(self._loop, self._where, self._live.ids),
            children=children,
            tasks=tasks.Tasks(self._loop, self._where, children, self._live.lives),
        )

    def _verbs(self, known: rooms.Rooms) -> verbs.Verbs:
        def replace(release: agent_release.Release, client: clients.Client, request_id: object) -> None:
            from agent.keeper import succession  # noqa: PLC0415  # asked for about once a year

            own = succession.Rooms(known, self._clients, self._agents, self._life)
            succession.begin(own, release, client, request_id)

        own = agent_verbs.AgentVerbs(known, self._agents, self._code, replace)
        return verbs.Verbs(known, own, self._life.instance_token, self._shut_down)

    def _is_in_use(self, socket_name: str) -> bool:
        return self._live.uses(socket_name)

    def _on_close(self, socket_name: str) -> None:
        self._holds.release(socket_name)

    def _on_exit(self, ended: instance.Instance) -> None:
        self._marked.on_exit(ended)

    def _on_agent_gone(self) -> None:
        self._marked.on_agent_gone()

    def _on_event(self, changed: instance.Instance, was: str) -> None:
        event: fields.Body = {"event": "instance", "instance": changed.body(), "was": was}
        self._clients.tell(event)
        self._holds.look(changed.specification.component)

    def _on_forgotten(self, forgotten: instance.Instance) -> None:
        component = forgotten.specification.component
        if not self._live.has_component(component):
            self._holds.forget(component)

    def _shut_down(self, components: str, on_done: Callable[[], None] = lambda: None) -> None:
        """End the agent first, so that nobody starts again what is stopped here."""
        if self._is_ending:
            return
        self._is_ending = True

        def end() -> None:
            on_done()
            self._loop.stop()

        self._agents.stop(lambda: self._stop_components(components, end))

    def _stop_components(self, components: str, on_stopped: Callable[[], None]) -> None:
        chosen = [
            each
            for each in self._live.all()
            if (each.specification.on_agent_stop if components == verbs.DECLARED else components) == specification.STOP
        ]
        left = {each.id for each in chosen}

        def stopped(instance_id: str) -> None:
            left.discard(instance_id)
            if not left:
                on_stopped()

        if not chosen:
            on_stopped()
        for each in chosen:
            self._live.stop(each.id, each.specification.stop_timeout_seconds, functools.partial(stopped, each.id))


def main(arguments: Sequence[str]) -> int:
    """Run a keeper; returns the exit code."""
    if arguments[:1] == [keeper_code.CHECK_STATE]:
        return _check_state(arguments[1:])
    if arguments[:1] == [keeper_code.SUCCEED]:
        memory, arguments = int(arguments[1]), arguments[2:]
    else:
        memory = None
    parsed = _parse(arguments)
    if parsed is None:
        print(USAGE, file=sys.stderr)  # noqa: T201  # a command's answer
        return USAGE_ERROR
    orphans.become_subreaper()
    where, agent_argv = parsed
    if len(os.fsencode(where.socket)) > SOCKET_PATH_MAX_BYTES:
        rule = f"the path of a socket has at most {SOCKET_PATH_MAX_BYTES} bytes"
        print(f"cannot run a keeper in {where.run}: {rule}", file=sys.stderr)  # noqa: T201  # a command's answer
        return USAGE_ERROR
    where.run.mkdir(mode=places.FOLDER_MODE, parents=True, exist_ok=True)
    try:
        where = _shared(where)
    except errors.RequestError as error:
        print(error, file=sys.stderr)  # noqa: T201  # a command's answer
        return USAGE_ERROR
    life = _first_life(where, arguments) if memory is None else _life_of(memory, arguments)
    if life is None:
        print(f"cannot run a keeper in {where.run}: another one does", file=sys.stderr)  # noqa: T201  # a command's answer
        return ALREADY_RUNS
    Keeper(where, agent_argv, life).run(memory)
    return 0


def _shared(where: places.Places) -> places.Places:
    """Let other users reach what they may, where the configuration names any.

    Raises:
        errors.RequestError: The configuration cannot be read, or names a user that this host does not have.
    """
    agent_uid, has_users = entry.ask_users(where.config)
    if has_users:
        where.run.chmod(places.SHARED_MODE)
    return replace(where, agent_uid=agent_uid)


def _first_life(where: places.Places, arguments: Sequence[str]) -> keeper_code.Life | None:
    """Begin a life; None where another keeper has the run directory."""
    lock = os.open(where.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # no child has it, and it stays over an execve
    except (BlockingIOError, PermissionError):  # POSIX allows either
        os.close(lock)
        return None
    return keeper_code.Life(os.urandom(TOKEN_BYTES).hex(), lock, arguments)


def _life_of(memory: int, arguments: Sequence[str]) -> keeper_code.Life:
    from agent.keeper import succession_state  # noqa: PLC0415  # other keepers do not need it

    state = succession_state.read(memory)
    with contextlib.suppress(OSError):
        fcntl.lockf(state.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # an image of version 1 had locked it in another way
    return keeper_code.Life(state.instance_token, state.lock, arguments, state.release)


def _check_state(arguments: Sequence[str]) -> int:
    from agent.keeper import succession, succession_state  # noqa: F401, PLC0415  # as above; both must be there

    succession_state.read(int(arguments[0]))
    print(keeper_code.READABLE)  # noqa: T201  # the answer
    return 0


def _parse(arguments: Sequence[str]) -> tuple[places.Places, Sequence[str]] | None:
    """Read the command line; argparse would cost half a MiB for good."""
    match arguments:
        case ["--state", state, "--run", run, "--config", config, *rest] if not rest or rest[0] == "--":
            return places.Places(Path(state).resolve(), Path(run).resolve(), Path(config).resolve()), rest[1:]
        case ["--state", state, "--run", run, *rest] if not rest or rest[0] == "--":
            return places.Places(Path(state).resolve(), Path(run).resolve()), rest[1:]
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
