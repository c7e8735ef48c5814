from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.core import errors, selector

pytestmark = pytest.mark.core

LABELS = {"zone": "a", "tier": "", "app.kubernetes.io/name": "web"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        "zone=a",
        "zone==a",
        " zone = a ",
        "zone!=b",
        "missing!=b",
        "tier=",
        "zone in (a, b)",
        "zone notin (b,c)",
        "missing notin (b)",
        "tier in (,x)",
        "zone",
        "!missing",
        "app.kubernetes.io/name=web",
        "zone in (a,b),tier,!missing,zone!=c",
    ],
)
def test_a_selector_takes_what_it_names(text: str) -> None:
    assert selector.parse(text).matches(LABELS)


@pytest.mark.parametrize(
    "text", ["zone=b", "zone!=a", "zone in (b)", "zone notin (a,b)", "missing", "!zone", "zone=a,tier=x"]
)
def test_a_selector_leaves_the_rest(text: str) -> None:
    assert not selector.parse(text).matches(LABELS)


@pytest.mark.parametrize(
    "text",
    [
        ",",
        "zone=a,",
        "zone=a b",
        "=a",
        "zone in a",
        "zone in (a",
        "zone in (a,b))",
        "-x",
        "zone>1",
        "x" * 5000,
        "zone=(a)",
    ],
)
def test_what_is_no_selector_is_refused(text: str) -> None:
    with pytest.raises(errors.InvalidRequestError, match="cannot read selector") as refusal:
        selector.parse(text)
    assert refusal.value.field == "selector"


def test_a_selector_knows_the_labels_that_it_looks_at() -> None:
    assert selector.parse("zone=a,!cordoned,tier in (x)").keys == {"zone", "cordoned", "tier"}


@given(st.dictionaries(st.sampled_from(["a", "b", "c"]), st.sampled_from(["1", "2"])))
def test_a_selector_and_its_opposite_share_the_fleet(labels: dict[str, str]) -> None:
    for positive, negative in (("a=1", "a!=1"), ("b in (1,2)", "b notin (1,2)"), ("c", "!c")):
        assert selector.parse(positive).matches(labels) is not selector.parse(negative).matches(labels)
