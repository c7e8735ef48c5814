"""A keeper and its processes in memory: what survives the agent, and is gone after a power cut.

It keeps the promises of the real one (`agent.keeper`), verb for verb, over instances that live in virtual time. How an
instance behaves is decided by the digest that it runs. Left out: sockets and probes; what lives is well.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from enum import Enum, unique
from pathlib import Path

from agent import processes
from agent.verifier import __main__ as verifier
from tests.simulation import loop as loops

WORD_SECONDS = (0.001, 0.02)  # that a verb takes
PREPARE_SECONDS = (0.1, 2.0)  # that an instance takes to say prepared
DRAIN_SECONDS = (0.0, 3.0)  # that an instance takes to finish
RESTART_SECONDS = 0.5  # from a death to accepting again
LIFE_SECONDS = 2.0  # of an instance that dies early, from its activation on
REQUESTS_PER_SECOND = 20  # that an active instance answers

S = processes.InstanceState
GONE = frozenset({S.EXITED, S.DRAINED})


@unique
class Behaviour(Enum):
    """What becomes of the instances of a release."""

    GOOD = "good"
    CRASHES_AT_START = "version crashes at start"
    NEVER_PREPARES = "version never prepares"
    DIES_EARLY = "version dies after it took traffic"
    DIES_LATE = "version dies in its bake"


class Host:
    """What stands on one host beside the agent: the keeper's memory and its processes.

    Args:
        late_seconds: How long after its activation an instance that dies late lives.
    """

    def __init__(self, loop: loops.VirtualLoop, behaviours: Mapping[str, Behaviour], late_seconds: float) -> None:
        self.loop = loop
        self.behaviours = behaviours
        self.late_seconds = late_seconds
        self.boots = 0
        self.lose_power()

    def lose_power(self) -> None:
        """End everything that ran, and begin a new boot with nothing."""
        self.boots += 1
        self.instances: dict[str, processes.Instance] = {}
        self.active_since: dict[str, float] = {}
        self.marks: dict[str, processes.Mark] = {}
        self.outcomes: dict[str, processes.Outcome] = {}
        self.client: Keeper | None = None
        self._pid = 100 * self.boots

    def begin(self, spec: processes.InstanceSpec) -> processes.Instance:
        self._pid += 1
        instance = processes.Instance(
            id=spec.id,
            component=spec.component,
            version=spec.version,
            digest=spec.digest,
            pid=self._pid,
            started_at_monotonic=self.loop.time(),
            start_time=int(self.loop.time() * 100),
            state=S.STARTING,
            served=0,
            in_flight=0,
            accepted=0,
            exit_code=None,
            signal=None,
            restarts=0,
            is_kept=False,
            operation_id=spec.operation_id,
            release_dir=spec.release_dir,
            protocol=1,
        )
        self.instances[spec.id] = instance
        behaviour = self.behaviours[spec.digest]
        delay_seconds = self.loop.random.uniform(*PREPARE_SECONDS)
        if behaviour is Behaviour.CRASHES_AT_START:
            self._later(delay_seconds, spec.id, self._pid, self.die)
        elif behaviour is not Behaviour.NEVER_PREPARES:
            self._later(delay_seconds, spec.id, self._pid, self._prepared)
        return instance

    def change(self, instance_id: str, state: processes.InstanceState) -> processes.Instance:
        """Let an instance be in a state, and tell the agent."""
        before = self.instances[instance_id]
        if before.state is state:
            return before
        if state is S.ACTIVE:
            self._activated(before)
        elif before.state is S.ACTIVE:
            served = int((self.loop.time() - self.active_since.pop(instance_id)) * REQUESTS_PER_SECOND)
            before = replace(before, served=before.served + served)
        after = replace(before, state=state)
        self.instances[instance_id] = after
        self._tell(after, before.state)
        return after

    def _activated(self, instance: processes.Instance) -> None:
        self.active_since[instance.id] = self.loop.time()
        behaviour = self.behaviours[instance.digest]
        if behaviour is Behaviour.DIES_EARLY:
            self._later(LIFE_SECONDS, instance.id, instance.pid, self.die)
        elif behaviour is Behaviour.DIES_LATE:
            self._later(self.late_seconds, instance.id, instance.pid, self.die)

    def _prepared(self, instance_id: str) -> None:
        if self.instances[instance_id].state is S.STARTING:
            self.change(instance_id, S.PREPARED)

    def die(self, instance_id: str) -> None:
        """End an instance without a word; the keeper's rule decides what follows."""
        if self.instances[instance_id].state is S.EXITED:
            return
        self.end(instance_id, exit_code=1)
        for mark in list(self.marks.values()):
            if mark.new_instance_id == instance_id:
                self.roll_back(mark, processes.Cause.INSTANCE_DIED, f"{instance_id} ended before the commit")
        self.revive(instance_id)

    def end(self, instance_id: str, exit_code: int) -> None:
        self.change(instance_id, S.EXITED)
        self.instances[instance_id] = replace(self.instances[instance_id], exit_code=exit_code)

    def _start_again(self, instance_id: str) -> None:
        dead = self.instances[instance_id]
        if not dead.is_kept or dead.state is not S.EXITED:
            return
        self._pid += 1
        self.instances[instance_id] = replace(dead, pid=self._pid, exit_code=None, restarts=dead.restarts + 1, served=0)
        self.change(instance_id, S.ACTIVE)

    def revive(self, instance_id: str) -> None:
        """Start what is kept and has ended again."""
        seen = self.instances[instance_id]
        if seen.is_kept and seen.state is S.EXITED:
            self._later(RESTART_SECONDS, instance_id, seen.pid, self._start_again)

    def roll_back(self, mark: processes.Mark, cause: processes.Cause, why: str) -> None:
        """Resume the old instance first, then end the new one."""
        del self.marks[mark.operation_id]
        self.outcomes[mark.operation_id] = processes.Outcome(
            mark.operation_id, processes.Decision.ROLLED_BACK, cause, why
        )
        old = self.instances.get(mark.old_instance_id or "")
        if old is not None and old.state not in GONE:
            self.change(old.id, S.ACTIVE)
        new = self.instances.get(mark.new_instance_id)
        if new is not None and new.state is not S.EXITED:
            self.end(new.id, exit_code=0)

    def check_mark(self, operation_id: str) -> None:
        """Go back when the deadline has passed and no agent is there."""
        mark = self.marks.get(operation_id)
        if mark is None:
            return
        if self.client is None:
            self.roll_back(mark, processes.Cause.AGENT_AWAY, "no agent came back before the deadline")
        else:
            self._after(1.0, lambda: self.check_mark(operation_id))

    def put_mark(self, mark: processes.Mark) -> None:
        self.marks.setdefault(mark.operation_id, mark)
        self._after(mark.remaining.total_seconds(), lambda: self.check_mark(mark.operation_id))

    def drain(self, instance_id: str) -> None:
        pid = self.change(instance_id, S.DRAINING).pid
        self._later(self.loop.random.uniform(*DRAIN_SECONDS), instance_id, pid, self._drained)

    def _drained(self, instance_id: str) -> None:
        if self.instances[instance_id].state is S.DRAINING:
            self.end(instance_id, exit_code=0)

    def _tell(self, instance: processes.Instance, was: processes.InstanceState) -> None:
        self.loop.record(f"{instance.id} {was.value} {instance.state.value}")
        if self.client is not None:
            self.client.hear(processes.InstanceEvent(instance, was))

    def _later(self, seconds: float, instance_id: str, pid: int, then: Callable[[str], None]) -> None:
        """Let something happen to this life of an instance, if it is still that life."""

        def happen() -> None:
            seen = self.instances.get(instance_id)
            if seen is not None and seen.pid == pid:
                then(instance_id)

        self._after(seconds, happen)

    def _after(self, seconds: float, then: Callable[[], None]) -> None:
        boots = self.boots

        def happen() -> None:
            if self.boots == boots:
                then()

        self.loop.call_later(seconds, happen)


class Keeper(processes.Keeper):
    """One connection of an agent to the keeper of its host."""

    def __init__(self, host: Host, state_dir: Path) -> None:
        self._host = host
        self._state_dir = state_dir
        self._events: asyncio.Queue[processes.InstanceEvent] = asyncio.Queue()
        self._closed = asyncio.Event()
        self._is_watching = False

    @property
    def events(self) -> asyncio.Queue[processes.InstanceEvent]:
        return self._events

    @property
    def closed(self) -> asyncio.Event:
        return self._closed

    def hear(self, event: processes.InstanceEvent) -> None:
        if self._is_watching:
            self._events.put_nowait(event)

    def hang_up(self) -> None:
        """The agent has ended."""
        self._closed.set()
        if self._host.client is self:
            self._host.client = None

    async def close(self) -> None:
        self.hang_up()

    def facts(self) -> processes.KeeperFacts:
        boots = self._host.boots
        return processes.KeeperFacts("0.1.0", 1, f"boot-{boots}", f"keeper-{boots}", "python")

    async def hello(self) -> processes.KeeperFacts:
        await self._answer()
        return self.facts()

    async def attach(self) -> None:
        await self._answer()
        self._host.client = self

    async def watch(self) -> None:
        await self._answer()
        self._is_watching = True

    async def listen(self, name: str, address: str, *, backlog: int = 1024) -> str:  # noqa: ARG002 nothing listens here
        await self._answer()
        return address

    async def start(self, spec: processes.InstanceSpec) -> processes.Instance:
        await self._answer()
        return self._host.instances.get(spec.id) or self._host.begin(spec)

    async def say(
        self,
        instance_id: str,
        word: processes.Word | str,
        timeout: timedelta,  # noqa: ARG002, ASYNC109 the port's
        body: Mapping[str, object] | None = None,  # noqa: ARG002 the port's
    ) -> processes.Answer:
        await self._answer()
        word = processes.Word(word)
        seen = self._host.instances.get(instance_id)
        if seen is None:
            raise processes.KeeperError("unknown_instance", f"cannot say {word.value}: {instance_id} is unknown")
        if seen.state in GONE:
            raise processes.KeeperError("instance_gone", f"cannot say {word.value}: {instance_id} has ended")
        self._obey(seen, word)
        now = self._host.instances[instance_id]
        active_seconds = self._host.loop.time() - self._host.active_since.get(instance_id, self._host.loop.time())
        served = now.served + int(active_seconds * REQUESTS_PER_SECOND)
        return processes.Answer(now.state, served, 0, 0, 1)

    def _obey(self, seen: processes.Instance, word: processes.Word) -> None:
        allowed = {
            processes.Word.ACTIVATE: (S.PREPARED, S.ACTIVE),
            processes.Word.PAUSE: (S.PREPARED, S.ACTIVE, S.PAUSED),
            processes.Word.RESUME: (S.PAUSED, S.ACTIVE, S.DRAINING),
        }
        if word in allowed and seen.state not in allowed[word]:
            raise processes.KeeperError("instance_refused", f"cannot {word.value} while {seen.state.value}")
        match word:
            case processes.Word.ACTIVATE | processes.Word.RESUME:
                self._host.change(seen.id, S.ACTIVE)
            case processes.Word.PAUSE:
                self._host.change(seen.id, S.PAUSED)
            case processes.Word.DRAIN:
                if seen.state is not S.DRAINING:
                    self._host.drain(seen.id)
            case processes.Word.HELLO | processes.Word.STATUS:
                pass
            case processes.Word.PARK:
                raise processes.KeeperError("instance_refused", "cannot park: nothing is restarted here")

    async def mark(
        self, operation_id: str, new_instance_id: str, old_instance_id: str | None, deadline: timedelta
    ) -> None:
        await self._answer()
        if operation_id not in self._host.outcomes:
            mark = processes.Mark(operation_id, new_instance_id, old_instance_id, deadline, is_rolling_back=False)
            self._host.put_mark(mark)

    async def commit(self, operation_id: str, current_instance_id: str) -> processes.Outcome:
        await self._answer()
        outcome = self._host.outcomes.get(operation_id)
        if outcome is None:
            mark = self._host.marks.pop(operation_id, None)
            if mark is None or mark.new_instance_id != current_instance_id:
                raise processes.KeeperError("mark_unknown", f"cannot commit {operation_id}: it has no mark")
            outcome = processes.Outcome(operation_id, processes.Decision.COMMITTED, processes.Cause.AGENT_ASKED, "")
            self._host.outcomes[operation_id] = outcome
        return outcome

    async def unmark(self, operation_id: str) -> None:
        await self._answer()
        if self._host.marks.pop(operation_id, None) is not None:
            outcome = processes.Outcome(operation_id, processes.Decision.ROLLED_BACK, processes.Cause.AGENT_ASKED, "")
            self._host.outcomes[operation_id] = outcome

    async def keep(self, component: str, instance_id: str) -> None:
        await self._answer()
        if instance_id not in self._host.instances:
            raise processes.KeeperError("unknown_instance", f"cannot keep {instance_id}: it is unknown")
        for seen in list(self._host.instances.values()):
            if seen.component == component:
                self._host.instances[seen.id] = replace(seen, is_kept=seen.id == instance_id)
        self._host.revive(instance_id)

    async def stop(self, instance_id: str, timeout: timedelta) -> None:  # noqa: ARG002, ASYNC109 the port's
        await self._answer()
        seen = self._host.instances.get(instance_id)
        if seen is None:
            return
        self._host.instances[instance_id] = replace(seen, is_kept=False)
        if seen.state is not S.EXITED:
            self._host.end(instance_id, exit_code=0)
        del self._host.instances[instance_id]

    async def inspect(self) -> processes.Inspection:
        await self._answer()
        host = self._host
        return processes.Inspection(
            tuple(host.instances.values()), tuple(host.marks.values()), tuple(host.outcomes.values())
        )

    async def log(self, instance_id: str, max_bytes: int) -> str:  # noqa: ARG002 nobody writes here
        await self._answer()
        if instance_id not in self._host.instances:
            raise processes.KeeperError("unknown_instance", f"cannot read the log of {instance_id}: it is unknown")
        return ""

    async def verify(self, digest: str, component: str = "", version: str = "") -> processes.Verdict:
        await self._answer()
        asked = verifier.Asked(component, version)
        document, code = verifier.answer(self._state_dir, digest.removeprefix("sha256:"), asked)
        return processes.Verdict(code, json.dumps(document))

    async def _answer(self) -> None:
        """Take the time that the real one takes, so that the agent can die in it."""
        if self._closed.is_set():
            raise processes.KeeperError("keeper_gone", "cannot ask: the keeper hung up")
        await asyncio.sleep(self._host.loop.random.uniform(*WORD_SECONDS))
