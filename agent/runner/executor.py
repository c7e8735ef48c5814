"""Carries operations out: the machine decides, the journal keeps, then the steps are done.

Rules kept here: `take` is the only way for an operation to change, it awaits nothing, and what it decided is durable
before the first effect begins; an operation has at most one piece of work going on, and what replaces it waits for its
end. Left out: who may begin and when to look (`node`), how a step is done (`steps`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import assert_never

from agent import drivers, processes
from agent.core import effects, events, machine, model, operation, transitions
from agent.drivers import handover
from agent.runner import clock, health, inventory, operations, steps

OBSERVED = frozenset(
    {transitions.Phase.HELD_BEFORE_SWITCH, transitions.Phase.SOAK, transitions.Phase.HELD_BEFORE_COMMIT}
)
LOSABLE = OBSERVED | {transitions.Phase.SWITCH, transitions.Phase.SETTLING}
DECISIONS_BY_FAULT = {
    model.Fault.VERSION: events.KeeperDecision.ROLLED_BACK_INSTANCE_DIED,
    model.Fault.INFRASTRUCTURE: events.KeeperDecision.ROLLED_BACK_AGENT_AWAY,
}

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Executor:
    """The operations of a node at work.

    Args:
        source: Where bundles come from.
        changed: Called when an operation has changed.
    """

    known: operations.Operations
    work: steps.Steps
    stock: inventory.Inventory
    board: health.HealthBoard
    source: steps.Source
    group: asyncio.TaskGroup
    now: clock.Now
    changed: Callable[[], None]
    _tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    def recover(self) -> None:
        """Take up what an earlier agent left, by what the keeper has decided meanwhile."""
        decided = {outcome.operation_id: outcome for outcome in self.stock.outcomes}
        for state in self.known.unfinished:
            operation_id = state.assignment.operation_id
            outcome = decided.get(operation_id)
            self.take(operation_id, events.Recovered(self.now(), _decision(outcome)))

    def take(self, operation_id: str, event: events.Event) -> None:
        """Let an event happen to an operation: decide, make durable, act."""
        state = self.known.get(operation_id)
        if state is None:
            return
        try:
            decision = machine.step(state, event)
        except machine.IllegalEventError as error:
            _logger.warning("%s", error, extra={"operation_id": operation_id})
            return
        if decision.state != state:
            self.known.write(decision, self.work.driver_name(decision.state))
            self._tell(decision.state)
        for effect in decision.effects:
            self._perform(decision.state, effect)
        if decision.state.phase is transitions.Phase.SUPERSEDED:
            self._stop_work(operation_id)

    def _tell(self, state: operation.Operation) -> None:
        facts = {"operation_id": state.assignment.operation_id, "reason": state.reason}
        _logger.info("operation is in phase %s", state.phase.value, extra=facts)
        if state.phase in {transitions.Phase.SETTLING, *transitions.TERMINAL}:
            self.stock.reread_pointers()
        self.changed()

    def _perform(self, state: operation.Operation, effect: effects.Effect) -> None:
        operation_id = state.assignment.operation_id
        match effect:
            case effects.Perform(step, after_seconds):
                previous = self._stop_work(operation_id)
                name = f"{step.value} of {operation_id}"
                work = self._do(operation_id, step, after_seconds, previous)
                self._tasks[operation_id] = self.group.create_task(work, name=name)
            case effects.MakePermanent(after_seconds):
                asyncio.get_running_loop().call_later(after_seconds, self._make_permanent, operation_id)
            case _:
                assert_never(effect)

    def _stop_work(self, operation_id: str) -> asyncio.Task[None] | None:
        previous = self._tasks.pop(operation_id, None)
        if previous is not None:
            previous.cancel()
        return previous

    async def _do(
        self, operation_id: str, step: model.Step, after_seconds: float, previous: asyncio.Task[None] | None
    ) -> None:
        """Do a step and tell the machine how it went; what it replaces has ended before."""
        if previous is not None:
            await asyncio.wait({previous})
        await asyncio.sleep(after_seconds)
        state = self.known.get(operation_id)
        if state is None:
            return
        try:
            evidence = await self.work.perform(state, step, self.source)
        except steps.StepError as error:
            event = self._failure(step, error)
        else:
            event = events.Succeeded(self.now(), step, evidence)
        await self.look()
        if self._tasks.get(operation_id) is asyncio.current_task():
            del self._tasks[operation_id]
            self.take(operation_id, event)

    def _failure(self, step: model.Step, error: steps.StepError) -> events.Event:
        if error.is_decided:
            return events.RolledBack(self.now(), error.fault, error.reason, str(error))
        return events.Failed(self.now(), step, error.fault, error.reason, str(error))

    def _make_permanent(self, operation_id: str) -> None:
        state = self.known.get(operation_id)
        if state is None or state.phase is not transitions.Phase.SETTLING:
            return
        try:
            evidence = self.work.make_permanent(state)
        except steps.StepError as error:
            self.take(operation_id, self._failure(model.Step.BAKE, error))
        else:
            self.take(operation_id, events.Succeeded(self.now(), model.Step.BAKE, evidence))

    def lose(self, seen: processes.Instance) -> None:
        """Tell the operation whose new instance ended; what is being ended on purpose is none."""
        self.board.leave(seen.id)
        how = f"signal {seen.signal}" if seen.signal is not None else f"exit code {seen.exit_code}"
        for state in self.known.unfinished:
            if seen.digest == state.assignment.to_digest and state.phase in LOSABLE:
                message = f"cannot go on: instance {seen.id} ended with {how}"
                self.take(state.assignment.operation_id, events.InstanceLost(self.now(), message))

    async def look(self) -> None:
        """Ask the keeper what there is; what it does not answer now it answers the next time."""
        try:
            has_changed = await self.stock.refresh()
        except processes.KeeperError as error:
            _logger.warning("%s", error)
        else:
            if has_changed:
                self.changed()

    async def watch(self, state: operation.Operation) -> None:
        """Look at the new instance where that decides something, and let time go on."""
        operation_id = state.assignment.operation_id
        if state.phase in OBSERVED and state.assignment.to_digest:
            await self._observe(state)
        elif state.phase is transitions.Phase.SETTLING and state.bake is transitions.Bake.PENDING:
            self._observe_bake(state)
        current = self.known.get(operation_id)
        deadline_seconds = operation.next_deadline(current) if current else None
        if deadline_seconds is not None and self.now().monotonic_seconds >= deadline_seconds:
            self.take(operation_id, events.Ticked(self.now()))

    def _observe_bake(self, state: operation.Operation) -> None:
        """Look at what is current, whoever started it: after a power cut it is not the operation's own instance."""
        assignment = state.assignment
        seen = self.stock.serving(assignment.component)
        is_left = self.stock.current.get(assignment.component) != assignment.to_digest
        if is_left or (seen is not None and seen.restarts):
            message = f"cannot finish the bake: {assignment.component} {assignment.to_version} died"
            self.take(assignment.operation_id, events.InstanceLost(self.now(), message))
        elif seen is not None:
            self.take(assignment.operation_id, self._observed(handover.instance_of(seen)))

    async def _observe(self, state: operation.Operation) -> None:
        operation_id = state.assignment.operation_id
        try:
            seen = await self.work.driver(state).observe(self.work.change(state))
        except (drivers.DriverError, processes.KeeperError) as error:
            _logger.warning("cannot observe: %s", error, extra={"operation_id": operation_id})
            return
        after = self.known.get(operation_id)
        if after is None or after.phase is not state.phase:
            return
        if seen.instance is None:
            self.take(operation_id, events.InstanceLost(self.now(), seen.message))
        elif state.phase is not transitions.Phase.HELD_BEFORE_SWITCH:
            self.take(operation_id, self._observed(seen.instance))

    def _observed(self, instance: model.Instance) -> events.Observed:
        return events.Observed(
            self.now(), self.board.health(instance.id), self.board.healthy_for(instance.id), instance.served
        )


def _decision(outcome: processes.Outcome | None) -> events.KeeperDecision:
    if outcome is None:
        return events.KeeperDecision.NONE
    if outcome.decision is processes.Decision.COMMITTED:
        return events.KeeperDecision.COMMITTED
    return DECISIONS_BY_FAULT[handover.fault_of(outcome)]
