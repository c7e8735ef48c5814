"""What an instance is started from, and the program that this makes.

Rules kept here: only what lies in a release directory is started, by its resolved path, after its digest has been
computed again; "python" is the keeper's own interpreter. The keeper's environment is not passed on, save what the
host means for everybody; the variables of the hand-over protocol outrank those of the manifest.
"""

import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import agent
from agent.keeper import errors, fields, places, spawn

PASSED_ON = ("HOME", "LANG", "LC_ALL", "PATH", "SSL_CERT_FILE", "TMPDIR", "TZ")  # facts of the host, not of the keeper
SDK = Path(agent.__file__).parent / "sdk"  # holds instar_handover and nothing else
PROBE_NAME = "instar-probe"


@dataclass(frozen=True, slots=True)
class Specification:
    """What an instance is.

    Args:
        sockets: Names of listeners, in the order in which the program gets them.
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

    def body(self) -> fields.Body:
        """Write it as `read` reads it."""
        return {**asdict(self), "command": list(self.command), "sockets": list(self.sockets)}


def read(body: fields.Body) -> Specification:
    """Read what the agent, or a record, asks to be started.

    Raises:
        errors.RequestError: invalid_request.
    """
    specification = Specification(
        id=fields.identifier(body, "id"),
        component=fields.identifier(body, "component"),
        version=fields.text(body, "version"),
        digest=fields.digest(body, "digest"),
        release_dir=fields.text(body, "release_dir"),
        command=fields.texts(body, "command"),
        environment=fields.mapping(body, "environment"),
        sockets=fields.texts(body, "sockets"),
        stop_timeout_seconds=fields.seconds(body, "stop_timeout_seconds"),
        operation_id=fields.text(body, "operation_id"),
    )
    if not specification.command:
        raise fields.refuse("command", [], "it must name a program")
    return specification


def program(
    specification: Specification, where: places.Places, *, descriptors: tuple[int, ...], output: int
) -> spawn.Program:
    """Make the program of an instance.

    Args:
        specification: What to start.
        where: The node's directories.
        descriptors: The listeners in order, then the probe listener, then the control listener.
        output: Descriptor of the log.

    Raises:
        errors.RequestError: release_outside or command_outside.
    """
    release = _release(specification, where)
    listeners = (*(name.removeprefix(f"{specification.component}.") for name in specification.sockets), PROBE_NAME)
    path = (str(SDK), specification.environment.get("PYTHONPATH", ""))
    environment = {
        **{name: os.environ[name] for name in PASSED_ON if name in os.environ},
        **specification.environment,
        "PYTHONPATH": os.pathsep.join(part for part in path if part),
        "PYTHONDONTWRITEBYTECODE": "1",  # a release is read-only: compiled files beside its own would change its digest
        "LISTEN_FDS": str(len(listeners)),
        "LISTEN_FDNAMES": ":".join(listeners),
        "INSTAR_CONTROL_FD": str(spawn.FIRST_DESCRIPTOR + len(listeners)),
        "INSTAR_INSTANCE_ID": specification.id,
        "INSTAR_COMPONENT": specification.component,
        "INSTAR_VERSION": specification.version,
        "INSTAR_DIGEST": specification.digest,
    }
    return spawn.Program(
        argv=_argv(specification, release),
        environment=environment,
        directory=release,
        output=output,
        errors=output,
        descriptors=descriptors,
        check=lambda: _check_digest(release, specification.digest),
    )


def _release(specification: Specification, where: places.Places) -> Path:
    release = Path(specification.release_dir)
    if release.is_symlink() or release.resolve().parent != where.releases.resolve() or not release.is_dir():
        rule = f"it must be a directory of {where.releases}"
        raise errors.RequestError("release_outside", f"cannot start from release_dir {release}: {rule}")
    return release.resolve()


def _argv(specification: Specification, release: Path) -> list[str]:
    first, *rest = specification.command
    if first in ("python", sys.executable):
        return [sys.executable, "-B", *rest]
    named = (release / first).resolve()
    if not named.is_relative_to(release) or not named.is_file():
        rule = 'it must be "python" or name a file of the release'
        raise errors.RequestError("command_outside", f"cannot start command {first!r}: {rule}")
    return [str(named), *rest]


def _check_digest(release: Path, expected: str) -> None:
    from agent.keeper import digest  # noqa: PLC0415  # OpenSSL would cost the keeper 4 MiB; only the forked child pays

    found = digest.tree_digest(release)
    if found != expected:
        raise errors.RequestError(
            "digest_mismatch", f"cannot start from {release}: its digest is {found}, not {expected}"
        )
