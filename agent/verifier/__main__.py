"""`python -m agent.verifier STATE_DIR HEX [CONFIG COMPONENT VERSION]`: check one bundle and unpack it.

It prints {"manifest": …}, exit code 0, or {"error": {"code", "message", "field", "value", "rule"}}, exit code 1. Where
the configuration names keys to trust, signed metadata must vouch for the release, and {"trust": …, "size_bytes"} says
which did, and how long the bundle is; a release that is unpacked already is judged by it again. With `vouch` in front
nothing but that is asked, before the bundle is fetched.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from agent.config import layout, manifest, semver, settings
from agent.config import trust as trust_file
from agent.config.errors import ConfigError
from agent.verifier import archive, privileges, unpack
from agent.verifier.archive import Member
from agent.verifier.errors import VerificationError

USAGE = "usage: python -m agent.verifier [vouch] STATE_DIR HEX [CONFIG COMPONENT VERSION]"
VOUCH = "vouch"
BEGINNING = datetime.min.replace(tzinfo=UTC)  # what has expired by then has expired
VALUE_CHARS_MAX = 200  # of what a bundle says, in an error


@dataclass(frozen=True, slots=True)
class Asked:
    """What the release must be.

    Args:
        component: Name that its manifest must have; empty, as version is, where the agent has not told.
        config: The node's configuration, which says whom it trusts; None for nobody.
        now: The host's clock; by itself python-tuf asks the real one too.
        is_fetched: The bundle, or what was unpacked from it, is here to be looked at.
    """

    component: str = ""
    version: str = ""
    config: Path | None = None
    now: datetime = BEGINNING
    is_fetched: bool = True


ANYTHING = Asked()


def main(arguments: Sequence[str]) -> int:
    """Run the child; returns its exit code."""
    now = datetime.now(UTC)  # noqa: TID251  # the child's one look at the clock
    is_fetched = arguments[:1] != [VOUCH]
    match arguments if is_fetched else arguments[1:]:
        case [state_dir, hex_digits] if layout.HEX.fullmatch(hex_digits):
            asked = Asked(is_fetched=is_fetched)
        case [state_dir, hex_digits, config, component, version] if layout.HEX.fullmatch(hex_digits):
            asked = Asked(component, version, Path(config), now, is_fetched)
        case _:
            sys.stderr.write(USAGE + "\n")
            return os.EX_USAGE
    privileges.drop()
    document, code = answer(Path(state_dir), hex_digits, asked)
    sys.stdout.write(json.dumps(document) + "\n")
    return code


def verify(state_dir: Path, hex_digits: str, asked: Asked = ANYTHING) -> Mapping[str, object]:
    """Check and unpack one bundle of a node.

    Returns:
        Its manifest as proto JSON where it is looked at, and what vouches for it.

    Raises:
        VerificationError: The bundle is refused; nothing was unpacked.
        ConfigError: Its manifest is wrong.
        OSError: The disk is full or fails.
    """
    places = layout.Layout(state_dir, state_dir)
    wanted = layout.digest_of(hex_digits)
    trust = _trust(asked)
    if not asked.is_fetched:
        return _vouched(trust, places, asked, hex_digits, None)
    if trust is not None and not places.bundle(wanted).exists() and unpack.holds(places.release_dir(wanted), wanted):
        return _vouched(trust, places, asked, hex_digits, None)
    descriptor = _open(places.bundle(wanted))
    try:
        archive.check_digest(descriptor, hex_digits)
        told = _vouched(trust, places, asked, hex_digits, os.fstat(descriptor).st_size)
        members = archive.members(descriptor)
        document = _manifest(descriptor, members, asked)
        release_dir = places.release_dir(wanted)
        if not unpack.holds(release_dir, wanted):
            unpack.unpack(descriptor, members, release_dir)
    finally:
        os.close(descriptor)
    return {**told, "manifest": document}


def _trust(asked: Asked) -> trust_file.Trust | None:
    if asked.config is None:
        return None
    try:
        return trust_file.read(settings.load(asked.config, os.environ))
    except ConfigError as error:
        field, value, rule = error.field, error.value, error.rule
        raise VerificationError(str(error), code="trust_unusable", field=field, value=value, rule=rule) from error


def _vouched(
    trust: trust_file.Trust | None, places: layout.Layout, asked: Asked, hex_digits: str, size_bytes: int | None
) -> Mapping[str, object]:
    """Say which metadata vouches for the release; nothing where the node trusts nobody in particular."""
    if trust is None:
        return {}
    from agent.verifier import vouching  # noqa: PLC0415  # 15 MiB that only nodes with keys to trust pay for

    release = vouching.Release(asked.component, asked.version, hex_digits, size_bytes)
    vouched = vouching.vouch(trust, places, release, asked.now)
    return {"trust": vouched.told, "size_bytes": vouched.size_bytes}


def answer(state_dir: Path, hex_digits: str, asked: Asked = ANYTHING) -> tuple[Mapping[str, object], int]:
    """Check and unpack one bundle; returns the document to print and the exit code."""
    try:
        return verify(state_dir, hex_digits, asked), 0
    except VerificationError as error:
        return _error(error.code, error), 1
    except ConfigError as error:
        return _error("manifest_invalid", error), 1
    except OSError as error:
        return {"error": {"code": "disk_failed", "message": f"cannot unpack the bundle: {error}", "field": ""}}, 1


def _error(code: str, error: VerificationError | ConfigError) -> Mapping[str, object]:
    value, rule = error.value[:VALUE_CHARS_MAX], error.rule
    return {"error": {"code": code, "message": str(error), "field": error.field, "value": value, "rule": rule}}


def _open(path: Path) -> int:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise VerificationError(f"cannot verify {path.name}: it is not here", code="bundle_not_found") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise VerificationError(f"cannot verify {path.name}: it is no regular file", code="bundle_not_found")
    return descriptor


def _manifest(descriptor: int, members: Sequence[Member], asked: Asked) -> Mapping[str, object]:
    text = _manifest_text(descriptor, members)
    read = manifest.parse_toml(text)
    if asked.component and (read.name, read.version) != (asked.component, asked.version):
        rule = f"it is {asked.component} {asked.version}, as was asked for"
        message = f"cannot install {read.name} {read.version}: {rule}"
        raise VerificationError(message, code="component_mismatch", field="name", value=read.name, rule=rule)
    _check_agent(read.minimum_agent_version, settings.agent_version())
    return manifest.json_of_toml(text)


def _manifest_text(descriptor: int, members: Sequence[Member]) -> str:
    name = manifest.MANIFEST_NAME
    found = next((member for member in members if member.name == name), None)
    if found is None:
        rule = f"{name} stands at the root of a bundle"
        raise VerificationError(f"cannot accept the bundle: {rule}", code="manifest_missing", field=name, rule=rule)
    if found.size_bytes > manifest.MANIFEST_BYTES_MAX:
        rule = f"{name} has at most {manifest.MANIFEST_BYTES_MAX} bytes"
        raise VerificationError(f"cannot accept the bundle: {rule}", code="manifest_invalid", field=name, rule=rule)
    try:
        return b"".join(archive.pieces(descriptor, found.offset, found.size_bytes)).decode()
    except UnicodeDecodeError as error:
        rule = f"{name} is UTF-8"
        message = f"cannot accept the bundle: {rule}"
        raise VerificationError(message, code="manifest_invalid", field=name, rule=rule) from error


def _check_agent(needed: str, running: str) -> None:
    minimum, own = semver.parse(needed), semver.parse(running)
    if minimum is not None and (own is None or own < minimum):
        raise VerificationError(
            f"cannot run the release: it needs agent {needed}, and this is {running}",
            code="agent_too_old",
            field="minimum_agent_version",
            value=needed,
            rule=f"it is at most {running}",
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
