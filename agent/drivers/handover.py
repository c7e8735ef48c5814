"""The driver `handover`: services on shared sockets; by hot swap it loses no request of a program that plays along.

Rules kept here: a program that speaks the hand-over protocol is swapped by the gated hand-off; one that knows only
LISTEN_FDS is rehearsed on private sockets first. A restart runs one at a time on the held sockets. Left out: how
(`gated`, `rehearsal`, `single`).
"""

from __future__ import annotations

from datetime import timedelta

from agent import drivers, processes
from agent.core import model
from agent.drivers import gated, instances, kept, rehearsal, single

NAME = "handover"
METHODS = frozenset({model.Method.HOT_SWAP, model.Method.RESTART})
PLAIN = instances.Style()
RESTARTED = instances.Style(protocol=processes.Protocol.HANDOVER, is_exclusive=True)
PLAIN_RESTARTED = instances.Style(is_exclusive=True)


class Handover(kept.Kept):
    """The driver."""

    def __init__(self, rooms: drivers.Rooms, methods: frozenset[model.Method]) -> None:
        super().__init__(rooms, methods)
        self._rehearsals: dict[str, timedelta] = {}
        self._marked: dict[str, processes.Instance | None] = {}

    def _way(self, manifest: model.Manifest | None, method: model.Method) -> kept.Way:
        options = manifest.options if manifest else model.HandoverOptions()
        if not isinstance(options, model.HandoverOptions):
            raise kept.unsupported(manifest, method)
        if method is model.Method.RESTART:
            style = PLAIN_RESTARTED if options.is_listen_fds_only else RESTARTED
            return single.Single(self._on, self._run_dir, style)
        if options.is_listen_fds_only:
            return rehearsal.Rehearsed(self._on, self._run_dir, PLAIN, self._rehearsals)
        return gated.Gated(self._on, self._run_dir, self._marked)


def make(rooms: drivers.Rooms) -> drivers.Driver:
    """Make the driver."""
    return Handover(rooms, METHODS)
