"""Units as text, and what they say: pure.

For each socket of the manifest there is a `.socket` unit, whose listener PID 1 holds; for each instance a `.service`
unit that takes those listeners. A socket unit must name a service that traffic starts; that is the anchor, which is
always active and runs nothing, so that only instances ever accept, and none is started behind the agent's back.

Rules kept here: what is committed has Restart=always, and nothing else has, so the unit itself says which instance is
kept; no start limit, for a unit that runs into one would close its sockets. Left out: systemd (`systemctl`).

Source: systemd.socket(5), systemd.service(5); escaping as in systemd.syntax(7).
"""

from __future__ import annotations

import configparser
import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from agent import drivers
from agent.core import model

KEY_DIGITS = 8  # of a node, for several may live on one host
RESTART_SECONDS = 1  # between the end of a committed instance and its next start
BROKEN_RESTARTS = 5  # of a unit that waits for the next one; systemd goes on all the same
SECTION = "X-Instar"  # systemd leaves sections alone whose names begin so


@dataclass(frozen=True, slots=True)
class Unit:
    """What a service unit says of itself.

    Args:
        stop_timeout: Between SIGTERM and SIGKILL for all its processes.
    """

    name: str
    component: str
    instance: str
    digest: str
    is_kept: bool
    stop_timeout: timedelta


@dataclass(frozen=True, slots=True)
class Names:
    """Names of one node's units.

    Args:
        key: Tells the nodes of a host apart.
    """

    key: str

    @property
    def prefix(self) -> str:
        """Of every unit."""
        return f"instar-{self.key}"

    def service(self, instance: str) -> str:
        """Unit of an instance."""
        return f"{self.prefix}-{instance}.service"

    def socket(self, owner: str, name: str) -> str:
        """Unit of a socket; the owner is a component, or the instance of a rehearsal."""
        return f"{self.prefix}-{owner}.{name}.socket"

    def anchor(self, owner: str) -> str:
        """Unit that the sockets name."""
        return f"{self.prefix}.{owner}.service"


def names(state_dir: Path) -> Names:
    """Make the names of a node."""
    return Names(hashlib.sha256(str(state_dir.resolve()).encode()).hexdigest()[:KEY_DIGITS])


def sockets(of: Names, owner: str, launch: drivers.Launch, addresses: Mapping[str, str]) -> Mapping[str, str]:
    """Texts of the socket units and their anchor, by name; none where the manifest has no socket."""
    anchor = of.anchor(owner)
    made = {
        of.socket(owner, each.name): _socket(anchor, each, addresses[each.name]) + _owned(owner)
        for each in launch.manifest.sockets
    }
    return {**made, anchor: _anchor(owner) + _owned(owner)} if made else {}


def service(
    of: Names, owner: str, component: str, launch: drivers.Launch, *, is_kept: bool = False, back_to: str = ""
) -> str:
    """Text of an instance's unit.

    Args:
        of: Names of the node.
        owner: Of the sockets.
        component: Name of the component.
        launch: The release, and the instance that it is started as.
        is_kept: It is the committed one.
        back_to: Unit that systemd starts when this one fails before it is committed; empty for none.
    """
    manifest = launch.manifest
    options = manifest.options
    is_notifying = isinstance(options, model.SystemdOptions) and options.is_notifying
    stop = manifest.drain_timeout + manifest.stop_timeout
    lines = [
        "[Unit]",
        f"Description={_plain(f'{component} {manifest.version}, instance {launch.instance_id}')}",
        "StartLimitIntervalSec=0",
        *([f"OnFailure={back_to}"] if back_to and not is_kept else []),
        "[Service]",
        f"Type={'notify' if is_notifying else 'exec'}",
        f"ExecStart={' '.join(_quoted(word, is_command=True) for word in _argv(launch))}",
        *([f"User={launch.user}"] if launch.user else []),
        f"WorkingDirectory={_plain(str(launch.release_dir.resolve()))}",
        *(f"Environment={_quoted(f'{name}={text}')}" for name, text in _environment(component, launch).items()),
        *(f"Sockets={of.socket(owner, each.name)}" for each in manifest.sockets),
        f"Restart={'always' if is_kept else 'no'}",
        f"RestartSec={RESTART_SECONDS}",
        f"TimeoutStartSec={manifest.prepare_timeout.total_seconds():g}",
        f"TimeoutStopSec={stop.total_seconds():g}",
        "KillMode=mixed",
        "NotifyAccess=main",
        *_about(component, launch),
    ]
    return "\n".join((*lines, ""))


def read(name: str, text: str) -> Unit | None:
    """Read an instance's unit; None for a unit that is none."""
    parser = configparser.RawConfigParser(strict=False)
    parser.read_string(text)
    if not parser.has_option(SECTION, "Instance"):
        return None
    own = parser[SECTION]
    is_kept = parser.get("Service", "Restart", fallback="no") == "always"
    stop_timeout = timedelta(seconds=parser.getfloat("Service", "TimeoutStopSec"))
    return Unit(name, own["Component"], own["Instance"], own["Digest"], is_kept, stop_timeout)


def is_of_sockets(text: str, owner: str) -> bool:
    """Whether a unit is a socket, or the anchor, of an owner."""
    return text.endswith(_owned(owner))


def instance_of(unit: Unit, shown: Mapping[str, str]) -> model.Instance:
    """What systemd shows of a unit, in the agent's words."""
    return model.Instance(
        id=unit.instance,
        digest=unit.digest,
        pid=int(shown["MainPID"]),
        state=_state(shown),
        served=0,
        is_kept=unit.is_kept,
        restarts=int(shown["NRestarts"]),
        started_at_seconds=int(shown["ExecMainStartTimestampMonotonic"]) / 1e6,
        is_broken=shown["SubState"] == "auto-restart" and int(shown["NRestarts"]) >= BROKEN_RESTARTS,
    )


def _state(shown: Mapping[str, str]) -> model.InstanceState:
    match shown["ActiveState"]:
        case "active" | "reloading":
            return model.InstanceState.ACTIVE
        case "activating" if shown["SubState"] != "auto-restart":
            return model.InstanceState.STARTING
        case "deactivating":
            return model.InstanceState.DRAINING
        case "inactive":
            return model.InstanceState.PAUSED
        case _:
            return model.InstanceState.EXITED


def _socket(anchor: str, socket: model.Socket, address: str) -> str:
    return "\n".join(
        (
            "[Unit]",
            f"Description={_plain(f'socket {socket.name} at {address}')}",
            "[Socket]",
            f"ListenStream={_plain(address.removeprefix('unix:'))}",
            f"Backlog={socket.backlog}",
            f"FileDescriptorName={socket.name}",
            f"Service={anchor}",
            "RemoveOnStop=yes",
            "",
        )
    )


def _anchor(owner: str) -> str:
    description = _plain(f"sockets of {owner}")
    return f"[Unit]\nDescription={description}\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n"


def _argv(launch: drivers.Launch) -> Sequence[str]:
    """Program and arguments; the program lies in the release, or is its interpreter.

    Raises:
        drivers.DriverError: It is neither.
    """
    first, *rest = launch.manifest.command
    if first == "python":
        found = launch.environment_dir / "bin" / "python" if launch.environment_dir else Path(sys.executable)
        return (str(found), "-B", *rest)
    release = launch.release_dir.resolve()
    program = (release / first).resolve()
    if not program.is_relative_to(release) or not program.is_file():
        message = f'cannot start command {first!r}: it must be "python" or name a file of the release'
        raise drivers.DriverError(message, fault=model.Fault.VERSION, reason="command_outside")
    return (str(program), *rest)


def _environment(component: str, launch: drivers.Launch) -> Mapping[str, str]:
    state = {"STATE_DIRECTORY": str(launch.state_dir)} if launch.state_dir else {}
    trace = {"TRACEPARENT": launch.traceparent} if launch.traceparent else {}
    venv = {"VIRTUAL_ENV": str(launch.environment_dir)} if launch.environment_dir else {}
    return {
        **launch.manifest.environment,
        **venv,
        **state,
        **trace,
        "PYTHONDONTWRITEBYTECODE": "1",  # compiled files would change the release's digest
        "INSTAR_COMPONENT": component,
        "INSTAR_INSTANCE_ID": launch.instance_id,
        "INSTAR_VERSION": launch.manifest.version,
        "INSTAR_DIGEST": launch.digest,
    }


def _owned(owner: str) -> str:
    return f"[{SECTION}]\nOwner={owner}\n"


def _about(component: str, launch: drivers.Launch) -> tuple[str, ...]:
    return (
        f"[{SECTION}]",
        f"Component={component}",
        f"Instance={launch.instance_id}",
        f"Digest={launch.digest}",
    )


def _plain(text: str) -> str:
    return text.replace("%", "%%").replace("\n", " ")


def _quoted(text: str, *, is_command: bool = False) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("%", "%%")
    return f'"{escaped.replace("$", "$$") if is_command else escaped}"'
