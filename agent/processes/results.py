"""What the keeper answers, as values of the agent; converted once, here, from the JSON of its replies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import timedelta
from enum import Enum, unique
from pathlib import Path
from typing import Any


@unique
class Word(Enum):
    """What the keeper can be asked to say to an instance.

    PARK is obeyed by the keeper itself: the process is ended and the instance stays, PAUSED, until RESUME launches it
    again and it serves. For a plain instance PAUSE is its signal for it, else PARK.
    """

    HELLO = "hello"
    ACTIVATE = "activate"
    PAUSE = "pause"
    PARK = "park"
    RESUME = "resume"
    DRAIN = "drain"
    STATUS = "status"


@unique
class Protocol(Enum):
    """How an instance is spoken to: by its control socket, or by signals and its process alone."""

    HANDOVER = "handover"
    PLAIN = "plain"


@unique
class OnAgentStop(Enum):
    """What becomes of an instance when the node is stopped by hand, by its package or with the host."""

    KEEP = "keep"
    STOP = "stop"


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
    """What a shutdown of the keeper does to the components; DECLARED is what each one's start said."""

    KEEP = "keep"
    STOP = "stop"
    DECLARED = "declared"


class KeeperError(Exception):
    """The keeper refused or could not do what was asked.

    Codes of the keeper: invalid_request, unknown_verb, unknown_instance, unknown_socket, socket_in_use, listen_failed,
    release_outside, command_outside, digest_mismatch, start_failed, instance_conflict, too_many, instance_gone,
    instance_timeout, instance_refused, mark_unknown, mark_conflict, write_failed, verify_failed, stage_failed,
    run_failed, environment_outside, secret_missing, user_unknown.
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
        sockets: Names given to `listen` before, in the order of the manifest; "web.http~trial" reaches the program as
            "http".
        stop_timeout: Time between SIGTERM and SIGKILL when the keeper itself stops the instance.
        operation_id: The operation that starts it; empty where there is none.
        signals: Of a plain instance, by word: pause, resume, drain, stop; such as {"pause": "SIGWINCH"}. They go to its
            main process alone; without one, pause parks, and drain and stop are SIGTERM for all its processes.
        is_exclusive: No two processes of the component at once: a roll back ends this one before it resumes the old.
        secrets: Names; the keeper puts each into a file of CREDENTIALS_DIRECTORY.
        environment_dir: Virtual environment whose interpreter "python" then is.
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
    protocol: Protocol = Protocol.HANDOVER
    signals: Mapping[str, str] = field(default_factory=dict)
    is_exclusive: bool = False
    secrets: Sequence[str] = ()
    on_agent_stop: OnAgentStop = OnAgentStop.KEEP
    environment_dir: Path | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """A command of a release that runs once and ends.

    Args:
        command, environment, secrets, environment_dir: As for `InstanceSpec`.
        timeout: Then all its processes are killed.
        is_repeated: It is run again and again, as a probe is: the keeper is content when it has checked the release
            within the last minute. Never for what changes which version serves.
    """

    component: str
    version: str
    digest: str
    release_dir: Path
    command: Sequence[str]
    timeout: timedelta
    environment: Mapping[str, str] = field(default_factory=dict)
    secrets: Sequence[str] = ()
    environment_dir: Path | None = None
    is_repeated: bool = False


@dataclass(frozen=True, slots=True)
class TaskEnd:
    """How a task ended.

    Args:
        exit_code: None when a signal ended it.
        output: The last 16 KiB of what it printed.
    """

    exit_code: int | None
    signal: int | None
    is_timeout: bool
    output: str


@dataclass(frozen=True, slots=True)
class Instance:
    """One process group of a component, as the keeper sees it.

    Args:
        pid: 0 while it is parked.
        started_at_monotonic: Seconds on CLOCK_MONOTONIC when it was started.
        start_time: Clock ticks since boot, from /proc; with the boot id and the pid it names the process for ever.
        served: Requests answered in this life of the process, as of its last word.
        in_flight: Requests begun and not yet answered.
        accepted: Connections accepted and not yet closed.
        exit_code: None while it runs, and for ever when an adopted process ends, for it is not the keeper's child.
        signal: The signal that ended it, if one did.
        restarts: How often the keeper started it again.
        protocol: Version of the hand-over protocol; 0 until the instance has answered once, and for a plain one.
        is_plain: It has no control socket.
        is_broken: It died early too often in a row; the keeper starts it again only every few minutes.
        worker_deaths: Workers of it that ended by themselves and were replaced; the instance itself went on.
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
    is_plain: bool = False
    is_broken: bool = False
    worker_deaths: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """What an instance said of itself, fresh; ``body`` is what it said beyond that."""

    state: InstanceState
    served: int
    in_flight: int
    accepted: int
    protocol: int
    body: Mapping[str, Any] = field(default_factory=dict)


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
    """Everything the keeper holds.

    Args:
        outcomes: Of marks, and of trials of the agent.
        trial_operation_id: The operation whose new agent is on trial; None where none is.
        keeper_digest: The release that the keeper runs from; empty for the packaged one.
        bad_agent_digests: Releases of the agent that died early too often.
        pinned_digests: Releases that the keeper, or what it has started, still reads from.
        listeners: Names of the listening sockets that are open.
    """

    instances: tuple[Instance, ...]
    marks: tuple[Mark, ...]
    outcomes: tuple[Outcome, ...]
    trial_operation_id: str | None = None
    keeper_digest: str = ""
    bad_agent_digests: tuple[str, ...] = ()
    pinned_digests: tuple[str, ...] = ()
    listeners: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the verifier or the stager printed, at most 64 KiB, and its exit code; None when a signal ended it."""

    exit_code: int | None
    output: str


@dataclass(frozen=True, slots=True)
class InstanceEvent:
    """An instance changed state; `was` is the state before."""

    instance: Instance
    was: InstanceState


def instance(body: dict[str, Any]) -> Instance:
    """Read an instance from a reply of the keeper; what a newer keeper shows beyond this is left out."""
    known = {each.name: body[each.name] for each in fields(Instance) if each.name in body}
    return Instance(
        **{**known, "state": InstanceState(body["state"]), "release_dir": Path(body["release_dir"])},
    )


def answer(body: dict[str, Any]) -> Answer:
    """Read an instance's answer from a reply; what a newer keeper says beyond this is left out."""
    known = {each.name: body[each.name] for each in fields(Answer) if each.name in body}
    return Answer(**{**known, "state": InstanceState(body["state"])})


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
