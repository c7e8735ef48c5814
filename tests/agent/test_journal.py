"""The journal: what it said is durable is there again, whatever the last write left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent import journal
from agent.core import events, model, operation, transitions
from agent.journal import records, slots

AT = events.Moment(wall=datetime(2026, 3, 1, 12, 0, tzinfo=UTC), monotonic_seconds=1000.5)
BOOT_ID = "boot-1"


def assignment(operation_id: str = "rollout/1/node-1/web/forward/1", fence: int = 7) -> model.Assignment:
    return model.Assignment(
        operation_id=operation_id,
        fence=fence,
        attempt=1,
        component="web",
        kind=model.ChangeKind.UPGRADE,
        method=model.Method.HOT_SWAP,
        from_digest="sha256:" + "a" * 64,
        to_digest="sha256:" + "b" * 64,
        to_version="1.1.0",
        hold_before=model.Step.SWITCH,
        start_by=datetime(2026, 3, 1, 13, 0, tzinfo=UTC),
        deadline=timedelta(minutes=10),
        soak_duration=timedelta(seconds=5.25),
        soak_requests_min=3,
        min_healthy_duration=timedelta(seconds=10),
        healthy_deadline=timedelta(minutes=5),
        traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-01",
    )


def state(
    operation_id: str = "op-1", phase: transitions.Phase = transitions.Phase.FETCH, message: str = ""
) -> journal.StateRecord:
    accepted = operation.accept(assignment(operation_id), AT).state
    facts: dict[str, journal.Fact] = {
        "new_instance": "web-bbbbbbbb-1",
        "port": 8080,
        "ratio": 0.5,
        "is_late": False,
        "old_instance": None,
    }
    return journal.StateRecord(replace(accepted, phase=phase, message=message), "handover", BOOT_ID, facts)


def step(operation_id: str = "op-1", index: int = 1, text: str = "12 MiB") -> model.StepRecord:
    return model.StepRecord(
        operation_id=operation_id,
        index=index,
        step=model.Step.FETCH,
        started_at=AT.wall,
        ended_at=AT.wall + timedelta(microseconds=1_234_567),
        is_success=True,
        evidence={f"key.{number}": text for number in range(16)},
    )


def write(kept: journal.Journal, record: records.Record) -> None:
    if isinstance(record, journal.StateRecord):
        kept.write_state(record)
    else:
        kept.write_step(record)


def small_file(state_dir: Path, slot_count: int) -> Path:
    state_dir.mkdir(exist_ok=True)
    path = state_dir / journal.JOURNAL_NAME
    path.write_bytes(bytes(slot_count * slots.SLOT_BYTES))
    return path


def test_what_was_written_is_read_back_to_the_letter(tmp_path: Path) -> None:
    first = journal.Journal.open(tmp_path)
    first.write_state(state())
    first.write_step(step())
    first.write_state(state(phase=transitions.Phase.SOAK))
    first.close()

    second = journal.Journal.open(tmp_path)
    [history] = second.operations
    assert history.states == (state(), state(phase=transitions.Phase.SOAK))
    assert history.steps == (step(),)
    assert history.latest.operation.phase is transitions.Phase.SOAK
    assert not history.is_terminal
    second.close()
    assert journal.read(tmp_path).operations == (history,)


def test_the_file_has_all_its_room_from_the_start(tmp_path: Path) -> None:
    journal.Journal.open(tmp_path).close()
    status = (tmp_path / journal.JOURNAL_NAME).stat()
    assert status.st_size == slots.SLOT_COUNT * slots.SLOT_BYTES
    assert status.st_blocks * 512 >= status.st_size


def test_a_journal_that_is_not_there_reads_as_empty_and_is_not_made(tmp_path: Path) -> None:
    assert journal.read(tmp_path) == journal.Contents((), 0, {}, damaged_slots=0)
    assert list(tmp_path.iterdir()) == []


def test_only_one_agent_owns_the_journal_and_anybody_reads_it(tmp_path: Path) -> None:
    owner = journal.Journal.open(tmp_path)
    owner.write_state(state())
    with pytest.raises(journal.JournalLockedError, match="another agent"):
        journal.Journal.open(tmp_path)
    assert len(journal.read(tmp_path).operations) == 1
    owner.close()
    journal.Journal.open(tmp_path).close()


def test_the_lock_of_a_killed_agent_is_free(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from agent import journal\n"
        "kept = journal.Journal.open(Path(sys.argv[1])); kept.raise_fence(9); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    kept = journal.Journal.open(tmp_path)
    assert kept.highest_fence == 9
    kept.close()


RECORDS = st.lists(
    st.one_of(
        st.builds(state, st.just("op-1"), st.sampled_from(transitions.Phase), st.text(max_size=900)),
        st.builds(step, st.just("op-1"), st.integers(1, 20), st.text(max_size=300)),
    ),
    min_size=1,
    max_size=6,
).map(lambda rest: [state(), *rest])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(written=RECORDS, torn_at=st.integers(0, slots.SLOT_BYTES), cut=st.integers(0, slots.SLOT_BYTES), data=st.data())
def test_any_torn_or_cut_file_loads_as_a_prefix_of_the_records(
    written: list[records.Record], torn_at: int, cut: int, data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = small_file(Path(folder), 80)
        kept = journal.Journal.open(Path(folder))
        for record in written:
            write(kept, record)
        kept.close()
        whole = journal.read(Path(folder)).operations[0]
        image = bytearray(path.read_bytes())
        last = data.draw(st.integers(0, len(written) - 1), label="the write that the power cut hit")
        begin = last * slots.SLOT_BYTES
        image[begin + torn_at :] = bytes(len(image) - begin - torn_at)
        end = max(begin + torn_at, len(image) - cut)
        path.write_bytes(image[:end])

        contents = journal.read(Path(folder))
        read = [record for history in contents.operations for record in (*history.states, *history.steps)]
        assert len(read) in {last, last + 1}
        assert set(map(repr, read)) <= set(map(repr, (*whole.states, *whole.steps)))
        expected_states = sum(isinstance(record, journal.StateRecord) for record in written[: len(read)])
        assert sum(len(history.states) for history in contents.operations) == expected_states


def test_a_torn_slot_is_counted_and_used_again(tmp_path: Path) -> None:
    path = small_file(tmp_path, 80)
    kept = journal.Journal.open(tmp_path)
    kept.write_state(state())
    kept.write_state(state(phase=transitions.Phase.VERIFY))
    kept.close()
    image = bytearray(path.read_bytes())
    image[slots.SLOT_BYTES + 200] ^= 1
    path.write_bytes(image)

    assert journal.read(tmp_path).damaged_slots == 1
    kept = journal.Journal.open(tmp_path)
    assert kept.operations[0].states == (state(),)
    kept.write_state(state(phase=transitions.Phase.STAGE))
    kept.close()
    contents = journal.read(tmp_path)
    assert contents.damaged_slots == 0
    assert contents.operations[0].latest == state(phase=transitions.Phase.STAGE)


def test_a_full_journal_refuses_new_operations_before_it_refuses_those_that_have_begun(tmp_path: Path) -> None:
    small_file(tmp_path, journal.RESERVED_SLOTS + 1)
    kept = journal.Journal.open(tmp_path)
    kept.write_state(state("op-1"))
    with pytest.raises(journal.JournalFullError, match="op-2"):
        kept.write_state(state("op-2"))
    for _ in range(journal.RESERVED_SLOTS):
        kept.write_state(state("op-1", transitions.Phase.PERMANENT))
    with pytest.raises(journal.JournalFullError, match="op-1"):
        kept.write_state(state("op-1"))
    kept.forget("op-1")
    kept.write_state(state("op-2"))
    assert [history.latest.operation.assignment.operation_id for history in kept.operations] == ["op-2"]
    kept.close()


def test_an_unfinished_operation_cannot_be_forgotten(tmp_path: Path) -> None:
    kept = journal.Journal.open(tmp_path)
    kept.write_state(state(phase=transitions.Phase.COMMIT))
    with pytest.raises(journal.JournalError, match="not terminal"):
        kept.forget("op-1")
    assert len(kept.operations) == 1
    kept.close()


def test_a_forgotten_operation_leaves_its_outcome(tmp_path: Path) -> None:
    kept = journal.Journal.open(tmp_path)
    kept.write_state(state())
    kept.write_step(step())
    kept.write_state(state(phase=transitions.Phase.ABORTED, message="probe failed"))
    kept.forget("op-1")
    kept.forget("op-1")
    kept.close()

    kept = journal.Journal.open(tmp_path)
    assert kept.operations == ()
    outcome = kept.outcome("op-1")
    assert outcome is not None
    assert (outcome.state, outcome.message) == (model.OperationState.ABORTED, "probe failed")
    assert kept.outcome("op-2") is None
    kept.close()


def test_the_oldest_outcomes_go_first(tmp_path: Path) -> None:
    kept = journal.Journal.open(tmp_path)
    for number in range(journal.OUTCOMES_MAX + 1):
        kept.write_state(state(f"op-{number}", transitions.Phase.PERMANENT))
        kept.forget(f"op-{number}")
    assert kept.outcome("op-0") is None
    assert kept.outcome("op-1") is not None
    kept.close()


def test_a_crash_while_forgetting_never_makes_an_operation_look_unfinished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images: list[bytes] = []
    path = tmp_path / journal.JOURNAL_NAME
    kept = journal.Journal.open(tmp_path)
    for phase in (transitions.Phase.FETCH, transitions.Phase.COMMIT, transitions.Phase.PERMANENT):
        kept.write_state(state(phase=phase))
    kept.write_step(step())
    pwrite = os.pwrite

    def recording(descriptor: int, data: bytes, offset: int) -> int:
        written = pwrite(descriptor, data, offset)
        images.append(path.read_bytes())
        return written

    monkeypatch.setattr(os, "pwrite", recording)
    kept.forget("op-1")
    kept.close()
    assert len(images) == 4
    for image in images:
        path.write_bytes(image)
        assert all(history.is_terminal for history in journal.read(tmp_path).operations)


def test_fences_only_rise(tmp_path: Path) -> None:
    kept = journal.Journal.open(tmp_path)
    kept.raise_fence(5)
    kept.raise_fence(3)
    kept.close()
    assert journal.read(tmp_path).highest_fence == 5


def test_a_step_needs_an_operation_that_has_begun(tmp_path: Path) -> None:
    kept = journal.Journal.open(tmp_path)
    with pytest.raises(journal.JournalError, match="has not begun"):
        kept.write_step(step())
    kept.close()


@pytest.mark.parametrize("letter", ["x", "\x00", "\N{GRINNING FACE}", '"'])
def test_endless_text_of_others_is_cut_and_nothing_else(tmp_path: Path, letter: str) -> None:
    kept = journal.Journal.open(tmp_path)
    kept.write_state(state(message=letter * 100_000))
    kept.write_step(step(text=letter * 100_000))
    kept.close()
    [history] = journal.read(tmp_path).operations
    assert history.latest.operation.message == letter * len(history.latest.operation.message)
    assert replace(history.latest.operation, message="") == state().operation
    assert history.steps[0].evidence.keys() == step().evidence.keys()


def test_a_record_that_cannot_fit_is_refused_and_writing_goes_on(tmp_path: Path) -> None:
    kept = journal.Journal.open(tmp_path)
    with pytest.raises(journal.RecordTooLargeError):
        kept.write_state(state("x" * slots.SLOT_BYTES))
    kept.write_state(state())
    kept.close()


def test_after_a_failed_flush_nothing_more_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = journal.Journal.open(tmp_path)
    kept.write_state(state())

    def fail(_descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", fail)
        with pytest.raises(journal.JournalFailedError, match="Input/output"):
            kept.write_state(state(phase=transitions.Phase.COMMIT))
    assert "Input/output" in kept.failure
    with pytest.raises(journal.JournalFailedError):
        kept.write_step(step())
    with pytest.raises(journal.JournalFailedError):
        kept.raise_fence(8)
    assert kept.operations[0].latest == state()
    kept.close()


def test_a_write_that_the_system_refuses_fails_the_journal(tmp_path: Path) -> None:
    program = (
        "import resource, sys; from pathlib import Path; from agent import journal\n"
        "from tests.agent import test_journal as told\n"
        "kept = journal.Journal.open(Path(sys.argv[1]))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "kept.write_state(told.state())\n"
        "try: kept.write_state(told.state())\n"
        "except journal.JournalFailedError: print(kept.failure)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, capture_output=True, text=True)
    assert "File too large" in done.stdout
    assert len(journal.read(tmp_path).operations[0].states) == 1


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"highest_fence": "x", "outcomes": {}}', '{"highest_fence": 1}'])
def test_an_identity_of_another_form_is_not_taken_for_an_empty_one(tmp_path: Path, text: str) -> None:
    (tmp_path / journal.IDENTITY_NAME).write_text(text, encoding="utf-8")
    with pytest.raises(journal.JournalUnreadableError, match=r"identity\.json"):
        journal.Journal.open(tmp_path)


def test_a_record_of_another_version_is_not_skipped(tmp_path: Path) -> None:
    path = small_file(tmp_path, 80)
    for payload in (b'{"other":{}}', b'{"state":{}}', b"[]", b"{"):
        path.write_bytes(slots.pack(1, payload) + bytes(slots.SLOT_BYTES))
        with pytest.raises(journal.JournalUnreadableError, match="slot 0"):
            journal.Journal.open(tmp_path)
