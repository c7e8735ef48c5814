"""What a hash is over, and how heads are written."""

from __future__ import annotations

import dataclasses
import hashlib
from datetime import timedelta, timezone

import pytest
from hypothesis import given

from controller.core import errors
from controller.core.audit import chain
from tests.controller.core.audit import chains


def by_hand(*fields: str) -> str:
    told = b"".join(len(each.encode()).to_bytes(8, "big") + each.encode() for each in fields)
    return hashlib.sha256(told).hexdigest()


def test_the_hash_of_a_row_is_over_all_its_fields_as_the_documentation_says() -> None:
    entry = chain.Entry(chains.NOW, "ann", "rollout.pause", "r-1", "Mittagspause ☕")
    row = chain.follow(chain.Head(3, 6, "ab" * 32), entry)
    told = ("ann", "rollout.pause", "r-1", "Mittagspause ☕", "done", "ab" * 32)
    assert row.hash == by_hand("instar.audit.row.v1", "3", "7", "2026-01-01T12:30:00.000250+00:00", *told)
    assert (row.epoch, row.position, row.previous_hash) == (3, 7, "ab" * 32)
    assert row.head == chain.Head(3, 7, row.hash)


def test_the_hash_of_an_epoch_is_over_what_it_seals() -> None:
    epoch = chain.begin(chain.Head(3, 6, "ab" * 32), chains.NOW)
    when = "2026-01-01T12:30:00.000250+00:00"
    assert epoch.hash == by_hand("instar.audit.epoch.v1", "4", when, "3", "6", "ab" * 32)
    assert epoch.head == chain.Head(4, 0, epoch.hash)


def test_the_first_rows_of_a_log_have_the_hashes_that_they_have_for_ever() -> None:
    epoch, row = chains.of(1)
    assert epoch.hash == "a44b9ab659a91419b84ab273aa8c9fab0d828dd8bf3221b21dedb59d8542267c"
    assert row.hash == "63b601fb5893bbaaabfb4f8c08dcd35ca736e6b021c335246d4c73378fb07436"


def test_an_instant_is_hashed_in_utc_wherever_it_was_written() -> None:
    there = chains.NOW.astimezone(timezone(timedelta(hours=5)))
    entry = chains.entry(0)
    assert chain.follow(chain.GENESIS, dataclasses.replace(entry, at=there)).hash == (
        chain.follow(chain.GENESIS, dataclasses.replace(entry, at=chains.NOW)).hash
    )


@given(chains.ENTRIES, chains.ENTRIES)
def test_two_entries_have_one_hash_only_if_they_are_one(one: chain.Entry, other: chain.Entry) -> None:
    hashes = {chain.follow(chain.GENESIS, each).hash for each in (one, other)}
    assert (len(hashes) == 1) == (one == other)


def test_text_that_moves_from_one_field_to_the_next_gives_another_hash() -> None:
    one = chain.Entry(chains.NOW, "ann", "ab", "c", "")
    other = chain.Entry(chains.NOW, "ann", "a", "bc", "")
    assert chain.follow(chain.GENESIS, one).hash != chain.follow(chain.GENESIS, other).hash


def test_a_head_that_is_written_is_read_again() -> None:
    head = chains.of(2)[-1].head
    assert chain.parse_head(str(head), "--since") == head
    assert chain.parse_head(str(chain.GENESIS), "--since") == chain.GENESIS


@pytest.mark.parametrize("text", ["", "1:2", "1:2:xyz", f"01:2:{'a' * 64}", f"1:2:{'A' * 64}", f"1:-2:{'a' * 64}"])
def test_what_is_no_head_is_refused(text: str) -> None:
    with pytest.raises(errors.InvalidRequestError, match="cannot use --since") as caught:
        chain.parse_head(text, "--since")
    assert (caught.value.field, caught.value.value) == ("--since", text)
