"""The driver `held`: one instance at a time, with its sockets held by the keeper.

Rules kept here: while nothing serves, requests wait in the backlog, and past the manifest's hold_timeout the keeper
closes them, so that nobody waits for ever.
"""

from __future__ import annotations

from agent import drivers
from agent.core import model
from agent.drivers import instances, kept, single

NAME = "held"
METHODS = frozenset({model.Method.RESTART})
STYLE = instances.Style(is_exclusive=True)


class Held(kept.Kept):
    """The driver."""

    def _way(self, manifest: model.Manifest | None, method: model.Method) -> kept.Way:
        options = manifest.options if manifest else None
        if method is not model.Method.RESTART or not isinstance(options, model.HeldOptions):
            raise kept.unsupported(manifest, method)
        return single.Single(self._on, self._run_dir, STYLE, hold_timeout=options.hold_timeout)


def make(rooms: drivers.Rooms) -> drivers.Driver:
    """Make the driver."""
    return Held(rooms, METHODS)
