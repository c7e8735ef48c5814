"""Fixtures of the driver `held`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from agent.core import model
from agent.drivers import conformance, held
from tests.drivers import programs, sources

NAME = held.NAME
METHODS = held.METHODS
make = held.make


def conformance_fixtures(_folder: Path) -> Sequence[conformance.Fixture]:
    return (
        programs.Web(
            "listen_fds",
            NAME,
            model.Method.RESTART,
            ("python", "app.py"),
            lambda _version, _behaviour: {"app.py": sources.LISTEN_FDS_SERVICE.encode()},
            model.HeldOptions(hold_timeout=timedelta(seconds=30)),
            is_exclusive=True,
        ),
    )
