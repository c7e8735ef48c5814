"""Which drivers there are: a literal table of our own, and those of others that the node's configuration names.

Rules kept here: a module is imported when its driver is used first, for the agent has a memory budget; nothing that
the configuration does not name is looked up, let alone imported. Left out: what a driver does.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol, cast

from agent import drivers
from agent.core import model

ENTRY_POINTS = "instar.drivers"

HOT_SWAP = frozenset({model.Method.HOT_SWAP})
RESTART = frozenset({model.Method.RESTART})
BUILT_IN: Mapping[str, tuple[str, frozenset[model.Method]]] = MappingProxyType(
    {
        "handover": ("agent.drivers.handover", HOT_SWAP | RESTART),
        "held": ("agent.drivers.held", RESTART),
        "process": ("agent.drivers.process", RESTART),
        "reload": ("agent.drivers.reload", HOT_SWAP),
        "module": ("agent.drivers.module", HOT_SWAP),
        "systemd": ("agent.drivers.systemd", HOT_SWAP | RESTART),
        "exec": ("agent.drivers.exec", HOT_SWAP | RESTART),
        "agent": ("agent.drivers.agent", HOT_SWAP),
    }
)

_logger = logging.getLogger(__name__)


class DriverModule(Protocol):
    """What a module has to have to be a driver, built in or not."""

    NAME: str
    METHODS: frozenset[model.Method]

    def make(self, rooms: drivers.Rooms) -> drivers.Driver:
        """Make the driver."""
        ...


class Registry:
    """The drivers of one node.

    Args:
        rooms: What each driver is made from.
        third_party: Names of entry points that the node's configuration lists.
    """

    def __init__(self, rooms: drivers.Rooms, third_party: Sequence[str]) -> None:
        self._rooms = rooms
        self._third_party = frozenset(third_party) - BUILT_IN.keys()
        self._made: dict[str, drivers.Driver] = {}
        self._modules: dict[str, DriverModule] = {}

    @property
    def names(self) -> frozenset[str]:
        """Drivers that a manifest may name on this node."""
        return self._third_party | BUILT_IN.keys()

    @property
    def made(self) -> Mapping[str, drivers.Driver]:
        """Drivers that are in use."""
        return MappingProxyType(self._made)

    def methods(self, name: str) -> frozenset[model.Method]:
        """How a driver can change a component; of our own ones known without an import.

        Raises:
            drivers.DriverError: The node does not have it.
        """
        if name in BUILT_IN:
            return BUILT_IN[name][1]
        return self._module(name).METHODS

    def capabilities(self) -> Iterator[str]:
        """Say what this node can do: ``driver.NAME``, and ``driver.NAME.METHOD`` for each method of it."""
        for name in sorted(self.names):
            try:
                methods = self.methods(name)
            except drivers.DriverError as error:  # it was configured, and is not installed
                _logger.warning("%s", error)
            else:
                yield f"driver.{name}"
                yield from sorted(f"driver.{name}.{method.value}" for method in methods)

    def get(self, name: str) -> drivers.Driver:
        """Return the driver, made at its first use.

        Raises:
            drivers.DriverError: The node does not have it, or it cannot be made.
        """
        if name not in self._made:
            self._made[name] = self._module(name).make(self._rooms)
        return self._made[name]

    def _module(self, name: str) -> DriverModule:
        if name not in self._modules:
            self._modules[name] = self._load(name)
        return self._modules[name]

    def _load(self, name: str) -> DriverModule:
        if name in BUILT_IN:
            return cast("DriverModule", importlib.import_module(BUILT_IN[name][0]))
        if name not in self._third_party:
            raise _missing(name, f"it is none of {', '.join(sorted(self.names))}")
        try:
            return find(name)
        except Exception as error:  # somebody else's module may raise anything
            raise _missing(name, str(error)) from error


def find(name: str) -> DriverModule:
    """Load the module of a driver of somebody else by its entry point.

    Raises:
        LookupError: No installed distribution has it.
    """
    from importlib import metadata  # noqa: PLC0415  # costs an agent without such drivers half a MiB

    for entry in metadata.entry_points(group=ENTRY_POINTS, name=name):
        return cast("DriverModule", entry.load())
    raise LookupError(f"no installed distribution has it as entry point of {ENTRY_POINTS}")


def _missing(name: str, rule: str) -> drivers.DriverError:
    message = f"cannot use driver {name!r}: {rule}"
    return drivers.DriverError(message, fault=model.Fault.COMMAND, reason="driver_missing")
