"""Which release of the agent is meant, and the program that it makes.

Rules kept here: the packaged agent is the one that the keeper was started with, and has no digest; a release is run
from its own directory of `releases`, found before everything else on the path of Python, after its digest has been
computed again; it is never compiled in place, for a release is read-only. Left out: which one should run (`agents`).
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.keeper import entry, fields, places, sources, spawn

COMPONENT = "instar-agent"  # the agent, as the node's components name it
PACKAGED_PATH = "INSTAR_KEEPER_PACKAGED_PATH"  # PYTHONPATH of the keeper that the host started; outlives an execve
COMPILED_PATH = "PYTHONPYCACHEPREFIX"  # the keeper's own alone: what the agent could write there would be run as root
DIGEST_PREFIX = "sha256:"


@dataclass(frozen=True, slots=True)
class Release:
    """A version of the agent; both fields are empty for the packaged one."""

    digest: str = ""
    directory: str = ""


PACKAGED = Release()


def pointed(where: places.Places, pointer: str) -> Release | None:
    """Return the release that a pointer of the component names; None where there is none."""
    try:
        name = (where.state / "components" / COMPONENT / pointer).readlink().name
    except OSError:
        return None
    digest = DIGEST_PREFIX + name
    directory = where.releases / name
    return Release(digest, str(directory)) if fields.DIGEST.fullmatch(digest) and directory.is_dir() else None


def read(body: fields.Body, where: places.Places) -> Release:
    """Read the release that a request names.

    Raises:
        errors.RequestError: invalid_request or release_outside.
    """
    digest = fields.digest(body, "digest")
    return Release(digest, str(sources.release(fields.text(body, "release_dir"), where)))


def program(release: Release, argv: Sequence[str], where: places.Places) -> spawn.Program:
    """Make the program that runs the agent's command from a release, as the agent's user."""

    def check() -> Mapping[str, str]:
        if release.digest:
            entry.check_release(release.directory, release.digest)
        return entry.become_agent(where.config)

    return spawn.Program(argv, environment(release), Path.cwd(), check=check)


def environment(release: Release) -> dict[str, str]:
    """Make the environment in which Python finds a release first."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", COMPILED_PATH)}
    path = os.pathsep.join(filter(None, (release.directory, packaged_path())))
    found = {**inherited, PACKAGED_PATH: packaged_path(), **({"PYTHONPATH": path} if path else {})}
    if not release.digest:
        return found
    # What lies in the present directory is not the release.
    return {**found, "PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def packaged_path() -> str:
    """Where the keeper that the host started, and its agent, were found."""
    return os.environ.get(PACKAGED_PATH, os.environ.get("PYTHONPATH", ""))
