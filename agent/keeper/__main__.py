"""The keeper's command line and wiring.

    python -S -P -m agent.keeper --state DIR --run DIR -- AGENT_ARGV...

Rules kept here: one keeper per run directory, by a lock held for life; what lives is adopted before anybody can ask;
SIGTERM and SIGINT end the agent and the keeper and leave the components serving. Left out: everything that the rooms
do.
"""

import fcntl
import functools
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from agent.keeper import (
    adoption,
    agent_child,
    clients,
    fields,
    instance,
    instances,
    listeners,
    loop,
    marks,
    places,
    verbs,
)

TOKEN_BYTES = 16  # 128 random bits tell lives of keepers apart
SOCKET_PATH_MAX_BYTES = 107  # of sockaddr_un on Linux, without the closing zero
ALREADY_RUNS = 1
USAGE_ERROR = 2
USAGE = "usage: python -S -P -m agent.keeper --state DIR --run DIR [-- AGENT_ARGV...]"


class Keeper:
    """All rooms of one keeper, wired."""

    def __init__(self, where: places.Places, agent_argv: Sequence[str]) -> None:
        self._where = where
        self._loop = loop.Loop()
        self._held = listeners.Listeners(self._is_in_use)
        listening = instances.Listening(self._on_event, self._on_exit)
        self._live = instances.Instances(self._loop, where, self._held, listening)
        self._clients = clients.Clients(self._loop, self._on_agent_gone)
        self._marked = marks.Marks(self._loop, where, self._live, self._clients.is_agent_attached)
        self._agent = agent_child.AgentChild(self._loop, agent_argv)

    def run(self) -> None:
        """Adopt, serve, until told to end."""
        self._loop.on_signals((signal.SIGTERM, signal.SIGINT), lambda: self._agent.stop(self._loop.stop))
        adoption.adopt(self._where, self._live, self._held, self._open)
        self._loop.run()

    def _open(self) -> None:
        self._marked.restore()
        asked = verbs.Verbs(
            self._loop,
            self._where,
            held=self._held,
            live=self._live,
            marked=self._marked,
            instance_token=os.urandom(TOKEN_BYTES).hex(),
            on_shutdown=self._shut_down,
        )
        self._where.socket.unlink(missing_ok=True)
        self._clients.listen(str(self._where.socket), asked.do)
        self._agent.start()

    def _is_in_use(self, socket_name: str) -> bool:
        return self._live.uses(socket_name)

    def _on_exit(self, ended: instance.Instance) -> None:
        self._marked.on_exit(ended)

    def _on_agent_gone(self) -> None:
        self._marked.on_agent_gone()

    def _on_event(self, changed: instance.Instance, was: str) -> None:
        event: fields.Body = {"event": "instance", "instance": changed.body(), "was": was}
        self._clients.tell(event)

    def _shut_down(self, is_stopping_components: bool, on_done: Callable[[], None]) -> None:  # noqa: FBT001  # a callback
        living = [each for each in self._live.all() if is_stopping_components]

        def end() -> None:
            on_done()
            self._agent.stop(self._loop.stop)

        def stopped(each: instance.Instance) -> None:
            living.remove(each)
            if not living:
                end()

        if not living:
            end()
        for each in list(living):
            self._live.stop(each.id, each.specification.stop_timeout_seconds, functools.partial(stopped, each))


def main(arguments: Sequence[str]) -> int:
    """Run a keeper; returns the exit code."""
    parsed = _parse(arguments)
    if parsed is None:
        print(USAGE, file=sys.stderr)  # noqa: T201  # a command's answer
        return USAGE_ERROR
    where, agent_argv = parsed
    if len(os.fsencode(where.socket)) > SOCKET_PATH_MAX_BYTES:
        rule = f"the path of a socket has at most {SOCKET_PATH_MAX_BYTES} bytes"
        print(f"cannot run a keeper in {where.run}: {rule}", file=sys.stderr)  # noqa: T201  # a command's answer
        return USAGE_ERROR
    where.run.mkdir(mode=places.FOLDER_MODE, parents=True, exist_ok=True)
    lock = os.open(where.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"cannot run a keeper in {where.run}: another one does", file=sys.stderr)  # noqa: T201  # a command's answer
        return ALREADY_RUNS
    Keeper(where, agent_argv).run()
    return 0


def _parse(arguments: Sequence[str]) -> tuple[places.Places, Sequence[str]] | None:
    """Read the command line; argparse would cost half a MiB for good."""
    match arguments:
        case ["--state", state, "--run", run, *rest] if not rest or rest[0] == "--":
            return places.Places(Path(state).resolve(), Path(run).resolve()), rest[1:]
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
