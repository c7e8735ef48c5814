"""Fixtures of the driver `handover`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from agent.core import model
from agent.drivers import conformance, handover
from tests.drivers import programs, sources

NAME = handover.NAME
METHODS = handover.METHODS
make = handover.make

PLAIN = model.HandoverOptions(is_listen_fds_only=True)


def conformance_fixtures(_folder: Path) -> Sequence[conformance.Fixture]:
    return (
        web("gated", model.Method.HOT_SWAP, sources.SDK_SERVICE),
        web("gated_restart", model.Method.RESTART, sources.SDK_SERVICE),
        web("listen_fds", model.Method.HOT_SWAP, sources.LISTEN_FDS_SERVICE, PLAIN),
        web("listen_fds_restart", model.Method.RESTART, sources.LISTEN_FDS_SERVICE, PLAIN),
    )


def web(name: str, method: model.Method, source: str, options: model.Options | None = None) -> programs.Web:
    return programs.Web(
        name,
        NAME,
        method,
        ("python", "app.py"),
        lambda _version, _behaviour: {"app.py": source.encode()},
        options or model.HandoverOptions(),
        is_exclusive=method is model.Method.RESTART,
    )
