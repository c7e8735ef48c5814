"""Early deaths of the agent: how long to wait, and which version they speak against.

Rules kept here: a version that dies early again and again is bad, and is remembered as such; if what came after it,
down to the packaged agent, did not live either, that is taken back, for then the host is to blame; what is damaged on
disk is not run, but not blamed either. Left out: starting (`agents`), the file (`agent_memory`).
"""

from agent.keeper import agent_child, agent_memory, agent_release

RESTART_FIRST_SECONDS = 0.2
RESTART_MAX_SECONDS = 30.0


class Deaths:
    """What deaths have told in this life of the keeper."""

    def __init__(self, memory: agent_memory.Memory) -> None:
        self._memory = memory
        self._in_a_row = 0
        self._condemned: set[str] = set()
        self._damaged: set[str] = set()

    @property
    def pause_seconds(self) -> float:
        """Return the time before the next start; it doubles with each early death."""
        pause: float = RESTART_FIRST_SECONDS * 2**self._in_a_row
        return min(pause, RESTART_MAX_SECONDS)

    def is_fit(self, release: agent_release.Release) -> bool:
        """Whether nothing speaks against a version."""
        return release.digest not in {*self._memory.bad, *self._damaged}

    def note_steady(self, release: agent_release.Release) -> None:
        """A version has lived long enough to be believed, and so is what speaks against those before it."""
        self._condemned.clear()
        self._memory.note_steady(release.digest)
        self.begin_anew()

    def begin_anew(self) -> None:
        """The next death is a first one."""
        self._in_a_row = 0

    def count(self, release: agent_release.Release, death: agent_child.Death) -> bool:
        """Hold a death against the version; True when that has made it a bad one."""
        if death.refusal is not None and death.refusal.code == "digest_mismatch":
            self._damaged.add(release.digest)
            return False
        self._in_a_row = self._in_a_row + 1 if death.is_early else 0
        if not death.is_early:
            return False
        if not release.digest:
            self._exonerate()
            return False
        is_bad = self._memory.note_early_death(release.digest)
        if is_bad:
            self._condemned.add(release.digest)
            self.begin_anew()
        return is_bad

    def _exonerate(self) -> None:
        if self._in_a_row >= agent_memory.EARLY_DEATHS_MAX and self._condemned:
            self._memory.exonerate(self._condemned)
            self._condemned.clear()
