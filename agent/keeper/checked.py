"""When the content of a release was last computed, for commands that run again and again.

Rules kept here: only what has just been run from a release says that it was checked, and when; a mismatch is remembered
no longer than it takes to look again; nothing outlives the keeper. Who can change a release between two checks is root
or the keeper's user. Left out: the check (`entry`); starts of instances, which always make one.
"""

from agent.keeper import errors, sources

FRESH_SECONDS = 60.0  # a probe each second reads a release once a minute
RELEASES_MAX = 128  # more than a node keeps; the oldest is forgotten


class Checked:
    """Releases and environments, and when their checks began, in seconds on CLOCK_MONOTONIC."""

    def __init__(self) -> None:
        self._began_at: dict[tuple[str, str, str], float] = {}

    def is_fresh(self, source: sources.Source, now_monotonic: float) -> bool:
        """Whether this very release and environment have been checked of late."""
        began_at = self._began_at.get(_key(source))
        return began_at is not None and now_monotonic - began_at < FRESH_SECONDS

    def note(self, source: sources.Source, began_at_monotonic: float, refusal: errors.RequestError | None) -> None:
        """A full check that began then has passed, or not."""
        self._began_at.pop(_key(source), None)
        if refusal is None:
            self._began_at[_key(source)] = began_at_monotonic
        while len(self._began_at) > RELEASES_MAX:
            del self._began_at[next(iter(self._began_at))]


def _key(source: sources.Source) -> tuple[str, str, str]:
    return source.digest, source.release_dir, source.environment_dir
