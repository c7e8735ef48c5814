"""Fixtures of the driver `reload`: nginx, gunicorn and uvicorn themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from agent.core import model
from agent.drivers import conformance, reload
from tests.drivers import programs, sources

NAME = reload.NAME
METHODS = reload.METHODS
make = reload.make

GUNICORN = ("python", "-m", "gunicorn", "--workers", "2", "--no-control-socket", "app:application")
UVICORN = ("python", "-m", "uvicorn", "--fd", "3", "--workers", "2", "app:application")
NEVER_DRAINS = frozenset({conformance.Behaviour.NEVER_DRAINS})


def conformance_fixtures(folder: Path) -> Sequence[conformance.Fixture]:
    return (nginx(folder), gunicorn(), uvicorn())


def nginx(folder: Path) -> programs.Web:
    """Debian's nginx; its configuration names the address, as nginx wants it."""
    address = ("127.0.0.1", programs.free_port())

    def files(version: str, behaviour: conformance.Behaviour) -> Mapping[str, bytes]:
        configuration = sources.NGINX_CONFIGURATION.format(
            folder=folder,
            version=version,
            address="{}:{}".format(*address),
            status="503" if behaviour is conformance.Behaviour.NEVER_READY else "200",
        )
        if behaviour is conformance.Behaviour.CRASHES_AT_START:
            configuration += "no_such_directive;\n"
        return {"nginx.sh": sources.NGINX.encode(), "nginx.conf": configuration.encode()}

    options = model.ReloadOptions(model.ReloadProgram.NGINX)
    method = model.Method.HOT_SWAP
    return programs.Web("nginx", NAME, method, ("nginx.sh",), files, options, address=address, lacks=NEVER_DRAINS)


def gunicorn() -> programs.Web:
    """gunicorn with two workers; the application answers slowly enough to have requests in flight."""
    return _python("gunicorn", GUNICORN, model.ReloadProgram.GUNICORN, sources.WSGI)


def uvicorn() -> programs.Web:
    """uvicorn with two workers."""
    return _python("uvicorn", UVICORN, model.ReloadProgram.UVICORN, sources.ASGI)


def _python(name: str, command: tuple[str, ...], program: model.ReloadProgram, source: str) -> programs.Web:
    return programs.Web(
        name,
        NAME,
        model.Method.HOT_SWAP,
        command,
        lambda _version, _behaviour: {"app.py": source.encode()},
        model.ReloadOptions(program),
        lacks=NEVER_DRAINS,
    )
