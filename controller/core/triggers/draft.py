"""What one event changes of a trigger, gathered until the whole of it is decided.

Left out: deciding anything (`raising`, `advancing`, `machine`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from rpds import HashTrieMap

from controller.core import copying, errors, model
from controller.core.triggers import guards, signals, transitions


@dataclass(frozen=True, slots=True)
class Decision:
    """What follows from an event.

    Args:
        status: What the trigger then remembers.
        firings: Those that differ, ended ones too.
        signals: Those that are to be stored as they now are; None for what is no more.
        acts: Firings whose action is to be begun, each idempotent by its id.
    """

    status: model.TriggerStatus
    firings: tuple[model.Firing, ...] = ()
    signals: Mapping[model.NodeId | None, model.Signal | None] = field(default_factory=dict)
    acts: tuple[model.Firing, ...] = ()


@dataclass(slots=True)
class Draft:
    """A decision in the making."""

    trigger: model.Trigger
    status: model.TriggerStatus
    around: guards.Around
    at: datetime
    firings: dict[model.FiringId, model.Firing] = field(default_factory=dict)
    signals: dict[model.NodeId | None, model.Signal | None] = field(default_factory=dict)
    acts: dict[model.FiringId, model.Firing] = field(default_factory=dict)

    def remember(self, **changes: object) -> None:
        """Change what the trigger remembers."""
        self.status = copying.replace(self.status, **changes)

    def find(self, firing_id: model.FiringId) -> model.Firing:
        """Find an open firing.

        Raises:
            IllegalEventError: It is at its end, or there was none.
        """
        found = next((each for each in self.status.open if each.id == firing_id), None)
        if found is None:
            raise errors.IllegalEventError(
                f"cannot go on with firing {firing_id}: it is at its end",
                code="illegal_event",
                field="firing",
                value=firing_id,
                rule="a firing ends once",
            )
        return found

    def put(self, firing: model.Firing) -> None:
        """Write a firing; one at its end is remembered no more."""
        others = [each for each in self.status.open if each.id != firing.id]
        if firing.is_open:
            others.append(firing)
        self.remember(open=tuple(sorted(others, key=lambda each: each.number)))
        self.firings[firing.id] = firing

    def move(
        self, firing: model.Firing, sign: transitions.Sign, code: str, message: str, **changes: object
    ) -> model.Firing:
        """Let a firing take the next state of the table, for a reason."""
        state = transitions.follow(firing, sign)
        ended_at = None if transitions.TRANSITIONS[state] else self.at
        moved = copying.replace(
            firing, state=state, reason=model.Reason(code, message, self.at), ended_at=ended_at, **changes
        )
        self.put(moved)
        return moved

    def give_up(self, firing: model.Firing, code: str, message: str) -> None:
        """Do nothing on a firing any more; nobody has to decide on it then."""
        approval = firing.approval
        if approval is not None and approval.state is model.ApprovalState.WAITING:
            approval = copying.replace(approval, state=model.ApprovalState.WITHDRAWN, decided_at=self.at)
        self.move(firing, transitions.Sign.GIVES_UP, code, message, next_try_at=None, approval=approval)

    def put_signal(self, node_id: model.NodeId | None, after: model.Signal | None) -> None:
        """Write how the condition stands on a node, and count those on which it has for long enough."""
        known = self.status.signals
        before = known.get(node_id)
        kept = known.discard(node_id) if after is None else known.insert(node_id, after)
        raised = self.status.raised + _counts(after) - _counts(before)
        self.remember(signals=kept, raised=raised)
        if signals.is_news(before, after):
            self.signals[node_id] = after

    def drop_signals(self) -> None:
        """Forget how the condition stands everywhere."""
        self.signals |= dict.fromkeys(self.status.signals)
        self.remember(signals=HashTrieMap(), raised=0, is_raised=False)

    def decision(self) -> Decision:
        """Give what was decided."""
        return Decision(self.status, tuple(self.firings.values()), self.signals, tuple(self.acts.values()))


def _counts(signal: model.Signal | None) -> int:
    return int(signal is not None and signal.raised_at is not None)
