"""The file that says whom this node trusts: trust.toml, and the root of release metadata that it pins.

Rules kept here: both belong to root and only their owner writes them, so that the agent's user cannot choose whom it
trusts; a node of one ordinary user has nobody else to ask. What cannot be used is refused, never passed over. Left out:
signatures, which only the verifier's child looks at.
"""

from __future__ import annotations

import json
import os
import stat
import tomllib
from dataclasses import dataclass
from pathlib import Path

from agent.config import settings
from agent.config.errors import ConfigError

ROOT_UID = 0
FORBIDDEN_MODE = stat.S_IWGRP | stat.S_IWOTH
FILE_BYTES_MAX = 512_000  # of either; as python-tuf takes of a root
WRITERS_RULE = "it and its folder belong to root, and only their owner writes there"


@dataclass(frozen=True, slots=True)
class Trust:
    """Whom a node trusts.

    Args:
        root: The pinned root, as it stands in its file.
        root_version: Its version; later ones are believed only one by one from here.
    """

    root: bytes
    root_version: int


def read(config: settings.Config) -> Trust | None:
    """Read whom the node trusts; None where it was told nobody.

    Raises:
        ConfigError: The files cannot be read or used, or somebody may write there who must not.
    """
    if config.trust_file is None:
        return None
    owners = {ROOT_UID} if config.agent_user else {ROOT_UID, os.geteuid()}
    pinned = config.trust_file.parent / _root_name(_content("trust_file", config.trust_file, owners))
    root = _content("trust_file.root", pinned, owners)
    return Trust(root, _version(root, pinned))


def _root_name(text: bytes) -> str:
    try:
        document = tomllib.loads(text.decode())
    except ValueError as error:
        raise ConfigError(f"cannot read trust_file: {error}", field="trust_file", rule="TOML 1.0") from error
    for key, value in document.items():
        if key != "root":
            raise _unusable(f"trust_file.{key}", str(value), "its only key is root")
    name = document.get("root")
    if not isinstance(name, str) or not name:
        raise _unusable("trust_file.root", str(name), "it is the path of a root of release metadata")
    return name


def _version(root: bytes, path: Path) -> int:
    try:
        signed = json.loads(root)["signed"]
        kind, version = signed["_type"], signed["version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        kind, version = "", 0
    if kind != "root" or not isinstance(version, int) or version < 1:
        raise _unusable("trust_file.root", str(path), "it is a root of release metadata")
    return version


def _content(name: str, path: Path, owners: set[int]) -> bytes:
    try:
        with path.open("rb") as file:
            for status in (os.fstat(file.fileno()), path.parent.stat(), path.resolve().parent.stat()):
                if status.st_uid not in owners or status.st_mode & FORBIDDEN_MODE:
                    raise _unusable(name, str(path), WRITERS_RULE)
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {name} {path}: {error}", field=name, value=str(path)) from error
    if len(content) > FILE_BYTES_MAX:
        raise _unusable(name, str(path), f"it has at most {FILE_BYTES_MAX} bytes")
    return content


def _unusable(name: str, value: str, rule: str) -> ConfigError:
    return ConfigError(f"cannot use {name} = {value!r}: {rule}", field=name, value=value, rule=rule)
