"""Fixtures of the driver `process`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from agent.drivers import conformance, process
from tests.drivers import programs, sources

NAME = process.NAME
METHODS = process.METHODS
make = process.make


def conformance_fixtures(folder: Path) -> Sequence[conformance.Fixture]:
    return tuple(_worker(folder, name, has_overlap=name == "overlap") for name in ("restart", "overlap"))


def _worker(folder: Path, name: str, *, has_overlap: bool) -> conformance.Fixture:
    locks = folder / name
    locks.mkdir()
    return programs.Worker(name, sources.CONSUMER.encode(), locks, has_overlap)
