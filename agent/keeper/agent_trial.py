"""The law of a trial: how a new version of the agent takes over from the old one, or does not.

Rules kept here: pure; `TRANSITIONS` says everything; the new version runs only after the old one has parked; a trial
ends committed or rolled back, never both, and rolled back only after the new process is gone, so that two agents never
own the journal. Left out: processes, timers and what is written down (`agents`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum, unique

from agent.keeper import marks


@unique
class Phase(Enum):
    """Where a trial stands; ENDING waits for the end of the new process."""

    PARKING = "PARKING"
    TRYING = "TRYING"
    ENDING = "ENDING"
    COMMITTED = "COMMITTED"
    ROLLED_BACK = "ROLLED_BACK"


@unique
class Happening(Enum):
    """What may happen to a trial."""

    PARKED = "PARKED"
    COMMIT_ASKED = "COMMIT_ASKED"
    ABORT_ASKED = "ABORT_ASKED"
    OLD_DIED = "OLD_DIED"
    NEW_DIED = "NEW_DIED"
    LATE = "LATE"


P, H = Phase, Happening  # the tables below are read by column

TRANSITIONS: Mapping[Phase, Mapping[Happening, Phase]] = {
    P.PARKING: {
        H.PARKED: P.TRYING,
        H.ABORT_ASKED: P.ROLLED_BACK,
        H.OLD_DIED: P.ROLLED_BACK,
        H.LATE: P.ROLLED_BACK,
    },
    P.TRYING: {
        H.COMMIT_ASKED: P.COMMITTED,
        H.ABORT_ASKED: P.ENDING,
        H.OLD_DIED: P.TRYING,
        H.NEW_DIED: P.ROLLED_BACK,
        H.LATE: P.ENDING,
    },
    P.ENDING: {
        H.ABORT_ASKED: P.ENDING,
        H.OLD_DIED: P.ENDING,
        H.NEW_DIED: P.ROLLED_BACK,
        H.LATE: P.ENDING,
    },
    P.COMMITTED: {},
    P.ROLLED_BACK: {},
}
CAUSES: Mapping[tuple[Phase, Happening], str] = {
    # Only what the new version itself did, or left undone, speaks against it.
    (P.PARKING, H.ABORT_ASKED): marks.AGENT_ASKED,
    (P.PARKING, H.OLD_DIED): marks.AGENT_AWAY,
    (P.PARKING, H.LATE): marks.AGENT_AWAY,
    (P.TRYING, H.COMMIT_ASKED): marks.AGENT_ASKED,
    (P.TRYING, H.ABORT_ASKED): marks.AGENT_ASKED,
    (P.TRYING, H.NEW_DIED): marks.INSTANCE_DIED,
    (P.TRYING, H.LATE): marks.INSTANCE_DIED,
}
OVER = frozenset({P.COMMITTED, P.ROLLED_BACK})


class IllegalHappeningError(Exception):
    """Something that cannot happen in this phase; nothing changed."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial; ``outcome`` is set when it is decided, which for ENDING is before it is over."""

    operation_id: str
    phase: Phase = Phase.PARKING
    outcome: marks.Outcome | None = None


def step(trial: Trial, happening: Happening, why: str) -> Trial:
    """Let something happen to a trial; what was decided stays as it was.

    Raises:
        IllegalHappeningError: ``TRANSITIONS`` does not allow it here.
    """
    phase = TRANSITIONS[trial.phase].get(happening)
    if phase is None:
        raise IllegalHappeningError(f"cannot take {happening.value} in phase {trial.phase.value}")
    moved = replace(trial, phase=phase)
    cause = CAUSES.get((trial.phase, happening))
    if trial.outcome is not None or cause is None or phase in (Phase.PARKING, Phase.TRYING):
        return moved
    decision = marks.COMMITTED if phase is Phase.COMMITTED else marks.ROLLED_BACK
    return replace(moved, outcome=marks.Outcome(trial.operation_id, decision, cause, why))
