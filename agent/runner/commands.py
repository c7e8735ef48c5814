"""The commands of the controller: what may begin begins, what may not is refused with its reason.

Rules kept here: a command may come again, and changes nothing then; a fence that is new is used up by a refusal too; a
node that cannot make anything durable begins nothing. Left out: the rules of admission (`agent.core.admission`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, assert_never

from agent import journal
from agent.core import admission, events, model, operation
from agent.runner import clock, executor, inventory, operations, own_releases

_logger = logging.getLogger(__name__)


class ControllerClock(Protocol):
    """Who has heard how late it is at the controller."""

    def latest_at_controller(self) -> datetime | None:
        """The latest that it may be by the controller's clock; None until a controller has told its time."""
        ...


@dataclass(frozen=True, slots=True)
class Commands:
    """Where commands come in.

    Args:
        changed: Called when there is something to tell.
    """

    known: operations.Operations
    stock: inventory.Inventory
    executor: executor.Executor
    own: own_releases.OwnReleases
    heard: ControllerClock
    now: clock.Now
    changed: Callable[[], None]

    def take(self, command: model.Order) -> None:
        """Take a command of the controller, perhaps again."""
        match command:
            case model.Assign(assignment):
                self._assign(assignment)
            case model.Proceed(operation_id, fence, step, hold_before):
                self._order(operation_id, fence, events.Proceeded(self.now(), step, hold_before))
            case model.Cancel(operation_id, fence, reason):
                self._order(operation_id, fence, events.Cancelled(self.now(), reason))
            case _:
                assert_never(command)

    def take_local(self, assignment: model.Assignment) -> None:
        """Take what people of this very node want changed."""
        self._assign(assignment, is_from_here=True)

    def _assign(self, assignment: model.Assignment, *, is_from_here: bool = False) -> None:
        outcome = self.known.outcome(assignment.operation_id)
        if outcome is not None:
            self.known.answer(outcome)
        elif self.known.failure and self.known.get(assignment.operation_id) is None:
            self._refuse_unwritten(assignment)
        else:
            self._admit(assignment, is_from_here=is_from_here)
        self.changed()

    def _admit(self, assignment: model.Assignment, *, is_from_here: bool) -> None:
        stopped, bad = self.stock.stopped, frozenset(self.own.bad)
        ledger = self.known.ledger(self.stock.current, stopped, bad, self.heard.latest_at_controller())
        answer = admission.admit(assignment, ledger, is_from_here=is_from_here)
        match answer.verdict:
            case admission.Verdict.KNOWN | admission.Verdict.UNSURE:
                pass
            case admission.Verdict.EXPIRED:
                self.known.answer(self._expired(assignment, answer))
            case admission.Verdict.REFUSED:
                self._refuse(assignment, answer)
            case admission.Verdict.BEGIN:
                self._begin(assignment)
            case _:
                assert_never(answer.verdict)

    def _refuse(self, assignment: model.Assignment, answer: admission.Answer) -> None:
        """Refuse, for ever: a fence that is new is used up by it, so that no duplicate begins later."""
        _logger.warning("%s", answer.message, extra={"operation_id": assignment.operation_id})
        refused = operation.refuse(assignment, self.now(), answer.reason, answer.message)
        try:
            if assignment.fence > self.known.highest_fence:
                self.known.write(refused, "")
                return
        except journal.JournalFailedError as error:
            self.executor.halt(error)
        except (journal.JournalFullError, journal.RecordTooLargeError) as error:
            _logger.warning("%s", error, extra={"operation_id": assignment.operation_id})
        self.known.answer(operation.status(refused.state))

    def _refuse_unwritten(self, assignment: model.Assignment) -> None:
        """Refuse for now: nothing can be made durable, and that is nobody's fault but the host's."""
        message = f"cannot begin: {self.known.failure}"
        fault = model.Fault.INFRASTRUCTURE
        refused = operation.refuse(assignment, self.now(), "journal_failed", message, fault)
        self.known.answer(operation.status(refused.state))

    def _begin(self, assignment: model.Assignment) -> None:
        try:
            self.known.write(operation.accept(assignment, self.now()), "")
        except journal.JournalFailedError as error:
            self.executor.halt(error)
            self._refuse_unwritten(assignment)
            return
        except (journal.JournalFullError, journal.RecordTooLargeError) as error:
            self._refuse(assignment, admission.Answer(admission.Verdict.REFUSED, "journal_full", str(error)))
            return
        for state in self.known.unfinished:
            is_same = state.assignment.operation_id == assignment.operation_id
            if state.assignment.component == assignment.component and not is_same:
                self.executor.take(state.assignment.operation_id, events.Superseded(self.now()))
        self.executor.take(assignment.operation_id, events.Began(self.now()))

    def _expired(self, assignment: model.Assignment, answer: admission.Answer) -> model.OperationStatus:
        return model.OperationStatus(
            operation_id=assignment.operation_id,
            fence=assignment.fence,
            component=assignment.component,
            state=model.OperationState.EXPIRED,
            step=None,
            fault=model.Fault.COMMAND,
            reason=answer.reason,
            message=answer.message,
            changed_at=self.now().wall,
        )

    def _order(self, operation_id: str, fence: int, event: events.Order) -> None:
        state = self.known.get(operation_id)
        if state is None or state.assignment.fence != fence:
            _logger.warning("cannot take %s: no such operation", type(event).__name__, extra={"fence": fence})
            return
        self.executor.take(operation_id, event)
