"""Real rollouts of real nodes, worked out anew from what happened to them, for ever.

Each file here is what `instar store journal` wrote of a rollout that was. Where a change of the core decides otherwise
on purpose, the history is of a time in which it did not: take it away, and put one in its place that shows the change.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.core import invariants
from controller.store import checking, histories

HISTORIES = sorted(Path(__file__).parent.glob("*.jsonl"))


def test_there_are_histories() -> None:
    assert len(HISTORIES) >= 2


@pytest.mark.parametrize("path", HISTORIES, ids=[path.stem for path in HISTORIES])
def test_a_rollout_that_was_would_come_out_so_again(path: Path) -> None:
    with path.open(encoding="utf-8") as lines:
        history = histories.read(lines)
    assert history.ended.state.is_terminal
    assert len(history.happened) == history.ended.revision
    assert list(checking.differences(history.ended, history.happened)) == []
    assert invariants.violations(history.ended) == ()
