"""Events as the HTTP binding of CloudEvents 1.0 has them: binary, structured, or several in a batch; data in JSON.

Rules kept here: what says nothing of its specification is no event; other formats are refused by their content type.
Left out: sizes and ages, which the engine bounds for every way that events come.
"""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Mapping
from datetime import datetime
from typing import Never

from controller.core import errors, model
from controller.web import bodies, secrets

STRUCTURED = "application/cloudevents+json"
BATCHED = "application/cloudevents-batch+json"
UNSUPPORTED = "content_type_unsupported"  # a code that has a status of its own
SPEC_VERSION = "1.0"
_FAMILY = "application/cloudevents"  # of formats, of which we read one
_TEXTS = ("specversion", "source", "id", "type", "subject", "time", "datacontenttype")


def read(headers: Mapping[str, str], body: bytes) -> tuple[model.ReceivedEvent, ...]:
    """The events of a request.

    Raises:
        InvalidRequestError: One of them is none, or the content type is no way to send events.
    """
    kind = _kind(headers.get("content-type", ""))
    if kind == BATCHED:
        return _batch(bodies.parse(body))
    if kind == STRUCTURED:
        return (_event(bodies.parse(body), "events[0]"),)
    if kind.startswith(_FAMILY) or f"{secrets.ATTRIBUTE}specversion" not in headers:
        rule = (
            f"{STRUCTURED}, {BATCHED}, or application/json with the headers ce-specversion, ce-source, ce-id, ce-type"
        )
        _refuse("content-type", kind, rule, UNSUPPORTED)
    return (_binary(headers, kind, body),)


def _binary(headers: Mapping[str, str], kind: str, body: bytes) -> model.ReceivedEvent:
    if body and not _is_json(kind):
        _refuse("content-type", kind, "application/json, for the data of an event is JSON here", UNSUPPORTED)
    begin = len(secrets.ATTRIBUTE)
    found: dict[str, object] = {
        name[begin:]: urllib.parse.unquote(value)
        for name, value in headers.items()
        if name.startswith(secrets.ATTRIBUTE)
    }
    return _event(found | ({"data": bodies.parse(body)} if body else {}), "events[0]")


def _batch(found: object) -> tuple[model.ReceivedEvent, ...]:
    if not isinstance(found, list):
        _refuse("events", type(found).__name__, "a list of events")
    return tuple(_event(one, f"events[{position}]") for position, one in enumerate(found))


def _event(found: object, place: str) -> model.ReceivedEvent:
    if not isinstance(found, Mapping):
        _refuse(place, type(found).__name__, "an object with the attributes of an event")
    texts = {name: _text(found, name, place) for name in _TEXTS}
    if texts["specversion"] != SPEC_VERSION:
        _refuse(f"{place}.specversion", texts["specversion"], SPEC_VERSION)
    if texts["datacontenttype"] and not _is_json(_kind(texts["datacontenttype"])):
        _refuse(f"{place}.datacontenttype", texts["datacontenttype"], "application/json")
    if "data_base64" in found:
        _refuse(f"{place}.data_base64", "", "absent, for the data of an event is JSON here")
    at = instant(texts["time"], f"{place}.time") if texts["time"] else None
    data = "{}" if found.get("data") is None else json.dumps(found["data"])
    return model.ReceivedEvent(texts["source"], texts["id"], texts["type"], texts["subject"], at, data)


def _text(found: Mapping[str, object], name: str, place: str) -> str:
    value = found.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        _refuse(f"{place}.{name}", str(value), "text")
    return value


def instant(text: str, field: str) -> datetime:
    """An instant as RFC 3339 writes it.

    Raises:
        InvalidRequestError: It is none.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        _refuse(field, text, "a time with its zone, such as 2026-12-24T17:00:00Z")
    return found


def _kind(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _is_json(kind: str) -> bool:
    return kind == "application/json" or kind.endswith("+json")


def _refuse(field: str, value: str, rule: str, code: str = "invalid_event") -> Never:
    shown = value[:100]
    raise errors.InvalidRequestError(
        f"cannot take the events: {field} {shown!r} must be {rule}", code=code, field=field, value=shown, rule=rule
    )
