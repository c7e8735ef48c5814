"""Whether what this node trusts vouches for a release: signed metadata names it, with these very bytes.

Rules kept here: what the floors say is durable before a release is vouched for; one child at a time looks at the
metadata of a node; a version below the floor that the publisher signed is refused, also one that is still named; the
later of the clock and the latest time at which anything was believed judges expiries, so a clock that was set back
makes nothing young again. Left out: the bytes and the manifest of the bundle (`agent.verifier.__main__`).
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tuf.api.metadata import Metadata, Root, TargetFile

from agent.config import layout, semver
from agent.config.trust import Trust
from agent.verifier import floors, listing, metadata, updating
from agent.verifier.errors import VerificationError

LOCK_NAME = "lock"
BELIEVED_NAME = "metadata"
CUSTOM_KEY = "instar"
CUSTOM_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Release:
    """What is to be vouched for.

    Args:
        hex_digits: SHA-256 of its bundle's bytes, already computed from them where they are here.
        size_bytes: Number of these bytes; None where they are unpacked, and no others have that digest, or not fetched.
    """

    component: str
    version: str
    hex_digits: str
    size_bytes: int | None


@dataclass(frozen=True, slots=True)
class Vouched:
    """What vouches for a release.

    Args:
        told: Versions of the metadata, and the component's floor.
        size_bytes: Length of its bundle, as it is signed.
    """

    told: Mapping[str, object]
    size_bytes: int


def vouch(trust: Trust, places: layout.Layout, release: Release, now: datetime) -> Vouched:
    """Judge a release by the metadata that was fetched for its component.

    Args:
        trust: Whom the node trusts.
        places: Where its files are.
        release: What is to be vouched for.
        now: The host's clock, in UTC.

    Returns:
        What vouches for it.

    Raises:
        VerificationError: The metadata cannot be believed, or does not vouch for it.
        OSError: The disk is full or fails.
    """
    if release.component in metadata.TOP_LEVEL:
        raise _refused(release, "release_unsigned", "a component is not named as a role of the metadata is")
    places.trust_dir.mkdir(mode=0o700, exist_ok=True)
    with _alone(places.trust_dir):
        believed = _believe(trust, places, release, now)
    floor, size_bytes = _check(believed.role, release)
    return Vouched({**believed.versions(), "floor": floor}, size_bytes)


def _believe(trust: Trust, places: layout.Layout, release: Release, now: datetime) -> metadata.Believed:
    known = floors.read(places.trust_dir)
    at = max(now, known.latest_at)
    directory = places.trust_dir / BELIEVED_NAME
    directory.mkdir(mode=0o700, exist_ok=True)
    with updating.opened(places.incoming_metadata_dir) as source:
        updating.refresh(trust.root, source, directory)
        believed = metadata.load(directory, source, release.component, _path(release))
    found = believed.floors(Metadata[Root].from_bytes(trust.root).signed)
    known.check(found)
    believed.check(at)
    floors.write(places.trust_dir, known.raised(found, at))
    return believed


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Wait until no other child looks at the metadata; one that hangs is killed by the keeper."""
    with (directory / LOCK_NAME).open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _check(role: listing.Listing | None, release: Release) -> tuple[str, int]:
    """Refuse what is not vouched for; returns the component's floor, and the length that is signed."""
    if role is None:
        raise _refused(release, "release_unsigned", "signed metadata names its component")
    floor = _floor(role, release)
    target = role.target(_path(release))
    if target is None:
        raise _refused(release, "release_unsigned", "signed metadata names it; it was withdrawn, or never signed")
    if not _is_of(target, release):
        told = f"sha256:{target.hashes.get('sha256', '')}"
        raise _refused(release, "digest_mismatch", f"it is signed as {told} of {target.length} bytes")
    return floor, target.length


def _is_of(target: TargetFile, release: Release) -> bool:
    is_long = release.size_bytes in (None, target.length)
    return is_long and target.hashes.get("sha256") == release.hex_digits


def _floor(role: listing.Listing, release: Release) -> str:
    """The highest floor that any release of the component raises; empty where there is none."""
    raised = {text: _version(text, release) for target in role.targets() if (text := _raises(target, release))}
    floor = max(raised, key=lambda text: raised[text], default="")
    if floor and _version(release.version, release) < raised[floor]:
        raise _refused(release, "release_below_floor", f"releases below {floor} are not installed any more")
    return floor


def _raises(target: TargetFile, release: Release) -> str:
    custom = (target.custom or {}).get(CUSTOM_KEY, {"v": CUSTOM_FORMAT})
    if not isinstance(custom, dict) or custom.get("v") != CUSTOM_FORMAT:
        raise _refused(release, "release_below_floor", f"this agent can read what {target.path} says of the floor")
    return str(custom.get("floor") or "")


def _version(text: str, release: Release) -> semver.Version:
    version = semver.parse(text)
    if version is None:
        raise _refused(release, "release_below_floor", f"{text!r} is a version that can be compared with the floor")
    return version


def _path(release: Release) -> str:
    return f"{release.component}/{release.version}"


def _refused(release: Release, code: str, rule: str) -> VerificationError:
    message = f"cannot install {_path(release)}, sha256:{release.hex_digits}: {rule}"
    return VerificationError(message, code=code, field="release", value=_path(release), rule=rule)
