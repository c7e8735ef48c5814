"""A door with all its guards in front of whatever a test serves, and people who may pass it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from controller import clock, engine
from controller.config import quotas
from controller.core import roles
from controller.rpc import callers, door, issuers, principals, register


def api(name: str, *grants: roles.Grant) -> principals.Principal:
    """Somebody who uses the API; who may do everything where nothing is said."""
    return principals.Principal(principals.Kind.API, name, grants or roles.WHOLE_FLEET_ADMIN)


def agent(node_id: str) -> principals.Principal:
    return principals.Principal(principals.Kind.AGENT, node_id)


def enrolled(folder: Path) -> register.Register:
    return register.Register(folder / "principals")


def known(enrolled: register.Register, time: clock.Clock) -> callers.Callers:
    """Callers without issuers."""
    return callers.Callers(enrolled, issuers.Issuers((), time), time)


def guards(
    enrolled: register.Register, fleet: object, time: clock.Clock, allowed: quotas.Quotas = quotas.USUAL
) -> door.Guards:
    """All guards, before a fleet of which they may ask what `bounds.Fleet` says."""
    calm = engine.Pressure(lambda: 0.0, time.monotonic)
    return door.guards(known(enrolled, time), cast("Any", fleet), allowed, time, calm)
