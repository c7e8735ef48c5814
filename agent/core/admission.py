"""Whether an assignment may begin on this node: the fence, what is known already, the time, and what the node runs.

Rules kept here: an assignment that is known changes nothing; one that is not begun changes nothing either and says
why; what begins on this node itself leaves the fence as it is, so that whatever a controller assigns later is above it;
starting what runs and stopping what is stopped may begin, for "already so" is success. Left out: the assignment's
own course (`operation`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, unique

from agent.core import model

LOCAL_PREFIX = "local/"  # of operations that people of this very node began; a controller may give no such id
AGENT_COMPONENT = "instar-agent"  # the agent itself, as the node's components name it
SAME_VERSION = frozenset({model.ChangeKind.START, model.ChangeKind.STOP, model.ChangeKind.RESTART})
FOR_RUNNING = frozenset({model.ChangeKind.UPGRADE, model.ChangeKind.RESTART})


@unique
class Verdict(Enum):
    """What to do with an assignment; UNSURE is not answered, and the controller says it again."""

    BEGIN = "BEGIN"
    KNOWN = "KNOWN"
    EXPIRED = "EXPIRED"
    REFUSED = "REFUSED"
    UNSURE = "UNSURE"


@dataclass(frozen=True, slots=True)
class Answer:
    """The verdict; for REFUSED and EXPIRED with a code and a sentence."""

    verdict: Verdict
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Ledger:
    """What the node remembers.

    Args:
        highest_fence: Highest fence that it has ever seen.
        fences: Fence of each remembered operation.
        holder: The operation that holds the node until its COMMIT; None when it is free.
        current: Digest that is current, for each installed component.
        stopped: Components that somebody has stopped on purpose.
        bad: Releases of the agent that died early too often here.
        latest_now: The latest that the controller's clock may show; None while this node is unsure of it.
    """

    highest_fence: int
    fences: Mapping[str, int]
    holder: str | None
    current: Mapping[str, str]
    stopped: frozenset[str]
    bad: frozenset[str]
    latest_now: datetime | None


def is_local(operation_id: str) -> bool:
    """Tell whether people of this very node began an operation."""
    return operation_id.startswith(LOCAL_PREFIX)


def admit(assignment: model.Assignment, ledger: Ledger, *, is_from_here: bool = False) -> Answer:
    """Decide on an assignment; the first rule that speaks wins.

    Args:
        assignment: What is asked.
        ledger: What the node remembers.
        is_from_here: People of this very node ask, and no controller.
    """
    if assignment.operation_id in ledger.fences:
        return Answer(Verdict.KNOWN)
    if not is_from_here and is_local(assignment.operation_id):
        rule = f"ids that begin with {LOCAL_PREFIX} are for what people of this node begin"
        return _refused("operation_id_reserved", rule)
    stale = None if is_from_here and assignment.fence == ledger.highest_fence else _judge_fence(assignment, ledger)
    if stale is not None:
        return stale
    late = _judge_time(assignment, ledger)
    if late is not None:
        return late
    if ledger.holder is not None:
        return _refused("node_busy", f"operation {ledger.holder} holds the node")
    if assignment.new_digest in ledger.bad:
        return _refused("digest_bad", f"{assignment.new_digest} died early on this node too often")
    return _judge_kind(assignment, ledger)


def _judge_fence(assignment: model.Assignment, ledger: Ledger) -> Answer | None:
    if assignment.fence > ledger.highest_fence:
        return None
    oldest = min(ledger.fences.values(), default=ledger.highest_fence + 1)
    if assignment.fence < oldest:
        message = f"cannot tell the outcome of {assignment.operation_id}: it is older than what is remembered"
        return Answer(Verdict.EXPIRED, "outcome_expired", message)
    return _refused("fence_stale", f"fence {assignment.fence} is not above {ledger.highest_fence}")


def _judge_time(assignment: model.Assignment, ledger: Ledger) -> Answer | None:
    """Refuse what is late by the controller's clock; what the two clocks may differ by counts against it (G5)."""
    if assignment.start_by is None:
        return None
    if ledger.latest_now is None:
        return Answer(Verdict.UNSURE)
    if ledger.latest_now <= assignment.start_by:
        return None
    rule = f"start_by was {assignment.start_by.isoformat()}, and it may be {ledger.latest_now.isoformat()}"
    return _refused("start_by_passed", rule)


def _judge_kind(assignment: model.Assignment, ledger: Ledger) -> Answer:
    name = assignment.component
    if assignment.kind is model.ChangeKind.STOP and name == AGENT_COMPONENT:
        return _refused("cannot_stop_agent", "a node is never without an agent; stop the node, or REMOVE the component")
    current = ledger.current.get(name, "")
    if assignment.kind is model.ChangeKind.INSTALL:
        if current:
            return _refused("already_installed", f"component {name} is installed as {current}")
        return Answer(Verdict.BEGIN)
    if not current:
        return _refused("not_installed", f"component {name} is not installed")
    if current != assignment.from_digest:
        return _refused("from_digest_differs", f"component {name} runs {current}, not {assignment.from_digest}")
    if assignment.kind in SAME_VERSION and assignment.to_digest not in {"", current}:
        rule = f"{assignment.kind.value} leaves the version as it is, and {assignment.to_digest} is another"
        return _refused("to_digest_differs", rule)
    if assignment.kind in FOR_RUNNING and name in ledger.stopped:
        return _refused("component_stopped", f"component {name} was stopped on purpose, and only START ends that")
    return Answer(Verdict.BEGIN)


def _refused(reason: str, rule: str) -> Answer:
    return Answer(Verdict.REFUSED, reason, f"cannot begin: {rule}")
