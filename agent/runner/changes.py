"""What a driver is told of an operation, and which driver it is.

Rules kept here: an operation has one new instance, named in the journal before it is begun; where what it goes to still
drains, that instance is it. Left out: what the driver does.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from datetime import timedelta

from agent import drivers
from agent.config.errors import ConfigError
from agent.core import model, operation
from agent.runner import clock, inventory, operations, passages, releases

INSTANCE = "instance_id"  # fact of an operation: the instance that it took over
LEAVING = frozenset({model.InstanceState.DRAINING, model.InstanceState.PAUSED})


@dataclass(frozen=True, slots=True)
class Changes:
    """The operations as drivers see them."""

    releases: releases.Releases
    passages: passages.Passages
    known: operations.Operations
    stock: inventory.Inventory
    now: clock.Now

    def driver(self, state: operation.Operation) -> drivers.Driver:
        """Return the driver that the manifest of the changing release names."""
        return self.releases.driver(_digest(state))

    def driver_name(self, state: operation.Operation) -> str:
        """Name of that driver; empty until the release is unpacked."""
        try:
            return self.releases.manifest(_digest(state)).driver
        except ConfigError:
            return ""

    def instance_id(self, state: operation.Operation) -> str:
        """Identity of the new instance; of what serves already where START finds it."""
        assignment = state.assignment
        if assignment.kind is model.ChangeKind.START:
            serving = self.stock.serving(assignment.component)
            if serving is not None:
                return serving.id
        taken = self.known.facts(assignment.operation_id).get(INSTANCE)
        if taken:
            return str(taken)
        return releases.instance_id(assignment.component, assignment.new_digest, assignment.operation_id)

    def of(self, state: operation.Operation) -> drivers.Change:
        """What the driver is told."""
        bare = self.bare(state)
        if not passages.is_stateful(bare) or bare.method is not model.Method.RESTART:
            return bare
        states, is_discarding = self.passages.states, state.assignment.discard_writes
        return replace(bare, before_old=functools.partial(states.before_old, bare, is_discarding=is_discarding))

    def switching(self, state: operation.Operation) -> drivers.Change:
        """What the driver is told for the switch: also what lies between the old and the new, where anything does.

        Raises:
            drivers.DriverError: The new version cannot use the state.
        """
        change, is_discarding = self.of(state), state.assignment.discard_writes
        is_restart = change.method is model.Method.RESTART
        if not is_restart or not self.passages.has_passage(change, is_discarding=is_discarding):
            return change
        before_new = functools.partial(self.passages.states.before_new, change, is_discarding=is_discarding)
        return replace(change, before_new=before_new)

    def has_way_back(self, state: operation.Operation) -> bool:
        """Tell whether the old version could still use what the new one leaves."""
        return self.passages.has_way_back(self.bare(state))

    async def forget_old_state(self, state: operation.Operation) -> None:
        """Let go of the state that was kept for the way back."""
        if passages.is_stateful(self.bare(state)):
            await self.passages.states.forget(state.assignment.component)

    def bare(self, state: operation.Operation) -> drivers.Change:
        """What the driver is told, but for what lies between two versions."""
        assignment = state.assignment
        component, new, old = assignment.component, assignment.new_digest, assignment.old_digest
        return drivers.Change(
            operation_id=assignment.operation_id,
            component=component,
            method=assignment.method,
            new=self.releases.launch(component, new, self.instance_id(state), assignment.traceparent) if new else None,
            old=self.releases.launch(component, old, "") if old else None,
            time_left=timedelta(seconds=max(0.0, state.deadline_seconds - self.now().monotonic_seconds)),
        )

    def is_launchable(self, state: operation.Operation) -> bool:
        """True once there may be an instance: before its release was unpacked there was nothing to start."""
        try:
            self.driver(state)
        except (ConfigError, drivers.DriverError):
            return False
        return True

    async def take_over(self, state: operation.Operation) -> drivers.Evidence:
        """Make what still drains, and is what the operation goes to, its new instance: it need not be started.

        Raises:
            journal.JournalError: It is not remembered, and may not be done.
        """
        assignment = state.assignment
        facts = self.known.facts(assignment.operation_id)
        is_swap = assignment.method is model.Method.HOT_SWAP and assignment.kind is model.ChangeKind.UPGRADE
        if INSTANCE in facts or not is_swap or not self._is_resumable(assignment.new_digest):
            return {}
        for seen in await self.driver(state).inspect(assignment.component):
            if _is_leaving(seen) and seen.digest == assignment.new_digest:
                self.known.note(assignment.operation_id, self.driver_name(state), {INSTANCE: seen.id})
                return {"resumed": seen.id}
        return {}

    def _is_resumable(self, digest: str) -> bool:
        """Tell whether instances of a release can come back while they drain: those that speak the protocol can."""
        options = self.releases.manifest(digest).options
        return isinstance(options, model.HandoverOptions) and not options.is_listen_fds_only

    def give_back(self, state: operation.Operation) -> None:
        """Take a fresh instance after all: what was taken over has ended meanwhile.

        Raises:
            journal.JournalError: It is not remembered, and may not be done.
        """
        self.known.note(state.assignment.operation_id, self.driver_name(state), {INSTANCE: ""})


def _digest(state: operation.Operation) -> str:
    return state.assignment.new_digest or state.assignment.old_digest


def _is_leaving(seen: model.Instance) -> bool:
    return seen.state in LEAVING and seen.pid != 0 and not seen.is_kept and not seen.restarts
