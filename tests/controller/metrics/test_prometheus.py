"""A real Prometheus server as a source: what it gives for each kind of measure, and what it refuses."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import httpx
import numpy as np
import pytest

from controller import clock
from controller.config import sources
from controller.core import errors, model
from controller.core.analysis import samples
from controller.metrics import prometheus, queries
from tests.controller.metrics import real_prometheus as real

pytestmark = [real.needed, pytest.mark.slow]
K = model.MeasureKind
now = clock.SystemClock().now
SUBJECT = queries.Subject(model.RolloutId("r-1"), model.ComponentName("web"), "2.0.0")
CANARY, CONTROL, ABSENT = (model.NodeId(name) for name in ("web-1", "web-2", "web-3"))
STEPS = 4
PAST = timedelta(seconds=STEPS)
REQUESTS, ERRORS = 'requests_total{version="2.0.0",code="200"}', 'requests_total{version="2.0.0",code="500"}'
SLOW, QUICK = 'latency_seconds_bucket{le="+Inf"}', 'latency_seconds_bucket{le="1"}'
RATIO = model.Measure(K.RATIO, 'requests_total{code="500"}', "requests_total")


class Stage:
    """A Prometheus server, and two nodes of three."""

    def __init__(self, url: str, nodes: list[real.Node]) -> None:
        self.canary, self.control = nodes
        self.url = url
        names = {node.address: node.name for node in nodes}
        self.server = sources.Server(
            "main", url, step=timedelta(seconds=1), nodes=names, selector='job="{{component}}"'
        )
        self.began_at = now()

    def begin(self) -> None:
        """Let the evidence begin now."""
        self.began_at = now()

    async def scraped(self, more: int) -> None:
        """Wait until the server has the figures of so many further scrapes of each node."""
        async with httpx.AsyncClient(trust_env=False) as client:
            for node in (self.canary, self.control):
                wanted = node.counters["scrapes_total"] + more

                async def has(wanted: float = wanted, address: str = node.address) -> bool:
                    form = {"query": f'scrapes_total{{instance="{address}"}} >= {wanted}'}
                    answer = await client.post(f"{self.url}/api/v1/query", data=form)
                    return bool(answer.json()["data"]["result"])

                await real.until(has)

    async def sample(self, measure: model.Measure) -> samples.Sample:
        """Ask for what the nodes show now."""
        source = prometheus.Prometheus(self.server)
        async with contextlib.aclosing(source):
            metrics = [model.JudgedMetric("it", measure)]
            canary, control = {CANARY: self.began_at}, [CONTROL, ABSENT]
            found = await source.samples(SUBJECT, metrics, canary, control, past=PAST, began_at=self.began_at, at=now())
        return found["it"]


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    grows = {
        "scrapes_total": 1.0,
        REQUESTS: 99.0,
        ERRORS: 1.0,
        QUICK: 90.0,
        SLOW: 100.0,
        "latency_seconds_count": 100.0,
    }
    grows["latency_seconds_sum"] = 20.0
    nodes = [real.Node(name, grows=dict(grows), gauges={"queue_size": 3.0}) for name in (CANARY, CONTROL)]
    async with real.scraping(tmp_path, nodes) as url:
        await real.until(lambda: all(node.scrapes > 1 for node in nodes))
        yield Stage(url, nodes)


async def test_each_kind_of_measure_is_told_before_and_after(stage: Stage) -> None:
    await stage.scraped(STEPS)
    stage.begin()
    stage.canary.grows |= {ERRORS: 101.0, "latency_seconds_sum": 60.0, QUICK: 40.0}
    stage.canary.gauges["queue_size"] = 9.0
    await stage.scraped(3)

    ratio = await stage.sample(RATIO)
    assert ratio.is_canary.tolist() == [True, False, False]
    before = ratio.before / ratio.before_exposure
    assert before[:2] == pytest.approx(0.01)
    after = ratio.after / ratio.after_exposure
    assert after[:2] == pytest.approx([101 / 200, 0.01], rel=0.2)  # one scrape may belong to either side
    assert ratio.before[1] == round(ratio.before[1])  # whole events, not extrapolated ones

    rate = await stage.sample(model.Measure(K.RATE, "requests_total"))
    assert rate.before_exposure[1] <= STEPS
    assert rate.before[:2] / rate.before_exposure[:2] == pytest.approx([100, 100], rel=0.25)

    mean = await stage.sample(model.Measure(K.MEAN, "latency_seconds_sum", "latency_seconds_count"))
    assert mean.before[:2] == pytest.approx(0.2)
    assert mean.after[:2] == pytest.approx([0.6, 0.2], rel=0.25)
    assert mean.after_exposure[1] >= 200

    median = await stage.sample(model.Measure(K.QUANTILE, "latency_seconds", quantile_percent=45))
    assert median.before[:2] == pytest.approx(0.5)
    assert median.after[0] > 0.8
    assert median.after[1] == pytest.approx(0.5)

    level = await stage.sample(model.Measure(K.LEVEL, "queue_size"))
    assert level.before[:2].tolist() == [3.0, 3.0]
    assert level.after[0] > 6.0
    assert level.after_exposure[1] >= 2

    for each in (ratio, rate, mean, median, level):  # the node that the server does not know
        figures = (each.before, each.before_exposure, each.after, each.after_exposure, each.past_spread)
        assert np.isnan([figure[2] for figure in figures]).all()


async def test_a_counter_that_began_anew_or_appeared_counts_from_zero(stage: Stage) -> None:
    await stage.scraped(1)
    stage.begin()
    stage.canary.counters = {"scrapes_total": stage.canary.counters["scrapes_total"], REQUESTS: 0.0}
    stage.canary.grows = {"scrapes_total": 1.0, REQUESTS: 10.0}  # a process that has not failed yet
    await stage.scraped(2)
    stage.canary.counters['requests_total{version="2.0.0",code="503"}'] = 7.0
    await stage.scraped(2)
    found = await stage.sample(model.Measure(K.RATIO, 'requests_total{code="503"}', "requests_total"))
    assert found.after[0] == 7.0
    everything = await stage.sample(model.Measure(K.RATE, "requests_total"))
    assert 0 < everything.after[0] <= 100 + 7 + 10 * stage.canary.scrapes


async def test_the_query_of_a_user_is_asked_with_what_it_is_about(stage: Stage) -> None:
    await stage.scraped(STEPS)
    stage.begin()
    await stage.scraped(3)
    query = 'sum by ({{node_label}}) (increase(requests_total{job="{{component}}",version=~"{{version}}"}[{{step}}]))'
    last = query.replace("increase", "max_over_time").replace("sum", "max")
    found = await stage.sample(model.Measure(K.LEVEL, "", query=last))
    assert (found.after[:2] > found.before[:2]).all()
    other = last.replace("{{version}}", "{{rollout}}")
    assert np.isnan((await stage.sample(model.Measure(K.LEVEL, "", query=other))).after).all()


async def test_a_query_that_gives_no_figures_of_nodes_is_the_fault_of_who_wrote_it(stage: Stage) -> None:
    await stage.scraped(1)
    for query, code, words in (
        ("sum by (", "query_refused", "refuses the query: .*parse error"),
        ("up / on () up", "query_refused", "refuses the query: "),
        ("vector(1)", "no_node_label", "no label instance"),
        ("requests_total", "duplicate_series", "two series of node web-[12]: sum by instance"),
    ):
        with pytest.raises(errors.SourceError, match=rf"^cannot use what .* main answers: .*{words}") as caught:
            await stage.sample(model.Measure(K.LEVEL, "", query=query))
        assert (caught.value.code, caught.value.blame, caught.value.is_retryable) == (code, errors.Blame.CALLER, False)
        assert (caught.value.field, caught.value.value) == ("source", "main")
