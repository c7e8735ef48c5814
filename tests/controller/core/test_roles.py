"""Roles and how far they reach."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.core import errors, roles, selector

pytestmark = pytest.mark.core

KEYS = st.sampled_from(["team", "zone"])
VALUES = st.sampled_from(["a", "b", "c"])
LABELS = st.dictionaries(KEYS, VALUES)
MEMBERS = st.sets(VALUES, min_size=1).map(lambda found: ", ".join(sorted(found)))
PARTS = st.one_of(
    st.builds("{}={}".format, KEYS, VALUES),
    st.builds("{}!={}".format, KEYS, VALUES),
    st.builds("{} in ({})".format, KEYS, MEMBERS),
    st.builds("{} notin ({})".format, KEYS, MEMBERS),
    KEYS,
    KEYS.map("!{}".format),
)
SELECTORS = st.lists(PARTS, max_size=3).map(",".join)


@given(SELECTORS, SELECTORS, LABELS)
def test_whatever_a_selector_takes_is_taken_by_one_that_it_lies_within(
    inner: str, outer: str, labels: Mapping[str, str]
) -> None:
    wanted, around = selector.parse(inner), selector.parse(outer)
    if wanted.lies_within(around) and wanted.matches(labels):
        assert around.matches(labels)


@given(SELECTORS)
def test_a_selector_lies_within_itself_and_within_everything(text: str) -> None:
    assert selector.parse(text).lies_within(selector.parse(text))
    assert selector.parse(text).lies_within(selector.parse(""))


@pytest.mark.parametrize(
    ("wanted", "outer", "is_within"),
    [
        ("team=web,zone=a", "team=web", True),
        ("team=web", "team in (web, db)", True),
        ("team in (web, db)", "team=web", False),
        ("team=web", "team", True),
        ("team", "team=web", False),
        ("team!=web", "team", False),
        ("zone=a", "team=web", False),
        ("", "team=web", False),
        ("team=db", "team!=web", True),
        ("team=web", "team!=web", False),
        ("team", "team!=web", False),
        ("team notin (web, db)", "team!=web", True),
        ("team!=web", "team notin (web, db)", False),
        ("!team", "team!=web", True),
        ("!team", "!team", True),
        ("team=web", "!team", False),
        ("team!=web", "!team", False),
    ],
)
def test_a_selector_lies_within_another_where_each_part_follows(wanted: str, outer: str, *, is_within: bool) -> None:
    assert selector.parse(wanted).lies_within(selector.parse(outer)) is is_within


def test_several_grants_of_a_role_reach_as_far_as_all_together() -> None:
    grants = (
        roles.grant("operator", "team=web"),
        roles.grant("operator", "team=db"),
        roles.grant("viewer"),
    )
    acts = roles.scope(grants, {roles.Role.OPERATOR, roles.Role.ADMIN})
    assert (acts.is_whole, acts.is_empty) == (False, False)
    assert [acts.takes({"team": team}) for team in ("web", "db", "ops")] == [True, True, False]
    assert acts.holds(selector.parse("team=db,zone=a"))
    assert not acts.holds(selector.parse("zone=a"))
    assert roles.scope(grants, {roles.Role.VIEWER}).is_whole
    assert roles.scope(grants, {roles.Role.APPROVER}).is_empty


@pytest.mark.parametrize(
    ("role", "scope", "code"),
    [("root", "", "grant_invalid"), ("viewer", "a b c", "invalid_selector"), ("publisher", "a=b", "grant_invalid")],
)
def test_what_can_be_no_grant_is_refused(role: str, scope: str, code: str) -> None:
    with pytest.raises(errors.InvalidRequestError) as caught:
        roles.grant(role, scope)
    assert caught.value.code == code
