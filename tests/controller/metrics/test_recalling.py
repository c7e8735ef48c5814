"""What a trigger would have seen, out of readings that were taken by a real collector and stored in a real store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from controller.core import errors, model
from controller.core.triggers import events
from controller.metrics import collector, limits, recalling
from controller.store import database, executor

START = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
BEAT = timedelta(seconds=20)
WEB, HOST = model.ComponentName("web"), model.ComponentName("")
A, B = model.NodeId("a"), model.NodeId("b")
Level = Callable[[float], float]  # by the minute


class Hand:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.at = START

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return (self.at - START).total_seconds()


class Stage:
    """A collector and its store."""

    def __init__(self) -> None:
        self.clock = Hand()
        self.store = database.Store(None, executor.InlineExecutor())
        self.windows = collector.Collector(self.store, self.clock, limits.Limits())

    async def record(
        self,
        shown: Mapping[model.NodeId, Level],
        minutes: int,
        *,
        series: str = "queue",
        component: model.ComponentName = WEB,
        silent: range = range(0),
    ) -> None:
        """Let nodes show a gauge with each heartbeat, but in the minutes in which they are silent, and store it."""
        await self.windows.start_collection(BEAT)
        while self.clock.at < START + minutes * MINUTE:
            self.clock.at += BEAT
            minute = self.clock.monotonic() / 60
            for node_id, level in shown.items():
                if int(minute) not in silent:
                    metric = model.Metric(series, component, level(minute))
                    self.windows.take(node_id, model.NodeReport(metrics=(metric,)), self.clock.at)
        await self.windows.stop_collection()

    async def recall(
        self, trigger: model.Trigger, nodes: Mapping[model.NodeId, model.Node], since: datetime = START
    ) -> recalling.Recalled:
        return await recalling.recall(trigger, nodes, self.windows, since, self.clock.at)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    made = Stage()
    yield made
    await made.windows.stop_collection()
    made.store.close()


def node(node_id: model.NodeId, *components: model.ComponentName, zone: str = "x") -> model.Node:
    installed = {
        name: model.InstalledComponent(
            name=name,
            version="1.0.0",
            digest=model.Digest("sha256:1"),
            permanent_digest=model.Digest("sha256:1"),
            health=model.Health.HEALTHY,
            healthy_for=timedelta(),
        )
        for name in components
    }
    return model.Node(
        id=node_id,
        labels={"zone": zone},
        capabilities=frozenset(),
        agent_version="0.1.0",
        fence=0,
        is_connected=True,
        last_seen_at=START,
        components=installed,
    )


def trigger(when: model.When) -> model.Trigger:
    return model.Trigger(model.TriggerId("t"), "full", when, model.Notify())


NODES = {A: node(A, WEB), B: node(B, WEB)}
FULL = model.Threshold('metrics["queue"] > 10.0', component=WEB)
WORSE = model.Degradation(
    WEB, model.Measure(model.MeasureKind.LEVEL, "queue"), worse_percent=50, clear_percent=20, scope=model.RuleScope.NODE
)


def between(begin: int, end: int, high: float = 20.0, low: float = 5.0) -> Level:
    return lambda minute: high if begin <= minute < end else low


def met(found: recalling.Recalled, node_id: model.NodeId | None = A) -> list[int]:
    """Minutes of the looks at which the condition held."""
    return [(each.at - START) // MINUTE for each in found.events if each.is_met and each.node_id == node_id]


async def test_a_threshold_is_seen_minute_by_minute_while_it_holds(stage: Stage) -> None:
    await stage.record({A: between(30, 40), B: between(0, 0)}, 60)
    found = await stage.recall(trigger(FULL), NODES)
    assert {*range(32, 40)} <= {*met(found)} <= {*range(30, 42)}
    assert {each.node_id for each in found.events} == {A}
    assert found.recorded_since == START
    gaps = {after.at - before.at for before, after in zip(found.events, found.events[1:], strict=False)}
    assert gaps == {MINUTE}
    assert found.until == stage.clock.at


async def test_what_is_over_is_told_until_the_end(stage: Stage) -> None:
    await stage.record({A: between(10, 20)}, 40)
    found = await stage.recall(trigger(replace(FULL, clear='metrics["queue"] < 3.0')), NODES)
    last = found.events[-1]
    assert isinstance(last, events.Seen)
    assert (last.is_met, last.is_over) == (False, False)
    without = (await stage.recall(trigger(FULL), NODES)).events[-1]
    assert isinstance(without, events.Seen)
    assert (without.is_met, without.is_over) == (False, True)


async def test_time_that_was_not_recorded_is_not_seen(stage: Stage) -> None:
    await stage.record({A: between(10, 99)}, 60, silent=range(20, 40))
    seen = met(await stage.recall(trigger(FULL), NODES))
    assert not set(seen) & set(range(24, 40))
    assert {15, 20, 45} <= set(seen)
    none = await stage.recall(trigger(replace(FULL, condition='metrics["other"] > 1.0 || !has(metrics.queue)')), NODES)
    assert none.events == ()


async def test_only_nodes_that_it_is_about_are_looked_at(stage: Stage) -> None:
    await stage.record({A: between(0, 99), B: between(0, 99)}, 10)
    nodes = {A: node(A, WEB, zone="y"), B: node(B)}
    assert {each.node_id for each in (await stage.recall(trigger(FULL), nodes)).events} == {A}
    selected = await stage.recall(trigger(replace(FULL, selector="zone=x")), NODES | {A: nodes[A]})
    assert {each.node_id for each in selected.events} == {B}
    labelled = replace(FULL, condition='metrics["queue"] > 10.0 && node.labels.zone == "y"')
    assert {each.node_id for each in (await stage.recall(trigger(labelled), NODES | {A: nodes[A]})).events} == {A}


async def test_series_of_the_component_go_before_those_of_the_host(stage: Stage) -> None:
    await stage.record({A: between(0, 99)}, 20, component=HOST)
    assert met(await stage.recall(trigger(replace(FULL, component=HOST)), NODES))
    assert met(await stage.recall(trigger(FULL), NODES))  # of the host, since the component has none
    await stage.record({A: between(0, 0)}, 40)
    found = await stage.recall(trigger(FULL), NODES)
    assert not [each for each in met(found) if each > 24]
    assert found.recorded_since == START + 20 * MINUTE


async def test_a_series_of_both_is_that_of_the_component(stage: Stage) -> None:
    await stage.windows.start_collection(BEAT)
    for _ in range(60):
        stage.clock.at += BEAT
        both = (model.Metric("queue", WEB, 5.0), model.Metric("queue", HOST, 20.0))
        stage.windows.take(A, model.NodeReport(metrics=both), stage.clock.at)
    await stage.windows.stop_collection()
    assert met(await stage.recall(trigger(FULL), NODES)) == []
    assert len(met(await stage.recall(trigger(replace(FULL, component=HOST)), NODES))) > 15


async def test_what_held_already_is_seen_at_the_first_look(stage: Stage) -> None:
    await stage.record({A: between(0, 99)}, 60)
    found = await stage.recall(trigger(FULL), NODES, since=START + 35 * MINUTE)
    assert met(found)[0] == 35


async def test_records_that_do_not_reach_so_far_back_are_told(stage: Stage) -> None:
    assert (await stage.recall(trigger(FULL), NODES)).recorded_since is None
    stage.clock.at += timedelta(hours=2)
    await stage.record({A: between(0, 999)}, 150)
    found = await stage.recall(trigger(FULL), NODES, since=START - timedelta(days=7))
    assert found.recorded_since == START + timedelta(hours=2)
    assert found.events[0].at == pytest.approx(START + timedelta(hours=2), abs=3 * MINUTE)


async def test_a_condition_that_is_none_is_refused(stage: Stage) -> None:
    with pytest.raises(errors.InvalidRequestError, match=r"when\.threshold\.clear"):
        await stage.recall(trigger(replace(FULL, clear="node.gone")), NODES)


async def test_a_rehearsal_that_is_too_much_ends_where_it_is(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recalling, "EVENTS_MAX", 5)
    await stage.record({A: between(10, 99)}, 40)
    found = await stage.recall(trigger(FULL), NODES)
    assert len(found.events) == 5
    assert found.until == found.events[-1].at < stage.clock.at


async def test_a_step_is_seen_by_the_rule_of_a_degradation_and_a_trend_is_not(stage: Stage) -> None:
    def rising(minute: float) -> float:
        return 100 + 2 * minute

    def stepping(minute: float) -> float:
        return rising(minute) * (2 if minute >= 130 else 1)

    await stage.record({A: rising, B: stepping}, 160)
    found = await stage.recall(trigger(WORSE), NODES)
    [first, *_] = found.events
    assert isinstance(first, events.Looked)
    assert (first.node_id, first.is_met) == (B, True)
    assert 131 <= (first.at - START) // MINUTE <= 137
    assert {each.node_id for each in found.events} == {B}
    assert found.recorded_since == START


async def test_a_degradation_of_the_fleet_is_told_once_when_it_begins_and_once_when_it_is_over(stage: Stage) -> None:
    level = between(150, 160, high=300.0, low=100.0)
    await stage.record({A: level, B: level}, 200)
    found = await stage.recall(trigger(replace(WORSE, scope=model.RuleScope.FLEET)), NODES)
    assert [(each.node_id, each.is_met) for each in found.events] == [(None, True), (None, False)]


async def test_events_of_other_kinds_are_not_recorded(stage: Stage) -> None:
    assert (await stage.recall(trigger(model.Schedule("0 3 * * *")), NODES)).events == ()
