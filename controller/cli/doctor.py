"""What is wrong with a controller on this machine, by what lies there: its folder, and what vouches for its releases.

Rules kept: it only reads, so that it can be asked while the controller runs. Left out: whether the controller answers.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, unique

from controller import clock
from controller.config import settings
from controller.core import errors
from controller.trust import unsigned

WARN_BEFORE = timedelta(days=14)  # people who sign have to be found first


@unique
class State(Enum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    state: State
    message: str


def checks(loaded: settings.Settings) -> list[Check]:
    """Look at all of it."""
    return [*_folder(loaded), *_trust(loaded)]


def _folder(loaded: settings.Settings) -> Iterator[Check]:
    if not loaded.state_dir.is_dir():
        yield Check("state", State.WARNING, f"{loaded.state_dir} is not there: no controller has run on it yet")
        return
    mode = stat.S_IMODE(loaded.state_dir.stat().st_mode)
    if mode & 0o077:
        yield Check("state", State.FAILED, f"{loaded.state_dir} can be entered by others: its mode is {mode:04o}")
        return
    yield Check("state", State.OK, f"{loaded.state_dir} is its owner's alone")


def _trust(loaded: settings.Settings) -> Iterator[Check]:
    if loaded.trust_dir is None:
        yield Check("trust", State.WARNING, unsigned.WARNING)
        return
    from controller.trust import keeping, keys  # only where releases are signed

    now = clock.SystemClock().now()
    try:
        kept = keeping.Trust(loaded.metadata_dir, loaded.trust_dir, clock.SystemClock())
        ids = set(keys.read_folder(loaded.trust_dir))
    except errors.InstarError as error:
        yield Check("trust", State.FAILED, str(error))
        return
    if kept.served.targets is None:
        yield Check("trust", State.WARNING, "nothing was put yet (`instar trust push`): no release can be published")
    for role in ("snapshot", "timestamp"):
        told = kept.served.root.roles[role]
        here = len(ids.intersection(told.keyids))
        state = State.OK if here >= told.threshold else State.FAILED
        yield Check(f"trust.{role}", state, f"{here} of {told.threshold} keys that must sign are in {loaded.trust_dir}")
    for file in kept.served.files():
        if file.role != "root" or file is kept.served.roots[-1]:
            yield _expiry(file.name, file.role, file.expires_at, now)


def _expiry(name: str, role: str, expires_at: datetime, now: datetime) -> Check:
    instant = f"{expires_at:%Y-%m-%dT%H:%M:%SZ}"
    if expires_at <= now:
        return Check(f"trust.{role}", State.FAILED, f"{name} expired at {instant}")
    is_ours = role in ("snapshot", "timestamp")  # signed again each hour
    state = State.OK if is_ours or expires_at - now > WARN_BEFORE else State.WARNING
    return Check(f"trust.{role}", state, f"{name} is valid until {instant}")
