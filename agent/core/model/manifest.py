"""How one version of a component is run, probed and upgraded, as its bundle says.

Rules kept here: defaults are filled, everything was checked (`agent.config.manifest`). Left out: the TOML.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from agent.core.model.words import OnAgentStop, ReloadProgram


@dataclass(frozen=True, slots=True)
class HttpCheck:
    """Passes when the answer to GET has a status from 200 to 399."""

    path: str


@dataclass(frozen=True, slots=True)
class TcpCheck:
    """Passes when the socket accepts a connection."""


@dataclass(frozen=True, slots=True)
class GrpcCheck:
    """Passes when grpc.health.v1.Health/Check answers SERVING; ``service`` is empty for the whole server."""

    service: str


@dataclass(frozen=True, slots=True)
class ExecCheck:
    """Passes when the command of the release ends with exit code 0."""

    command: tuple[str, ...]


Check = HttpCheck | TcpCheck | GrpcCheck | ExecCheck


@dataclass(frozen=True, slots=True)
class Probe:
    """Asks an instance whether it is well.

    Args:
        failure_threshold: Failures in a row that make the instance unhealthy, from 1.
        socket: Name of the manifest's socket that is asked; empty for the private probe socket.
    """

    check: Check
    period: timedelta
    timeout: timedelta
    failure_threshold: int
    socket: str = ""


@dataclass(frozen=True, slots=True)
class Socket:
    """A listening socket that the keeper holds; the node's configuration maps its name to an address."""

    name: str
    backlog: int


@dataclass(frozen=True, slots=True)
class MetricsSource:
    """Where an instance shows its metrics as Prometheus text, and the series to report; ``socket`` as for Probe."""

    path: str
    series: tuple[str, ...]
    period: timedelta
    socket: str = ""


@dataclass(frozen=True, slots=True)
class Migration:
    """A command that leads the state from one schema to another, forwards or backwards."""

    from_schema: int
    to_schema: int
    command: tuple[str, ...]
    timeout: timedelta


@dataclass(frozen=True, slots=True)
class StateSchema:
    """What a component keeps over its versions.

    Args:
        schema: The one that this version writes, from 1.
        reads: Older ones that it reads and writes as they are.
        has_snapshot: A rollback point holds a copy.
    """

    schema: int
    reads: tuple[int, ...] = ()
    has_snapshot: bool = False
    migrations: tuple[Migration, ...] = ()


@dataclass(frozen=True, slots=True)
class Resources:
    """What one instance needs of the host; 0 where it does not say."""

    memory_bytes: int = 0
    disk_bytes: int = 0
    descriptors: int = 0


@dataclass(frozen=True, slots=True)
class Requirement:
    """Another component that must be on the node; ``versions`` are comparators of SemVer, empty for any."""

    component: str
    versions: str = ""


@dataclass(frozen=True, slots=True)
class PythonEnvironment:
    """Files of the bundle that a virtual environment is made from; ``wheelhouse`` is empty for the node's index."""

    requirements: str
    wheelhouse: str = ""


@dataclass(frozen=True, slots=True)
class HandoverOptions:
    """How a program takes its sockets over."""

    is_listen_fds_only: bool = False


@dataclass(frozen=True, slots=True)
class HeldOptions:
    """For how long connections wait in the backlog while nothing serves."""

    hold_timeout: timedelta


@dataclass(frozen=True, slots=True)
class ProcessOptions:
    """How a program without a socket of the keeper changes.

    Args:
        has_overlap: The new version starts before the old one is stopped.
        settle_duration: Time for which an instance without a readiness probe must live to count as ready.
    """

    has_overlap: bool
    settle_duration: timedelta


@dataclass(frozen=True, slots=True)
class ReloadOptions:
    """Which program it is."""

    program: ReloadProgram


@dataclass(frozen=True, slots=True)
class ModuleOptions:
    """A Python component inside a host process; ``host`` is the component whose process it is."""

    host: str
    file: str
    suspend_timeout: timedelta


@dataclass(frozen=True, slots=True)
class SystemdOptions:
    """How the unit is made."""

    is_notifying: bool = False


@dataclass(frozen=True, slots=True)
class ExecOptions:
    """The user's own commands by verb; one that is absent does nothing and succeeds."""

    commands: Mapping[str, tuple[str, ...]]
    timeout: timedelta
    is_hot_swap: bool = False


@dataclass(frozen=True, slots=True)
class OtherOptions:
    """Options of a driver of somebody else, as they stand."""

    values: Mapping[str, str]


Options = (
    HandoverOptions
    | HeldOptions
    | ProcessOptions
    | ReloadOptions
    | ModuleOptions
    | SystemdOptions
    | ExecOptions
    | OtherOptions
)


@dataclass(frozen=True, slots=True)
class Manifest:
    """How one version of a component is run, probed and upgraded.

    Args:
        command: Program and arguments as the bundle says them; resolved against the release when started.
        prepare_timeout: Time that a new instance may take until it says prepared.
        drain_timeout: Time that an old instance may take to finish its connections.
        stop_timeout: Time between SIGTERM and SIGKILL.
        minimum_agent_version: SemVer text; empty for any.
        options: Those of its driver.
        secrets: Names; the node's configuration maps each to a file.
        hot_swap_from: Comparators of SemVer; empty for all versions.
    """

    name: str
    version: str
    driver: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    sockets: tuple[Socket, ...]
    readiness: Probe | None
    health: Probe | None
    metrics: MetricsSource | None
    prepare_timeout: timedelta
    drain_timeout: timedelta
    stop_timeout: timedelta
    minimum_agent_version: str = ""
    options: Options = field(default_factory=HandoverOptions)
    on_agent_stop: OnAgentStop = OnAgentStop.KEEP
    secrets: tuple[str, ...] = ()
    state: StateSchema | None = None
    resources: Resources = field(default_factory=Resources)
    requirements: tuple[Requirement, ...] = ()
    python: PythonEnvironment | None = None
    check_command: tuple[str, ...] = ()
    hot_swap_from: str = ""
