"""Which release the keeper itself runs from, and which ones may still be read by what it has started.

Rules kept here: components find the hand-over package in the release of the keeper that started them, and the keeper
imports late, so that such a release must stay on disk for as long; it is known over lives of keepers in one boot. Left
out: removing releases, which is the agent's.
"""

import contextlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from agent.keeper import agent_release, instance, places, processes

FILE_NAME = "keeper.code"  # in the run directory; not *.json, which are instances
CHECK_STATE = "--check-state"  # of the command line: read the state of this descriptor, and say whether that works
READABLE = "readable"  # the answer; an exit code alone may come from anywhere
SUCCEED = "--succeed"  # of the command line, before all the rest: go on from the state of this descriptor
EARLIER_MAX = 16  # releases; the keeper changes about once a year, so more is somebody's test


@dataclass(frozen=True, slots=True)
class Life:
    """What a keeper is from its start to its end, whatever it runs from.

    Args:
        instance_token: Random text that tells lives apart.
        lock: Descriptor of the run directory's lock.
        arguments: Of its command line.
        release: That it runs from now.
    """

    instance_token: str
    lock: int
    arguments: Sequence[str]
    release: agent_release.Release = agent_release.PACKAGED


@dataclass(frozen=True, slots=True)
class Earlier:
    """A release that a keeper before this one ran from, until a point in time on CLOCK_MONOTONIC."""

    digest: str
    until_monotonic: float


class Code:
    """The release now, and those before."""

    def __init__(self, where: places.Places, release: agent_release.Release, now_monotonic: float) -> None:
        self.release = release
        self._where = where
        self._earlier: list[Earlier] = []
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # what cannot be read is as if forgotten
            saved = json.loads((where.run / FILE_NAME).read_bytes())
            if saved["boot_id"] == processes.boot_id():
                self._earlier = [Earlier(**body) for body in saved["earlier"]]
                self._follow(saved["digest"], now_monotonic)
        self._note()

    def pinned(self, living: Iterable[instance.Instance]) -> list[str]:
        """Return the digests that must stay on disk."""
        oldest = min((each.started_at_monotonic for each in living if each.has_process), default=float("inf"))
        self._earlier = [each for each in self._earlier if each.until_monotonic >= oldest]
        digests = [self.release.digest, *(each.digest for each in self._earlier)]
        return sorted({digest for digest in digests if digest})

    def _note(self) -> None:
        """Write down what runs, for a keeper that follows this one, also after its death."""
        if not (self.release.digest or self._earlier):
            (self._where.run / FILE_NAME).unlink(missing_ok=True)
            return
        saved = {
            "boot_id": processes.boot_id(),
            "digest": self.release.digest,
            "earlier": [asdict(each) for each in self._earlier],
        }
        with contextlib.suppress(OSError):  # a full disk must not keep the keeper from its start
            places.replace(self._where.run / FILE_NAME, json.dumps(saved).encode())

    def _follow(self, digest: str, until_monotonic: float) -> None:
        if digest and digest != self.release.digest:
            self._earlier = [*self._earlier, Earlier(digest, until_monotonic)][-EARLIER_MAX:]
