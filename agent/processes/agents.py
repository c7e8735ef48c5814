"""The keeper's verbs for the agent's own upgrade and its own, as the agent asks them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, unique
from pathlib import Path
from typing import Any, Protocol

from agent.processes import results

CHECK_TIMEOUT = timedelta(seconds=60)  # the keeper's own limit on the child that checks
REPLACE_TIMEOUT = timedelta(seconds=60)  # a digest, a child that reads the state, and an execve
PARKED_TIMEOUT = timedelta(days=2)  # over the longest deadline of an operation; the keeper says sooner when it is over


@unique
class Role(Enum):
    """What an agent's process is for now."""

    MAIN = "main"
    PARKED = "parked"
    TRIAL = "trial"
    LEAVING = "leaving"


@dataclass(frozen=True, slots=True)
class AgentProcess:
    """A process of the agent.

    Args:
        digest: Of the release that it runs; empty for the packaged agent.
        started_at_monotonic: Seconds on CLOCK_MONOTONIC.
        early_deaths: How often this version has died early in a row.
    """

    instance_id: str
    pid: int
    digest: str
    role: Role
    started_at_monotonic: float
    early_deaths: int


@dataclass(frozen=True, slots=True)
class Checked:
    """How the check of a release ended; the exit code is None when a signal ended it."""

    exit_code: int | None
    output: str


class Asking(Protocol):
    """What the verbs below need of a connection."""

    async def _ask(self, verb: str, takes: timedelta = ..., **body: object) -> dict[str, Any]: ...


class AgentVerbs:
    """The verbs; each is idempotent and raises `KeeperError`."""

    async def agents(self: Asking) -> Sequence[AgentProcess]:
        """Every process of the agent."""
        shown = (await self._ask("agents"))["agents"]
        return tuple(_agent(body) for body in shown)

    async def agent_check(self: Asking, digest: str, release_dir: Path) -> Checked:
        """Run the self-check of a release of the agent.

        Raises:
            KeeperError: digest_bad for a version that is known as bad.
        """
        return Checked(**await self._ask("agent_check", CHECK_TIMEOUT, digest=digest, release_dir=str(release_dir)))

    async def agent_trial(
        self: Asking, operation_id: str, instance_id: str, digest: str, release_dir: Path, deadline: timedelta
    ) -> None:
        """Begin the trial of a release of the agent; the asking agent must then park.

        Raises:
            KeeperError: digest_bad, trial_conflict, or mark_conflict when the operation has been decided.
        """
        await self._ask(
            "agent_trial",
            operation_id=operation_id,
            instance_id=instance_id,
            digest=digest,
            release_dir=str(release_dir),
            deadline_seconds=deadline.total_seconds(),
        )

    async def agent_park(self: Asking, operation_id: str) -> None:
        """Say that journal and link are given up; returns when the trial is over and this agent goes on."""
        await self._ask("agent_park", PARKED_TIMEOUT, operation_id=operation_id)

    async def agent_commit(self: Asking, operation_id: str) -> results.Outcome:
        """Decide for the new agent; the same operation gives the same answer.

        Raises:
            KeeperError: mark_unknown when the keeper knows neither trial nor outcome; write_failed when nothing is
                decided.
        """
        return results.outcome(await self._ask("agent_commit", operation_id=operation_id))

    async def agent_abort(self: Asking, operation_id: str) -> None:
        """Go back to the old agent; asked by the new one, it is ended before it gets an answer. No trial is success."""
        await self._ask("agent_abort", operation_id=operation_id)

    async def agent_restart(self: Asking) -> str:
        """Let the agent run that the pointers name; returns its digest, empty for the packaged agent."""
        return str((await self._ask("agent_restart"))["digest"])

    async def replace(self: Asking, digest: str, release_dir: Path) -> None:
        """Let the keeper become the one of a release, in place: same process, children and sockets.

        Raises:
            KeeperError: busy when it must be asked again later; digest_bad, check_failed or replace_failed when the
                old keeper goes on.
        """
        await self._ask("replace", REPLACE_TIMEOUT, digest=digest, release_dir=str(release_dir))


def _agent(body: Mapping[str, Any]) -> AgentProcess:
    return AgentProcess(
        instance_id=body["instance_id"],
        pid=body["pid"],
        digest=body["digest"],
        role=Role(body["role"]),
        started_at_monotonic=body["started_at_monotonic"],
        early_deaths=body["early_deaths"],
    )
