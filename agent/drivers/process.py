"""The driver `process`: any program; a restart, or old and new beside each other where the manifest says overlap.

Rules kept here: the keeper holds none of its sockets; an address that the manifest names is one at which the program
can be asked. The whole process group, or cgroup, ends with its instance.
"""

from __future__ import annotations

from agent import drivers
from agent.core import model
from agent.drivers import beside, instances, kept, single

NAME = "process"
METHODS = frozenset({model.Method.RESTART})
OVERLAPPING = instances.Style(has_sockets=False)
EXCLUSIVE = instances.Style(has_sockets=False, is_exclusive=True)


class Process(kept.Kept):
    """The driver."""

    def _way(self, manifest: model.Manifest | None, method: model.Method) -> kept.Way:
        options = manifest.options if manifest else None
        if method is not model.Method.RESTART or not isinstance(options, model.ProcessOptions):
            raise kept.unsupported(manifest, method)
        settle = options.settle_duration
        if options.has_overlap:
            return beside.Beside(self._on, self._run_dir, OVERLAPPING, settle_duration=settle)
        return single.Single(self._on, self._run_dir, EXCLUSIVE, settle_duration=settle)


def make(rooms: drivers.Rooms) -> drivers.Driver:
    """Make the driver."""
    return Process(rooms, METHODS)
