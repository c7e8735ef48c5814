"""Series of Prometheus text: what they are, what they come to, and what is no series."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core import model
from agent.probes import series

COUNTER, GAUGE = model.SeriesKind.COUNTER, model.SeriesKind.GAUGE
HISTOGRAM = """\
# HELP lat Seconds.
# TYPE lat histogram
lat_bucket{path="/a/{id}",le="0.1"} 3
lat_bucket{le="0.5",path="/b"} 2
lat_bucket{path="/b",le="0.1"} 1
lat_bucket{path="/a/{id}",le="+Inf"} 9
lat_bucket{path="/a/{id}",le="nonsense"} 9
lat_sum{path="/a/{id}"} 4.5
lat_sum{path="/b"} 1
lat_count 11
other_bucket{le="1"} 1
"""


def read(text: str, *names: str) -> dict[str, float]:
    return {reading.name: reading.value for reading in series.read(text, names)}


def kinds(text: str, *names: str) -> dict[str, model.SeriesKind]:
    return {reading.name: reading.kind for reading in series.read(text, names)}


def test_the_kind_is_what_the_text_says_and_else_what_the_name_says() -> None:
    text = """\
# TYPE hits counter
# TYPE queue_count gauge
hits 1
queue_count 2
a_total 3
b_count 4
c_sum 5
d_bucket{le="1"} 6
load 7
# TYPE odd untyped
odd 8
"""
    names = ("hits", "queue_count", "a_total", "b_count", "c_sum", 'd_bucket{le="1"}', "load", "odd")
    found = kinds(text, *names)
    counters = {"hits", "a_total", "b_count", "c_sum", 'd_bucket{le="1"}'}
    assert found == {name: COUNTER if name in counters else GAUGE for name in names}


def test_a_histogram_is_its_buckets_over_all_other_labels_its_sum_and_its_count() -> None:
    expected = {
        'lat_bucket{le="0.1"}': 4.0,
        'lat_bucket{le="0.5"}': 2.0,
        'lat_bucket{le="+Inf"}': 9.0,
        "lat_sum": 5.5,
        "lat_count": 11.0,
    }
    assert read(HISTOGRAM, "lat") == expected
    assert set(kinds(HISTOGRAM, "lat").values()) == {COUNTER}
    assert read(HISTOGRAM.replace(" histogram", " untyped"), "lat") == {}


def test_a_summary_is_its_sum_and_its_count_and_never_a_sum_of_quantiles() -> None:
    text = '# TYPE lat summary\nlat{quantile="0.5"} 1\nlat{quantile="0.9"} 2\nlat_sum 30\nlat_count 20\n'
    assert read(text, "lat") == {"lat_sum": 30.0, "lat_count": 20.0}


def test_of_too_many_buckets_some_are_told_the_least_and_the_last_among_them() -> None:
    bounds = [str(number) for number in range(1, 200)]
    lines = [f'lat_bucket{{le="{bound}"}} {bound}' for bound in bounds]
    text = "\n".join(["# TYPE lat histogram", *lines, 'lat_bucket{le="+Inf"} 999'])
    found = read(text, "lat")
    assert len(found) == series.BUCKETS_MAX
    assert (found['lat_bucket{le="1"}'], found['lat_bucket{le="+Inf"}']) == (1.0, 999.0)


def test_a_counter_that_has_counted_nothing_yet_is_zero_and_one_that_nobody_shows_is_unknown() -> None:
    assert read("# TYPE errors_total counter\n", "errors_total", "hits_total") == {"errors_total": 0.0}
    assert read("# TYPE load gauge\n", "load") == {}
    assert read('# TYPE e_total counter\ne_total{a="b"} NaN\n', "e_total") == {}
    assert read("# TYPE e_total counter\n", 'e_total{a="b"}') == {}  # that label may never have been there


def test_what_is_no_finite_number_is_absent() -> None:
    assert read("a 1\nb NaN\nc +Inf\nd -Inf\ne broken\nf 1e309\n", *"abcdef") == {"a": 1.0}
    assert read("a 1.7e308\na 1.7e308\n", "a") == {}


@given(text=st.text(max_size=300), names=st.lists(st.text(max_size=10), max_size=4))
def test_whatever_the_text_nothing_but_finite_numbers_of_bounded_many_names_comes_of_it(
    text: str, names: list[str]
) -> None:
    found = series.read(text, names)
    assert all(math.isfinite(reading.value) for reading in found)
    assert len({reading.name for reading in found}) == len(found) <= len(names) * (series.BUCKETS_MAX + 2)


@pytest.mark.parametrize("value", ['"a\\"}"', '"{}"', '"}"', '"\\\\"'])
def test_braces_and_quotes_in_labels_are_no_end_of_them(value: str) -> None:
    assert read(f"hits{{path={value}}} 2\nhits 1\n", "hits") == {"hits": 3.0}
