"""`python -m controller.packaging.distribution wheels|sbom|audit`: what goes out of this repository."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from controller.packaging.distribution import auditing, building, signing
from controller.packaging.distribution.errors import EXIT_OK, DistributionError


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out one command."""
    parser = argparse.ArgumentParser(prog="python -m controller.packaging.distribution", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    wheels = commands.add_parser("wheels", help="wheels, source, bill of materials and sums of the last commit")
    wheels.add_argument("folder", type=Path)
    wheels.add_argument("--key", type=Path, help="an Ed25519 key of OpenSSH that signs the sums")
    commands.add_parser("sbom", help="the bill of materials of the lock").add_argument("folder", type=Path)
    audit = commands.add_parser("audit", help="what is known to be wrong with what the lock pins")
    audit.add_argument("lock", type=Path, nargs="?", default=building.ROOT / "requirements.lock")
    chosen = parser.parse_args(argv)
    try:
        return _CARRIED_OUT[chosen.command](chosen)
    except DistributionError as error:
        _tell(str(error))
        return error.exit_code


def _wheels(chosen: argparse.Namespace) -> int:
    if chosen.key is not None:
        signing.check(chosen.key)  # before anything is built
    commit = building.last_commit()
    if left_out := building.left_out():
        _tell(f"built is commit {commit.id}: what differs from it is left out, {len(left_out)} files")
    for path in building.build(chosen.folder, commit):
        _say(str(path))
    if chosen.key is None:
        _tell("not signed: no key was named (make wheels KEY=FILE)")
        return EXIT_OK
    fingerprint = signing.sign(chosen.folder, chosen.key)
    _say(str(chosen.folder / building.SIGNATURE))
    _tell(f"signed by {fingerprint}")
    return EXIT_OK


def _sbom(chosen: argparse.Namespace) -> int:
    _say(str(building.write_bill(chosen.folder, building.last_commit())))
    return EXIT_OK


def _audit(chosen: argparse.Namespace) -> int:
    found = auditing.audit(chosen.lock)
    for line in auditing.lines(found):
        _say(line)
    return auditing.exit_code(found)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")


_CARRIED_OUT = {"wheels": _wheels, "sbom": _sbom, "audit": _audit}

if __name__ == "__main__":
    sys.exit(main())
