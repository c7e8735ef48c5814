"""What this node will not go below: versions of metadata that it has believed, and the latest time at which it did.

Rules kept here: the file is durable before a release is vouched for, so that a power cut takes nothing back that
python-tuf's own files may lose; a version counts only under the keys that vouched for it, so that rotated keys make a
version that was pushed far ahead harmless (5.3.11 of the specification); a damaged file lets nothing pass. The time
grows only with metadata that had not expired then, so a clock that ran years ahead leaves nothing behind. Left out:
the floor of versions of a component, which its publisher signs (`vouching`).

Source: https://theupdateframework.github.io/specification/latest/#update-root
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from agent import durability
from agent.verifier.errors import VerificationError

FILE_NAME = "floors.json"
FORMAT = 1
BEGINNING = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Floor:
    """The lowest version of a role that is believed.

    Args:
        keys: The set of keys that it holds for, as `key_set` writes it.
    """

    version: int
    keys: str


@dataclass(frozen=True, slots=True)
class Floors:
    """All that a node will not go below.

    Args:
        latest_at: The latest time at which metadata was believed.
    """

    latest_at: datetime = BEGINNING
    roles: Mapping[str, Floor] = field(default_factory=dict)

    def check(self, found: Mapping[str, Floor]) -> None:
        """Refuse metadata that goes back behind what was believed under the same keys.

        Raises:
            VerificationError: A version is too low (``metadata_rolled_back``).
        """
        for name, now in found.items():
            before = self.roles.get(name)
            if before is not None and before.keys == now.keys and now.version < before.version:
                rule = f"version {before.version} of it was believed here before"
                message = f"cannot trust version {now.version} of {name}: {rule}"
                raise VerificationError(
                    message, code="metadata_rolled_back", field=name, value=str(now.version), rule=rule
                )

    def raised(self, found: Mapping[str, Floor], at: datetime) -> Floors:
        """The floors after metadata was believed."""
        return Floors(max(self.latest_at, at), {**self.roles, **found})


def key_set(key_ids: list[str]) -> str:
    """Name a set of keys."""
    return hashlib.sha256("\n".join(sorted(key_ids)).encode()).hexdigest()


def read(directory: Path) -> Floors:
    """Read the floors; a node that has believed nothing yet has none.

    Raises:
        VerificationError: The file is damaged (``trust_damaged``).
        OSError: The disk fails.
    """
    path = directory / FILE_NAME
    try:
        checksum, _, text = path.read_bytes().partition(b"\n")
    except FileNotFoundError:
        return Floors()
    if hashlib.sha256(text).hexdigest().encode() != checksum:
        raise _damaged(path)
    try:
        document = json.loads(text)
        roles = {name: Floor(**floor) for name, floor in document["roles"].items()}
        return Floors(datetime.fromisoformat(document["latest_at"]), roles)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path) from error


def write(directory: Path, floors: Floors) -> None:
    """Make the floors durable.

    Raises:
        OSError: The disk is full or fails; those before stand.
    """
    roles = {name: {"version": each.version, "keys": each.keys} for name, each in sorted(floors.roles.items())}
    document = {"v": FORMAT, "latest_at": floors.latest_at.isoformat(), "roles": roles}
    text = json.dumps(document, indent=1).encode()
    durability.replace_file(directory / FILE_NAME, hashlib.sha256(text).hexdigest().encode() + b"\n" + text)


def _damaged(path: Path) -> VerificationError:
    rule = "it is as this node wrote it; who has made sure that nobody else did removes it"
    message = f"cannot trust any metadata: {path} is damaged; {rule}"
    return VerificationError(message, code="trust_damaged", field=path.name, rule=rule)
