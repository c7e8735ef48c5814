"""Whatever the core can hold can be stored, and comes back equal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import hypothesis
import pytest
import rpds
from hypothesis import strategies as st

from controller.core import effects, events, model, statistics
from controller.store import codec, forms, rows

_INSTANTS = st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 the zone is the next argument's
_SPANS = st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=1000))
_TEXTS = st.text(max_size=8)
st.register_type_strategy(datetime, _INSTANTS)
st.register_type_strategy(timedelta, _SPANS)
st.register_type_strategy(str, _TEXTS)
# What is no number is never handed to the store.
st.register_type_strategy(float, st.floats(allow_nan=False, allow_infinity=False))

_STORED: tuple[Any, ...] = (
    model.Release,
    model.Node,
    model.UpgradeRequest,
    model.Plan,
    model.Progress,
    model.StepRecord,
    model.OperationStatus,
    model.Edge,
    model.Barrier,
    model.Channel,
    model.Freeze,
    model.Outcome,
    model.Trigger,
    model.Firing,
    model.Signal,
    rows.Assignment,
    rows.Block,
    statistics.Totals,
    events.Event,
    effects.Effect,
)


@pytest.mark.parametrize("hint", _STORED, ids=str)
@hypothesis.settings(max_examples=30, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
@hypothesis.given(data=st.data())
def test_what_is_stored_comes_back_equal(hint: Any, data: st.DataObject) -> None:  # noqa: ANN401 any stored type
    value = data.draw(st.from_type(hint))
    assert codec.decode(codec.encode(value, hint), hint) == value


def test_a_rollout_comes_back_from_its_parts() -> None:
    change = model.Change(
        model.NodeId("n"),
        model.ComponentName("web"),
        model.ChangeKind.UPGRADE,
        model.Method.HOT_SWAP,
        "1.0.0",
        model.Digest("a"),
        "1.1.0",
        model.Digest("b"),
    )
    progress = model.Progress(change, 1)
    rollout = model.Rollout(
        id=model.RolloutId("r"),
        request=model.UpgradeRequest(model.ComponentName("web"), "1.1.0", model.Strategy.CANARY),
        plan=model.Plan("f", (model.Wave(1, is_canary=True, changes=(change,)),), ()),
        state=model.RolloutState.RUNNING,
        actor="ann",
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        changes=rpds.HashTrieMap({progress.key: progress}),
    )
    text = codec.encode(rollout, model.Rollout, without=forms.ELSEWHERE)
    parts = {each: getattr(rollout, each) for each in forms.ELSEWHERE}
    assert codec.decode(text, model.Rollout, **parts) == rollout
    assert codec.decode(codec.encode(rollout, model.Rollout), model.Rollout) == rollout


def test_equal_values_give_equal_text_whatever_their_order() -> None:
    hint = Mapping[str, str]
    assert codec.encode({"b": "1", "a": "2"}, hint) == codec.encode({"a": "2", "b": "1"}, hint)
    assert codec.encode(frozenset("abc"), frozenset[str]) == codec.encode(frozenset("cba"), frozenset[str])


@dataclass(frozen=True, slots=True)
class _Grown:
    name: str
    added: int = 7


def test_a_field_that_an_older_text_lacks_takes_its_default() -> None:
    text = json.dumps({"v": codec.VERSION, "data": {"name": "n"}})
    assert codec.decode(text, _Grown) == _Grown("n")


def test_values_that_were_stored_before_there_were_kinds_and_schemas_are_read() -> None:
    release = {
        "component": "web",
        "version": "1.0.0",
        "digest": "sha256:a",
        "size_bytes": 1,
        "driver": "handover",
        "manifest_json": "{}",
        "published_at": "2026-01-01T00:00:00+00:00",
        "publisher": "ci",
    }
    found = codec.decode(json.dumps({"v": 1, "data": release}), model.Release)
    assert (found.methods, found.state, found.hot_swap_from, found.requirements) == (
        frozenset(model.Method),
        None,
        "",
        (),
    )
    request = {"component": "web", "target_version": "1.1.0", "strategy": "CANARY", "policy": {"max_failures": 1}}
    asked = codec.decode(json.dumps({"v": 1, "data": request}), model.UpgradeRequest)
    assert (asked.kind, asked.policy) == (None, model.Policy(max_failures=1))
    event = {"is": "NodeReported", "at": "2026-01-01T00:00:00+00:00", "node_id": "n"}
    assert codec.decode(json.dumps({"v": 1, "data": event}), events.Event).conditions == ()


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ('{"v": 999, "data": "x"}', str),
        ('{"v": 1, "data": 5}', str),
        ('{"v": 1, "data": "MAYBE"}', model.Health),
        ('{"v": 1, "data": "tomorrow"}', datetime),
        ('{"v": 1, "data": {"name": "n", "more": 1}}', _Grown),
        ('{"v": 1, "data": {}}', _Grown),
        ('{"v": 1, "data": {"is": "Nothing"}}', events.Event),
    ],
)
def test_what_does_not_fit_is_refused(text: str, hint: Any) -> None:  # noqa: ANN401 any stored type
    with pytest.raises(codec.CodecError):
        codec.decode(text, hint)


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (datetime(2026, 1, 1), datetime),  # noqa: DTZ001 that it has no zone is the point
        (object(), object),
        ("text", int),
        (True, int),
        ("text", model.Change),
        ("text", events.Event),
    ],
)
def test_what_cannot_be_stored_is_refused(value: object, hint: Any) -> None:  # noqa: ANN401 any type at all
    with pytest.raises(codec.CodecError):
        codec.encode(value, hint)
