"""Looks of the monitor at real windows: what each basis compares, what is stored, and what is forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from controller.core import model
from controller.core.monitoring import board as boards
from controller.metrics import collector, limits, monitor
from controller.store import database, executor

S, B, K = model.RuleState, model.RuleBasis, model.MeasureKind
START = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
BEAT = 10 * SECOND
WEB = model.ComponentName("web")
QUEUE = model.Rule(
    name="queue",
    component=WEB,
    measure=model.Measure(K.LEVEL, "queue_size"),
    fire_at=5.0,
    clear_at=3.0,
    window=60 * SECOND,
    past=120 * SECOND,
    pending_for=timedelta(),
)


class Hand:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.at = START

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return (self.at - START).total_seconds()


class Stage:
    """Windows of some nodes, and a monitor that looks at them."""

    def __init__(self, *rules: model.Rule) -> None:
        self.clock = Hand()
        self.store = database.Store(None, executor.InlineExecutor())
        self.windows = collector.Collector(self.store, self.clock, limits.Limits())
        self.monitor = monitor.Monitor(rules, self.windows)

    async def begin(self) -> None:
        await self.windows.start_collection(BEAT)

    async def end(self) -> None:
        await self.windows.stop_collection()
        self.store.close()

    def show(self, beats: int, values: Mapping[str, float], *, series: str = "queue_size") -> None:
        """Let each node show its value with so many heartbeats; a counter grows by it."""
        kind = model.SeriesKind.COUNTER if series.endswith("_total") else model.SeriesKind.GAUGE
        for _ in range(beats):
            self.clock.at += BEAT
            for node, value in values.items():
                grown = value * (self.clock.monotonic() / BEAT.total_seconds())
                metric = model.Metric(series, WEB, grown if kind is model.SeriesKind.COUNTER else value, kind)
                self.windows.take(model.NodeId(node), model.NodeReport(metrics=(metric,)), self.clock.at)

    async def look(self, *nodes: str) -> dict[boards.Key, model.Watched | None]:
        names = {WEB: [model.NodeId(node) for node in nodes]}
        return await self.monitor.look(names, self.clock.at)

    def states(self) -> dict[str | None, model.RuleState]:
        shown = self.monitor.board(self.clock.at).watches
        return {node: watch.state for (_, node), watch in shown.items()}


Staged = Callable[..., Awaitable[Stage]]


@pytest.fixture
async def staged() -> AsyncIterator[Staged]:
    """Makes stages, and ends them."""
    made: list[Stage] = []

    async def make(*rules: model.Rule) -> Stage:
        made.append(Stage(*rules))
        await made[-1].begin()
        return made[-1]

    yield make
    for each in made:
        await each.end()


async def test_what_is_well_is_not_shown_and_what_is_silent_is_unknown(staged: Staged) -> None:
    stage = await staged(QUEUE)
    stage.show(8, {"a": 9.0, "b": 1.0})
    await stage.look("a", "b", "c")
    assert stage.states() == {"a": S.FIRING, "c": S.UNKNOWN}
    assert stage.monitor.board(stage.clock.at).looked_at == stage.clock.at


async def test_a_node_that_falls_silent_is_unknown_and_not_well(staged: Staged) -> None:
    stage = await staged(QUEUE)
    stage.show(8, {"a": 1.0, "b": 1.0})
    await stage.look("a", "b")
    stage.show(12, {"b": 1.0})
    await stage.look("a", "b")
    assert stage.states() == {"a": S.UNKNOWN}


async def test_a_rule_compares_a_node_with_its_own_past(staged: Staged) -> None:
    stage = await staged(replace(QUEUE, basis=B.OWN_PAST, fire_at=1.5, clear_at=1.2))
    stage.show(20, {"a": 4.0, "b": 4.0})
    stage.show(7, {"a": 8.0, "b": 4.0})
    await stage.look("a", "b")
    assert stage.states() == {"a": S.FIRING}


LINE = replace(QUEUE, name="trigger:line", basis=B.TRENDLINE, fire_at=1.5, clear_at=1.2, past=600 * SECOND)


async def test_a_rule_compares_a_node_with_the_line_that_its_past_was_on(staged: Staged) -> None:
    stage = await staged(LINE)
    for beat in range(70):
        level = 100.0 + 10.0 * beat
        stage.show(1, {"rises": level, "steps": level if beat < 63 else 2 * level, "calm": 100.0})
    await stage.look("rises", "steps", "calm")
    assert stage.states() == {"steps": S.FIRING}
    value = stage.monitor.board(stage.clock.at).watches[LINE.name, model.NodeId("steps")].value
    assert value == pytest.approx(2, rel=0.05)


async def test_a_past_that_is_too_short_for_a_line_is_unknown(staged: Staged) -> None:
    stage = await staged(LINE)
    stage.show(30, {"a": 100.0})
    await stage.look("a")
    assert stage.states() == {"a": S.UNKNOWN}


async def test_rules_come_and_go_while_others_stay(staged: Staged) -> None:
    stage = await staged(QUEUE)
    stage.show(8, {"a": 9.0})
    added = replace(QUEUE, name="trigger:one")
    await stage.look("a")
    stage.monitor.replace([added, replace(QUEUE, fire_at=100.0)])
    assert list(stage.monitor.board(stage.clock.at).rules) == ["queue"]  # nobody has looked by the other yet
    stage.show(1, {"a": 9.0})
    changed = await stage.look("a")
    assert [key for key, each in changed.items() if each is not None] == [("trigger:one", "a")]
    board = stage.monitor.board(stage.clock.at)
    assert board.rules == {"queue": QUEUE, "trigger:one": added}
    assert boards.sights(board) == {"queue": {"a": True}, "trigger:one": {"a": True}}
    stage.monitor.replace([])
    assert boards.sights(stage.monitor.board(stage.clock.at)) == {"queue": {"a": True}}
    stage.show(1, {"a": 9.0})
    assert await stage.look("a") == {("trigger:one", "a"): None}
    assert await stage.look("a") == {}


async def test_a_rule_that_says_another_thing_takes_nothing_over(staged: Staged) -> None:
    stage = await staged()
    one = replace(QUEUE, pending_for=60 * SECOND)
    stage.monitor.replace([one])
    stage.show(8, {"a": 9.0})
    await stage.look("a")
    stage.monitor.replace([one])
    assert stage.states() == {"a": S.PENDING}
    stage.monitor.replace([replace(one, fire_at=6.0)])
    assert stage.states() == {}
    stage.show(1, {"a": 9.0})
    changed = await stage.look("a")
    found = changed["queue", model.NodeId("a")]
    assert found is not None
    assert (found.watch.since, found.of) == (stage.clock.at, repr(replace(one, fire_at=6.0)))


async def test_a_monitor_is_idle_once_nothing_is_left_of_its_rules(staged: Staged) -> None:
    stage = await staged()
    idle = [stage.monitor.is_idle]
    stage.monitor.replace([QUEUE])
    stage.show(8, {"a": 9.0})
    await stage.look("a")
    stage.monitor.replace([])
    idle.append(stage.monitor.is_idle)
    assert await stage.look("a") == {("queue", "a"): None}
    assert [*idle, stage.monitor.is_idle] == [True, False, True]


async def test_a_rule_that_goes_during_a_look_is_not_seen_by_it(staged: Staged) -> None:
    stage = await staged()
    stage.monitor.replace([QUEUE])
    stage.show(8, {"a": 9.0})
    await stage.look("a")
    look = asyncio.ensure_future(stage.look("a"))
    await asyncio.sleep(0)
    stage.monitor.replace([replace(QUEUE, name="other")])
    assert await look == {("queue", "a"): None}
    assert boards.sights(stage.monitor.board(stage.clock.at)) == {}


async def test_a_rule_compares_a_node_with_its_peers(staged: Staged) -> None:
    stage = await staged(replace(QUEUE, basis=B.PEERS, fire_at=3.0, clear_at=2.0))
    stage.show(8, {"a": 1.0, "b": 1.2, "c": 9.0})
    await stage.look("a", "b", "c")
    assert stage.states() == {"c": S.FIRING}


async def test_a_rule_sees_what_rises_by_the_hour(staged: Staged) -> None:
    stage = await staged(replace(QUEUE, basis=B.TREND, fire_at=100.0, clear_at=10.0, window=120 * SECOND))
    for beat in range(20):
        stage.show(1, {"a": 10.0 + beat, "b": 50.0})  # by 360 in an hour
    await stage.look("a", "b")
    assert stage.states() == {"a": S.FIRING}
    assert await stage.look("a", "b") == {}  # the same look again changes nothing
    watch = stage.monitor.board(stage.clock.at).watches["queue", model.NodeId("a")]
    assert watch.value == pytest.approx(360, rel=0.05)


async def test_a_rule_over_the_fleet_looks_at_all_nodes_as_one(staged: Staged) -> None:
    rule = replace(QUEUE, measure=model.Measure(K.RATE, "errors_total"), scope=model.RuleScope.FLEET, fire_at=0.5)
    stage = await staged(replace(rule, clear_at=0.5))
    stage.show(8, {"a": 1.0, "b": 11.0}, series="errors_total")  # 0.1 and 1.1 in a second
    await stage.look("a", "b")
    assert stage.states() == {None: S.FIRING}
    await stage.look("a", "b", "c", "d", "e")  # of most nothing is known
    stage.show(1, {"a": 1.0, "b": 1.0}, series="errors_total")
    await stage.look("a", "b", "c", "d", "e")
    assert stage.states() == {None: S.UNKNOWN}


async def test_only_what_has_a_clock_is_stored_and_what_goes_is_deleted(staged: Staged) -> None:
    stage = await staged(replace(QUEUE, pending_for=20 * SECOND))
    stage.show(8, {"a": 9.0, "b": 1.0})
    first = await stage.look("a", "b", "c")
    assert {node: each and each.watch.state for (_, node), each in first.items()} == {"a": S.PENDING}
    stage.show(1, {"a": 9.0, "b": 1.0})
    assert await stage.look("a", "b", "c") == {}
    stage.show(1, {"a": 9.0, "b": 1.0})
    fired = await stage.look("a", "b", "c")
    assert {node: each and each.watch.state for (_, node), each in fired.items()} == {"a": S.FIRING}
    stage.show(10, {"b": 1.0})
    silent = await stage.look("a", "b")
    assert {node: each and each.watch.state for (_, node), each in silent.items()} == {"a": S.UNKNOWN}
    assert await stage.look("b") == {("queue", "a"): None}
    assert stage.states() == {}


async def test_what_was_stored_of_a_rule_is_taken_up_only_if_it_says_the_same(staged: Staged) -> None:
    watch = model.Watch(S.FIRING, START, START, fired_at=START)
    same = model.Watched("queue", model.NodeId("a"), watch, repr(QUEUE))
    stored = (same, replace(same, node_id=model.NodeId("b"), of="another"), replace(same, rule="gone"))
    stage = await staged(QUEUE)
    assert stage.monitor.restore(stored, START) == (("queue", "b"), ("gone", "a"))
    stage.clock.at += BEAT
    await stage.look("a", "b")
    watches = stage.monitor.board(stage.clock.at).watches
    assert watches["queue", model.NodeId("a")].fired_at == START
    assert watches["queue", model.NodeId("b")].fired_at is None
    never = await staged(QUEUE)
    assert never.monitor.restore((same,), None) == (("queue", "a"),)


async def test_what_was_about_to_fire_goes_on_where_it_was_last_seen_to_be_so_however_old_its_row_is(
    staged: Staged,
) -> None:
    rule = replace(QUEUE, pending_for=timedelta(minutes=10))
    row = model.Watched("queue", model.NodeId("a"), model.Watch(S.PENDING, START, START), repr(rule))
    for looked_at, since in ((START + 8 * BEAT, START), (START, START + 9 * BEAT)):
        stage = await staged(rule)
        stage.show(9, {"a": 9.0})
        assert stage.monitor.restore((row,), looked_at) == ()
        await stage.look("a")
        watch = stage.monitor.board(stage.clock.at).watches["queue", model.NodeId("a")]
        assert (watch.state, watch.since) == (S.PENDING, since)
