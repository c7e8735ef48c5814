"""A command of a release, as an instance or a task names it, and where on this node it is found.

Rules kept here: only what lies in a release directory is started, by its resolved path; "python" is the interpreter of
the release's own environment, or else the keeper's. Left out: the digests, which are checked in the child (`entry`).
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from agent.keeper import errors, fields, places


@dataclass(frozen=True, slots=True)
class Source:
    """What a process is made from.

    Args:
        environment_dir: Virtual environment of the release; empty where it has none.
        secrets: Names; the node's configuration says where each lies.
    """

    component: str
    version: str
    digest: str
    release_dir: str
    command: tuple[str, ...]
    environment: dict[str, str]
    environment_dir: str
    secrets: tuple[str, ...]


def read(body: fields.Body) -> Source:
    """Read it from a request or a record; version 1 of the protocol knew neither environments nor secrets.

    Raises:
        errors.RequestError: invalid_request.
    """
    body = {"environment_dir": "", "secrets": [], **body}
    source = Source(
        component=fields.identifier(body, "component"),
        version=fields.text(body, "version"),
        digest=fields.digest(body, "digest"),
        release_dir=fields.text(body, "release_dir"),
        command=fields.texts(body, "command"),
        environment=fields.mapping(body, "environment"),
        environment_dir=fields.text(body, "environment_dir"),
        secrets=tuple(fields.identifier({"secrets": name}, "secrets") for name in fields.texts(body, "secrets")),
    )
    if not source.command:
        raise fields.refuse("command", [], "it must name a program")
    return source


def release(release_dir: str, where: places.Places) -> Path:
    """Resolve a release directory.

    Raises:
        errors.RequestError: release_outside.
    """
    named = Path(release_dir)
    if named.is_symlink() or named.resolve().parent != where.releases.resolve() or not named.is_dir():
        rule = f"it must be a directory of {where.releases}"
        raise errors.RequestError("release_outside", f"cannot start from release_dir {named}: {rule}")
    return named.resolve()


def environment(source: Source, where: places.Places) -> Path | None:
    """Resolve the virtual environment; None where the release has none.

    Raises:
        errors.RequestError: environment_outside.
    """
    if not source.environment_dir:
        return None
    named = Path(source.environment_dir)
    if named.is_symlink() or named.resolve().parent != where.environments.resolve() or not named.is_dir():
        rule = f"it must be a directory of {where.environments}"
        raise errors.RequestError("environment_outside", f"cannot start from environment_dir {named}: {rule}")
    return named.resolve()


def argv(source: Source, where: places.Places) -> list[str]:
    """Make the words of the process.

    Raises:
        errors.RequestError: release_outside, environment_outside or command_outside.
    """
    found, venv = release(source.release_dir, where), environment(source, where)
    first, *rest = source.command
    if first in ("python", sys.executable):
        return [sys.executable if venv is None else str(venv / "bin" / "python"), "-B", *rest]
    named = (found / first).resolve()
    if not named.is_relative_to(found) or not named.is_file():
        rule = 'it must be "python" or name a file of the release'
        raise errors.RequestError("command_outside", f"cannot start command {first!r}: {rule}")
    return [str(named), *rest]
