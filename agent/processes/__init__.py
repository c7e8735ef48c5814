"""The agent's side of the keeper's socket: one method per verb, typed results.

Rules kept here: every request has a deadline; every answer is converted once, at this edge; a refusal of the keeper is
a `KeeperError` with the keeper's code; when the connection is lost every waiting request fails with code `keeper_gone`
and `closed` is set: the agent then ends itself, for a new keeper starts a new agent. Events only hurry the reader
along, `inspect` is the truth: when the queue is full the oldest event is dropped. Left out: deciding what to ask.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from agent.processes import agents, line, results
from agent.processes.results import (
    Answer,
    Cause,
    Decision,
    Inspection,
    Instance,
    InstanceEvent,
    InstanceSpec,
    InstanceState,
    KeeperError,
    KeeperFacts,
    Mark,
    OnAgentStop,
    OnShutdown,
    Outcome,
    Protocol,
    Task,
    TaskEnd,
    Verdict,
    Word,
)

__all__ = [
    "Answer",
    "Cause",
    "Decision",
    "Inspection",
    "Instance",
    "InstanceEvent",
    "InstanceSpec",
    "InstanceState",
    "Keeper",
    "KeeperError",
    "KeeperFacts",
    "Mark",
    "OnAgentStop",
    "OnShutdown",
    "Outcome",
    "Protocol",
    "Task",
    "TaskEnd",
    "Verdict",
    "Word",
]

ANSWER_TIMEOUT = timedelta(seconds=10)  # over what the verb itself may take; the keeper answers within milliseconds
START_TIMEOUT = timedelta(seconds=60)  # the keeper reads the whole release again before it starts it
VERIFY_TIMEOUT = timedelta(seconds=150)  # the verifier's own limit is 120 s of processor time
STAGE_TIMEOUT = timedelta(seconds=930)  # the stager's own limit is a quarter of an hour
UNKNOWN_VERB = "unknown_verb"  # what a keeper answers that is older than its agent
CONNECT_RETRY = timedelta(milliseconds=50)  # a keeper that is starting listens within this order of time


class Keeper(agents.AgentVerbs):
    """One connection to the keeper's socket.

    Requests may overlap. Every method raises `KeeperError`; every verb is idempotent, so asking again is always safe.
    """

    def __init__(self, connection: line.Line) -> None:
        self._line = connection

    @classmethod
    async def connect(cls, path: Path, *, within: timedelta = ANSWER_TIMEOUT) -> Keeper:
        """Connect, trying again until the keeper listens or the time is over.

        Raises:
            KeeperError: With code keeper_gone.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + within.total_seconds()
        while True:
            try:
                _, connection = await loop.create_unix_connection(line.Line, str(path))
            except (FileNotFoundError, ConnectionRefusedError) as error:
                if loop.time() >= until:
                    raise KeeperError("keeper_gone", f"cannot reach the keeper at {path}: {error}") from error
                await asyncio.sleep(CONNECT_RETRY.total_seconds())
            else:
                return cls(connection)

    @property
    def events(self) -> asyncio.Queue[InstanceEvent]:
        """Events since `watch`."""
        return self._line.events

    @property
    def closed(self) -> asyncio.Event:
        """Set when the connection is gone, whoever ended it."""
        return self._line.closed

    async def close(self) -> None:
        """End the connection; the keeper then counts this agent as away."""
        self._line.hang_up()
        await self._line.closed.wait()

    async def hello(self) -> KeeperFacts:
        """Ask who the keeper is."""
        return KeeperFacts(**await self._ask("hello"))

    async def attach(self) -> None:
        """Be the agent: while an attached client is connected, the keeper leaves marks past their deadline alone."""
        await self._ask("attach")

    async def watch(self) -> None:
        """Send events to `events` from now on."""
        await self._ask("watch")

    async def ping(self) -> None:
        """Say that the agent is well; any other request says so too.

        Past the deadline of a mark, an attached agent that has said nothing for half a minute counts as away.
        """
        await self._ask("ping")

    async def listen(self, name: str, address: str, *, backlog: int = 1024) -> str:
        """Open a listening socket once; the same name and address again is success.

        Args:
            name: Component, dot, name of the manifest's socket, and a suffix for a private one: "web.http~trial".
            address: "127.0.0.1:8080", "[::1]:8080" or "unix:/path"; port 0 is any that is free.
            backlog: Connections that may wait to be accepted.

        Returns:
            The address that it has.
        """
        answer = await self._ask("listen", name=name, address=address, backlog=backlog)
        return str(answer["address"])

    async def unlisten(self, name: str) -> None:
        """Close a listening socket that no instance uses; unknown is success."""
        await self._ask("unlisten", name=name)

    async def hold(self, component: str, listeners: Sequence[str], shed_after: timedelta) -> None:
        """Close what has waited on these listeners since nothing of the component has served for so long.

        Set again, it is replaced; it is forgotten with the last instance of the component.
        """
        seconds = shed_after.total_seconds()
        await self._ask("hold", component=component, listeners=list(listeners), shed_after_seconds=seconds)

    async def start(self, spec: InstanceSpec) -> Instance:
        """Check the release's digest again and start it; the same id again is success."""
        return results.instance((await self._ask("start", START_TIMEOUT, instance=_specification(spec)))["instance"])

    async def revive(self, instance_id: str) -> Instance:
        """Forget how often it died early and start it now, where it has no process."""
        return results.instance((await self._ask("revive", START_TIMEOUT, instance_id=instance_id))["instance"])

    async def say(
        self,
        instance_id: str,
        word: Word | str,
        timeout: timedelta,  # noqa: ASYNC109  # the keeper keeps it
        body: Mapping[str, object] | None = None,
    ) -> Answer:
        """Say a word to an instance and wait for its answer; repeating a word is success.

        A word that is no `Word` begins with "module." and is for the instance alone. The body goes along with the
        word; it has at most 12 KiB as JSON.

        Raises:
            KeeperError: instance_timeout, instance_gone, or instance_refused for a word that its state does not allow.
        """
        said = {"instance_id": instance_id, "word": word.value if isinstance(word, Word) else word}
        more = {} if body is None else {"body": dict(body)}
        answer = await self._ask("say", timeout, **said, **more, timeout_seconds=timeout.total_seconds())
        return results.answer(answer)

    async def log(self, instance_id: str, max_bytes: int) -> str:
        """Return the end of what the instance has printed, from a line's beginning."""
        return str((await self._ask("log", instance_id=instance_id, max_bytes=max_bytes))["text"])

    async def mark(
        self, operation_id: str, new_instance_id: str, old_instance_id: str | None, deadline: timedelta
    ) -> None:
        """Put the uncommitted mark; asked again, it stands as it stood, with its first deadline.

        While it stands, and the new instance dies, or no agent is attached past the deadline, the keeper resumes the
        old instance first, then pauses, drains and stops the new one, and records ROLLED_BACK. An exclusive new
        instance is ended before the old one is resumed.
        """
        await self._ask(
            "mark",
            operation_id=operation_id,
            new_instance_id=new_instance_id,
            old_instance_id=old_instance_id,
            deadline_seconds=deadline.total_seconds(),
        )

    async def commit(self, operation_id: str, current_instance_id: str) -> Outcome:
        """Decide: clear the mark, unless the keeper has rolled back already; the same id gives the same answer.

        Raises:
            KeeperError: mark_unknown when the keeper knows neither a mark nor an outcome of this operation.
        """
        return results.outcome(
            await self._ask("commit", operation_id=operation_id, current_instance_id=current_instance_id)
        )

    async def unmark(self, operation_id: str) -> None:
        """Forget the mark after an abort by the agent; a commit of this operation then answers ROLLED_BACK."""
        await self._ask("unmark", operation_id=operation_id)

    async def keep(self, component: str, instance_id: str) -> None:
        """Make this the committed instance of its component: started again, and activated, whenever it dies."""
        await self._ask("keep", component=component, instance_id=instance_id)

    async def stop(self, instance_id: str, timeout: timedelta) -> None:  # noqa: ASYNC109  # between SIGTERM and SIGKILL
        """SIGTERM, then SIGKILL after the time; returns when it is gone and forgotten; unknown is success."""
        await self._ask("stop", timeout, instance_id=instance_id, timeout_seconds=timeout.total_seconds())

    async def inspect(self) -> Inspection:
        """Everything that the keeper holds; counters are as of each instance's last word."""
        ok = await self._ask("inspect")
        return Inspection(
            instances=tuple(results.instance(item) for item in ok["instances"]),
            marks=tuple(results.mark(item) for item in ok["marks"]),
            outcomes=tuple(results.outcome(item) for item in ok["outcomes"]),
            trial_operation_id=ok.get("trial_operation_id"),  # the keeper is often older than its agent
            keeper_digest=ok.get("keeper_digest", ""),
            bad_agent_digests=tuple(ok.get("bad_agent_digests", ())),
            pinned_digests=tuple(ok.get("pinned_digests", ())),
            listeners=tuple(ok.get("listeners", ())),
        )

    async def verify(self, digest: str, component: str = "", version: str = "") -> Verdict:
        """Run the verifier on the fetched bundle of a release, as a disposable child of the keeper."""
        body = {"digest": digest, "component": component, "version": version}
        return Verdict(**await self._ask("verify", VERIFY_TIMEOUT, **body))

    async def vouch(self, digest: str, component: str, version: str) -> Verdict:
        """Have the verifier judge a release by signed metadata alone; older keepers do not know the verb."""
        return Verdict(**await self._ask("vouch", VERIFY_TIMEOUT, digest=digest, component=component, version=version))

    async def stage(self, digest: str) -> Verdict:
        """Run the stager on the unpacked release, as a disposable child of the keeper."""
        return Verdict(**await self._ask("stage", STAGE_TIMEOUT, digest=digest))

    async def run(self, task: Task) -> TaskEnd:
        """Check the release's digest again, unless a repeated task may do without; run it to its end."""
        body = {
            "component": task.component,
            "version": task.version,
            "digest": task.digest,
            "release_dir": str(task.release_dir),
            "command": list(task.command),
            "environment": dict(task.environment),
            "environment_dir": _path(task.environment_dir),
            "secrets": list(task.secrets),
            "timeout_seconds": task.timeout.total_seconds(),
            "is_repeated": task.is_repeated,
        }
        return TaskEnd(**await self._ask("run", START_TIMEOUT + task.timeout, task=body))

    async def shutdown(self, components: OnShutdown) -> None:
        """End the keeper, and the agent with it."""
        await self._ask("shutdown", START_TIMEOUT, components=components.value)

    async def _ask(self, verb: str, takes: timedelta = timedelta(0), **body: object) -> dict[str, Any]:
        return await self._line.ask(verb, body, takes + ANSWER_TIMEOUT)


def _specification(spec: InstanceSpec) -> dict[str, object]:
    return {
        "id": spec.id,
        "component": spec.component,
        "version": spec.version,
        "digest": spec.digest,
        "release_dir": str(spec.release_dir),
        "command": list(spec.command),
        "environment": dict(spec.environment),
        "sockets": list(spec.sockets),
        "stop_timeout_seconds": spec.stop_timeout.total_seconds(),
        "operation_id": spec.operation_id,
        "protocol": spec.protocol.value,
        "signals": dict(spec.signals),
        "is_exclusive": spec.is_exclusive,
        "secrets": list(spec.secrets),
        "on_agent_stop": spec.on_agent_stop.value,
        "environment_dir": _path(spec.environment_dir),
    }


def _path(path: Path | None) -> str:
    return "" if path is None else str(path)
