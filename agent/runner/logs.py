"""The end of what a component wrote, for whoever asks over the link.

Rules kept here: bounded, and read by the keeper, which owns the files; why there is none is an answer too.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent import processes
from agent.core import model
from agent.runner import inventory

BYTES_MAX = 65536  # of one answer, which travels as one message
BYTES_DEFAULT = 16384  # where nobody said how many


@dataclass(frozen=True, slots=True)
class Logs:
    """The logs of a node's instances."""

    keeper: processes.Keeper
    stock: inventory.Inventory

    async def read(self, asked: model.ReadLog) -> model.LogText:
        """Read the end of the log of the instance that serves; where none does, of the one that was to."""
        seen = self.stock.serving(asked.component) or self.stock.kept(asked.component)
        if seen is None:
            message = f"cannot read the log of {asked.component}: it has no instance on this node"
            return model.LogText(asked.request_id, error=message)
        max_bytes = min(asked.max_bytes or BYTES_DEFAULT, BYTES_MAX)
        try:
            text = await self.keeper.log(seen.id, max_bytes)
        except processes.KeeperError as error:
            return model.LogText(asked.request_id, seen.id, error=error.message)
        return model.LogText(asked.request_id, seen.id, text)
