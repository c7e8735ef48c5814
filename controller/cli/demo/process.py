"""One process that the demo started: its output goes to a file, and it is ended by its own process id."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sysconfig
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

STOP_SECONDS = 10.0  # between SIGTERM and SIGKILL
POLL_SECONDS = 0.1  # between two looks at a condition
TAIL_BYTES = 4000  # of a log: what is shown of a process that failed


class ProcessError(Exception):
    """A process of ours did not do what it should; the message holds the end of its output."""


class Process:
    """A running process.

    Args:
        name: What it is, for messages.
        log: Where its output goes.
    """

    def __init__(self, name: str, child: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self._child = child
        self._log = log

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._child.returncode is None

    def send(self, what: signal.Signals) -> None:
        """Send a signal, to this process alone."""
        with contextlib.suppress(ProcessLookupError):
            self._child.send_signal(what)

    async def ended(self) -> int:
        """Wait until it has ended.

        Returns:
            Its exit code; negative for a signal.
        """
        return await self._child.wait()

    async def stop(self) -> None:
        """End it: SIGTERM, and SIGKILL if that does not do within STOP_SECONDS."""
        self.send(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self.ended()
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        """End it by SIGKILL."""
        self.send(signal.SIGKILL)
        await self.ended()

    def failure(self, what: str) -> ProcessError:
        """What to raise when it did not do ``what``: its name and the end of its output."""
        return ProcessError(f"cannot {what}: {self.name} wrote:\n{tail(self._log)}")


def script(name: str) -> str:
    """The path of a console script of this installation."""
    return str(Path(sysconfig.get_path("scripts")) / name)


async def start(name: str, argv: Sequence[str], *, log: Path, environment: Mapping[str, str]) -> Process:
    """Start a process in a session of its own, so that a terminal's Ctrl-C reaches only the demo."""
    with log.open("ab") as out:
        child = await asyncio.create_subprocess_exec(
            *argv, stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=out, env=environment, start_new_session=True
        )
    return Process(name, child, log)


async def run(name: str, argv: Sequence[str], *, environment: Mapping[str, str], said: str = "") -> str:
    """Run a command to its end.

    Args:
        name: What it does, for the message.
        argv: The command; every user of the machine can read it.
        environment: Its own.
        said: What it reads on its standard input, where secrets belong.

    Returns:
        Its standard output.

    Raises:
        ProcessError: It ended with another code than 0.
    """
    child = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
    )
    out, errors = await child.communicate(said.encode())
    if child.returncode != 0:
        raise ProcessError(f"cannot {name}: exit code {child.returncode}: {errors.decode()}")
    return out.decode()


async def until(what: str, condition: Callable[[], Awaitable[bool]], *, seconds: float) -> None:
    """Wait until a condition holds.

    Args:
        what: What the condition says, for the message.
        condition: Whether it holds; asked again every POLL_SECONDS.
        seconds: How long to wait.

    Raises:
        ProcessError: It did not come true in time.
    """
    try:
        async with asyncio.timeout(seconds):
            while not await condition():  # noqa: ASYNC110 what is waited for is in other processes
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError as error:
        raise ProcessError(f"cannot wait any longer than {seconds:g} s until {what}") from error


def tail(log: Path) -> str:
    """The end of a log."""
    with contextlib.suppress(FileNotFoundError):
        return log.read_bytes()[-TAIL_BYTES:].decode(errors="replace")
    return ""
