"""The conformance suite for drivers: what a driver of anybody must do, tried on a real keeper and real programs.

    python -m agent.drivers.conformance MODULE [-o json]

MODULE is a driver module (NAME, METHODS, make) that also has `conformance_fixtures(folder)`: it returns a fixture for
each kind of program that the driver is for, and may write into the folder. The suite makes releases from what the
fixture says, runs each check in a directory and with a keeper of its own, and leaves nothing running.

Rules kept here: a check asks the world (who answers, which processes live), and the driver only where the driver's own
word is the question. Left out: load, which each driver's own tests put on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import Enum, unique
from pathlib import Path
from typing import Protocol

from agent import drivers
from agent.core import model


@unique
class Behaviour(Enum):
    """What a release of the fixture does; a fixture that cannot have one says so, and its checks are skipped."""

    GOOD = "good"
    CRASHES_AT_START = "crashes_at_start"
    NEVER_READY = "never_ready"
    NEVER_DRAINS = "never_drains"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A release: its manifest and its files by path; those in ``programs`` are executable."""

    manifest: model.Manifest
    files: Mapping[str, bytes]
    programs: frozenset[str] = frozenset()


class Fixture(Protocol):
    """One kind of program that the driver is for."""

    @property
    def name(self) -> str:
        """Name of the kind, in the output."""
        ...

    @property
    def method(self) -> model.Method:
        """The method that is tried; the driver's METHODS has it."""
        ...

    @property
    def is_exclusive(self) -> bool:
        """No two instances at once: true for most restarts."""
        ...

    @property
    def addresses(self) -> Mapping[str, str]:
        """Address of each socket of the manifest."""
        ...

    def bundle(self, version: str, behaviour: Behaviour) -> Bundle | None:
        """Make a release, the same again for the same arguments; None where the program cannot behave so."""
        ...

    async def serving(self) -> frozenset[str]:
        """Versions that serve now, as the world sees it; empty when nobody answers."""
        ...

    def around(self, rooms: drivers.Rooms) -> AbstractAsyncContextManager[None]:
        """What must stand around a check beside the keeper, such as a host process."""
        ...


class FixtureModule(Protocol):
    """A driver module that can be tried."""

    NAME: str
    METHODS: frozenset[model.Method]

    def make(self, rooms: drivers.Rooms) -> drivers.Driver:
        """Make the driver."""
        ...

    def conformance_fixtures(self, folder: Path) -> Sequence[Fixture]:
        """Kinds of program to try it on."""
        ...
