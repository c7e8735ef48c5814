"""`python -m agent.verifier STATE_DIR HEX`: check one bundle, unpack it, and print what was found as one JSON document.

It prints {"manifest": …}, exit code 0, or {"error": {"code", "message", "field", "value", "rule"}}, exit code 1.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from agent.config import layout, manifest, semver, settings
from agent.config.errors import ConfigError
from agent.verifier import archive, unpack
from agent.verifier.archive import Member
from agent.verifier.errors import VerificationError

USAGE = "usage: python -m agent.verifier STATE_DIR HEX"
VALUE_CHARS_MAX = 200  # of what a bundle says, in an error


def main(arguments: Sequence[str]) -> int:
    """Run the child; returns its exit code."""
    match arguments:
        case [state_dir, hex_digits] if layout.HEX.fullmatch(hex_digits):
            document, code = answer(Path(state_dir), hex_digits)
            sys.stdout.write(json.dumps(document) + "\n")
            return code
        case _:
            sys.stderr.write(USAGE + "\n")
            return os.EX_USAGE


def verify(state_dir: Path, hex_digits: str) -> Mapping[str, object]:
    """Check and unpack one bundle of a node.

    Returns:
        Its manifest as proto JSON.

    Raises:
        VerificationError: The bundle is refused; nothing was unpacked.
        ConfigError: Its manifest is wrong.
        OSError: The disk is full or fails.
    """
    places = layout.Layout(state_dir, state_dir)
    wanted = layout.digest_of(hex_digits)
    descriptor = _open(places.bundle(wanted))
    try:
        archive.check_digest(descriptor, hex_digits)
        members = archive.members(descriptor)
        document = _manifest(descriptor, members)
        release_dir = places.release_dir(wanted)
        if not unpack.holds(release_dir, wanted):
            unpack.unpack(descriptor, members, release_dir)
    finally:
        os.close(descriptor)
    return document


def answer(state_dir: Path, hex_digits: str) -> tuple[Mapping[str, object], int]:
    """Check and unpack one bundle; returns the document to print and the exit code."""
    try:
        return {"manifest": verify(state_dir, hex_digits)}, 0
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


def _manifest(descriptor: int, members: Sequence[Member]) -> Mapping[str, object]:
    text = _manifest_text(descriptor, members)
    needed = manifest.parse_toml(text).minimum_agent_version
    _check_agent(needed, settings.agent_version())
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
