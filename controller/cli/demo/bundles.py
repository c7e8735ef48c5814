"""The demo's releases as bundle source trees: a service and the manifest that says how it is run and probed.

Left out: releases of the agent (`agent_bundles`).
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Protocol

COMPONENT = "web"
SOCKET = "http"


class Publishable(Protocol):
    """One version of a component, of which a bundle can be made."""

    @property
    def component(self) -> str:
        """Name of the component."""

    @property
    def version(self) -> str:
        """SemVer."""

    def write(self, folder: Path) -> None:
        """Make a folder that `instar release build` takes."""


@dataclass(frozen=True, slots=True)
class Source:
    """One version of the demo's service.

    Args:
        unhealthy_after_seconds: Time after activation from which its health probe fails; None for never.
        fails_every: Every so-manieth request fails; 0 for none.
        fails_percent: So many requests in a hundred fail, each by chance.
        scrape_period: How often its counters are read.
    """

    version: str
    unhealthy_after_seconds: float | None = None
    fails_every: int = 0
    fails_percent: float = 0.0
    scrape_period: str = "2s"

    @property
    def component(self) -> str:
        """Name of the service."""
        return COMPONENT

    def write(self, folder: Path) -> None:
        """Make a folder that `instar release build` takes."""
        folder.mkdir(parents=True)
        service = resources.files("controller.cli.demo.service").joinpath("service.py").read_text(encoding="utf-8")
        (folder / "service.py").write_text(service, encoding="utf-8")
        (folder / "instar.toml").write_text(manifest(self), encoding="utf-8")


FIRST = Source("1.0.0")
NEXT = Source("1.1.0")
BAD = Source("1.2.0", unhealthy_after_seconds=2.0)

_MANIFEST = """\
name = "{component}"
version = "{version}"
driver = "handover"
command = ["python", "service.py"]
prepare_timeout = "20s"
drain_timeout = "10s"
stop_timeout = "3s"

[environment]
{environment}
[[sockets]]
name = "{socket}"

[readiness]
http = {{ path = "/healthz" }}
period = "0.2s"
timeout = "2s"

[health]
http = {{ path = "/healthz" }}
period = "0.5s"
timeout = "2s"
failure_threshold = 2

[metrics]
path = "/metrics"
series = ["web_requests_total", "web_errors_total", "web_handling_seconds_total"]
period = "{scrape_period}"
"""


def manifest(source: Source) -> str:
    """The `instar.toml` of a version."""
    seconds = source.unhealthy_after_seconds
    environment = "" if seconds is None else f'WEB_UNHEALTHY_AFTER_SECONDS = "{seconds}"\n'
    environment += f'WEB_FAILS_EVERY = "{source.fails_every}"\n' if source.fails_every else ""
    environment += f'WEB_FAILS_PERCENT = "{source.fails_percent:g}"\n' if source.fails_percent else ""
    return _MANIFEST.format(
        component=COMPONENT,
        version=source.version,
        environment=environment,
        socket=SOCKET,
        scrape_period=source.scrape_period,
    )
