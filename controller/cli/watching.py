"""Following a rollout to its end: progress on stderr, the outcome as exit code.

Rules kept here: the watch ends with the rollout, when somebody is to act on it (paused), or when its time is up; a
controller that goes away for a while does not end it, for the rollout goes on too; the same lines say the same thing on
a terminal and in a file. Left out: what the states mean (`controller.core.rollout`).
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import rich.console
import rich.live
import typer

from controller.cli import connection, document, failures, options, spans, tables
from controller.core import errors
from instar.v1 import rollout_pb2, rollout_service_pb2

AWAY_SECONDS_MAX = 60.0  # without a word of any controller, a watch ends: a restart takes seconds
RETRY_SECONDS = 0.5  # between two attempts to find the controller again
_EXIT_BY_STATE: Mapping[str, failures.Exit] = {
    "SUCCEEDED": failures.Exit.OK,
    "FAILED": failures.Exit.FAILED,
    "STUCK": failures.Exit.FAILED,
    "REVERTED": failures.Exit.ROLLED_BACK,
    "PAUSED": failures.Exit.PAUSED,
    "CANCELLED": failures.Exit.CANCELLED,
}
_Show = Callable[[rollout_pb2.Rollout], None]


def limit(timeout: str | None) -> timedelta | None:
    """How long to wait; None for as long as it takes."""
    return spans.parse("--timeout", timeout) if timeout else None


def show(rollout: rollout_pb2.Rollout, output: options.Format) -> None:
    """Print a rollout on stdout."""
    if output is options.Format.JSON:
        document.write(document.of(rollout))
    else:
        tables.show(tables.rollout(rollout))


@dataclass(frozen=True, slots=True)
class Wish:
    """What whoever starts a rollout wants to see of it."""

    is_watching: bool
    timeout: str | None
    output: options.Format


def start(
    address: str, token_file: Path | None, request: rollout_pb2.UpgradeRequest, request_id: str | None, wish: Wish
) -> None:
    """Start a rollout; where it is to be watched, follow it to its end and leave with the exit code that tells it.

    Raises:
        CommandError: It was refused, or nobody answers.
    """
    wait = limit(wish.timeout)
    asked = rollout_service_pb2.StartUpgradeRequest(upgrade=request, request_id=request_id or secrets.token_hex(16))
    answer = connection.answer(address, token_file, "rollouts.StartUpgrade", asked)
    if not wish.is_watching:
        show(answer.rollout, wish.output)
        return
    raise typer.Exit(follow(address, token_file, answer.rollout.rollout_id, wait, wish.output))


def follow(
    address: str, token_file: Path | None, rollout: str, wait: timedelta | None, output: options.Format
) -> failures.Exit:
    """Watch a rollout until it ends, print it, and return what became of it.

    Raises:
        CommandError: There is no such rollout, or nobody answers any more.
    """

    async def work(link: connection.Connection) -> failures.Exit:
        last: rollout_pb2.Rollout | None = None
        code = failures.Exit.WAIT_TIMED_OUT
        with _progress() as progress, contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait.total_seconds() if wait else None):
                async for last in _states(link, rollout):
                    progress(last)
                code = _EXIT_BY_STATE[tables.state(last)] if last else failures.Exit.FAILED
        if last is not None:
            show(last, output)
        if code is failures.Exit.WAIT_TIMED_OUT:
            sys.stderr.write(f"cannot wait any longer: --timeout is over; rollout {rollout} goes on\n")
        return code

    return connection.with_controller(address, token_file, work)


async def _states(link: connection.Connection, rollout: str) -> AsyncIterator[rollout_pb2.Rollout]:
    """Each state of a rollout until nothing more happens by itself, whoever the controller is by then."""
    seen = 0
    alone = _Alone()
    while True:
        request = rollout_service_pb2.WatchRolloutRequest(rollout=rollout, after_revision=seen)
        try:
            async for response in link.stream(link.rollouts.WatchRollout, request):
                alone.end()
                seen = response.rollout.revision
                yield response.rollout
                if tables.state(response.rollout) in _EXIT_BY_STATE:
                    return
        except errors.UnavailableError as fault:
            alone.go_on(fault)
        await asyncio.sleep(RETRY_SECONDS)


class _Alone:
    """For how long no controller has answered."""

    def __init__(self) -> None:
        self._since: float | None = None

    def end(self) -> None:
        """One has."""
        self._since = None

    def go_on(self, fault: errors.UnavailableError) -> None:
        """Still none.

        Raises:
            CommandError: For longer than AWAY_SECONDS_MAX.
        """
        now = asyncio.get_running_loop().time()
        if self._since is None:
            self._since = now
            sys.stderr.write(f"{failures.sentence(fault)}; trying again\n")
        if now - self._since > AWAY_SECONDS_MAX:
            raise failures.of_controller(fault)


@contextlib.contextmanager
def _progress() -> Iterator[_Show]:
    """Where progress is shown: a live table on a terminal, lines anywhere else."""
    console = rich.console.Console(stderr=True)
    if not console.is_terminal or console.is_dumb_terminal:
        yield _Lines().show
        return
    with rich.live.Live(console=console, transient=True, refresh_per_second=8) as live:
        yield lambda rollout: live.update(tables.rollout(rollout))


class _Lines:
    """Progress as lines: one for each thing that is new."""

    def __init__(self) -> None:
        self._wave = 0
        self._state = ""
        self._told: dict[tuple[int, str], str] = {}

    def show(self, rollout: rollout_pb2.Rollout) -> None:
        """Say what is new."""
        for line in self._news(rollout):
            sys.stderr.write(f"[{tables.done(rollout)}/{len(rollout.changes)}] {line}\n")
        sys.stderr.flush()

    def _news(self, rollout: rollout_pb2.Rollout) -> Iterator[str]:
        if tables.state(rollout) != self._state:
            self._state = tables.state(rollout)
            yield f"{rollout.name} {self._state}{': ' if rollout.message else ''}{rollout.message}"
        if rollout.wave != self._wave:
            self._wave = rollout.wave
            yield f"wave {rollout.wave} of {len(rollout.plan.waves)}"
        for one in rollout.changes:
            key, where = (one.wave, one.change.node_id), tables.where(one)
            if where != self._told.get(key, "waiting"):
                self._told[key] = where
                yield f"{one.change.node_id} {where}{': ' if one.message else ''}{one.message}"
