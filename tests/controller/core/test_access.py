"""How a change of what decides who may do what is put into words."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controller.core import access

_facts = st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=4)


def test_what_is_seen_for_the_first_time_is_said_to_be() -> None:
    now = {"api ann": "admin"}
    assert access.told(None, now) == f"first seen to sha256:{access.digest(now)}; added api ann: admin"


def test_a_change_says_both_digests_and_what_was_added_removed_and_changed() -> None:
    before, now = {"a": "1", "b": "2", "c": "3"}, {"b": "2", "c": "4", "d": "5"}
    assert access.told(before, now) == (
        f"changed from sha256:{access.digest(before)} to sha256:{access.digest(now)};"
        " added d: 5; removed a: 1; changed c: from 3 to 4"
    )


def test_a_large_change_is_bounded_and_says_how_much_is_left_out() -> None:
    now = {f"api {number:04}": "x" * 2_000 for number in range(500)}
    text = access.told({}, now)
    assert len(text) < access.TOLD_CHARS_MAX + 32
    shown = text.count("; added ")
    assert 0 < shown < 500
    assert text.endswith(f" ...; and {500 - shown} more")


@given(_facts, _facts)
def test_facts_have_the_same_digest_if_and_only_if_they_are_the_same(
    one: dict[str, str], other: dict[str, str]
) -> None:
    assert (access.digest(one) == access.digest(other)) is (one == other)
    assert access.digest(one) == access.digest(dict(reversed(one.items())))
