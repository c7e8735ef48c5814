"""Looks whether a change can be done here and now, before anything is stopped.

Rules kept here: each check has a name and a stable code, and says whose fault it is: INFRASTRUCTURE for what the host
lacks now, COMMAND for what this node does not have, VERSION for a release that fails its own check; nothing changes.
`examine` is pure but for looking whether an address is free. Left out: the schema of the state (`agent.state`).
"""

from __future__ import annotations

import errno
import os
import resource
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Protocol

import psutil

from agent import drivers, probes, processes
from agent.config import semver, settings
from agent.core import model

DISK_RESERVE_BYTES = 64 * 1024**2  # left for the journal, logs and pointers
DESCRIPTORS_RESERVE = 64  # of a process beside what its manifest asks for: libraries, logs, sockets of the protocol
CHECK_TIMEOUT = timedelta(seconds=60)  # of check_command; it reads a configuration
OUTPUT_CHARS_MAX = 500  # of a failed check, in the message: its end says why
UNIX = "unix:"
KEEPER_DRIVERS = frozenset({"handover", "held", "reload"})  # the keeper holds the sockets of their components


@dataclass(frozen=True, slots=True)
class Host:
    """What the host has, as measured.

    Args:
        descriptors_max: What one process may open.
    """

    free_bytes: int
    memory_available_bytes: int
    descriptors_max: int


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of the node.

    Args:
        versions: Version of each component on the node.
        copies_bytes: What copies of the state will take: snapshot and migration.
    """

    change: drivers.Change
    config: settings.Config
    versions: Mapping[str, str]
    copies_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check saw; ``fault`` is None where it passed."""

    name: str
    seen: str
    fault: model.Fault | None = None
    reason: str = ""
    message: str = ""


class Listeners(Protocol):
    """The sockets that the keeper holds."""

    async def listen(self, name: str, address: str, *, backlog: int = 1024) -> str:
        """Open a listening socket once; the same name and address again is success."""
        ...


def measure(state_dir: Path) -> Host:
    """Measure the host."""
    disk = os.statvfs(state_dir)
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Host(disk.f_bavail * disk.f_frsize, psutil.virtual_memory().available, soft)


async def check(request: Request, host: Host, keeper: Listeners, run: probes.RunCommand) -> drivers.Evidence:
    """Do all checks, the release's own last.

    Raises:
        drivers.DriverError: A check failed; the first one that did.
    """
    seen: dict[str, str] = {}
    for finding in examine(request, host):
        if finding.fault is not None:
            raise drivers.DriverError(finding.message, fault=finding.fault, reason=finding.reason)
        seen[finding.name] = finding.seen
    return {**seen, **await _addresses(request, keeper), **await _own_check(request, run)}


def examine(request: Request, host: Host) -> Iterator[Finding]:
    """Do the checks that need nothing but what is known, in the order in which people would want to hear of them."""
    if request.change.new is None:
        return
    for judge in CHECKS:
        yield judge(request, request.change.new, host)


def _agent(_request: Request, new: drivers.Launch, _host: Host) -> Finding:
    needed, running = new.manifest.minimum_agent_version, settings.agent_version()
    if needed and not semver.matches(running, f">={needed}"):
        return _refused("agent", running, "agent_too_old", f"{_name(new)} needs agent {needed}, and this is {running}")
    return Finding("agent", running)


def _requirements(request: Request, new: drivers.Launch, _host: Host) -> Finding:
    for each in new.manifest.requirements:
        version = request.versions.get(each.component)
        if version is None:
            message = f"{_name(new)} needs {each.component}, which is not on this node"
            return _refused("requirements", each.component, "requirement_missing", message)
        if each.versions and not semver.matches(version, each.versions):
            message = f"{_name(new)} needs {each.component} {each.versions}, and this node has {version}"
            return _refused("requirements", each.component, "requirement_version", message)
    return Finding("requirements", str(len(new.manifest.requirements)))


def _hot_swap_from(request: Request, new: drivers.Launch, _host: Host) -> Finding:
    allowed, old = new.manifest.hot_swap_from, request.change.old
    is_asked = request.change.method is model.Method.HOT_SWAP and old is not None and old.digest != new.digest
    if is_asked and old is not None and allowed and not semver.matches(old.manifest.version, allowed):
        message = f"{_name(new)} takes over by HOT_SWAP from {allowed} only, and {old.manifest.version} runs"
        return _refused("hot_swap_from", old.manifest.version, "hot_swap_not_allowed", message)
    return Finding("hot_swap_from", allowed or "any")


def _secrets(request: Request, new: drivers.Launch, _host: Host) -> Finding:
    mapped = request.config.secrets.get(request.change.component, {})
    missing = [name for name in new.manifest.secrets if name not in mapped]
    if missing:
        rule = f"secrets.{request.change.component}.{missing[0]} is missing in the configuration of the node"
        return _refused("secrets", missing[0], "secret_not_mapped", f"{_name(new)} needs a secret: {rule}")
    return Finding("secrets", str(len(new.manifest.secrets)))


def _sockets(request: Request, new: drivers.Launch, _host: Host) -> Finding:
    missing = [each.name for each in new.manifest.sockets if each.name not in new.addresses]
    if missing:
        rule = f"sockets.{request.change.component}.{missing[0]} is missing in the configuration of the node"
        return _refused("sockets", missing[0], "address_missing", f"{_name(new)} needs an address: {rule}")
    return Finding("sockets", str(len(new.manifest.sockets)))


def _disk(request: Request, new: drivers.Launch, host: Host) -> Finding:
    needed = DISK_RESERVE_BYTES + new.manifest.resources.disk_bytes + request.copies_bytes
    return _measured("disk", host.free_bytes, needed, "disk_full", f"{_name(new)}: bytes of disk that are free")


def _memory(request: Request, new: drivers.Launch, host: Host) -> Finding:
    """A second instance needs room beside the first; a first one that ends before makes room for it."""
    old = request.change.old
    freed = old.manifest.resources.memory_bytes if old is not None and not _has_overlap(request.change) else 0
    needed = max(0, new.manifest.resources.memory_bytes - freed)
    available = host.memory_available_bytes
    return _measured("memory", available, needed, "memory_low", f"{_name(new)}: bytes of memory that are available")


def _descriptors(_request: Request, new: drivers.Launch, host: Host) -> Finding:
    asked = new.manifest.resources.descriptors
    needed = asked + DESCRIPTORS_RESERVE if asked else 0
    what = f"{_name(new)}: descriptors that a process may open"
    return _measured("descriptors", host.descriptors_max, needed, "descriptors_low", what)


CHECKS: Sequence[Callable[[Request, drivers.Launch, Host], Finding]] = (
    _agent,
    _requirements,
    _hot_swap_from,
    _secrets,
    _sockets,
    _disk,
    _memory,
    _descriptors,
)


def _measured(name: str, found: int, needed: int, reason: str, what: str) -> Finding:
    if found >= needed:
        return Finding(name, str(found))
    message = f"cannot start {what}: {found}, and {needed} are needed"
    return Finding(name, str(found), model.Fault.INFRASTRUCTURE, reason, message)


def _refused(name: str, seen: str, reason: str, rule: str) -> Finding:
    return Finding(name, seen, model.Fault.COMMAND, reason, f"cannot start {rule}")


def _name(new: drivers.Launch) -> str:
    return f"{new.manifest.name} {new.manifest.version}"


def _has_overlap(change: drivers.Change) -> bool:
    """Say whether both versions run at once for a while."""
    options = change.new.manifest.options if change.new else None
    return change.method is model.Method.HOT_SWAP or (isinstance(options, model.ProcessOptions) and options.has_overlap)


async def _addresses(request: Request, keeper: Listeners) -> drivers.Evidence:
    """See that nobody else listens where this component shall; what runs already has its own."""
    new, old = request.change.new, request.change.old
    if new is None:
        return {}
    own = {each.name for each in old.manifest.sockets} if old is not None else set()
    for each in new.manifest.sockets:
        address = new.addresses[each.name]
        if each.name not in own and not _is_free(address):
            await _refuse_foreign(new, f"{request.change.component}.{each.name}", address, keeper)
    return {"addresses": str(len(new.manifest.sockets))}


async def _refuse_foreign(new: drivers.Launch, name: str, address: str, keeper: Listeners) -> None:
    """An address in use is fine where the keeper itself holds it for this very socket, from an earlier try."""
    message = f"cannot start {_name(new)}: somebody else listens at {address}"
    if new.manifest.driver not in KEEPER_DRIVERS:
        raise drivers.DriverError(message, fault=model.Fault.INFRASTRUCTURE, reason="address_in_use")
    try:
        await keeper.listen(name, address)
    except processes.KeeperError as error:
        raise drivers.DriverError(message, fault=model.Fault.INFRASTRUCTURE, reason="address_in_use") from error


def _is_free(address: str) -> bool:
    """Try the address; an address that this host does not have is not free either."""
    if address.startswith(UNIX):
        return _is_unix_free(address.removeprefix(UNIX))
    host, _, port = address.rpartition(":")
    try:
        [(family, kind, protocol, _name_of_host, place), *_others] = socket.getaddrinfo(
            host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        with socket.socket(family, kind, protocol) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(place)
            tried.listen(1)
    except OSError:
        return False
    return True


def _is_unix_free(path: str) -> bool:
    """Ask whether anybody accepts there; a file that nobody listens at is a leftover."""
    with socket.socket(socket.AF_UNIX) as tried:
        tried.settimeout(0.0)  # a full backlog is not free either, and is not waited for
        return tried.connect_ex(path) in {errno.ENOENT, errno.ECONNREFUSED, errno.ENOTSOCK}


async def _own_check(request: Request, run: probes.RunCommand) -> drivers.Evidence:
    new = request.change.new
    if new is None or not new.manifest.check_command:
        return {}
    ran = await run(new.manifest.check_command, CHECK_TIMEOUT)
    if ran.exit_code == 0 and not ran.is_timeout:
        return {"check_command": "passed"}
    why = "it did not end in time" if ran.is_timeout else f"exit code {ran.exit_code}"
    message = f"cannot start {_name(new)}: its check_command failed: {why}: {ran.output[-OUTPUT_CHARS_MAX:]}"
    raise drivers.DriverError(message, fault=model.Fault.VERSION, reason="check_failed")
