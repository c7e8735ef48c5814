"""What becomes of a component's state when its version changes, as the runner needs to know it.

Rules kept here: where nothing has to happen between two versions nobody is asked to do it, so that the keeper can go
back by itself. Left out: doing it (`agent.state`).
"""

from __future__ import annotations

from dataclasses import dataclass

from agent import drivers
from agent.core import model
from agent.state import schemas, states

PASSING = frozenset({schemas.Kind.MIGRATE, schemas.Kind.RESTORE})


@dataclass(frozen=True, slots=True)
class Passages:
    """The passages of states from version to version."""

    states: states.States

    def has_passage(self, change: drivers.Change, *, is_discarding: bool) -> bool:
        """Tell whether something has to happen between the end of the old version and the start of the new one.

        Raises:
            drivers.DriverError: The new version cannot use the state.
        """
        if not is_stateful(change):
            return False
        point = self.states.points.get(change.component, change.operation_id)
        is_to_be_copied_again = point is not None and bool(point.state_digest) and not point.is_quiet
        return is_to_be_copied_again or self.states.plan(change, is_discarding=is_discarding).kind in PASSING

    def copies_bytes(self, change: drivers.Change, *, is_discarding: bool) -> int:
        """Tell what copies of the state will take.

        Raises:
            drivers.DriverError: The new version cannot use the state.
        """
        if not is_stateful(change):
            return 0
        is_passing = self.states.plan(change, is_discarding=is_discarding).kind in PASSING
        sides = (change.old, change.new)
        has_snapshot = any(side and side.manifest.state and side.manifest.state.has_snapshot for side in sides)
        return self.states.size_bytes(change.component) * (int(is_passing) + int(has_snapshot))

    def has_way_back(self, change: drivers.Change) -> bool:
        """Tell whether the old version can use, or be led back to, the state that the new one leaves."""
        old, new = _schema(change.old), _schema(change.new)
        if old is None or new is None or schemas.can_use(old, new.schema):
            return True
        migrations = {
            side.digest: side.manifest.state.migrations
            for side in (change.new, change.old)
            if side is not None and side.manifest.state is not None
        }
        return bool(schemas.way(new.schema, old.schema, migrations))


def is_stateful(change: drivers.Change) -> bool:
    """Tell whether a side of a change keeps state."""
    return _schema(change.old) is not None or _schema(change.new) is not None


def _schema(side: drivers.Launch | None) -> model.StateSchema | None:
    return side.manifest.state if side is not None else None
