"""Makes the environment of a release at its place, whole and durable, or leaves the place as it was.

Rules kept here: it grows under a name that starts with a dot, is flushed, measured, and takes its name by one rename;
the file with its digest comes last, so an environment without one does not count and is made anew. Left out: what uv
does (`uv`).
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agent import durability, stager
from agent.config import layout, manifest, settings
from agent.config.errors import ConfigError
from agent.core import model
from agent.keeper import digest as trees
from agent.keeper import errors as keeper_errors
from agent.stager import requirements, uv

STAGING_PREFIX = ".staging-"  # swept by the depot, since it starts with a dot
GONE_PREFIX = ".gone-"
DIRECTORY_MODE = 0o755
WRONG_WHEELS = ("hash mismatch", "no solution found", "no usable wheels", "no matching distribution", "not pinned")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the environment of one release goes."""

    release_dir: Path
    directory: Path
    digest_file: Path


def stage(places: layout.Layout, digest: str, config: settings.Config | None) -> Mapping[str, str]:
    """Make the environment that a release asks for; one that is there and whole is left alone.

    Returns:
        The digest of the environment as evidence; nothing where the release asks for none.

    Raises:
        stager.StagingError: It cannot be made; nothing of it is left.
        ConfigError: The manifest, or the requirements, are wrong.
        OSError: The disk is full or fails.
    """
    place = Place(places.release_dir(digest), places.environment_dir(digest), places.environment_digest(digest))
    wanted = manifest.read(place.release_dir).python
    if wanted is None:
        return {}
    made = _digest_of(place)
    return {"environment": made, "made": "earlier"} if made else _make(place, wanted, config)


def _make(place: Place, wanted: model.PythonEnvironment, config: settings.Config | None) -> Mapping[str, str]:
    count = _check_requirements(place, wanted)
    program = uv.find(config.uv if config else None)
    if program is None:
        where = "key uv of the configuration, beside the interpreter, or on PATH"
        raise stager.StagingError(f"cannot make the environment: uv is in none of: {where}", reason="uv_missing")
    source = _source(place, wanted, config)
    place.directory.parent.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
    staging = place.directory.with_name(f"{STAGING_PREFIX}{place.directory.name}-{os.getpid()}")
    for left in place.directory.parent.glob(f"{STAGING_PREFIX}{place.directory.name}-*"):
        shutil.rmtree(left, ignore_errors=True)  # of one that was killed
    disk = durability.FileSystem(place.directory.parent)
    try:
        _fill(program, staging, place.release_dir / wanted.requirements, source)
        disk.sync()
        measured = trees.environment_digest(staging)
        _publish(place, staging, measured)
    finally:
        disk.close()
        shutil.rmtree(staging, ignore_errors=True)
    return {"environment": measured, "packages": str(count), "interpreter": ".".join(map(str, sys.version_info[:3]))}


def _check_requirements(place: Place, wanted: model.PythonEnvironment) -> int:
    path = place.release_dir / wanted.requirements
    try:
        if path.stat().st_size > requirements.TEXT_BYTES_MAX:
            rule = f"{wanted.requirements} has at most {requirements.TEXT_BYTES_MAX} bytes"
            raise stager.StagingError(f"cannot make the environment: {rule}", reason="requirements_invalid")
        return requirements.check(wanted.requirements, path.read_text(encoding="utf-8"))
    except ConfigError as error:
        raise stager.StagingError(str(error), reason="requirements_invalid") from error
    except (OSError, UnicodeDecodeError) as error:
        message = f"cannot make the environment: {wanted.requirements} of the bundle cannot be read: {error}"
        raise stager.StagingError(message, reason="requirements_invalid") from error


def _source(place: Place, wanted: model.PythonEnvironment, config: settings.Config | None) -> uv.Source:
    if wanted.wheelhouse:
        wheelhouse = place.release_dir / wanted.wheelhouse
        if not wheelhouse.is_dir():
            rule = f"the wheelhouse {wanted.wheelhouse} is a folder of the bundle"
            raise stager.StagingError(f"cannot make the environment: {rule}", reason="requirements_invalid")
        return uv.Source(wheelhouse, "")
    index = config.python_index if config else ""
    if not index:
        rule = "a bundle without a wheelhouse needs python_index in the configuration of the node"
        raise stager.StagingError(f"cannot make the environment: {rule}", reason="index_missing")
    return uv.Source(None, index)


def _fill(program: Path, staging: Path, locked: Path, source: uv.Source) -> None:
    try:
        uv.make(program, staging)
        uv.install(program, staging, locked, source)
    except uv.UvError as error:
        said = str(error)
        is_wrong = source.wheelhouse is not None or any(words in said.lower() for words in WRONG_WHEELS)
        code = "requirements_not_met" if is_wrong else "index_failed"
        raise stager.StagingError(f"cannot make the environment: {said}", reason=code) from error


def _publish(place: Place, staging: Path, measured: str) -> None:
    """Put the environment in its place; what was there had no digest, or not the right one."""
    place.digest_file.unlink(missing_ok=True)
    gone = place.directory.with_name(f"{GONE_PREFIX}{staging.name}")
    if place.directory.is_dir():
        place.directory.rename(gone)
    staging.rename(place.directory)
    durability.replace_file(place.digest_file, f"{measured}\n".encode(), mode=0o644)
    shutil.rmtree(gone, ignore_errors=True)


def _digest_of(place: Place) -> str:
    """Digest of the environment that is there; empty where there is none, or it was changed."""
    try:
        told = place.digest_file.read_text(encoding="ascii").strip()
        return told if trees.environment_digest(place.directory) == told else ""
    except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError, keeper_errors.RequestError):
        return ""
