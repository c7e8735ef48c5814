"""What an instance is started from, and the program that this makes.

Rules kept here: the keeper's environment is not passed on, save what the host means for everybody; the variables of
the hand-over protocol outrank those of the manifest. Left out: what the child does before it runs (`entry`).
"""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import agent
from agent.keeper import entry, fields, groups, places, sources, spawn

PASSED_ON = ("HOME", "LANG", "LC_ALL", "PATH", "SSL_CERT_FILE", "TMPDIR", "TZ")  # facts of the host, not of the keeper
SDK = Path(agent.__file__).parent / "sdk"  # holds instar_handover and nothing else
PROBE_NAME = "instar-probe"
HANDOVER = "handover"
PLAIN = "plain"
KEEP = "keep"
STOP = "stop"
SIGNALS = ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGTTIN", "SIGTTOU", "SIGUSR1", "SIGUSR2", "SIGWINCH")
SIGNALLED_WORDS = ("pause", "resume", "drain", "stop")
DEFAULTS: fields.Body = {  # what version 1 of the protocol and of the records did not say
    "protocol": HANDOVER,
    "signals": {},
    "is_exclusive": False,
    "secrets": [],
    "on_agent_stop": KEEP,
    "environment_dir": "",
}


@dataclass(frozen=True, slots=True)
class Specification:
    """What an instance is.

    Args:
        sockets: Names of listeners, in the order in which the program gets them.
        protocol: HANDOVER, or PLAIN for a program without a control socket.
        signals: Of a plain instance, by word: the names of signals for its main process.
        is_exclusive: A roll back ends it before the old instance is resumed.
        on_agent_stop: KEEP or STOP, when the node is stopped and says no more than that.
    """

    id: str
    component: str
    version: str
    digest: str
    release_dir: str
    command: tuple[str, ...]
    environment: dict[str, str]
    sockets: tuple[str, ...]
    stop_timeout_seconds: float
    operation_id: str
    protocol: str = HANDOVER
    signals: dict[str, str] = field(default_factory=dict)
    is_exclusive: bool = False
    secrets: tuple[str, ...] = ()
    on_agent_stop: str = KEEP
    environment_dir: str = ""

    @property
    def source(self) -> sources.Source:
        """What its process is made from."""
        return sources.Source(
            component=self.component,
            version=self.version,
            digest=self.digest,
            release_dir=self.release_dir,
            command=self.command,
            environment=self.environment,
            environment_dir=self.environment_dir,
            secrets=self.secrets,
        )

    @property
    def is_plain(self) -> bool:
        """Whether it has no control socket."""
        return self.protocol == PLAIN

    def body(self) -> fields.Body:
        """Write it as `read` reads it."""
        lists = {"command": list(self.command), "sockets": list(self.sockets), "secrets": list(self.secrets)}
        return {**asdict(self), **lists}


def read(body: fields.Body) -> Specification:
    """Read what the agent, or a record, asks to be started.

    Raises:
        errors.RequestError: invalid_request.
    """
    body = {**DEFAULTS, **body}
    source = sources.read(body)
    return Specification(
        id=fields.identifier(body, "id"),
        component=source.component,
        version=source.version,
        digest=source.digest,
        release_dir=source.release_dir,
        command=source.command,
        environment=source.environment,
        sockets=tuple(fields.socket({"sockets": name}, "sockets") for name in fields.texts(body, "sockets")),
        stop_timeout_seconds=fields.seconds(body, "stop_timeout_seconds"),
        operation_id=fields.text(body, "operation_id"),
        protocol=fields.choice(body, "protocol", (HANDOVER, PLAIN)),
        signals=_read_signals(body),
        is_exclusive=fields.truth(body, "is_exclusive"),
        secrets=source.secrets,
        on_agent_stop=fields.choice(body, "on_agent_stop", (KEEP, STOP)),
        environment_dir=source.environment_dir,
    )


def _read_signals(body: fields.Body) -> dict[str, str]:
    signals = fields.mapping(body, "signals")
    for word, name in signals.items():
        fields.choice({"signals": word}, "signals", SIGNALLED_WORDS)
        fields.choice({"signals": name}, "signals", SIGNALS)
    return signals


def descriptor_name(socket_name: str, component: str) -> str:
    """Return the name under which a program gets a listener: without its component and its suffix."""
    return socket_name.removeprefix(f"{component}.").partition("~")[0]


def program(
    specification: Specification,
    where: places.Places,
    *,
    descriptors: Sequence[int],
    output: int,
    cgroup: str,
    owner: str,
) -> spawn.Program:
    """Make the program of an instance.

    Args:
        specification: What to start.
        where: The node's directories.
        descriptors: The listeners in order, then, if it is not plain, the probe listener and the control listener.
        output: Descriptor of the log.
        cgroup: Folder of its own cgroup; empty where it has none.
        owner: Mark of this launch.

    Raises:
        errors.RequestError: release_outside, environment_outside or command_outside.
    """
    source = specification.source
    names = [descriptor_name(name, specification.component) for name in specification.sockets]
    spoken: dict[str, str] = {}
    if not specification.is_plain:
        names.append(PROBE_NAME)
        spoken = {"INSTAR_CONTROL_FD": str(spawn.FIRST_DESCRIPTOR + len(names))}
    if names:
        spoken |= {"LISTEN_FDS": str(len(names)), "LISTEN_FDNAMES": ":".join(names)}
    return spawn.Program(
        argv=sources.argv(source, where),
        environment={
            **environment(source, where, specification.id),
            **spoken,
            "INSTAR_INSTANCE_ID": specification.id,
            groups.OWNER: owner,
        },
        directory=sources.release(source.release_dir, where),
        output=output,
        errors=output,
        descriptors=descriptors,
        check=entry.Entry(where, specification.id, source, cgroup).enter,
    )


def environment(source: sources.Source, where: places.Places, owner_id: str) -> dict[str, str]:
    """Make the variables that every process of a release gets."""
    path = (str(SDK), source.environment.get("PYTHONPATH", ""))
    credentials = {"CREDENTIALS_DIRECTORY": str(where.credentials(owner_id))} if source.secrets else {}
    venv = {"VIRTUAL_ENV": source.environment_dir} if source.environment_dir else {}
    return {
        **{name: os.environ[name] for name in PASSED_ON if name in os.environ},
        **source.environment,
        **venv,
        **credentials,
        "PYTHONPATH": os.pathsep.join(part for part in path if part),
        "PYTHONDONTWRITEBYTECODE": "1",  # a release is read-only: compiled files beside its own would change its digest
        "INSTAR_COMPONENT": source.component,
        "INSTAR_VERSION": source.version,
        "INSTAR_DIGEST": source.digest,
    }
