"""What the points of a controller are called: by what a transaction writes, or a message or an answer tells.

Rules kept: names are the same in each run, whatever else shares a transaction; a transaction goes by everything that it
writes: acts and what became of rollouts by the audit log, news by the journal of events, operations by their rows.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from controller.core import events, model
from controller.core.audit import chain
from controller.engine import acts
from controller.store import rows

BEFORE_COMMIT = "before commit"
AFTER_COMMIT = "after commit"
BEFORE_SEND = "before it is sent to an agent"
BEFORE_ANSWER = "before it is answered"
_WORD = re.compile(r"(?<=[a-z])(?=[A-Z])")
_READS = re.compile(r"^(Begin|Check|Explain|Export|Get|List|Plan|Read|Test|Verify|Watch)")


def is_act(method: str) -> bool:
    """Say whether a method of the API changes something."""
    return _READS.match(method) is None


def of_answer(method: str) -> str:
    """Name what a method answers to by what it has done, as the audit log does."""
    return acts.name(_WORD.sub("_", method).lower())


def is_answered(name: str) -> bool:
    """Say whether a transition is what somebody asked for, who is then answered."""
    return name in acts.NAMES.values()


def turn(name: str, boundary: str) -> str:
    """Choose one of the boundaries of a transition: the same for a name in each run."""
    if boundary == BEFORE_SEND:
        return boundary
    found = (BEFORE_ANSWER, BEFORE_COMMIT, AFTER_COMMIT) if is_answered(name) else (BEFORE_COMMIT, AFTER_COMMIT)
    return found[zlib.crc32(name.encode()) % len(found)]


def of_work(work: Callable[..., Any]) -> str:
    """Name a transaction that is no step of the engine, by the room that it is written in."""
    place = work.__qualname__.replace(".<locals>", "").replace(".<lambda>", "")
    return place.removesuffix(".work")


def of_commit(commit: rows.Commit) -> Sequence[str]:
    """Name all that a transaction of the engine writes, each once."""
    return tuple(dict.fromkeys(_found(commit))) or ("other",)


def _found(commit: rows.Commit) -> Iterator[str]:
    for entry in commit.audit:
        yield f"{entry.action} refused" if entry.result != chain.DONE else entry.action
    for occurrence in commit.occurrences:
        yield from _of_event(occurrence.event)
    for assignment in commit.assignments:
        yield from _of_assignment(assignment)
    if commit.sessions:
        yield "session opened"
    if any(each.replaces and each.replaces.is_connected and not each.node.is_connected for each in commit.nodes):
        yield "session closed"
    if commit.received:
        yield "event received"
    if commit.outcomes:
        yield "outcome"


def _of_event(event: events.Event) -> Iterator[str]:
    if not isinstance(event, events.NodeReported):
        yield type(event).__name__
    for status in event.operations if isinstance(event, events.NodeReported) else ():
        yield f"operation {status.state.value}"


def _of_assignment(assignment: rows.Assignment) -> Iterator[str]:
    way = " back" if assignment.assign.is_reverting else ""
    if assignment.state is model.OperationState.ASSIGNED and assignment.is_open:
        yield f"operation CANCELLED{way}" if assignment.cancel_reason else f"operation ASSIGNED{way}"
    elif assignment.cancel_reason and assignment.is_open:
        yield f"operation CANCELLED{way}"
    if assignment.proceeds:
        yield "operation PROCEEDED"
