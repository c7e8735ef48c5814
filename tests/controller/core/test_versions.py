from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.core import errors, versions

pytestmark = pytest.mark.core

# Source: SemVer 2.0, clause 11, and the examples of its suggested expression.
IN_ORDER = (
    "0.0.0-0",
    "0.0.0-00a",
    "0.0.0",
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0-beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0-rc.1",
    "1.0.0",
    "1.0.10",
    "1.2.0",
    "1.10.0",
    "2.0.0",
    "99999999999999999999999.0.0",
)
WRONG = (
    "",
    "1",
    "1.2",
    "1.2.3.4",
    "v1.2.3",
    "01.2.3",
    "1.2.3-",
    "1.2.3-01",
    "1.2.3-a..b",
    "1.2.3+",
    "1.2.3+a+b",
    "1.2.3\n",
)

numbers = st.integers(0, 20).map(str)
words = st.text("ab-09", min_size=1, max_size=3).filter(lambda text: not (text.isdecimal() and text != str(int(text))))
texts = st.builds(
    lambda core, prerelease, build: ".".join(core) + "".join(prerelease) + build,
    st.tuples(numbers, numbers, numbers),
    st.lists(words, max_size=3).map(lambda parts: ["-" + ".".join(parts)] if parts else []),
    st.sampled_from(["", "+1", "+b.7"]),
)


@pytest.mark.parametrize(("lower", "higher"), list(itertools.pairwise(IN_ORDER)))
def test_the_order_is_that_of_the_specification(lower: str, higher: str) -> None:
    assert versions.is_lower(lower, higher)
    assert not versions.is_lower(higher, lower)


@pytest.mark.parametrize("text", [*WRONG, "1.0." + "0" * 200, "1.2.\u0663"])
def test_what_is_not_semver_is_refused_by_field(text: str) -> None:
    with pytest.raises(errors.InvalidRequestError, match="cannot read target_version") as refusal:
        versions.parse(text, "target_version")
    assert refusal.value.code == "invalid_version"
    assert refusal.value.field == "target_version"


def test_build_metadata_have_no_order() -> None:
    assert versions.parse("1.0.0+a").precedence == versions.parse("1.0.0+b").precedence
    assert versions.parse("1.0.0-rc.1+a.b").build == "a.b"


@given(texts, texts, texts)
def test_the_order_is_total_and_transitive(first: str, second: str, third: str) -> None:
    assert not (versions.is_lower(first, second) and versions.is_lower(second, first))
    if versions.is_lower(first, second) and versions.is_lower(second, third):
        assert versions.is_lower(first, third)


@pytest.mark.parametrize(
    ("version", "comparators", "is_let"),
    [
        ("1.2.0", "", True),
        ("1.2.0", ">=1.2.0,<2.0.0", True),
        ("2.0.0", ">=1.2.0,<2.0.0", False),
        ("2.0.0-rc.1", ">=1.2.0,<2.0.0", True),
        ("1.2.0+b.7", "1.2.0", True),
        ("1.2.0", " = 1.2.0 ", True),
        ("1.2.1", "=1.2.0", False),
        ("1.2.0", "!=1.2.0", False),
        ("1.2.0", "<=1.2.0, >1.1.0", True),
        ("1.1.0", ">1.1.0", False),
        ("1.3.0", "<=1.2.0", False),
    ],
)
def test_comparators_let_a_version_pass_where_each_of_them_does(version: str, comparators: str, is_let: bool) -> None:  # noqa: FBT001  # a column of the table
    assert versions.matches(version, comparators) is is_let


@pytest.mark.parametrize("text", ["latest", "~>1.2.0", ">=1.2", ">=1.2.0 <2.0.0", ",", ",".join(["1.0.0"] * 17)])
def test_what_is_no_comparator_is_refused_by_field(text: str) -> None:
    with pytest.raises(errors.InvalidRequestError, match="cannot read hot_swap_from") as refusal:
        versions.parse_comparators(text, "hot_swap_from")
    assert refusal.value.field == "hot_swap_from"
