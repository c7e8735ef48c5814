"""How many events a second the pure core of a rollout takes: a canary over a fleet, from its first wave to its end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from controller.core import effects, events, model, rollout
from tests.bench import result

NODES = 10_000
CANARY_NODES = 100
PARALLEL = 500
DOMAINS = 50
RUNS = 3  # the best of them: the machine is shared

START = datetime(2026, 1, 1, tzinfo=UTC)
WEB = model.ComponentName("web")
OLD, NEW = model.Digest("sha256:" + "0" * 64), model.Digest("sha256:" + "1" * 64)
STEPS = (model.Step.FETCH, model.Step.PREPARE, model.Step.SWITCH, model.Step.SOAK)
CAPPED = model.Policy(
    max_parallel=PARALLEL, floor_percent=90, domain_label="zone", domain_max_parallel=PARALLEL // DOMAINS
)


def measure() -> result.Result:
    """Take the rollout through its life with and without a floor and failure domains."""
    plain = [_run(model.Policy(max_parallel=PARALLEL)) for _ in range(RUNS)]
    capped = [_run(CAPPED) for _ in range(RUNS)]
    count = plain[0][0]
    per_second = max(count / seconds for count, seconds in plain)
    figures = {
        "events_per_second": round(per_second),
        "events_per_second_with_floor_and_domains": round(max(count / seconds for count, seconds in capped)),
        "nodes": NODES,
    }
    return result.Result("rollout_core", round(per_second), "events/s", count, figures)


def _run(policy: model.Policy) -> tuple[int, float]:
    """Return how many events a rollout took, and for how long the core worked on them."""
    state, at, seconds, count = _created(policy), START, 0.0, 0
    waiting: list[events.Event] = [events.Began(at)]
    while waiting:
        began_at = time.process_time()
        assigned: list[effects.Assign] = []
        for event in waiting:
            decision = rollout.step(state, event)
            state = decision.rollout
            assigned += [effect for effect in decision.effects if isinstance(effect, effects.Assign)]
        seconds += time.process_time() - began_at
        count += len(waiting)
        waiting = [event for assign in assigned for event in _life(assign, at)]
        at += timedelta(seconds=30)
    assert state.state is model.RolloutState.SUCCEEDED, state.state
    return count, seconds


def _created(policy: model.Policy) -> model.Rollout:
    changes = tuple(
        model.Change(
            node_id=model.NodeId(f"node-{number:05}"),
            component=WEB,
            kind=model.ChangeKind.UPGRADE,
            method=model.Method.HOT_SWAP,
            from_version="1.0.0",
            from_digest=OLD,
            to_version="1.1.0",
            to_digest=NEW,
            domain=f"zone-{number % DOMAINS}" if policy.domain_label else "",
        )
        for number in range(NODES)
    )
    waves = (_wave(1, changes[:CANARY_NODES]), _wave(2, changes[CANARY_NODES:]))
    plan = model.Plan("", waves, (), blast_radius=model.BlastRadius(NODES, NODES, CANARY_NODES))
    request = model.UpgradeRequest(WEB, "1.1.0", model.Strategy.CANARY, policy=policy, name="bench")
    return rollout.create(model.RolloutId("r1"), request, plan, actor="bench", at=START)


def _wave(index: int, changes: tuple[model.Change, ...]) -> model.Wave:
    return model.Wave(index, is_canary=index == 1, changes=changes)


def _life(assign: effects.Assign, at: datetime) -> Iterator[events.NodeReported]:
    """Say all that a node says of an operation that goes well, the heartbeats in between among it."""
    node_id = assign.change.node_id
    told = model.OperationStatus(
        operation_id=assign.operation_id,
        fence=1,
        component=WEB,
        state=model.OperationState.ACCEPTED,
        step=None,
        fault=None,
        reason="",
        message="",
        changed_at=at,
    )
    runs = model.InstalledComponent(WEB, "1.0.0", OLD, OLD, model.Health.HEALTHY, timedelta(hours=1))
    fresh = replace(runs, version="1.1.0", digest=NEW, permanent_digest=NEW, healthy_for=timedelta(seconds=1))
    yield events.NodeReported(at, node_id, (told,))
    for index, step in enumerate(STEPS, 1):
        at_step = replace(told, state=model.OperationState.RUNNING, step=step)
        yield events.NodeReported(at + timedelta(seconds=index), node_id, (at_step,))
    yield events.NodeReported(at + timedelta(seconds=6), node_id, components=(runs,))
    committed = replace(told, state=model.OperationState.COMMITTED, step=model.Step.DRAIN)
    yield events.NodeReported(at + timedelta(seconds=7), node_id, (committed,), (fresh,))
    yield events.NodeReported(at + timedelta(seconds=12), node_id)
    permanent = replace(told, state=model.OperationState.PERMANENT)
    proven = replace(fresh, healthy_for=timedelta(seconds=11))
    yield events.NodeReported(at + timedelta(seconds=20), node_id, (permanent,), (proven,))
