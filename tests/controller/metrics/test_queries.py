"""Questions to a Prometheus server: what is asked for each measure, and that no value breaks out of its string."""

from __future__ import annotations

import ast
from datetime import timedelta

import hypothesis
import pytest
from hypothesis import strategies

from controller.config import sources
from controller.core import errors, model
from controller.metrics import queries

K = model.MeasureKind
SUBJECT = queries.Subject(model.RolloutId("r-1"), model.ComponentName("web"), "2.0.0")
SERVER = sources.Server("main", "http://127.0.0.1:9090", selector='job="{{component}}"')
STEP = timedelta(seconds=30)


def value(query: str, version: str = "2.0.0") -> str:
    subject = queries.Subject(SUBJECT.rollout, SUBJECT.component, version)
    return queries.pair(model.Measure(K.LEVEL, "queue", query=query), subject, SERVER, STEP).value


def test_a_level_is_the_mean_of_its_readings_within_the_step() -> None:
    assert queries.pair(model.Measure(K.LEVEL, "queue"), SUBJECT, SERVER, STEP) == queries.Pair(
        'sum by (instance) (avg_over_time(queue{job="web"}[30000ms]))', ""
    )


def test_a_count_is_what_a_counter_has_more_than_one_step_before() -> None:
    found = queries.pair(model.Measure(K.RATE, 'errors_total{code="500"}'), SUBJECT, SERVER, STEP)
    now = 'errors_total{code="500", job="web"}'
    before = f"{now} offset 30000ms"
    grown = f"{now} - {before} >= 0 or {now} < {before} or ({now} unless {before}) and on (instance) {before}"
    assert found == queries.Pair(f"sum by (instance) ({grown})", "")


def test_a_ratio_asks_for_both_series() -> None:
    found = queries.pair(model.Measure(K.RATIO, "errors_total", "requests_total"), SUBJECT, SERVER, STEP)
    assert "errors_total{" in found.value
    assert "errors_total" not in found.exposure
    assert "requests_total{" in found.exposure


@pytest.mark.parametrize("series", ["latency_seconds", "latency_seconds_bucket"])
def test_a_quantile_is_made_of_the_buckets_and_weighed_by_the_count(series: str) -> None:
    found = queries.pair(model.Measure(K.QUANTILE, series, quantile_percent=95), SUBJECT, SERVER, STEP)
    assert found.value.startswith("histogram_quantile(0.95, sum by (instance, le) (latency_seconds_bucket{")
    assert found.exposure.startswith("sum by (instance) (latency_seconds")


def test_the_words_of_users_stand_for_both_questions() -> None:
    measure = model.Measure(K.RATIO, "", query='f{v="{{version}}"}[{{step}}]', per_query="g by ({{ node_label }})")
    found = queries.pair(measure, SUBJECT, SERVER, STEP)
    assert found == queries.Pair('f{v="2.0.0"}[30000ms]', "g by (instance)")


def test_a_figure_of_users_counts_each_step_alike_where_they_ask_for_nothing_else() -> None:
    found = queries.pair(model.Measure(K.QUANTILE, "", query="f", per_query=""), SUBJECT, SERVER, STEP)
    assert found == queries.Pair("f", "")


@hypothesis.given(strategies.text(max_size=12))
def test_no_value_breaks_out_of_its_string(version: str) -> None:
    for quote in "\"'":
        query = value(f"f{{v={quote}{{{{version}}}}{quote}}}", version)
        assert query.startswith(f"f{{v={quote}")
        assert query.endswith(f"{quote}}}")
        assert "\n" not in query
        body = query.removeprefix("f{v=").removesuffix("}")
        tokens = [found[0] for found in queries._TOKENS.finditer(query)]
        assert body in tokens  # it is still one string
        if version.isprintable():
            assert ast.literal_eval(body) == version


@pytest.mark.parametrize(
    ("template", "version", "query"),
    [
        ('f{v=~"{{version}}"}', "1.0+a", r'f{v=~"1\\.0\\+a"}'),
        ("f{v!~'{{version}}'}", "1.0", r"f{v!~'1\\.0'}"),
        ("f{v=~`{{version}}`}", "1.0", r"f{v=~`1\.0`}"),
        ("f{v=`{{version}}`}", '1"\\', 'f{v=`1"\\`}'),
        ('f{a="x\\"{{version}}"}', '"', 'f{a="x\\"\\""}'),
        ('f # " {{version}}\n+ g{v="{{version}}"}', "1", 'f # " {{version}}\n+ g{v="1"}'),
    ],
)
def test_a_value_is_escaped_for_where_it_stands(template: str, version: str, query: str) -> None:
    assert value(template, version) == query


@pytest.mark.parametrize(
    ("query", "rule"),
    [
        ("f{{version}}", "outside of a quoted string"),
        ('f{v="{{step}}"}', "inside a quoted string"),
        ('f{v="{{node}}"}', "inside a quoted string"),
        ("f[{{stop}}]", "outside of a quoted string"),
        ('f{v="{{version}}}', "closed"),
        ("f" * 4097, "4096"),
    ],
)
def test_a_query_is_refused_where_a_placeholder_cannot_be_replaced(query: str, rule: str) -> None:
    with pytest.raises(errors.InvalidRequestError, match=r"^cannot ask for query") as caught:
        queries.check(model.Measure(K.LEVEL, "queue", query=query))
    assert (caught.value.code, caught.value.field) == ("query_invalid", "query")
    assert rule in caught.value.rule


def test_a_value_with_a_backtick_is_refused_between_two_of_them() -> None:
    with pytest.raises(errors.InvalidRequestError, match="without `"):
        value("f{v=`{{version}}`}", "1`} or g")


@pytest.mark.parametrize("series", ["", "a b", 'a{b="c"} or d', 'a{b="c}', "a{b}", "1a", 'a{b="c"}[5m]'])
def test_what_is_no_series_is_refused(series: str) -> None:
    with pytest.raises(errors.InvalidRequestError, match=r"^cannot ask for series"):
        queries.check(model.Measure(K.LEVEL, series))


def test_a_measure_without_its_other_series_is_refused() -> None:
    with pytest.raises(errors.InvalidRequestError, match=r"^cannot ask for per ''"):
        queries.check(model.Measure(K.RATIO, "errors_total"))
