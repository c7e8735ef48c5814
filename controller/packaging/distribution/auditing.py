"""Whether anything is known to be wrong with what the lock pins, by pip-audit.

Rules kept here: pip-audit lives in an environment of its own, pinned by hashes, that is thrown away: it brings a score
of packages that nothing else needs, and would bind versions of the lock that it audits. All is well only where it has
answered for every pin, those of other Pythons and platforms included, and only where the same source knows what is
wrong with a version that everybody knows to be bad: a source that is empty says of everything that nothing is known.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging import utils

from controller.packaging.distribution import lock, programs
from controller.packaging.distribution.errors import EXIT_FAILED, EXIT_OK, EXIT_UNREACHABLE, DistributionError

TOOL_LOCK = Path(__file__).with_name("audit.lock")
KNOWN_BAD = ("pyyaml", "5.3.1")  # CVE-2020-14343, in every source of advisories since 2021
NAMES_MAX = 5  # that a message names

Key = tuple[str, str]  # name and version


@dataclass(frozen=True, slots=True)
class Advisory:
    """Something that is known of one version of one package."""

    name: str
    version: str
    id: str
    fixed_in: Sequence[str]


@dataclass(frozen=True, slots=True)
class Found:
    """What came out.

    Args:
        asked: How many versions were asked about.
        unanswered: Of which nobody could say anything.
    """

    asked: int
    advisories: Sequence[Advisory]
    unanswered: Sequence[Key]


def audit(path: Path) -> Found:
    """Ask about every pin of a lock.

    Raises:
        DistributionError: The source could not be asked, or knows nothing; with EXIT_UNREACHABLE.
    """
    keys = [(pin.name, pin.version) for pin in lock.read(path.read_text(encoding="utf-8"))]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _install(folder / "environment")
        if not _ask(folder, [KNOWN_BAD])[KNOWN_BAD]:
            raise _unreachable(f"it knows nothing of {' '.join(KNOWN_BAD)}, which everybody knows to be bad")
        answers = {key: answer for layer in _layers(keys) for key, answer in _ask(folder, layer).items()}
    advisories = [advisory for key in keys for advisory in answers.get(key) or ()]
    return Found(len(keys), advisories, [key for key in keys if answers.get(key) is None])


def exit_code(found: Found) -> int:
    """What the command ends with."""
    if found.advisories:
        return EXIT_FAILED
    return EXIT_UNREACHABLE if found.unanswered else EXIT_OK


def lines(found: Found) -> Iterator[str]:
    """What people read."""
    for each in found.advisories:
        fixed = f"fixed in {', '.join(each.fixed_in)}" if each.fixed_in else "not fixed yet"
        yield f"{each.name} {each.version}: {each.id}, {fixed}"
    if found.unanswered:
        yield f"cannot say anything of {len(found.unanswered)} of {found.asked} versions: {_some(found.unanswered)}"
    if not found.advisories and not found.unanswered:
        yield f"nothing is known against {found.asked} versions"


def _layers(keys: Sequence[Key]) -> Iterator[Sequence[Key]]:
    """Each pin once, and no package twice in one layer, since pip-audit takes it once."""
    left = list(keys)
    while left:
        layer = dict(reversed(left))
        left = [(name, version) for name, version in left if layer[name] != version]
        yield sorted(layer.items())


def _install(environment: Path) -> None:
    try:
        programs.said("uv", "venv", "-q", environment)
        words = ("uv", "pip", "install", "-q", "--python", environment / "bin" / "python")
        programs.said(*words, "--require-hashes", "--no-deps", "-r", TOOL_LOCK)
    except DistributionError as error:
        raise _unreachable(f"pip-audit could not be installed: {error}") from error


def _ask(folder: Path, keys: Sequence[Key]) -> dict[Key, Sequence[Advisory] | None]:
    """Ask about some versions, each of another package; None for those of which there is no answer."""
    asked, answer = folder / "asked.txt", folder / "answer.json"
    asked.write_text("".join(f"{name}=={version}\n" for name, version in keys), encoding="utf-8")
    answer.unlink(missing_ok=True)
    command = (
        folder / "environment/bin/pip-audit",
        "-r",
        asked,
        "--disable-pip",
        "--no-deps",
        "-f",
        "json",
        "-o",
        answer,
    )
    failure = programs.failure(*command, "--progress-spinner", "off")
    if not answer.exists():
        raise _unreachable(failure.splitlines()[-1] if failure else "pip-audit has written no answer")
    told = json.loads(answer.read_text(encoding="utf-8"))["dependencies"]
    known = dict(_answer(each) for each in told)
    return {key: known.get(key) for key in keys}


def _answer(told: dict[str, object]) -> tuple[Key, Sequence[Advisory] | None]:
    name, version = utils.canonicalize_name(str(told["name"])), str(told.get("version", ""))
    match told:
        case {"vulns": list(vulns)}:
            return (name, version), [Advisory(name, version, each["id"], each["fix_versions"]) for each in vulns]
        case _:
            return (name, version), None


def _unreachable(why: str) -> DistributionError:
    message = f"cannot audit: {why}; the source of advisories is no fault of the lock, try again where it is reached"
    return DistributionError(message, exit_code=EXIT_UNREACHABLE)


def _some(keys: Sequence[Key]) -> str:
    named = ", ".join(f"{name} {version}" for name, version in keys[:NAMES_MAX])
    return named if len(keys) <= NAMES_MAX else f"{named} and {len(keys) - NAMES_MAX} more"
