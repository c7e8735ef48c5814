"""What the node remembers of operations, over a real journal."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from agent import journal
from agent.core import model, operation
from agent.runner import operations
from tests.agent.core import stories


@pytest.fixture
def records(tmp_path: Path) -> Iterator[journal.Journal]:
    with closing(journal.Journal.open(tmp_path)) as made:
        yield made


def write(known: operations.Operations, story: stories.Story) -> None:
    """Write what the story decided since it was written last."""
    if known.get("op-1") is None:
        known.write(stories.Story().last, "")
    fresh = tuple(record for record in story.records if record not in known.steps)
    known.write(operation.Decision(story.state, records=fresh), "handover")


def test_what_was_written_is_there_for_the_next_agent(tmp_path: Path) -> None:
    story = stories.Story().soaks()
    with closing(journal.Journal.open(tmp_path)) as first:
        write(operations.Operations(first, "boot"), story)
    with closing(journal.Journal.open(tmp_path)) as second:
        known = operations.Operations(second, "boot")
        assert known.get("op-1") == story.state
        assert known.steps == tuple(story.records)
        assert (known.highest_fence, known.unfinished) == (1, (story.state,))


def test_a_step_whose_state_was_never_written_still_counts(tmp_path: Path) -> None:
    story = stories.Story().begins()
    with closing(journal.Journal.open(tmp_path)) as first:
        write(operations.Operations(first, "boot"), story)
        [record] = story.succeeds(model.Step.FETCH).records
        first.write_step(record)  # and here the agent was killed
    with closing(journal.Journal.open(tmp_path)) as second:
        state = operations.Operations(second, "boot").get("op-1")
    assert state is not None
    assert (state.phase.value, state.steps_ended) == ("FETCH", 1)


def test_an_operation_is_forgotten_when_its_last_status_and_all_its_steps_were_heard(
    records: journal.Journal,
) -> None:
    known = operations.Operations(records, "boot")
    story = stories.Story().begins()
    write(known, story)
    early = known.statuses
    assert known.acknowledge(early, ()) == ()
    story.is_cancelled().succeeds(model.Step.ABORT)
    write(known, story)
    assert known.acknowledge(known.statuses, ()) == ()
    assert known.acknowledge((), known.steps[:1]) == ()
    assert known.acknowledge((), known.steps) == ("op-1",)
    assert (known.statuses, known.steps, records.operations) == ((), (), ())
    assert known.outcome("op-1") == operation.status(story.state)


def test_an_acknowledged_status_that_is_no_longer_the_last_forgets_nothing(records: journal.Journal) -> None:
    known = operations.Operations(records, "boot")
    story = stories.Story().begins().is_cancelled()
    write(known, story)
    stale = known.statuses
    story.succeeds(model.Step.ABORT)
    write(known, story)
    assert known.acknowledge(stale, known.steps) == ()


def test_an_answer_is_told_until_exactly_it_was_heard(records: journal.Journal) -> None:
    known = operations.Operations(records, "boot")
    answer = operation.status(stories.Story().state)
    known.answer(answer)
    known.acknowledge((stories.Story().begins().status,), ())
    assert known.statuses == (answer,)
    known.acknowledge((answer,), ())
    assert not known.statuses


def test_only_what_is_not_yet_committed_holds_the_node(records: journal.Journal) -> None:
    known = operations.Operations(records, "boot")
    story = stories.Story().begins()
    write(known, story)
    assert known.ledger({}, frozenset(), frozenset(), None).holder == "op-1"
    assert known.is_changing("web")
    write(known, stories.Story().commits())
    assert known.ledger({}, frozenset(), frozenset(), None).holder is None
    assert not known.is_changing("web")
    assert known.latest_to("web", stories.NEW) is not None


def test_answers_that_nobody_hears_are_bounded(records: journal.Journal) -> None:
    known = operations.Operations(records, "boot")
    for number in range(operations.ANSWERS_MAX + 9):
        known.answer(operation.status(stories.Story(operation_id=f"op-{number}").state))
    assert len(known.statuses) == operations.ANSWERS_MAX
    assert known.statuses[-1].operation_id == f"op-{operations.ANSWERS_MAX + 8}"
