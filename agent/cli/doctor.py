"""`instar-agent doctor`: looks at everything that this node needs, and names what is wrong and how it ought to be.

Rules kept here: it changes nothing; each check says what it looked at; a check that cannot be made has failed, but for
those that only matter to nodes that use what they look for, which are told as notes.
"""

from __future__ import annotations

import argparse
import os
import socket
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from agent import depot, journal
from agent.cli import answers, asking
from agent.config import layout, manifest, settings, trust
from agent.config.errors import ConfigError
from agent.stager import uv

CONNECT_SECONDS = 3.0  # to the controller; a far one answers within a second
FREE_BYTES_MIN = 256 * 1024**2  # below it the agent itself reports disk_low
CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Check:
    """What one look found; ``is_note`` where the node goes on without it."""

    name: str
    is_well: bool
    message: str
    is_note: bool = False


def main(config: settings.Config, chosen: argparse.Namespace) -> int:
    """Look at everything; failed where anything but a note is wrong."""
    found = [check for look in LOOKS for check in look(config)]
    is_well = all(check.is_well or check.is_note for check in found)
    document = {"is_well": is_well, "checks": [asdict(check) for check in found]}
    answers.say(document, "\n".join(_line(check) for check in found), chosen.output)
    return answers.EXIT_OK if is_well else answers.EXIT_FAILED


def _line(check: Check) -> str:
    word = "ok  " if check.is_well else ("note" if check.is_note else "FAIL")
    return f"{word} {check.name}: {check.message}"


def _state_dir(config: settings.Config) -> Iterator[Check]:
    yield _directory("state_dir", config.state_dir)
    if config.state_dir.is_dir():
        free_bytes = depot.Depot(config.layout).free_bytes()
        message = (
            f"{free_bytes >> 20} MiB are free below {config.state_dir}, at least {FREE_BYTES_MIN >> 20} are needed"
        )
        yield Check("disk", free_bytes >= FREE_BYTES_MIN, message)


def _run_dir(config: settings.Config) -> Iterator[Check]:
    yield _directory("run_dir", config.run_dir)
    size = len(os.fsencode(config.run_dir))
    message = f"{config.run_dir} has {size} bytes, at most {settings.RUN_DIR_BYTES_MAX} leave room for sockets"
    yield Check("run_dir_length", size <= settings.RUN_DIR_BYTES_MAX, message)


def _directory(name: str, path: Path) -> Check:
    if not path.is_dir():
        return Check(name, is_well=False, message=f"{path} is no directory; `instar-agent run` makes it")
    is_open = os.access(path, os.R_OK | os.W_OK | os.X_OK)
    return Check(name, is_open, f"{path} can {'' if is_open else 'not '}be read and written by user {os.geteuid()}")


def _journal(config: settings.Config) -> Iterator[Check]:
    try:
        contents = journal.read(config.state_dir)
    except (journal.JournalError, OSError) as error:
        yield Check("journal", is_well=False, message=str(error))
        return
    torn = f", {contents.damaged_slots} torn slots" if contents.damaged_slots else ""
    yield Check("journal", is_well=True, message=f"{len(contents.operations)} operations can be read{torn}")


def _keeper(config: settings.Config) -> Iterator[Check]:
    path = config.layout.keeper_socket
    is_up = asking.inspect(config) is not None
    yield Check("keeper", is_up, f"it {'answers' if is_up else 'does not answer'} at {path}")
    agent = asking.agent_status(config)
    yield Check("agent", agent is not None, f"it {'answers' if agent else 'does not answer'} at {config.agent_socket}")


def _token(config: settings.Config) -> Iterator[Check]:
    if config.token_file is None:
        yield Check("token_file", is_well=True, message="none: no controller leads this node")
        return
    try:
        settings.read_token(config.token_file)
    except ConfigError as error:
        yield Check("token_file", is_well=False, message=str(error))
    else:
        yield Check("token_file", is_well=True, message=f"{config.token_file} is its owner's alone")


def _trust(config: settings.Config) -> Iterator[Check]:
    try:
        read = trust.read(config)
    except ConfigError as error:
        yield Check("trust_file", is_well=False, message=str(error))
        return
    if read is None:
        message = "none: this node installs releases that nobody has signed"
        yield Check("trust_file", is_well=False, message=message, is_note=True)
    else:
        message = f"{config.trust_file} pins version {read.root_version} of the root; releases need signatures"
        yield Check("trust_file", is_well=True, message=message)


def _controller(config: settings.Config) -> Iterator[Check]:
    if config.token_file is None:
        return
    host, _, port = config.controller.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except OSError as error:
        yield Check("controller", is_well=False, message=f"{config.controller} cannot be reached: {error}")
    else:
        yield Check("controller", is_well=True, message=f"{config.controller} takes connections")


def _uv(config: settings.Config) -> Iterator[Check]:
    found = uv.find(config.uv)
    message = f"{found} is there" if found else "uv is not there; releases with Python requirements will be refused"
    yield Check("uv", found is not None, message, is_note=config.uv is None)


def _cgroup(_config: settings.Config) -> Iterator[Check]:
    """Say whether the keeper may give each instance a cgroup of its own."""
    path = _own_cgroup()
    if path is None:
        yield Check(
            "cgroup", is_well=False, message="this host has no cgroup v2; process groups are used", is_note=True
        )
        return
    is_open = os.access(path, os.W_OK)
    message = f"{path} can {'' if is_open else 'not '}be written; {'' if is_open else 'process groups are used'}"
    yield Check("cgroup", is_open, message.rstrip("; "), is_note=True)


def _own_cgroup() -> Path | None:
    for line in Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines():
        if line.startswith("0::"):
            path = CGROUPS / line.removeprefix("0::/")
            return path if (path / "cgroup.procs").exists() else None
    return None


def _components(config: settings.Config) -> Iterator[Check]:
    """Look at what each installed component needs of the configuration."""
    disk = depot.Depot(config.layout)
    for name, both in disk.components().items():
        for digest in sorted({both.current, both.permanent}):
            yield _release(config, disk, name, digest)


def _release(config: settings.Config, disk: depot.Depot, name: str, digest: str) -> Check:
    try:
        read = manifest.read(disk.release_dir(digest))
    except ConfigError as error:
        return Check(f"component {name}", is_well=False, message=str(error))
    missing = [f"sockets.{name}.{each.name}" for each in read.sockets if each.name not in config.sockets.get(name, {})]
    missing += [f"secrets.{name}.{each}" for each in read.secrets if each not in config.secrets.get(name, {})]
    if (
        read.python is not None
        and not layout.Layout(config.state_dir, config.run_dir).environment_digest(digest).exists()
    ):
        missing.append("its Python environment")
    message = f"{read.version} has all that it needs" if not missing else f"{read.version} lacks {', '.join(missing)}"
    return Check(f"component {name}", not missing, message)


def _secrets(config: settings.Config) -> Iterator[Check]:
    for component, files in config.secrets.items():
        for name, path in files.items():
            yield _secret(f"secrets.{component}.{name}", path)


def _secret(name: str, path: Path) -> Check:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        return Check(name, is_well=False, message=f"{path} cannot be read: {error}")
    is_private = not mode & stat.S_IRWXO
    return Check(
        name, is_private, f"{path} has mode {mode:04o}{'' if is_private else ': others than its owner read it'}"
    )


LOOKS: Sequence[Callable[[settings.Config], Iterator[Check]]] = (
    _state_dir,
    _run_dir,
    _journal,
    _keeper,
    _token,
    _trust,
    _controller,
    _secrets,
    _components,
    _uv,
    _cgroup,
)
