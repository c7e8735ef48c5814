"""The diagrams of the documentation are those of the transition tables, word for word."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from controller.core import events, model, progress, transitions
from controller.core.triggers import transitions as firings
from tests import documents

pytestmark = pytest.mark.core


def rollout_diagram() -> Iterator[str]:
    yield "stateDiagram-v2"
    yield f"    [*] --> {model.RolloutState.PENDING.value}"
    for state, row in transitions.TRANSITIONS.items():
        for cause, target in row.items():
            if target is not state:
                yield f"    {state.value} --> {target.value}: {cause.value}"
        if state.is_terminal:
            yield f"    {state.value} --> [*]"


def rollout_table() -> Iterator[str]:
    states = list(transitions.TRANSITIONS)
    yield "| | " + " | ".join(state.value for state in states) + " |"
    yield "|---" * (len(states) + 1) + "|"
    for cause in transitions.Cause:
        targets = (transitions.TRANSITIONS[state].get(cause) for state in states)
        yield f"| {cause.value} | " + " | ".join(target.value if target else "" for target in targets) + " |"


def operation_table() -> Iterator[str]:
    yield "| it stood | the node may say |"
    yield "|---|---|"
    for state, following in progress.FOLLOWS.items():
        words = ", ".join(each.value for each in model.OperationState if each in following)
        yield f"| {state.value} | {words or 'nothing more'} |"


def undo_table() -> Iterator[str]:
    yield "| change | undone by |"
    yield "|---|---|"
    for kind, undoing in progress.UNDOES.items():
        yield f"| {kind.value} | {'nothing' if kind is model.ChangeKind.RESTART else undoing.value} |"


def firing_diagram() -> Iterator[str]:
    yield "stateDiagram-v2"
    yield f"    [*] --> {model.FiringState.HELD.value}"
    for state, row in firings.TRANSITIONS.items():
        for sign, target in row.items():
            if target is not state:
                yield f"    {state.value} --> {target.value}: {sign.value}"
        if not row:
            yield f"    {state.value} --> [*]"


def firing_table() -> Iterator[str]:
    states = list(firings.TRANSITIONS)
    yield "| | " + " | ".join(state.value for state in states) + " |"
    yield "|---" * (len(states) + 1) + "|"
    for sign in firings.Sign:
        targets = (firings.TRANSITIONS[state].get(sign) for state in states)
        yield f"| {sign.value} | " + " | ".join(target.value if target else "" for target in targets) + " |"


PARTS = {
    "rollout diagram": rollout_diagram,
    "rollout table": rollout_table,
    "operation table": operation_table,
    "undo table": undo_table,
    "firing diagram": firing_diagram,
    "firing table": firing_table,
}


def test_the_document_shows_the_machines_as_they_are(*, is_rewriting: bool) -> None:
    documents.check(documents.DOCS / "state-machines.md", PARTS, is_rewriting=is_rewriting)


def test_every_row_of_the_table_is_a_state_that_can_be_reached() -> None:
    reached = {model.RolloutState.PENDING}
    for _ in transitions.TRANSITIONS:
        reached |= {target for state in reached for target in transitions.TRANSITIONS[state].values()}
    assert reached == set(transitions.TRANSITIONS)


def test_what_undoes_a_change_is_undone_by_it() -> None:
    assert all(progress.UNDOES[progress.UNDOES[kind]] is kind for kind in model.ChangeKind)


def test_what_happens_is_taken_in_every_state() -> None:
    facts = transitions.FACTS
    assert all(row[fact] is state for state, row in transitions.TRANSITIONS.items() for fact in facts)


def test_every_event_is_a_cause_of_its_own() -> None:
    kinds = typing.get_args(events.Event)
    order: dict[str, Any] = {"at": datetime(2026, 1, 1, tzinfo=UTC), "actor": "ann", "reason": "order"}
    emergency = transitions.cause_of(events.RevertRequested(**order, is_emergency=True))
    causes = {transitions.cause_of(object.__new__(kind)) for kind in kinds if kind is not events.RevertRequested}
    assert transitions.cause_of(events.RevertRequested(**order)) is not emergency
    assert len(causes) == len(kinds) - 1
