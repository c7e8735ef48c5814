"""Whatever is done to a chain is found, and where it was done."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import timedelta

import pytest
from hypothesis import given, settings, strategies

from controller.core.audit import chain, checking
from tests.controller.core.audit import chains

Records = list[chain.Record]
FLIPPED = str.maketrans("0123456789abcdef", "123456789abcdef0")
FIELDS_OF_ENTRIES = tuple(each.name for each in dataclasses.fields(chain.Entry))
FIELDS_OF_ROWS = ("epoch", "position", "previous_hash", "hash", *FIELDS_OF_ENTRIES)
FIELDS_OF_EPOCHS = ("number", "started_at", "hash", "previous.epoch", "previous.position", "previous.hash")


def found(records: Sequence[chain.Record], head: chain.Head | None = None) -> list[tuple[str, str]]:
    """What is wrong, and where."""
    report = checking.check(records, head=head)
    return [(each.fault.value, str(each.place)) for each in report.findings]


def other(value: object) -> object:
    """Another value of the same kind."""
    if isinstance(value, int):
        return value + 1
    if isinstance(value, str):
        return value.translate(FLIPPED) if len(value) == 64 else f"{value}x"
    return value + timedelta(microseconds=1)  # type: ignore[operator]  # an instant


def changed(record: chain.Record, field: str) -> chain.Record:
    """A record with another value in one of its fields; its hash stays."""
    if isinstance(record, chain.Row) and field in FIELDS_OF_ENTRIES:
        entry = dataclasses.replace(record.entry, **{field: other(getattr(record.entry, field))})  # type: ignore[arg-type]
        return dataclasses.replace(record, entry=entry)
    if isinstance(record, chain.Epoch) and "." in field:
        name = field.partition(".")[2]
        previous = dataclasses.replace(record.previous, **{name: other(getattr(record.previous, name))})  # type: ignore[arg-type]
        return dataclasses.replace(record, previous=previous)
    return dataclasses.replace(record, **{field: other(getattr(record, field))})  # type: ignore[arg-type]


def hashed(record: chain.Record) -> chain.Record:
    """A record with the hash that it should have."""
    return dataclasses.replace(record, hash=chain.hash_of(record))


@given(chains.CHAINS)
def test_a_chain_that_nobody_touched_is_whole(records: Records) -> None:
    report = checking.check(records, head=records[-1].head)
    assert report.findings == ()
    assert (report.rows + report.epochs, report.head, report.is_whole) == (len(records), records[-1].head, True)


@given(chains.CHAINS, strategies.data())
def test_a_change_of_any_field_of_any_record_is_found_at_it(records: Records, data: strategies.DataObject) -> None:
    at = data.draw(strategies.integers(0, len(records) - 1))
    fields = FIELDS_OF_ROWS if isinstance(records[at], chain.Row) else FIELDS_OF_EPOCHS
    field = data.draw(strategies.sampled_from(fields))
    touched = changed(records[at], field)
    report = checking.check([*records[:at], touched, *records[at + 1 :]], head=records[-1].head)
    assert (checking.Fault.CHANGED, touched.head.place) in [(each.fault, each.place) for each in report.findings]


@given(chains.CHAINS, strategies.data())
def test_a_change_that_was_hashed_again_is_found_by_what_follows_or_by_the_head(
    records: Records, data: strategies.DataObject
) -> None:
    at = data.draw(strategies.integers(0, len(records) - 1))
    fields = FIELDS_OF_ROWS if isinstance(records[at], chain.Row) else FIELDS_OF_EPOCHS
    field = data.draw(strategies.sampled_from([each for each in fields if each != "hash"]))
    touched = hashed(changed(records[at], field))
    assert found([*records[:at], touched, *records[at + 1 :]], records[-1].head)


@given(chains.CHAINS, strategies.data())
def test_a_removal_is_found(records: Records, data: strategies.DataObject) -> None:
    at = data.draw(strategies.integers(0, len(records) - 1))
    many = data.draw(strategies.integers(1, len(records) - at))
    assert found([*records[:at], *records[at + many :]], records[-1].head)


@given(chains.CHAINS.filter(lambda records: len(records) > 1), strategies.data())
def test_a_swap_is_found(records: Records, data: strategies.DataObject) -> None:
    one, two = sorted(
        data.draw(strategies.lists(strategies.integers(0, len(records) - 1), min_size=2, max_size=2, unique=True))
    )
    records[one], records[two] = records[two], records[one]
    assert found(records, max((each.head for each in records), key=lambda head: head.place))


@given(chains.CHAINS, chains.ENTRIES, strategies.data())
def test_an_insertion_is_found(records: Records, entry: chain.Entry, data: strategies.DataObject) -> None:
    """Also of what hangs properly on what stands before it, and of what was there already."""
    at = data.draw(strategies.integers(1, len(records)))
    put_in = data.draw(
        strategies.sampled_from([chain.follow(records[at - 1].head, entry), records[at - 1], records[0]])
    )
    assert found([*records[:at], put_in, *records[at:]], records[-1].head)


@given(chains.CHAINS, chains.CHAINS)
def test_another_whole_chain_is_found_by_a_head_that_was_known_earlier(records: Records, others: Records) -> None:
    running = checking.Check(since=records[-1].head)
    for each in others:
        running.take(each)
    is_other = records[-1] not in others
    assert bool(running.end(others[-1].head).findings) is is_other


@given(chains.CHAINS, strategies.data())
def test_any_head_of_a_chain_is_one_that_it_goes_through(records: Records, data: strategies.DataObject) -> None:
    at = data.draw(strategies.integers(0, len(records) - 1))
    running = checking.Check(since=records[at].head)
    for each in records:
        running.take(each)
    assert running.end().findings == ()
    behind = checking.check(records[at + 1 :], records[at].head, records[-1].head)
    assert behind.findings == ()


def test_a_row_that_was_changed_is_named_and_no_other() -> None:
    records = chains.of(3)
    records[2] = changed(records[2], "reason")
    assert found(records, records[-1].head) == [("CHANGED", "1:2")]


def test_a_row_that_was_replaced_with_its_hash_is_seen_at_the_next_one() -> None:
    records = chains.of(3)
    records[2] = hashed(changed(records[2], "reason"))
    assert found(records, records[-1].head) == [("UNLINKED", "1:3")]


def test_rows_that_are_missing_are_named_from_first_to_last() -> None:
    records = chains.of(5)
    report = checking.check([*records[:2], *records[4:]], head=records[-1].head)
    [finding] = report.findings
    assert (finding.fault, str(finding.place)) == (checking.Fault.MISSING, "1:2")
    assert finding.message == "row 2 to row 3 are missing"
    [alone] = checking.check([*records[:2], *records[3:]], head=records[-1].head).findings
    assert (str(alone.place), alone.message) == ("1:2", "the row is missing")


def test_a_row_in_the_wrong_place_is_misplaced_and_nothing_is_missing() -> None:
    first, one, two, three, four, five = chains.of(5)
    assert found([first, one, three, two, four, five], five.head) == [("MISPLACED", "1:2")]
    assert found([first, one, four, five, two, three], five.head) == [("MISPLACED", "1:2"), ("MISPLACED", "1:3")]
    assert found([first, one, four, five, three, two], five.head) == [("MISPLACED", "1:2"), ("MISPLACED", "1:3")]
    assert found([first, one, four, five, three], five.head) == [("MISSING", "1:2"), ("MISPLACED", "1:3")]


def test_a_row_in_the_wrong_place_that_was_replaced_too_is_both() -> None:
    first, one, two, three = chains.of(3)
    other_two = hashed(changed(two, "reason"))
    assert found([first, one, three, other_two], three.head) == [("MISPLACED", "1:2"), ("UNLINKED", "1:3")]


def test_a_row_that_is_there_twice_is_repeated() -> None:
    first, one, two = chains.of(2)
    assert found([first, one, one, two], two.head) == [("REPEATED", "1:1")]


def test_two_rows_at_one_place_are_a_fork() -> None:
    first, one, two, three = chains.of(3)
    other_two = chain.follow(one.head, chains.entry(77))
    assert found([first, one, two, other_two, three], three.head) == [("FORKED", "1:2")]
    assert found([first, one, other_two, two, three], three.head) == [("FORKED", "1:2"), ("UNLINKED", "1:3")]


def test_a_tail_that_is_gone_is_found_by_the_head_and_by_an_earlier_head_and_by_the_seal() -> None:
    records = chains.of(3)
    assert found(records[:-1]) == []
    assert found(records[:-1], records[-1].head) == [("TRUNCATED", "1:2")]
    running = checking.Check(since=records[-1].head)
    for each in records[:-1]:
        running.take(each)
    [finding] = running.end(records[-2].head).findings
    assert (finding.fault, str(finding.place)) == (checking.Fault.TRUNCATED, "1:2")
    sealed = chains.of(3, 1)
    assert found([*sealed[:2], *sealed[4:]], sealed[-1].head) == [("MISSING", "1:2")]


def test_what_ends_without_a_head_where_it_must_have_one_is_truncated() -> None:
    running = checking.Check()
    for each in chains.of(1):
        running.take(each)
    [finding] = running.end(must_have_head=True).findings
    assert (finding.fault, str(finding.place)) == (checking.Fault.TRUNCATED, "1:1")


def test_rows_behind_the_head_or_behind_the_seal_were_put_in() -> None:
    records = chains.of(2)
    assert found([*records, chain.follow(records[-1].head, chains.entry(9))], records[-1].head) == [("INSERTED", "1:3")]
    sealed = chains.of(2, 1)
    put_in = chain.follow(sealed[2].head, chains.entry(9))
    assert found([*sealed[:3], put_in, *sealed[3:]], sealed[-1].head) == [("INSERTED", "1:3")]


def test_a_last_row_that_was_replaced_is_seen_by_the_head_and_by_the_seal() -> None:
    records = chains.of(2)
    replaced = hashed(changed(records[-1], "reason"))
    assert found([*records[:-1], replaced], records[-1].head) == [("FORKED", "1:2")]
    sealed = chains.of(2, 1)
    sealed[2] = hashed(changed(sealed[2], "reason"))
    assert found(sealed, sealed[-1].head) == [("UNLINKED", "2:0")]


def test_an_epoch_that_is_missing_is_named() -> None:
    one, two, three, four = chains.of(1), chains.of(1, 1), chains.of(1, 1, 1), chains.of(1, 1, 1, 1)
    assert found([*one, *three[len(two) :]], three[-1].head) == [("MISSING", "2:0")]
    assert found([*one, *four[len(three) :]], four[-1].head) == [("MISSING", "2:0")]
    beginning = [*one, *two[len(one) + 1 :]]  # its row alone is left
    assert found(beginning, two[-1].head) == [("MISSING", "2:0")]
    far = [*one, *four[len(three) + 1 :]]
    assert found(far, four[-1].head) == [("MISSING", "2:0"), ("MISSING", "4:0")]


def test_the_messages_say_which_epochs_are_missing() -> None:
    four = chains.of(1, 1, 1, 1)
    [finding] = checking.check([*four[:2], *four[6:]], head=four[-1].head).findings
    assert finding.message == "epochs 2 to 3 are missing"
    [one] = checking.check([*four[:4], *four[6:]], head=four[-1].head).findings
    assert one.message == "epoch 3 is missing"
    [begun] = checking.check([*four[:2], *four[3:]], head=four[-1].head).findings
    assert begun.message == "the beginning of the epoch is missing"
    both = checking.check([*chains.of(1), *chains.of(1, 2)[4:]], head=chains.of(1, 2)[-1].head).findings
    assert [each.message for each in both] == ["the beginning to row 1 are missing"]


def test_epochs_in_the_wrong_order_are_misplaced() -> None:
    three = chains.of(1, 1, 1)
    late = [("MISPLACED", "2:0"), ("MISPLACED", "2:1")]
    assert found([*three[:2], *three[4:], *three[2:4]], three[-1].head) == late
    assert found([*three[:2], three[3], three[2], *three[4:]], three[-1].head) == late[:1]
    five = chains.of(1, 1, 1, 1, 1)
    mixed = [*five[:2], *five[8:], *five[4:6]]
    assert found(mixed, five[-1].head) == [
        ("MISSING", "2:0"),
        ("MISPLACED", "3:0"),
        ("MISPLACED", "3:1"),
        ("MISSING", "4:0"),
    ]
    alone = [*five[:2], *five[8:], five[5]]
    assert found(alone, five[-1].head) == [("MISSING", "2:0"), ("MISPLACED", "3:1")]


def test_two_epochs_of_one_number_are_a_fork() -> None:
    records = chains.of(1, 1)
    fork = chain.begin(records[1].head, chains.NOW + timedelta(hours=1))
    assert found([*records[:3], fork, records[3]], records[-1].head) == [("FORKED", "2:0")]
    assert found([*records[:3], records[2], records[3]], records[-1].head) == [("REPEATED", "2:0")]


def test_a_chain_that_was_forked_behind_an_earlier_head_is_found_at_it() -> None:
    first, one, _two = chains.of(2)
    since = chain.follow(one.head, chains.entry(99)).head
    running = checking.Check(since=since)
    for each in chains.of(2):
        running.take(each)
    assert [(each.fault.value, str(each.place)) for each in running.end().findings] == [("FORKED", "1:2")]
    gone = checking.Check(first.head, since=chain.Head(1, 0, "a" * 64))
    assert [each.fault for each in gone.end().findings] == [checking.Fault.MISSING]


def test_a_row_at_a_place_that_is_none_is_found() -> None:
    first, one = chains.of(1)
    assert isinstance(one, chain.Row)
    nowhere = hashed(dataclasses.replace(one, epoch=2, position=0))
    assert found([first, one, nowhere], one.head) == [("FORKED", "2:0")]


@settings(max_examples=5)
@given(strategies.integers(checking.FINDINGS_MAX, checking.FINDINGS_MAX + 5))
def test_where_very_much_is_wrong_the_rest_is_not_looked_at(many: int) -> None:
    records = chains.of(many + 20)
    wrong = [
        changed(each, "reason") if isinstance(each, chain.Row) and each.position <= many else each for each in records
    ]
    report = checking.check(wrong, head=records[-1].head)
    assert len(report.findings) == checking.FINDINGS_MAX
    assert not report.is_whole
    assert report.rows == checking.FINDINGS_MAX


@pytest.mark.parametrize("field", FIELDS_OF_ROWS)
def test_each_field_of_a_row_counts(field: str) -> None:
    row = chains.of(1)[1]
    assert chain.hash_of(changed(row, field)) != changed(row, field).hash
