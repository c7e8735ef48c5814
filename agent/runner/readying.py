"""What is made ready and checked before anything of a component is stopped.

Rules kept here: nothing that serves is touched; what the way back needs is there and whole before the way forward is
begun. Left out: the checks themselves (`agent.preflight`) and the state of components (`agent.state`).
"""

from __future__ import annotations

from dataclasses import dataclass

from agent import drivers, preflight, processes, stager
from agent.config import settings
from agent.core import model, operation
from agent.runner import changes, deliveries, inventory, releases
from agent.runner.faults import StepError


@dataclass(frozen=True, slots=True)
class Readying:
    """The steps between VERIFY and PREPARE."""

    config: settings.Config
    keeper: processes.Keeper
    releases: releases.Releases
    stock: inventory.Inventory
    deliveries: deliveries.Deliveries
    changes: changes.Changes

    async def stage(self, state: operation.Operation) -> drivers.Evidence:
        """Build all that the release needs."""
        return {**await self._environment(state), **await self.changes.driver(state).stage(self.changes.of(state))}

    async def _environment(self, state: operation.Operation) -> drivers.Evidence:
        digest = state.assignment.new_digest
        if self.releases.manifest(digest).python is None:
            return {}
        verdict = await self.keeper.stage(digest)
        try:
            return stager.read_answer(verdict.exit_code, verdict.output)
        except stager.StagingError as error:
            raise StepError(str(error), fault=error.fault, reason=error.reason) from error

    async def preflight(self, state: operation.Operation) -> drivers.Evidence:
        """Check that the change can be done here and now."""
        assignment, chosen = state.assignment, self.changes.driver(state)
        if assignment.method not in chosen.capabilities().methods:
            message = f"cannot change {assignment.component} by {assignment.method.value}"
            raise StepError(message, fault=model.Fault.COMMAND, reason="method_not_supported")
        change = self.changes.bare(state)
        is_running = assignment.kind is model.ChangeKind.START and assignment.component not in self.stock.stopped
        checked = {} if is_running else await self._check(change, is_discarding=assignment.discard_writes)
        return {**checked, **await chosen.plan(change)}

    async def _check(self, change: drivers.Change, *, is_discarding: bool) -> drivers.Evidence:
        if change.new is None:
            return {}
        copies_bytes = self.changes.passages.copies_bytes(change, is_discarding=is_discarding)
        request = preflight.Request(change, self.config, self.stock.versions, copies_bytes)
        run = self.releases.commands(change.component, change.new.digest)
        return await preflight.check(request, preflight.measure(self.config.state_dir), self.keeper, run)

    async def rollback_point(self, state: operation.Operation) -> drivers.Evidence:
        """See that what the node goes back to is whole, and keep what it needs for that."""
        digest = state.assignment.old_digest
        if digest and not await self.deliveries.is_intact(digest):
            message = f"cannot begin: the release to go back to, {digest}, is damaged"
            raise StepError(message, fault=model.Fault.INFRASTRUCTURE, reason="rollback_point_damaged")
        return await self._point(state)

    async def _point(self, state: operation.Operation) -> drivers.Evidence:
        return await self.changes.passages.states.make_point(self.changes.bare(state))
