"""Histories of rollouts: all that happened to one, as lines of JSON that can be worked out anew for ever.

Rules kept: the first line says what was asked for and planned, each further one is an event with the revision that it
led to, the last is what the rollout had become; bodies are as the store has them (`codec`). Left out: what is not of
the rollout itself, such as audit and spans.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import rpds
import sqlalchemy as sa

from controller.core import errors, events, model
from controller.store import codec, forms, reading, rows

FORM = 1


@dataclass(frozen=True, slots=True)
class History:
    """What happened to one rollout.

    Args:
        writers: Versions of this program that have decided.
        ended: What it had become.
    """

    writers: frozenset[str]
    happened: tuple[rows.Occurrence, ...]
    ended: model.Rollout


def of(connection: sa.Connection, name_or_id: str) -> History:
    """Read the history of a rollout, by its identity, or of the newest of a name.

    Raises:
        NotFoundError: There is none.
    """
    found = reading.rollout(connection, name_or_id)
    if found is None:
        raise errors.NotFoundError(
            f"cannot find rollout {name_or_id!r}", code="rollout_unknown", field="rollout", value=name_or_id
        )
    return History(reading.writers_of(connection, found.id), reading.journal(connection, found.id), found)


def lines(history: History) -> Iterator[str]:
    """Write a history down."""
    ended = history.ended
    yield _line(
        {
            "form": FORM,
            "writers": sorted(history.writers or {forms.CORE_VERSION}),
            "request": _body(ended.request, model.UpgradeRequest),
            "plan": _body(ended.plan, model.Plan),
        }
    )
    for each in history.happened:
        yield _line({"revision": each.revision, "event": _body(each.event, events.Event)})
    changes = sorted(ended.changes.values(), key=lambda each: (each.wave, each.change.node_id, each.change.component))
    yield _line(
        {
            "ended": json.loads(codec.encode(ended, model.Rollout, without=forms.ELSEWHERE)),
            "changes": [_body(each, model.Progress) for each in changes],
            "standings": {
                node_id: _body(ended.standings[node_id], model.Standing) for node_id in sorted(ended.standings)
            },
            "approval": None if ended.approval is None else _body(ended.approval, model.Approval),
        }
    )


def read(text: Iterable[str]) -> History:
    """Read what was written down.

    Raises:
        InvalidRequestError: It is no history, or of a form that is not known.
    """
    try:
        first, *between, last = [json.loads(line) for line in text]
        if first["form"] != FORM:
            raise ValueError(f"form {first['form']}")  # noqa: TRY301  # the one place that says what is wrong is below
        ended = codec.decode(
            json.dumps(last["ended"]),
            model.Rollout,
            request=_value(first["request"], model.UpgradeRequest),
            plan=_value(first["plan"], model.Plan),
            changes=_changes(last["changes"]),
            standings=rpds.HashTrieMap(
                (model.NodeId(node_id), _value(body, model.Standing)) for node_id, body in last["standings"].items()
            ),
            approval=None if last["approval"] is None else _value(last["approval"], model.Approval),
        )
        happened = tuple(
            rows.Occurrence(ended.id, each["revision"], _value(each["event"], events.Event)) for each in between
        )
    except (codec.CodecError, KeyError, TypeError, ValueError) as fault:
        raise errors.InvalidRequestError(
            f"cannot read the history: {fault}",
            code="history_invalid",
            field="file",
            rule="what `instar store journal` has written",
        ) from fault
    return History(frozenset(first["writers"]), happened, ended)


def _changes(bodies: Iterable[object]) -> rpds.HashTrieMap[model.ChangeKey, model.Progress]:
    progress: Iterable[model.Progress] = (_value(body, model.Progress) for body in bodies)
    return rpds.HashTrieMap((each.key, each) for each in progress)


def _body(value: object, hint: object) -> object:
    return json.loads(codec.encode(value, hint))


def _value(body: object, hint: object) -> Any:  # noqa: ANN401  # the hint is the type
    return codec.decode(json.dumps(body), hint)


def _line(told: dict[str, object]) -> str:
    return json.dumps(told, separators=(",", ":"), sort_keys=True) + "\n"
