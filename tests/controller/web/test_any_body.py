"""Whatever a body says, it is events or it is refused as what is none; nothing else is raised."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence

import hypothesis
from hypothesis import strategies as st

from controller.core import errors, model
from controller.web import alerts, bodies, cloud_events
from tests.controller.web import test_alerts, test_events

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda part: st.lists(part, max_size=4) | st.dictionaries(st.text(max_size=9), part, max_size=4),
    max_leaves=8,
)
_kinds = st.sampled_from([cloud_events.STRUCTURED, cloud_events.BATCHED, "application/json", "text/plain", ""])
_events = st.fixed_dictionaries(
    {}, optional={name: _json | st.just(value) for name, value in test_events.BUILT.items()}
)
_alert = st.fixed_dictionaries(
    {}, optional={name: _json | st.just(value) for name, value in test_alerts.RESOLVED.items()}
)
_notifications = st.fixed_dictionaries(
    {"version": st.just("4") | _json, "alerts": _json | st.lists(_alert, max_size=2)}, optional={"receiver": _json}
)


def told(read: Callable[[], Sequence[model.ReceivedEvent]]) -> tuple[Sequence[model.ReceivedEvent], str]:
    """The events, or the field that is wrong."""
    try:
        return read(), ""
    except errors.InvalidRequestError as error:
        return (), error.field or "no field"


@hypothesis.given(_kinds, _events | st.lists(_events, max_size=3) | _json, st.booleans())
def test_any_json_is_events_or_none(kind: str, found: object, is_binary: bool) -> None:  # noqa: FBT001  # drawn
    headers = {"content-type": kind} | ({"ce-specversion": "1.0", "ce-id": "%ff"} if is_binary else {})
    events, field = told(lambda: cloud_events.read(headers, json.dumps(found).encode()))
    assert field != "no field"
    assert all(json.loads(each.data) is not None for each in events)


@hypothesis.given(_notifications | _json)
def test_any_json_is_alerts_or_none(found: object) -> None:
    events, field = told(lambda: alerts.read(found))
    assert field != "no field"
    assert all(each.type in ("alertmanager.firing", "alertmanager.resolved") and each.at for each in events)


@hypothesis.given(st.binary(max_size=200))
def test_any_bytes_are_json_or_none(body: bytes) -> None:
    with contextlib.suppress(errors.InvalidRequestError):
        bodies.parse(body)
