"""What the keeper answers, as values of the agent; converted once, here, from the JSON of its replies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum, unique
from pathlib import Path
from typing import Any


@unique
class Word(Enum):
    """What the keeper can be asked to say to an instance."""

    HELLO = "hello"
    ACTIVATE = "activate"
    PAUSE = "pause"
    RESUME = "resume"
    DRAIN = "drain"
    STATUS = "status"


@unique
class InstanceState(Enum):
    """Where an instance stands, as the keeper knows it."""

    STARTING = "starting"
    PREPARED = "prepared"
    ACTIVE = "active"
    PAUSED = "paused"
    DRAINING = "draining"
    DRAINED = "drained"
    EXITED = "exited"


@unique
class Decision(Enum):
    """How an operation ended on this node."""

    COMMITTED = "committed"
    ROLLED_BACK = "rolled_back"


@unique
class Cause(Enum):
    """Why an operation ended as it did; only the death of the new instance speaks against its version."""

    AGENT_ASKED = "agent_asked"
    AGENT_AWAY = "agent_away"
    INSTANCE_DIED = "instance_died"
    ALL_DIED = "all_died"


@unique
class OnShutdown(Enum):
    """What a shutdown of the keeper does to the components."""

    KEEP = "keep"
    STOP = "stop"


class KeeperError(Exception):
    """The keeper refused or could not do what was asked.

    Codes of the keeper: invalid_request, unknown_verb, unknown_instance, unknown_socket, socket_in_use, listen_failed,
    release_outside, command_outside, digest_mismatch, start_failed, instance_conflict, too_many, instance_gone,
    instance_timeout, instance_refused, mark_unknown, mark_conflict, write_failed, verify_failed.
    Codes of this side: keeper_gone, keeper_timeout.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class KeeperFacts:
    """Who the keeper is.

    Args:
        instance_token: Random text, new with each life of a keeper.
        interpreter: The Python that runs components whose command begins with "python".
    """

    keeper_version: str
    pid: int
    boot_id: str
    instance_token: str
    interpreter: str


@dataclass(frozen=True, slots=True)
class InstanceSpec:
    """What to start.

    Args:
        command: Program and arguments; the first is "python" or names a file of the release.
        environment: Beside the variables of the hand-over protocol; TRACEPARENT goes here.
        sockets: Names given to `listen` before, in the order of the manifest.
        stop_timeout: Time between SIGTERM and SIGKILL when the keeper itself stops the instance.
        operation_id: The operation that starts it; empty where there is none.
    """

    id: str
    component: str
    version: str
    digest: str
    release_dir: Path
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    sockets: Sequence[str] = ()
    stop_timeout: timedelta = timedelta(seconds=5)
    operation_id: str = ""


@dataclass(frozen=True, slots=True)
class Instance:
    """One process group of a component, as the keeper sees it.

    Args:
        started_at_monotonic: Seconds on CLOCK_MONOTONIC when it was started.
        start_time: Clock ticks since boot, from /proc; with the boot id and the pid it names the process for ever.
        served: Requests answered in this life of the process, as of its last word.
        in_flight: Requests begun and not yet answered.
        accepted: Connections accepted and not yet closed.
        exit_code: None while it runs, and for ever when an adopted process ends, for it is not the keeper's child.
        signal: The signal that ended it, if one did.
        restarts: How often the keeper started it again.
        protocol: Version of the hand-over protocol; 0 until the instance has answered once.
    """

    id: str
    component: str
    version: str
    digest: str
    pid: int
    started_at_monotonic: float
    start_time: int
    state: InstanceState
    served: int
    in_flight: int
    accepted: int
    exit_code: int | None
    signal: int | None
    restarts: int
    is_kept: bool
    operation_id: str
    release_dir: Path
    protocol: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What an instance said of itself, fresh."""

    state: InstanceState
    served: int
    in_flight: int
    accepted: int
    protocol: int


@dataclass(frozen=True, slots=True)
class Mark:
    """An uncommitted operation that the keeper watches over.

    Args:
        remaining: Until the keeper rolls back by itself if no agent is attached; not positive when that has passed.
        is_rolling_back: The keeper has decided; commit answers ROLLED_BACK from now on.
    """

    operation_id: str
    new_instance_id: str
    old_instance_id: str | None
    remaining: timedelta
    is_rolling_back: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an operation ended, by the keeper's decision."""

    operation_id: str
    decision: Decision
    cause: Cause
    why: str


@dataclass(frozen=True, slots=True)
class Inspection:
    """Everything the keeper holds."""

    instances: tuple[Instance, ...]
    marks: tuple[Mark, ...]
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the verifier printed, at most 64 KiB, and its exit code; None when a signal ended it."""

    exit_code: int | None
    output: str


@dataclass(frozen=True, slots=True)
class InstanceEvent:
    """An instance changed state; `was` is the state before."""

    instance: Instance
    was: InstanceState


def instance(body: dict[str, Any]) -> Instance:
    """Read an instance from a reply of the keeper."""
    return Instance(
        **{**body, "state": InstanceState(body["state"]), "release_dir": Path(body["release_dir"])},
    )


def answer(body: dict[str, Any]) -> Answer:
    """Read an instance's answer from a reply."""
    return Answer(**{**body, "state": InstanceState(body["state"])})


def mark(body: dict[str, Any]) -> Mark:
    """Read a mark from a reply."""
    return Mark(
        operation_id=body["operation_id"],
        new_instance_id=body["new_instance_id"],
        old_instance_id=body["old_instance_id"],
        remaining=timedelta(seconds=body["remaining_seconds"]),
        is_rolling_back=body["is_rolling_back"],
    )


def outcome(body: dict[str, Any]) -> Outcome:
    """Read an outcome from a reply."""
    return Outcome(body["operation_id"], Decision(body["outcome"]), Cause(body["cause"]), body["why"])
