"""The demo's releases as bundle source trees: a service and the manifest that says how it is run and probed."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

COMPONENT = "web"
SOCKET = "http"


@dataclass(frozen=True, slots=True)
class Source:
    """One version of the demo's service.

    Args:
        unhealthy_after_seconds: Time after activation from which its health probe fails; None for never.
    """

    version: str
    unhealthy_after_seconds: float | None = None


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
series = ["web_requests_total"]
period = "2s"
"""


def manifest(source: Source) -> str:
    """The `instar.toml` of a version."""
    seconds = source.unhealthy_after_seconds
    environment = "" if seconds is None else f'WEB_UNHEALTHY_AFTER_SECONDS = "{seconds}"\n'
    return _MANIFEST.format(component=COMPONENT, version=source.version, environment=environment, socket=SOCKET)


def write(source: Source, folder: Path) -> None:
    """Make a folder that `instar release build` takes."""
    folder.mkdir(parents=True)
    service = resources.files("controller.cli.demo.service").joinpath("service.py").read_text(encoding="utf-8")
    (folder / "service.py").write_text(service, encoding="utf-8")
    (folder / "instar.toml").write_text(manifest(source), encoding="utf-8")
