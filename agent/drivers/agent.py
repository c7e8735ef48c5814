"""The agent's own upgrade: the driver whose component is the agent itself, and whose instances are its processes.

Rules kept here: no component is touched; the old agent gives up link and journal before the new one runs, and is not
ended before COMMIT; the keeper decides, and only it starts and ends agents. From `activate` on the operation is the new
agent's, which finds it in the journal. Left out: the trial (`agent.keeper.agents`), parking (`agent.runner.process`),
the keeper's replacement of itself, which follows when the version is permanent.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

from agent import drivers, processes
from agent.core import model
from agent.processes import agents

NAME = "agent"
METHODS = frozenset({model.Method.HOT_SWAP})
COMPONENT = "instar-agent"
DEADLINE_GRACE = timedelta(seconds=5)  # in which a new agent that lives ends its own operation, before the keeper does
POLL_SECONDS = 0.05  # between two looks at an agent that is being ended
LEAVE_TIMEOUT = timedelta(seconds=15)  # over the keeper's time between SIGTERM and SIGKILL

STATES = {
    agents.Role.MAIN: model.InstanceState.ACTIVE,
    agents.Role.TRIAL: model.InstanceState.ACTIVE,
    agents.Role.PARKED: model.InstanceState.PAUSED,
    agents.Role.LEAVING: model.InstanceState.DRAINING,
}


class ParkedError(Exception):
    """This agent must give everything up and park: a new one is to be tried. Not an error of the operation.

    Args:
        operation_id: Of the trial.
    """

    def __init__(self, operation_id: str) -> None:
        super().__init__(f"a new agent is tried by {operation_id}")
        self.operation_id = operation_id


def make(rooms: drivers.Rooms) -> drivers.Driver:
    """Make the driver."""
    return Agent(rooms.keeper)


class Agent:
    """The driver; its outside world is the keeper."""

    def __init__(self, keeper: processes.Keeper) -> None:
        self._keeper = keeper

    def capabilities(self) -> drivers.Capabilities:
        """It changes the agent while everything else goes on."""
        return drivers.Capabilities(METHODS)

    async def plan(self, change: drivers.Change) -> drivers.Evidence:
        """Refuse what is not the agent, and versions that are known as bad."""
        if change.component != COMPONENT:
            message = f"cannot change {change.component}: the driver {NAME} is for {COMPONENT} alone"
            raise drivers.DriverError(message, fault=model.Fault.COMMAND, reason="not_the_agent")
        if change.new is not None and change.new.digest in await self._bad():
            message = f"cannot run {change.new.digest}: it died early too often on this node"
            raise drivers.DriverError(message, fault=model.Fault.VERSION, reason="digest_bad")
        return {}

    async def stage(self, change: drivers.Change) -> drivers.Evidence:
        """Find the unpacked release; it holds all that it needs beside the interpreter's own packages."""
        return {"release": change.new.release_dir.name if change.new else ""}

    async def prepare(self, change: drivers.Change) -> drivers.Evidence:
        """Let the new release check itself: imports, configuration, journal, keeper."""
        launch = _new(change)
        async with _blaming(model.Fault.INFRASTRUCTURE, "check_not_run"):
            checked = await self._keeper.agent_check(launch.digest, launch.release_dir)
        if checked.exit_code != 0:
            last = checked.output.strip().rpartition("\n")[2]
            message = f"cannot use the new agent: its self-check ended with {checked.exit_code}: {last}"
            raise drivers.DriverError(message, fault=model.Fault.VERSION, reason="self_check_failed")
        return {"self_check": "passed"}

    async def activate(self, change: drivers.Change) -> drivers.Evidence:
        """Begin the trial.

        Raises:
            ParkedError: It has begun; the caller must let nothing stand in the way of it.
        """
        launch = _new(change)
        deadline = change.time_left + DEADLINE_GRACE
        async with _blaming(model.Fault.INFRASTRUCTURE, "trial_refused"):
            await self._keeper.agent_trial(
                change.operation_id, launch.instance_id, launch.digest, launch.release_dir, deadline
            )
        raise ParkedError(change.operation_id)

    async def pause_old(self, change: drivers.Change) -> drivers.Evidence:
        """Nothing is left to do: the old agent parked before the new one ran."""
        return {"trial": change.operation_id}

    async def resume_old(self, change: drivers.Change) -> drivers.Evidence:
        """End the trial; asked by the new agent, this never returns, for the keeper ends it first."""
        async with _blaming(model.Fault.INFRASTRUCTURE, "not_undone"):
            await self._keeper.agent_abort(change.operation_id)
        return {}

    async def observe(self, change: drivers.Change) -> drivers.Observation:
        """Find the new agent among the keeper's; it is the one that asks."""
        launch = _new(change)
        for seen in await self.inspect(change.component):
            if seen.id == launch.instance_id:
                return drivers.Observation(seen)
        return drivers.Observation(None, f"cannot find agent {launch.instance_id}")

    async def commit(self, change: drivers.Change) -> drivers.Verdict:
        """Ask the keeper to decide."""
        async with _blaming(model.Fault.INFRASTRUCTURE, "keeper_silent"):
            try:
                outcome = await self._keeper.agent_commit(change.operation_id)
            except processes.KeeperError as error:
                if error.code != "mark_unknown":
                    raise
                return await self._without_trial(change)
        if outcome.decision is processes.Decision.COMMITTED:
            return drivers.Verdict(drivers.Outcome.COMMITTED)
        died = outcome.cause is processes.Cause.INSTANCE_DIED
        fault = model.Fault.VERSION if died else model.Fault.INFRASTRUCTURE
        message = f"cannot commit: the keeper went back: {outcome.why}"
        return drivers.Verdict(drivers.Outcome.ROLLED_BACK, fault, message)

    async def drain(self, change: drivers.Change) -> drivers.Evidence:
        """See that the agent of the pointers runs, and no other."""
        return await self.gc(change.component, ())

    async def abort(self, change: drivers.Change) -> drivers.Evidence:
        """Go back to the old agent."""
        return await self.resume_old(change)

    async def inspect(self, component: str) -> tuple[model.Instance, ...]:
        """Every process of the agent that is of a release; the packaged agent belongs to no component."""
        if component != COMPONENT:
            return ()
        async with _blaming(model.Fault.INFRASTRUCTURE, "keeper_silent"):
            return tuple(_instance(seen) for seen in await self._keeper.agents() if seen.digest)

    async def blockers(self, component: str) -> tuple[str, ...]:
        """Nothing keeps an agent from ending."""
        _ = component
        return ()

    async def gc(self, component: str, keep: Collection[str]) -> drivers.Evidence:
        """End what is not the agent of the pointers; a node is never without one, so that none can be stopped."""
        _ = component, keep
        async with _blaming(model.Fault.INFRASTRUCTURE, "not_restarted"):
            digest = await self._keeper.agent_restart()
            try:
                async with asyncio.timeout(LEAVE_TIMEOUT.total_seconds()):
                    await self._left()
            except TimeoutError as error:
                message = "cannot see the old agent end"
                raise drivers.DriverError(message, fault=model.Fault.INFRASTRUCTURE, reason="not_drained") from error
        return {"agent": digest or "packaged"}

    async def bring_up(self, component: str, launch: drivers.Launch) -> drivers.Evidence:
        """Let the agent of the pointers run; what runs instead of a bad version is left alone."""
        evidence = await self.gc(component, ())
        if evidence["agent"] == launch.digest:
            return evidence
        message = f"cannot run agent {launch.digest}: the keeper runs {evidence['agent']} instead"
        if launch.digest in await self._bad():
            raise drivers.DriverError(message, fault=model.Fault.VERSION, reason="digest_bad")
        raise drivers.DriverError(message, fault=model.Fault.INFRASTRUCTURE, reason="agent_not_run")

    async def _without_trial(self, change: drivers.Change) -> drivers.Verdict:
        """Decide what nobody remembers: the journal said COMMIT; redo, if the new version runs."""
        launch = _new(change)
        running = await self._running()
        if any(seen.digest == launch.digest for seen in running):
            return drivers.Verdict(drivers.Outcome.COMMITTED)
        message = "cannot commit: the keeper knows of no trial, and the new agent does not run"
        return drivers.Verdict(drivers.Outcome.ROLLED_BACK, model.Fault.INFRASTRUCTURE, message)

    async def _left(self) -> None:
        while True:
            if all(seen.role is not agents.Role.LEAVING for seen in await self._keeper.agents()):
                return
            await asyncio.sleep(POLL_SECONDS)

    async def _bad(self) -> Sequence[str]:
        async with _blaming(model.Fault.INFRASTRUCTURE, "keeper_silent"):
            return (await self._keeper.inspect()).bad_agent_digests

    async def _running(self) -> Sequence[agents.AgentProcess]:
        return [seen for seen in await self._keeper.agents() if seen.role is agents.Role.MAIN]


def _new(change: drivers.Change) -> drivers.Launch:
    if change.new is None:
        message = f"cannot start anything for {change.component}: it is being removed"
        raise drivers.DriverError(message, fault=model.Fault.COMMAND, reason="nothing_to_start")
    return change.new


def _instance(seen: agents.AgentProcess) -> model.Instance:
    return model.Instance(
        id=seen.instance_id,
        digest=seen.digest,
        pid=seen.pid,
        state=STATES[seen.role],
        served=0,
        is_kept=seen.role in {agents.Role.MAIN, agents.Role.PARKED},
        restarts=0,  # deaths are the keeper's to judge: one is bad luck, for an agent ends also where the host fails it
        started_at_seconds=seen.started_at_monotonic,
    )


@asynccontextmanager
async def _blaming(fault: model.Fault, reason: str) -> AsyncIterator[None]:
    try:
        yield
    except processes.KeeperError as error:
        if error.code == "digest_bad":
            raise drivers.DriverError(error.message, fault=model.Fault.VERSION, reason="digest_bad") from error
        raise drivers.DriverError(error.message, fault=fault, reason=reason) from error
