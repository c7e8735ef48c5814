"""The operations that this node remembers: in the journal first, then in memory, until the controller has them.

Rules kept here: `write` returns when the state is durable; a finished operation is forgotten only after exactly its
last status and all its steps were acknowledged; an answer about what is forgotten lives until it was heard.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from agent import journal
from agent.core import admission, model, operation, transitions

ANSWERS_MAX = 64  # about what is not remembered, until they were heard; whoever asks again is answered again
NO_FACTS: Mapping[str, journal.Fact] = {}


class Operations:
    """Everything that is remembered.

    Args:
        boot_id: Run of the kernel that monotonic seconds belong to.
    """

    def __init__(self, records: journal.Journal, boot_id: str) -> None:
        self._journal = records
        self._boot_id = boot_id
        self._states: dict[str, operation.Operation] = {}
        self._facts: dict[str, Mapping[str, journal.Fact]] = {}
        self._steps: dict[str, tuple[model.StepRecord, ...]] = {}
        self._heard: set[model.OperationStatus] = set()
        self._answers: dict[str, model.OperationStatus] = {}
        for history in records.operations:
            self._load(history)

    @property
    def highest_fence(self) -> int:
        """Highest fence ever seen; the journal's records may be ahead of what it keeps beside them."""
        fences = (state.assignment.fence for state in self._states.values())
        return max(self._journal.highest_fence, *fences, 0)

    @property
    def unfinished(self) -> tuple[operation.Operation, ...]:
        """Operations that still owe something, in the order in which they began."""
        return tuple(state for state in self._states.values() if state.phase not in transitions.TERMINAL)

    @property
    def statuses(self) -> tuple[model.OperationStatus, ...]:
        """What the controller is told."""
        return (*(operation.status(state) for state in self._states.values()), *self._answers.values())

    @property
    def steps(self) -> tuple[model.StepRecord, ...]:
        """Steps that the controller has not acknowledged."""
        return tuple(record for records in self._steps.values() for record in records)

    def get(self, operation_id: str) -> operation.Operation | None:
        """Return the operation, if it is remembered."""
        return self._states.get(operation_id)

    def facts(self, operation_id: str) -> Mapping[str, journal.Fact]:
        """What was written beside the operation's state."""
        return self._facts.get(operation_id, NO_FACTS)

    def latest_to(self, component: str, digest: str) -> operation.Operation | None:
        """Return the latest operation that brought a component to a digest."""
        found = [
            state
            for state in self._states.values()
            if state.assignment.component == component and state.assignment.new_digest == digest
        ]
        return found[-1] if found else None

    def is_changing(self, component: str) -> bool:
        """True while an operation that is not yet committed, or not yet undone, has the component in its hands."""
        return any(
            state.assignment.component == component and state.phase is not transitions.Phase.SETTLING
            for state in self.unfinished
        )

    def ledger(
        self, current: Mapping[str, str], stopped: frozenset[str], bad: frozenset[str], latest_now: datetime | None
    ) -> admission.Ledger:
        """What admission looks at."""
        holders = [s for s in self.unfinished if s.phase is not transitions.Phase.SETTLING]
        return admission.Ledger(
            highest_fence=self.highest_fence,
            fences={key: state.assignment.fence for key, state in self._states.items()},
            holder=holders[0].assignment.operation_id if holders else None,
            current=current,
            stopped=stopped,
            bad=bad,
            latest_now=latest_now,
        )

    @property
    def failure(self) -> str:
        """Why nothing can be made durable any more in this life of the agent; empty while all is well."""
        return self._journal.failure

    @property
    def committed(self) -> Mapping[str, str]:
        """What this node itself last made current, for each component."""
        return self._journal.committed

    def note_committed(self, component: str, digest: str) -> None:
        """Make durable what this node makes current; empty where the component leaves it.

        Raises:
            journal.JournalError: It is not remembered.
        """
        self._journal.note_committed(component, digest)

    def note(self, operation_id: str, driver: str, facts: Mapping[str, journal.Fact]) -> None:
        """Make facts durable beside the state of an operation.

        Raises:
            journal.JournalError: They may not be acted upon.
        """
        self.write(operation.Decision(self._states[operation_id]), driver, facts)

    def outcome(self, operation_id: str) -> model.OperationStatus | None:
        """How a forgotten operation ended, as far as that is still known."""
        return self._journal.outcome(operation_id)

    def write(self, decision: operation.Decision, driver: str, facts: Mapping[str, journal.Fact] = NO_FACTS) -> None:
        """Make a decision durable, its steps first: a state counts the steps before it.

        Raises:
            journal.JournalError: Nothing of it may be acted upon.
        """
        operation_id = decision.state.assignment.operation_id
        kept = {**self.facts(operation_id), **facts}
        for record in decision.records:
            self._journal.write_step(record)
        self._journal.write_state(journal.StateRecord(decision.state, driver, self._boot_id, kept))
        self._journal.raise_fence(decision.state.assignment.fence)
        self._states[operation_id] = decision.state
        self._facts[operation_id] = kept
        self._steps[operation_id] = (*self._steps.get(operation_id, ()), *decision.records)

    def answer(self, status: model.OperationStatus) -> None:
        """Tell the controller of an operation that is not, or no longer, remembered; until it has heard it."""
        self._answers.pop(status.operation_id, None)
        self._answers[status.operation_id] = status
        while len(self._answers) > ANSWERS_MAX:
            del self._answers[next(iter(self._answers))]

    def acknowledge(
        self, statuses: tuple[model.OperationStatus, ...], steps: tuple[model.StepRecord, ...]
    ) -> tuple[str, ...]:
        """Take note of what the controller has; return the operations that were forgotten thereby."""
        self._heard.update(status for status in statuses if self._is_latest(status))
        for status in statuses:
            if self._answers.get(status.operation_id) == status:
                del self._answers[status.operation_id]
        heard_steps = {(record.operation_id, record.index) for record in steps}
        for operation_id, records in self._steps.items():
            kept = tuple(record for record in records if (operation_id, record.index) not in heard_steps)
            self._steps[operation_id] = kept
        return tuple(operation_id for operation_id in list(self._states) if self._forget_if_heard(operation_id))

    def _is_latest(self, status: model.OperationStatus) -> bool:
        state = self._states.get(status.operation_id)
        return state is not None and operation.status(state) == status

    def _forget_if_heard(self, operation_id: str) -> bool:
        state = self._states[operation_id]
        is_heard = operation.status(state) in self._heard and not self._steps.get(operation_id)
        if state.phase not in transitions.TERMINAL or not is_heard:
            return False
        self._journal.forget(operation_id)
        self._heard = {status for status in self._heard if status.operation_id != operation_id}
        for kept in (self._states, self._facts, self._steps):
            kept.pop(operation_id, None)
        return True

    def _load(self, history: journal.History) -> None:
        state = history.latest.operation
        operation_id = state.assignment.operation_id
        last_index = max((record.index for record in history.steps), default=0)
        self._states[operation_id] = replace(state, steps_ended=max(state.steps_ended, last_index))
        self._facts[operation_id] = history.latest.facts
        self._steps[operation_id] = history.steps
