"""The diagrams of a node's machines are those of their transition tables, word for word."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from agent.core import session, transitions
from instar_handover import machine
from tests import documents

pytestmark = pytest.mark.core


def operation_diagram() -> Iterator[str]:
    yield "stateDiagram-v2"
    yield f"    [*] --> {transitions.Phase.ACCEPTED.value}"
    for phase, row in transitions.TRANSITIONS.items():
        leading: dict[transitions.Phase, list[str]] = {}
        for event, targets in row.items():
            for target in targets:
                leading.setdefault(target, []).append(event.__name__)
        for target, events in leading.items():
            yield f"    {phase.value} --> {target.value}: {', '.join(events)}"
        if phase in transitions.TERMINAL:
            yield f"    {phase.value} --> [*]"


def session_diagram() -> Iterator[str]:
    yield "stateDiagram-v2"
    yield f"    [*] --> {session.State.CLOSED.value}"
    for (state, event), target in session.TRANSITIONS.items():
        yield f"    {state.value} --> {target.value}: {event.__name__}"


def instance_diagram() -> Iterator[str]:
    yield "stateDiagram-v2"
    yield f"    [*] --> {machine.State.STARTING.value}"
    for (state, event), target in machine.TRANSITIONS.items():
        if target is not state:
            yield f"    {state.value} --> {target.value}: {event.value}"
    yield f"    {machine.State.DRAINED.value} --> [*]"


PARTS = {
    "operation diagram": operation_diagram,
    "session diagram": session_diagram,
    "instance diagram": instance_diagram,
}


def test_the_document_shows_the_machines_as_they_are(*, is_rewriting: bool) -> None:
    documents.check(documents.DOCS / "node.md", PARTS, is_rewriting=is_rewriting)
