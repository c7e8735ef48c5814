"""Carries operations out: the machine decides, the journal keeps, then the steps are done.

Rules kept here: `take` is the only way for an operation to change, it awaits nothing, and what it decided is durable
before the first effect begins; an operation has at most one piece of work going on, and what replaces it waits for its
end; once something could not be made durable no work begins any more, and what goes on is given up. Left out: who may
begin (`commands`), when to look (`node`), how a step is done (`steps`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import assert_never

from agent import drivers, journal, processes
from agent.config.errors import ConfigError
from agent.core import effects, events, machine, model, operation, transitions
from agent.runner import changes, clock, faults, hands, health, inventory, operations, steps

OBSERVED = frozenset(
    {transitions.Phase.HELD_BEFORE_SWITCH, transitions.Phase.SOAK, transitions.Phase.HELD_BEFORE_COMMIT}
)
LOSABLE = OBSERVED | {transitions.Phase.SWITCH, transitions.Phase.SETTLING}
HANDLING = frozenset({model.Step.PREPARE, model.Step.SWITCH, model.Step.COMMIT, model.Step.ABORT})

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Executor:
    """The operations of a node at work.

    Args:
        changed: Called when an operation has changed.
    """

    known: operations.Operations
    work: steps.Steps
    changes: changes.Changes
    stock: inventory.Inventory
    board: health.HealthBoard
    hands: hands.Hands
    group: asyncio.TaskGroup
    now: clock.Now
    changed: Callable[[], None]
    _tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _restarts: dict[str, int] = field(default_factory=dict)
    _seen: set[str] = field(default_factory=set)

    def recover(self, inspection: processes.Inspection) -> None:
        """Take up what an earlier agent left, by what the keeper has decided meanwhile."""
        for state in self.known.unfinished:
            operation_id = state.assignment.operation_id
            self.take(operation_id, events.Recovered(self.now(), _decision(operation_id, inspection)))

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
        if decision.state != state and not self._is_written(decision):
            return
        for effect in decision.effects:
            self._perform(decision.state, effect)
        if decision.state.phase is transitions.Phase.SUPERSEDED:
            self._stop_work(operation_id)
        if decision.state.phase in transitions.TERMINAL:
            self._restarts.pop(operation_id, None)
            self._seen.discard(operation_id)

    def _is_written(self, decision: operation.Decision) -> bool:
        try:
            self.known.write(decision, self.changes.driver_name(decision.state))
        except journal.JournalFailedError as error:
            self.halt(error)
            return False
        self._tell(decision.state)
        return True

    def halt(self, error: journal.JournalFailedError) -> None:
        """Give all work up, since nothing that comes of it can be made durable."""
        _logger.error("%s", error)
        for operation_id in list(self._tasks):
            self._stop_work(operation_id)
        self.changed()

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
                work = self._make_permanent(operation_id, after_seconds)
                self.group.create_task(work, name=f"BAKE of {operation_id}")
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
            async with self._turn(state, step):
                evidence = await self.work.perform(state, step)
        except journal.JournalFailedError as error:
            self.halt(error)
            return
        except faults.StepError as error:
            event: events.Event = self._failure(step, error)
        else:
            event = events.Succeeded(self.now(), step, evidence)
        if step is not model.Step.PREPARE:  # the switch begins where it ends: no look comes between them
            await self.look()
        if self._tasks.get(operation_id) is asyncio.current_task():
            del self._tasks[operation_id]
            self.take(operation_id, event)

    def _turn(self, state: operation.Operation, step: model.Step) -> contextlib.AbstractAsyncContextManager[None]:
        if step in HANDLING:
            return self.hands.on(state.assignment.component)
        return contextlib.nullcontext()

    def _failure(self, step: model.Step, error: faults.StepError) -> events.Event:
        if error.is_decided:
            return events.RolledBack(self.now(), error.fault, error.reason, str(error))
        return events.Failed(self.now(), step, error.fault, error.reason, str(error))

    async def _make_permanent(self, operation_id: str, after_seconds: float) -> None:
        await asyncio.sleep(after_seconds)
        state = self.known.get(operation_id)
        if state is None or state.phase is not transitions.Phase.SETTLING:
            return
        try:
            evidence = await self.work.make_permanent(state)
        except faults.StepError as error:
            self.take(operation_id, self._failure(model.Step.BAKE, error))
        else:
            self.take(operation_id, events.Succeeded(self.now(), model.Step.BAKE, evidence))

    def lose(self, seen: processes.Instance) -> None:
        """Tell the operation whose new instance ended; what is being ended on purpose is none."""
        self.board.pause(seen.id)
        how = f"signal {seen.signal}" if seen.signal is not None else f"exit code {seen.exit_code}"
        for state in self.known.unfinished:
            if state.phase in LOSABLE and self._is_of(seen.id, state):
                message = f"cannot go on: instance {seen.id} ended with {how}"
                self.take(state.assignment.operation_id, events.InstanceLost(self.now(), message))

    def _is_of(self, instance_id: str, state: operation.Operation) -> bool:
        """Tell whether an instance is what an operation brought up, in whichever instance it is kept since."""
        if not state.assignment.new_digest or _starts_in_switch(state):
            return False
        kept = self.stock.kept(state.assignment.component)
        is_kept = state.phase is transitions.Phase.SETTLING and kept is not None and kept.id == instance_id
        return is_kept or instance_id == self.changes.instance_id(state)

    async def look(self) -> None:
        """Ask what there is; what is not answered now is answered the next time."""
        if await self.stock.refresh():
            self.changed()

    async def watch(self, state: operation.Operation) -> None:
        """Look at the new instance where that decides something, and let time go on."""
        operation_id = state.assignment.operation_id
        if state.phase in OBSERVED and state.assignment.new_digest:
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
        is_left = self.stock.current.get(assignment.component) != assignment.new_digest
        if is_left or (seen is not None and seen.restarts > self._restarts_before(state, seen)):
            message = f"cannot finish the bake: {assignment.component} {assignment.to_version} died"
            self.take(assignment.operation_id, events.InstanceLost(self.now(), message))
        elif seen is not None:
            self.take(assignment.operation_id, self._observed(seen))

    def _restarts_before(self, state: operation.Operation, seen: model.Instance) -> int:
        """How often an instance had died before the operation began; START may find one that has lived for long."""
        if state.assignment.kind is not model.ChangeKind.START:
            return 0
        return self._restarts.setdefault(state.assignment.operation_id, seen.restarts)

    async def _observe(self, state: operation.Operation) -> None:
        operation_id = state.assignment.operation_id
        try:
            seen = await self.changes.driver(state).observe(self.changes.of(state))
        except (drivers.DriverError, processes.KeeperError, ConfigError) as error:
            _logger.warning("cannot observe: %s", error, extra={"operation_id": operation_id})
            return
        after = self.known.get(operation_id)
        if after is None or after.phase is not state.phase:
            return
        is_before_switch = state.phase is transitions.Phase.HELD_BEFORE_SWITCH
        if seen.instance is not None:
            self._seen.add(operation_id)
            if not is_before_switch:
                self.take(operation_id, self._observed(seen.instance))
        elif not is_before_switch or operation_id in self._seen:  # some ways start it in SWITCH: none is lost before
            self.take(operation_id, events.InstanceLost(self.now(), seen.message))

    def _observed(self, instance: model.Instance) -> events.Observed:
        return events.Observed(
            at=self.now(),
            health=self.board.health(instance.id),
            healthy_for=self.board.healthy_for(instance.id),
            served=instance.served,
            is_flapping=self.board.is_flapping(instance.id),
        )


def _starts_in_switch(state: operation.Operation) -> bool:
    """Tell whether a step is at work that starts the new instance, and says by itself how that went."""
    is_start = state.assignment.kind is model.ChangeKind.START
    is_restart = state.assignment.method is model.Method.RESTART
    return state.phase is transitions.Phase.SWITCH and (is_start or is_restart)


def _decision(operation_id: str, inspection: processes.Inspection) -> events.KeeperDecision:
    if inspection.trial_operation_id == operation_id:
        return events.KeeperDecision.ON_TRIAL
    outcome = next((each for each in inspection.outcomes if each.operation_id == operation_id), None)
    if outcome is None:
        return events.KeeperDecision.NONE
    if outcome.decision is processes.Decision.COMMITTED:
        return events.KeeperDecision.COMMITTED
    if outcome.cause is processes.Cause.INSTANCE_DIED:
        return events.KeeperDecision.ROLLED_BACK_INSTANCE_DIED
    return events.KeeperDecision.ROLLED_BACK_AGENT_AWAY
