"""How a node carries a change out: the interface that every driver keeps.

Rules kept here: each verb is idempotent by the operation, has a deadline, and returns what it saw; "already so" is
success; a driver keeps no memory, what the operating system shows is its only truth; whatever cannot be done is a
`DriverError` that says whose fault it is. Left out: when a verb is called (`agent.runner`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, unique
from pathlib import Path
from typing import Protocol

from agent import processes
from agent.core import model

Evidence = Mapping[str, str]


class DriverError(Exception):
    """A verb could not do what it should.

    Args:
        reason: Stable, in snake_case, for example ``never_prepared``.
    """

    def __init__(self, message: str, *, fault: model.Fault, reason: str) -> None:
        super().__init__(message)
        self.fault = fault
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Rooms:
    """What a driver is made from: its way to the host, and nothing of the agent's own.

    Args:
        keeper: Owns sockets and processes.
        run_dir: Sockets and links of instances; gone after a boot.
        state_dir: Releases, environments and data; they outlive everything.
    """

    keeper: processes.Keeper
    run_dir: Path
    state_dir: Path


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a driver can do.

    Args:
        is_look_costly: Each `inspect` starts a program; it is asked seldom while all is as it should be.
    """

    methods: frozenset[model.Method]
    is_look_costly: bool = False


@dataclass(frozen=True, slots=True)
class Launch:
    """A release of this node, and the instance that it is started as.

    Args:
        instance_id: Empty for the old side of a change: whichever instance runs it.
        environment_dir: The release's own virtual environment; None where it has none.
        state_dir: Where the component keeps its state; None where it declares none.
        addresses: Address of each socket of the manifest, by its name.
        traceparent: Trace context of the operation; empty where there is none.
        user: Whom it runs as; empty for the keeper's own. What the keeper starts, it gives its user by itself.
    """

    instance_id: str
    digest: str
    release_dir: Path
    manifest: model.Manifest
    addresses: Mapping[str, str]
    environment_dir: Path | None = None
    state_dir: Path | None = None
    traceparent: str = ""
    user: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """What every verb is told of the operation.

    Args:
        new: None for REMOVE and STOP.
        old: What the node goes back to; None for INSTALL and START. Both have one digest for RESTART.
        time_left: Until the operation must be decided; the keeper goes back by itself after it.
        before_new: What must be done between the end of the old and the start of the new instance where only one may
            run, such as migrating the state; None where there is nothing. Safe to do again.
        before_old: The way back of ``before_new``; called by an abort before the old instance starts again.
    """

    operation_id: str
    component: str
    method: model.Method
    new: Launch | None
    old: Launch | None
    time_left: timedelta
    before_new: Callable[[], Awaitable[Evidence]] | None = None
    before_old: Callable[[], Awaitable[Evidence]] | None = None


@dataclass(frozen=True, slots=True)
class Observation:
    """One look at the new instance; ``instance`` is None where it is gone."""

    instance: model.Instance | None
    message: str = ""


@unique
class Outcome(Enum):
    """How a change was decided."""

    COMMITTED = "COMMITTED"
    ROLLED_BACK = "ROLLED_BACK"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision on a change; ``fault`` and ``message`` are set where it was rolled back."""

    outcome: Outcome
    fault: model.Fault | None = None
    message: str = ""


class Driver(Protocol):
    """The verbs, in the order in which an operation needs them."""

    def capabilities(self) -> Capabilities:
        """What this driver can do."""
        ...

    async def plan(self, change: Change) -> Evidence:
        """Check that the change can be done here and now; changes nothing."""
        ...

    async def stage(self, change: Change) -> Evidence:
        """Build all that the release needs before anything is stopped."""
        ...

    async def prepare(self, change: Change) -> Evidence:
        """Bring the new instance to where it could serve, without letting it."""
        ...

    async def activate(self, change: Change) -> Evidence:
        """Let the new instance serve; from here on the change is marked as undecided."""
        ...

    async def pause_old(self, change: Change) -> Evidence:
        """Let the old instance take nothing new; it can be resumed."""
        ...

    async def resume_old(self, change: Change) -> Evidence:
        """Let the old instance serve again."""
        ...

    async def observe(self, change: Change) -> Observation:
        """Look at the new instance."""
        ...

    async def commit(self, change: Change) -> Verdict:
        """Decide; asked again, the decision is the same."""
        ...

    async def drain(self, change: Change) -> Evidence:
        """Let what is not current finish its work and end, by force once its time is over."""
        ...

    async def abort(self, change: Change) -> Evidence:
        """Go back to the old instance first, then end the new one; legal until COMMIT."""
        ...

    async def inspect(self, component: str) -> tuple[model.Instance, ...]:
        """What there is of a component, whoever started it."""
        ...

    async def blockers(self, component: str) -> tuple[str, ...]:
        """Who keeps a drain from ending, in words."""
        ...

    async def gc(self, component: str, keep: Collection[str]) -> Evidence:
        """Drain and end each instance of the component beside those named; with none named, the component stops."""
        ...

    async def bring_up(self, component: str, launch: Launch) -> Evidence:
        """Make the release serve and be kept, from disk alone, whatever died half-way; what serves is left alone.

        Called outside operations: after a boot, for START, and when nothing that is current serves.
        """
        ...
