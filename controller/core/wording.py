"""How changes, their operations and instants are called in sentences for people.

Left out: which of these sentences are said (`explain`).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from controller.core import model

K = model.ChangeKind

_DONE: Mapping[model.ChangeKind, str] = {
    K.INSTALL: "installed at {to}",
    K.UPGRADE: "upgraded to {to}",
    K.REMOVE: "removed",
    K.START: "started",
    K.STOP: "stopped",
    K.RESTART: "restarted",
}
_UNDONE: Mapping[model.ChangeKind, str] = {
    K.INSTALL: "removed again",
    K.UPGRADE: "taken back to {before}",
    K.REMOVE: "installed again at {before}",
    K.START: "stopped again",
    K.STOP: "started again",
    K.RESTART: "restarted again",  # never asked for: a restart leaves nothing to take back
}
_FAULTS: Mapping[model.Fault | None, str] = {
    model.Fault.VERSION: "by the version's own fault",
    model.Fault.INFRASTRUCTURE: "by no fault of the version",
    model.Fault.COMMAND: "for what was asked of it",
    None: "for a reason that was not told",
}


def done(change: model.Change, *, is_undone: bool = False) -> str:
    """Say what has become of a component by a change, or by what undoes it: ``upgraded to 1.1.0``."""
    phrase = (_UNDONE if is_undone else _DONE)[change.kind]
    return phrase.format(to=change.to_version, before=change.from_version)


def instant(at: datetime) -> str:
    """Write an instant, to the second."""
    return at.isoformat(timespec="seconds")


def attempt(each: model.Progress) -> str:
    """Say where the latest operation of a change stands."""
    state = "" if each.state is None else each.state.value
    return f"attempt {each.attempt} is {state}{'' if each.step is None else f' at {each.step.value}'}"


def failure(each: model.Progress, on: str = "") -> str:
    """Say where and by whose fault the latest operation of a change failed."""
    step = "" if each.step is None else f" at {each.step.value}"
    return f"attempt {each.attempt}{on} failed{step}, {_FAULTS[each.fault]}"


def offline(policy: model.Policy) -> str:
    """Say what becomes of nodes that are not connected."""
    says = {
        model.OfflinePolicy.WAIT: "a node that is offline is waited for",
        model.OfflinePolicy.SKIP: "a node that goes offline before its turn is left out",
        model.OfflinePolicy.EXPIRE: f"a node that is offline is given up {policy.offline_deadline} after the start",
    }
    return f"policy.offline is {policy.offline.value}: {says[policy.offline]}"
