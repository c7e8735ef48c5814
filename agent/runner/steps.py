"""How each step of an operation is done on this node.

Rules kept here: every step is safe to do again; whatever stands in its way is a `StepError` that says whose fault it
is; nothing is undone here but by `ABORT`. Left out: what follows a step (`agent.core.machine`), how a release gets
here (`deliveries`), what a driver is told (`changes`), and the verbs of a driver (`agent.drivers`).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from agent import depot, drivers, processes
from agent.core import model, operation, transitions
from agent.runner import changes, deliveries, faults, operations, readying
from agent.runner.faults import StepError

LOG_TAIL_BYTES_MAX = 1024  # of what a new instance wrote: it says why it ended, and a journal slot holds it

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps, over the disk, the keeper and the drivers of this node."""

    disk: depot.Depot
    keeper: processes.Keeper
    known: operations.Operations
    changes: changes.Changes
    deliveries: deliveries.Deliveries
    readying: readying.Readying

    async def perform(self, state: operation.Operation, step: model.Step) -> drivers.Evidence:
        """Do the work of a step.

        Raises:
            StepError: It could not be done.
        """
        with faults.told(step):
            match step:
                case model.Step.FETCH:
                    return await self.deliveries.fetch(state)
                case model.Step.VERIFY:
                    return await self.deliveries.verify(state)
                case model.Step.STAGE:
                    return await self.readying.stage(state)
                case model.Step.PREFLIGHT:
                    return await self.readying.preflight(state)
                case model.Step.ROLLBACK_POINT:
                    return await self.readying.rollback_point(state)
                case _:
                    return await self._on_instances(state, step)

    async def _on_instances(self, state: operation.Operation, step: model.Step) -> drivers.Evidence:
        match step:
            case model.Step.PREPARE:
                return await self._prepare(state)
            case model.Step.SWITCH:
                return await self._switch(state)
            case model.Step.COMMIT:
                return await self._commit(state)
            case model.Step.DRAIN:
                return await self._drain(state)
            case model.Step.ABORT:
                return await self._abort(state)
            case _:
                return {}

    async def _prepare(self, state: operation.Operation) -> drivers.Evidence:
        driver = self.changes.driver(state)
        taken = await self.changes.take_over(state)
        if taken:
            try:
                return {**taken, **await driver.prepare(self.changes.of(state))}
            except drivers.DriverError as error:
                _logger.info("cannot take over what drains: %s", error)
                self.changes.give_back(state)
        return await driver.prepare(self.changes.of(state))

    async def _switch(self, state: operation.Operation) -> drivers.Evidence:
        driver, change = self.changes.driver(state), self.changes.switching(state)
        if state.assignment.kind is model.ChangeKind.START and change.new is not None:
            return await driver.bring_up(change.component, change.new)
        activated = await driver.activate(change)
        return {**activated, **await driver.pause_old(change)}

    async def _commit(self, state: operation.Operation) -> drivers.Evidence:
        component = state.assignment.component
        match state.assignment.kind:
            case model.ChangeKind.REMOVE:
                self.disk.remove_component(component)
                self.known.note_committed(component, "")
                return {"removed": state.assignment.from_digest}
            case model.ChangeKind.STOP:
                self.disk.mark_stopped(component)
                return {"stopped": state.assignment.from_digest}
            case model.ChangeKind.START:
                self.disk.clear_stopped(component)
                return {"current": state.assignment.new_digest}
            case _:
                return await self._commit_swap(state)

    async def _commit_swap(self, state: operation.Operation) -> drivers.Evidence:
        assignment = state.assignment
        verdict = await self.changes.driver(state).commit(self.changes.of(state))
        if verdict.outcome is drivers.Outcome.ROLLED_BACK:
            fault = verdict.fault or model.Fault.INFRASTRUCTURE
            raise StepError(verdict.message, fault=fault, reason="rolled_back", is_decided=True)
        self.disk.point_current(assignment.component, assignment.new_digest)
        self.known.note_committed(assignment.component, assignment.new_digest)
        if self.changes.has_way_back(state):
            return {"current": assignment.new_digest}
        self.disk.point_permanent(assignment.component, assignment.new_digest)
        return {"current": assignment.new_digest, "permanent": assignment.new_digest}

    async def _drain(self, state: operation.Operation) -> drivers.Evidence:
        driver = self.changes.driver(state)
        if state.assignment.kind in transitions.ENDING:
            return await driver.gc(state.assignment.component, ())
        if state.assignment.kind is model.ChangeKind.START:
            return {}
        return await driver.drain(self.changes.of(state))

    async def _abort(self, state: operation.Operation) -> drivers.Evidence:
        """Go back; where nothing was begun that can be undone there is nothing to do."""
        component = state.assignment.component
        if state.assignment.kind in transitions.ENDING or not self.changes.is_launchable(state):
            return {}
        tail, driver = await self._log_tail(state), self.changes.driver(state)
        if state.assignment.kind is model.ChangeKind.START:
            return {**tail, **(await driver.gc(component, ()) if self.disk.is_stopped(component) else {})}
        undone = await driver.abort(self.changes.of(state))
        await self.changes.forget_old_state(state)
        return {**tail, **undone}

    async def _log_tail(self, state: operation.Operation) -> drivers.Evidence:
        """What a new instance wrote last, where it is blamed."""
        if state.fault is not model.Fault.VERSION:
            return {}
        try:
            text = await self.keeper.log(self.changes.instance_id(state), LOG_TAIL_BYTES_MAX)
        except processes.KeeperError:  # it never was, or the keeper has forgotten it
            return {}
        return {"log_tail": text} if text else {}

    async def make_permanent(self, state: operation.Operation) -> drivers.Evidence:
        """Flip ``permanent`` to what is current, and let go of what only the way back needed.

        Raises:
            StepError: The disk refuses.
        """
        assignment = state.assignment
        with faults.told(model.Step.BAKE):
            self.disk.point_permanent(assignment.component, assignment.new_digest)
            await self.changes.forget_old_state(state)
        return {"permanent": assignment.new_digest}
