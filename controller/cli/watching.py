"""Following rollouts to their end: progress on stderr, the outcome as exit code.

Rules kept here: the watch ends with the rollout, or when its time is up; a pause ends it only where that was asked for;
a controller that goes away for a while does not end it, for the rollout goes on too; the same lines say the same thing
on a terminal and in a file. Left out: what the states mean (`controller.core.rollout`).
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
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


def show(rollout: rollout_pb2.Rollout, output: options.Format) -> None:
    """Print a rollout on stdout."""
    if output is options.Format.JSON:
        document.write(document.of(rollout))
    else:
        tables.show(tables.rollout(rollout))


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody wants to see of a rollout.

    Args:
        timeout: As it was written; None for as long as it takes.
        is_watching: False where it is enough to know that it was accepted.
        ends_on_pause: A pause ends the watch.
    """

    timeout: str | None
    output: options.Format
    is_watching: bool = True
    ends_on_pause: bool = False

    @property
    def limit(self) -> timedelta | None:
        """How long to wait; None for as long as it takes."""
        return spans.parse("--timeout", self.timeout) if self.timeout else None

    def is_end(self, rollout: rollout_pb2.Rollout) -> bool:
        """Tell whether a watch ends here."""
        state = tables.state(rollout)
        return self.ends_on_pause if state == "PAUSED" else state in _EXIT_BY_STATE


def start(address: str, token_file: Path | None, asked: rollout_service_pb2.StartUpgradeRequest, wish: Wish) -> None:
    """Start a rollout; where it is to be watched, follow it to its end and leave with the exit code that tells it.

    Raises:
        CommandError: It was refused, or nobody answers.
    """
    _ = wish.limit  # wrong is to be told before anything is begun
    asked.request_id = asked.request_id or secrets.token_hex(16)
    answer = connection.answer(address, token_file, "rollouts.StartUpgrade", asked)
    if not wish.is_watching:
        show(answer.rollout, wish.output)
        return
    raise typer.Exit(follow(address, token_file, answer.rollout.rollout_id, wish))


def follow(address: str, token_file: Path | None, rollout: str, wish: Wish) -> failures.Exit:
    """Watch a rollout until it ends, print it, and return what became of it.

    Raises:
        CommandError: There is no such rollout, or nobody answers any more.
    """
    watched = follow_all(address, token_file, (rollout,), wish)
    for last in watched.seen:
        show(last, wish.output)
    if not watched.has_ended:
        return failures.Exit.WAIT_TIMED_OUT
    return _EXIT_BY_STATE[tables.state(watched.seen[0])]


@dataclass(frozen=True, slots=True)
class Watched:
    """What a watch has seen.

    Args:
        seen: The last state of each rollout, as far as the time sufficed.
        has_ended: False where the time was up before all of them had ended.
    """

    seen: Sequence[rollout_pb2.Rollout]
    has_ended: bool


def follow_all(address: str, token_file: Path | None, rollouts: Sequence[str], wish: Wish) -> Watched:
    """Watch rollouts until all of them have ended.

    Raises:
        CommandError: One of them does not exist, or nobody answers any more.
    """
    limit = wish.limit

    async def work(link: connection.Connection) -> Watched:
        seen: dict[str, rollout_pb2.Rollout] = {}
        has_ended = False
        with _progress() as progress, contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit.total_seconds() if limit else None):
                for name in rollouts:  # the others go on meanwhile
                    async for rollout in _states(link, name, wish):
                        seen[name] = rollout
                        progress(rollout)
                has_ended = True
        if not has_ended:
            sys.stderr.write(f"cannot wait any longer: --timeout is over; rollout {', '.join(rollouts)} goes on\n")
        return Watched(tuple(seen.values()), has_ended)

    return connection.with_controller(address, token_file, work)


async def _states(link: connection.Connection, rollout: str, wish: Wish) -> AsyncIterator[rollout_pb2.Rollout]:
    """Each state of a rollout until the watch ends, whoever the controller is by then."""
    seen = 0
    alone = _Alone()
    while True:
        request = rollout_service_pb2.WatchRolloutRequest(rollout=rollout, after_revision=seen)
        try:
            async for response in link.stream(link.rollouts.WatchRollout, request):
                alone.end()
                seen = response.rollout.revision
                yield response.rollout
                if wish.is_end(response.rollout):
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
        told: dict[str, _Lines] = {}
        yield lambda rollout: told.setdefault(rollout.rollout_id, _Lines()).show(rollout)
        return
    with rich.live.Live(console=console, transient=True, refresh_per_second=8) as live:
        yield lambda rollout: live.update(tables.rollout(rollout))


class _Lines:
    """Progress of one rollout as lines: one for each thing that is new."""

    def __init__(self) -> None:
        self._wave = 0
        self._state = ""
        self._waits_for = ""
        self._told: dict[tuple[int, str, str], str] = {}

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
        if rollout.waiting_for != self._waits_for:
            self._waits_for = rollout.waiting_for
            if rollout.waiting_for:
                yield f"nothing more starts: {rollout.waiting_for}{tables.stood_still(rollout)}"
        for one in rollout.changes:
            key, where = (one.wave, one.change.node_id, one.change.component), tables.where(one)
            if where != self._told.get(key, "waiting"):
                self._told[key] = where
                yield f"{one.change.node_id} {where}{': ' if one.message else ''}{one.message}"
