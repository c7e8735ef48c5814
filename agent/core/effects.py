"""What a step of the operation machine owes the node: a closed union; each is idempotent by its operation id."""

from __future__ import annotations

from dataclasses import dataclass

from agent.core import model


@dataclass(frozen=True, slots=True)
class Perform:
    """Do the work of a step and answer Succeeded or Failed; replaces the work that the operation still has going.

    Args:
        after_seconds: Time to wait before; what cannot be given up is tried again.
    """

    step: model.Step
    after_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class MakePermanent:
    """Flip ``permanent`` to the new version and answer Succeeded or Failed of BAKE; runs beside a drain.

    Args:
        after_seconds: Time to wait before; as for Perform.
    """

    after_seconds: float = 0.0


Effect = Perform | MakePermanent
