"""What the keeper remembers of agent versions over all its lives: early deaths, bad ones, how trials ended.

Rules kept here: the file is replaced whole and flushed, for it must outlive a power cut; a version is bad after so many
early deaths in a row; how a trial ended is never told otherwise later. Left out: what follows from it (`agents`).
"""

import contextlib
import json
import os
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path

from agent.keeper import marks

FILE_NAME = "agent.json"
EARLY_DEATHS_MAX = 3  # of one version in a row; one is bad luck, two may be a host in trouble
BAD_MAX = 64  # versions; the oldest is forgotten
OUTCOMES_MAX = 64  # of trials; one operation at a time holds a node


class Memory:
    """The file and what is in it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._deaths: dict[str, int] = {}
        self._bad: list[str] = []
        self._outcomes: dict[str, marks.Outcome] = {}
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # what cannot be read is as if forgotten
            saved = json.loads(path.read_bytes())
            self._deaths = {str(digest): int(count) for digest, count in saved["early_deaths"].items()}
            self._bad = [str(digest) for digest in saved["bad"]]
            self._outcomes = {body["operation_id"]: marks.Outcome(**body) for body in saved["outcomes"]}

    @property
    def bad(self) -> tuple[str, ...]:
        """Digests that are not run any more, oldest first."""
        return tuple(self._bad)

    @property
    def outcomes(self) -> tuple[marks.Outcome, ...]:
        """How the last trials ended."""
        return tuple(self._outcomes.values())

    def outcome(self, operation_id: str) -> marks.Outcome | None:
        """How a trial ended; None where that is not known."""
        return self._outcomes.get(operation_id)

    def early_deaths(self, digest: str) -> int:
        """How often a version has died early in a row."""
        return self._deaths.get(digest, 0)

    def note_early_death(self, digest: str) -> bool:
        """Count an early death; True when it has made the version a bad one."""
        self._deaths[digest] = self.early_deaths(digest) + 1
        is_condemned = self._deaths[digest] >= EARLY_DEATHS_MAX and digest not in self._bad
        if is_condemned:
            self._bad = [*self._bad, digest][-BAD_MAX:]
        self._save()
        return is_condemned

    def note_steady(self, digest: str) -> None:
        """Forget the early deaths of a version that lives."""
        if self._deaths.pop(digest, 0):
            self._save()

    def exonerate(self, digests: Collection[str]) -> None:
        """Take back that these are bad: what came after them did not live either."""
        self._bad = [digest for digest in self._bad if digest not in digests]
        for digest in digests:
            self._deaths.pop(digest, None)
        self._save()

    def decide(self, outcome: marks.Outcome) -> None:
        """Write down how a trial ended.

        Raises:
            OSError: It is not written, and not decided.
        """
        known = dict(self._outcomes)
        self._outcomes[outcome.operation_id] = outcome
        while len(self._outcomes) > OUTCOMES_MAX:
            del self._outcomes[next(iter(self._outcomes))]
        try:
            self._write()
        except OSError:
            self._outcomes = known
            raise

    def decide_unwritten(self, outcome: marks.Outcome) -> None:
        """Decide for the old version, on a full disk too: that is what an unwritten trial means anyway."""
        try:
            self.decide(outcome)
        except OSError:
            self._outcomes[outcome.operation_id] = outcome

    def _save(self) -> None:
        with contextlib.suppress(OSError):  # a full disk must not keep the agent from its next start
            self._write()

    def _write(self) -> None:
        saved = {
            "early_deaths": self._deaths,
            "bad": self._bad,
            "outcomes": [asdict(outcome) for outcome in self._outcomes.values()],
        }
        part = self._path.with_name(f"{self._path.name}.part")
        _write_durably(part, json.dumps(saved).encode())
        os.replace(part, self._path)  # noqa: PTH105  # as the whole of this line: one rename
        _sync(self._path.parent)


def _write_durably(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
