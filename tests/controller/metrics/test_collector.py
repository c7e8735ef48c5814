"""What the judge is shown of a fleet, and what bad input does to it: nothing."""

from __future__ import annotations

import math
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from controller.core import errors, model
from controller.metrics import collector, intake, limits
from controller.store import database, executor
from tests.controller.metrics import nodes

M = model.MeasureKind
ERRORS = model.Measure(M.RATIO, "errors_total", "requests_total")
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)


async def test_before_and_after_are_each_nodes_own_and_count_from_its_own_change() -> None:
    async with nodes.collecting() as fleet:
        fleet.live(
            90, {"c": {"requests_total": 100, "errors_total": 1}, "u": {"requests_total": 50, "errors_total": 2}}
        )
        began_at = fleet.clock.at
        fleet.live(
            30, {"c": {"requests_total": 100, "errors_total": 5}, "u": {"requests_total": 50, "errors_total": 2}}
        )
        changed_at = began_at + 2 * MINUTE
        found = fleet.sample(ERRORS, {"c": changed_at}, ("u",), began_at=began_at)
    assert found.is_canary.tolist() == [True, False]
    # From the first reading of a span to the last: a past of ten minutes has 60 of them, three minutes after have 19.
    assert found.before_exposure.tolist() == [59 * 100, 59 * 50]
    assert found.before.tolist() == [59, 59 * 2]
    assert found.after_exposure.tolist() == [18 * 100, 18 * 50]
    assert found.after.tolist() == [18 * 5, 18 * 2]
    assert found.past_spread.tolist() == pytest.approx([0, 0])


@pytest.mark.parametrize(
    ("measure", "value", "exposure"),
    [
        (model.Measure(M.RATE, "requests_total"), 590.0, 590.0),
        (model.Measure(M.MEAN, "seconds_sum", "seconds_count"), 0.25, 236.0),
        (model.Measure(M.LEVEL, "load"), 3.0, 60.0),
        (model.Measure(M.QUANTILE, "seconds", quantile_percent=50), 0.1, 236.0),
        (model.Measure(M.QUANTILE, "seconds", quantile_percent=75), 0.775, 236.0),
        (model.Measure(M.QUANTILE, "seconds", quantile_percent=99), 1.0, 236.0),
        (model.Measure(M.LEVEL, "requests_total"), math.nan, math.nan),  # a counter has no level
        (model.Measure(M.RATE, "load"), math.nan, math.nan),  # and a gauge does not count
        (model.Measure(M.RATE, "nothing_total"), math.nan, math.nan),
        (model.Measure(M.QUANTILE, "load"), math.nan, math.nan),
        (model.Measure(M.RATIO, "errors_total", "load"), math.nan, math.nan),
    ],
)
async def test_each_figure_is_what_it_says(measure: model.Measure, value: float, exposure: float) -> None:
    rates = {
        "requests_total": 10.0,
        "errors_total": 1.0,
        "seconds_sum": 1.0,
        "seconds_count": 4.0,
        'seconds_bucket{le="0.1"}': 2.0,
        'seconds_bucket{le="1"}': 3.0 + 1 / 3,
        'seconds_bucket{le="+Inf"}': 4.0,
        "load": 3.0,
    }
    async with nodes.collecting() as fleet:
        fleet.live(90, {"c": rates})
        found = fleet.sample(measure, {"c": fleet.clock.at}, ())
    assert found.before.tolist() == pytest.approx([value], nan_ok=True, abs=0.01)
    assert found.before_exposure.tolist() == pytest.approx([exposure], nan_ok=True)


async def test_the_past_spreads_as_its_stretches_differ() -> None:
    async with nodes.collecting() as fleet:
        for number in range(20):
            rate = 100.0 if number % 2 else 200.0
            fleet.live(6, {"c": {"requests_total": rate}, "s": {"requests_total": 100.0}})
        began_at = fleet.clock.at
        fleet.live(6, {"c": {"requests_total": 100.0}, "s": {"requests_total": 100.0}})
        rate_of = model.Measure(M.RATE, "requests_total")
        found = fleet.sample(rate_of, {"c": began_at}, ("s",), began_at=began_at, past=20 * MINUTE)
        young = fleet.sample(rate_of, {"c": began_at}, ("s",), began_at=began_at, past=2 * MINUTE)
    assert 0.2 < found.past_spread[0] < 0.5
    assert found.past_spread[1] == pytest.approx(0.0, abs=1e-3)
    assert np.isnan(young.past_spread).all()


async def test_short_stretches_of_a_long_past_are_looked_for_where_every_reading_is_kept() -> None:
    async with nodes.collecting() as fleet:
        fleet.live(1_400, {"c": {"requests_total": 100.0}})
        began_at = fleet.clock.at
        fleet.live(4, {"c": {"requests_total": 100.0}})
        rate_of = model.Measure(M.RATE, "requests_total")
        found = fleet.sample(rate_of, {"c": began_at}, (), began_at=began_at, past=220 * MINUTE)
    assert found.past_spread.tolist() == pytest.approx([0.0], abs=1e-3)


async def test_a_node_that_is_silent_is_unknown_and_one_that_nobody_knows_too() -> None:
    rates = {"requests_total": 100.0, "errors_total": 1.0}
    async with nodes.collecting() as fleet:
        fleet.live(90, {"c": rates, "u": rates})
        began_at = fleet.clock.at
        fleet.live(12, {"c": rates})
        found = fleet.sample(ERRORS, {"c": began_at}, ("u", "stranger"), began_at=began_at)
    assert np.isnan(found.after).tolist() == [False, True, True]
    assert np.isnan(found.before).tolist() == [False, False, True]


async def test_a_series_that_vanished_is_unknown_and_goes_on_where_it_comes_back() -> None:
    async with nodes.collecting() as fleet:
        fleet.live(60, {"c": {"requests_total": 100.0, "load": 1.0}})
        began_at = fleet.clock.at
        fleet.clock.at += nodes.PERIOD
        fleet.tell("c", {}, gone_metrics=(("requests_total", "web"),))
        fleet.live(10, {"c": {"load": 1.0}})
        rate = model.Measure(M.RATE, "requests_total")
        gone = fleet.sample(rate, {"c": began_at}, (), began_at=began_at)
        fleet.live(10, {"c": {"requests_total": 100.0, "load": 1.0}})
        back = fleet.sample(rate, {"c": began_at}, (), began_at=began_at)
    assert np.isnan(gone.after).all()
    assert back.after.tolist() == [10 * 100.0]


async def test_a_series_that_appears_in_the_middle_is_unknown_before_and_known_after() -> None:
    async with nodes.collecting() as fleet:
        fleet.live(60, {"c": {"requests_total": 100.0}})
        began_at = fleet.clock.at
        fleet.live(20, {"c": {"requests_total": 100.0, "errors_total": 2.0}})
        found = fleet.sample(ERRORS, {"c": began_at}, (), began_at=began_at)
        kept = fleet.sample(model.Measure(M.RATE, "requests_total"), {"c": began_at}, (), began_at=began_at)
    assert np.isnan(found.before).all()
    assert found.after.tolist() == [19 * 2.0]
    assert kept.before.tolist() == [58 * 100.0]  # what was known before it moved


@pytest.mark.parametrize(("life", "grown"), [(2, 30.0), (1, 30.0), (0, 30.0)])
async def test_a_counter_that_begins_anew_has_grown_by_what_it_shows(life: int, grown: float) -> None:
    async with nodes.collecting() as fleet:
        fleet.live(60, {"c": {"requests_total": 100.0}})
        began_at = fleet.clock.at
        fleet.tell("c", {"requests_total": 6_000.0}, sent_at=began_at + SECOND / 2)
        fleet.clock.at += nodes.PERIOD
        fleet.tell("c", {"requests_total": 30.0}, life=life)
        found = fleet.sample(model.Measure(M.RATE, "requests_total"), {"c": began_at}, (), began_at=began_at)
    assert found.after.tolist() == [grown]


async def test_an_old_process_that_is_resumed_has_not_grown_by_all_that_it_ever_counted() -> None:
    async with nodes.collecting() as fleet:
        fleet.live(60, {"c": {"requests_total": 100.0}})
        began_at = fleet.clock.at
        fleet.clock.at += nodes.PERIOD
        fleet.tell("c", {"requests_total": 30.0}, life=2)
        fleet.clock.at += nodes.PERIOD
        fleet.tell("c", {"requests_total": 6_010.0}, life=1)
        fleet.clock.at += nodes.PERIOD
        fleet.tell("c", {"requests_total": 6_020.0}, life=1)
        found = fleet.sample(model.Measure(M.RATE, "requests_total"), {"c": began_at}, (), began_at=began_at)
    assert found.after.tolist() == [30.0 + 10.0]


@pytest.mark.parametrize("skew", [timedelta(hours=5), -timedelta(hours=5), timedelta(days=900)])
async def test_a_clock_that_is_hours_off_changes_nothing(skew: timedelta) -> None:
    async with nodes.collecting() as fleet:
        for number in range(90):
            fleet.clock.at += nodes.PERIOD
            fleet.tell(
                "c", {"requests_total": 10.0 * number, "errors_total": 1.0 * number}, sent_at=fleet.clock.at + skew
            )
        found = fleet.sample(ERRORS, {"c": fleet.clock.at}, ())
    assert found.before_exposure.tolist() == [59 * 10.0]


async def test_a_message_that_is_said_twice_counts_once() -> None:
    async with nodes.collecting() as fleet:
        fleet.live(3, {"c": {"requests_total": 100.0}})
        for _ in range(3):
            fleet.tell("c", fleet.told["c"], sent_at=fleet.clock.at)
        fleet.live(3, {"c": {"requests_total": 100.0}})
        found = fleet.sample(model.Measure(M.RATE, "requests_total"), {"c": nodes.EPOCH}, (), began_at=nodes.EPOCH)
        assert fleet.collector.counts().samples == 6
    assert found.after.tolist() == [500.0]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e300])
async def test_what_is_no_number_is_refused_counted_and_unknown(bad: float) -> None:
    async with nodes.collecting() as fleet:
        fleet.live(60, {"c": {"requests_total": 100.0, "load": 1.0}})
        began_at = fleet.clock.at
        fleet.live(6, {"c": {"requests_total": 100.0, "load": bad}})
        load = fleet.sample(model.Measure(M.LEVEL, "load"), {"c": began_at}, (), began_at=began_at)
        rate = fleet.sample(model.Measure(M.RATE, "requests_total"), {"c": began_at}, (), began_at=began_at)
        assert fleet.collector.counts().refused == 6
    assert np.isnan(load.after).all()
    assert load.before.tolist() == [1.0]
    assert rate.after.tolist() == [600.0]


async def test_a_negative_counter_has_begun_anew_at_nothing() -> None:
    async with nodes.collecting() as fleet:
        for value in (100.0, -7.0, 20.0):
            fleet.clock.at += nodes.PERIOD
            fleet.tell("c", {"requests_total": value})
        found = fleet.sample(model.Measure(M.RATE, "requests_total"), {"c": nodes.EPOCH}, (), began_at=nodes.EPOCH)
    assert found.after.tolist() == [20.0]


async def test_a_million_series_of_one_node_are_capped_and_its_owner_is_told() -> None:
    async with nodes.collecting() as fleet:
        fleet.live(2, {"good": {"requests_total": 100.0}, "bad": {"requests_total": 100.0}})
        for number in range(20):
            names = {f"x{number:02}_{each}_total": 1.0 for each in range(50_000)}
            fleet.clock.at += nodes.PERIOD
            fleet.tell("bad", names)
        fleet.live(2, {"good": {"requests_total": 100.0}, "bad": {"requests_total": 100.0}})
        counts = fleet.collector.counts()
        [condition] = fleet.collector.conditions(model.NodeId("bad"))
        known = fleet.sample(model.Measure(M.RATE, "requests_total"), {"bad": nodes.EPOCH}, (), began_at=nodes.EPOCH)
        assert fleet.collector.conditions(model.NodeId("good")) == ()
    assert counts.series == intake.COMPONENT_SERIES_MAX + 1
    assert (counts.capped_nodes, counts.refused) == (1, 1_000_000 - intake.COMPONENT_SERIES_MAX + 1)
    assert (condition.code, condition.component) == ("metrics_capped", "web")
    assert "256 series of one component" in condition.message
    assert known.after.tolist() == [300.0]  # what it had before is there all the same


async def test_components_of_one_node_are_capped_too() -> None:
    async with nodes.collecting() as fleet:
        metrics = tuple(
            nodes.metric(f"x{series}_total", 1.0, component=f"c{number}")
            for number in range(200)
            for series in range(20)
        )
        fleet.collector.take(model.NodeId("bad"), model.NodeReport(metrics=metrics), fleet.clock.at)
        counts = fleet.collector.counts()
        assert fleet.collector.conditions(model.NodeId("bad"))
    assert counts.series <= intake.NODE_SERIES_MAX


async def test_series_that_have_long_been_gone_make_room_and_the_cap_is_forgotten() -> None:
    kept = limits.Limits(window=2 * MINUTE, past=5 * MINUTE, step=10 * SECOND)
    async with nodes.collecting(kept=kept) as fleet:
        old = {f"old_{number}_total": 1.0 for number in range(intake.COMPONENT_SERIES_MAX + 5)}
        fleet.live(1, {"c": old})
        assert fleet.collector.conditions(model.NodeId("c"))
        fleet.tell("c", {}, is_full=True, sent_at=fleet.clock.at + SECOND)
        fleet.told.clear()
        fleet.live(60, {"c": {"requests_total": 100.0}})
        assert fleet.collector.conditions(model.NodeId("c")) == ()
        found = fleet.sample(model.Measure(M.RATE, "requests_total"), {"c": fleet.clock.at - MINUTE}, ())
        assert fleet.collector.counts().series < 10
    assert found.after.tolist() == [600.0]


async def test_a_component_that_left_and_a_node_that_was_removed_are_forgotten() -> None:
    async with nodes.collecting() as fleet:
        fleet.live(3, {"c": {"requests_total": 100.0}, "d": {"requests_total": 1.0}})
        fleet.tell("c", {}, removed=(nodes.WEB,), sent_at=fleet.clock.at + SECOND)
        assert fleet.collector.counts().series == 1
        await fleet.collector.forget(model.NodeId("d"))
        assert fleet.collector.counts() == model.MetricCounts(is_collecting=True, samples=6, fresh_nodes=1)


async def test_starting_and_stopping_twice_is_once_and_another_interval_is_refused() -> None:
    store, clock = database.Store(None, executor.InlineExecutor()), nodes.Clock()
    made = collector.Collector(store, clock, limits.Limits())
    assert not await made.stop_collection()
    assert await made.start_collection(nodes.PERIOD)
    assert not await made.start_collection(nodes.PERIOD)
    with pytest.raises(errors.RefusedError) as caught:
        await made.start_collection(2 * nodes.PERIOD)
    assert (caught.value.code, caught.value.field, caught.value.value) == ("collection_runs", "interval", "20s")
    assert await made.stop_collection()
    assert not await made.stop_collection()
    assert await made.start_collection(2 * nodes.PERIOD)
    assert await made.stop_collection()
    store.close()


async def test_nothing_is_taken_while_it_does_not_collect() -> None:
    store, clock = database.Store(None, executor.InlineExecutor()), nodes.Clock()
    fleet = nodes.Fleet(store, clock, limits.Limits())
    fleet.live(3, {"c": {"requests_total": 100.0}})
    found = fleet.sample(ERRORS, {"c": nodes.EPOCH}, ("u",))
    assert np.isnan(found.after).tolist() == [True, True]
    assert fleet.collector.counts() == model.MetricCounts()
    store.close()


async def test_a_store_that_cannot_be_written_to_is_said_at_the_start_and_the_next_start_works(tmp_path: Path) -> None:
    path, clock = tmp_path / "store", nodes.Clock()
    store = database.Store(path, executor.InlineExecutor())
    made = collector.Collector(store, clock, limits.Limits())
    await store.write(lambda connection: connection.exec_driver_sql("ALTER TABLE series_chunks RENAME TO elsewhere"))
    for _ in range(2):
        with pytest.raises(errors.UnavailableError) as caught:
            await made.start_collection(nodes.PERIOD)
        assert caught.value.code == "store_unavailable"
        assert not made.counts().is_collecting
    await store.write(lambda connection: connection.exec_driver_sql("ALTER TABLE elsewhere RENAME TO series_chunks"))
    assert await made.start_collection(nodes.PERIOD)
    await made.stop_collection()
    store.close()
