"""What is said to a host about its modules, and what it answers: the edge to `instar_handover.module_host`.

Rules kept here: each answer is converted here, once; each refusal becomes a `DriverError` with the fault of its code;
a host that has no process has no generation either. Left out: in which order the words come (`module`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from agent import drivers, processes
from agent.core import model
from agent.drivers import instances, module_list

WORD_TIMEOUT = timedelta(seconds=5)  # over what a word itself may take; a host that is silent for so long serves nobody

STATES = {
    "active": model.InstanceState.ACTIVE,
    "prepared": model.InstanceState.PREPARED,
    "paused": model.InstanceState.PAUSED,
}
CALLS = frozenset({"calls_in_the_way", "calls_timed_out"})  # nobody's fault, and over when the calls are
VERSION_CODES = frozenset(
    {
        "module_broken",
        "module_invalid",
        "self_test_failed",
        "load_timed_out",
        "code_change_failed",
        "code_change_timed_out",
        "import_failed",
        "import_timed_out",
    }
)
COMMAND_CODES = frozenset({"state_unknown", "no_way_back", "export_failed", "export_timed_out", "invalid_request"})


class HostGoneError(drivers.DriverError):
    """The host ended before it answered."""


@dataclass(frozen=True, slots=True)
class Generation:
    """One version in a host.

    Args:
        served: Calls that have left it.
    """

    instance: str
    version: str
    digest: str
    state: model.InstanceState
    served: int


@dataclass(frozen=True, slots=True)
class Status:
    """What a host has of a module.

    Args:
        blockers: Calls inside what serves, in words.
        told: What the answer holds beside that.
    """

    generations: tuple[Generation, ...]
    blockers: tuple[str, ...]
    told: Mapping[str, Any]

    @property
    def serving(self) -> str:
        """Instance that serves; empty for none."""
        return next((each.instance for each in self.generations if each.state is model.InstanceState.ACTIVE), "")

    @property
    def beside(self) -> str:
        """The other instance; empty for none."""
        return next((each.instance for each in self.generations if each.state is not model.InstanceState.ACTIVE), "")


@dataclass(frozen=True, slots=True)
class Host:
    """A living host.

    Args:
        seen: Its process, as the keeper shows it.
        component: The module that is talked about.
    """

    keeper: processes.Keeper
    seen: processes.Instance
    component: str

    async def status(self) -> Status:
        """Ask what it has."""
        return await self._say("status", WORD_TIMEOUT)

    async def stage(self, entry: module_list.Entry, within: timedelta) -> Status:
        """Let it load a version beside what serves."""
        release = {
            "instance": entry.instance,
            "file": entry.file,
            "sha256": entry.sha256,
            "version": entry.version,
            "digest": entry.digest,
        }
        return await self._say("stage", within, **release)

    async def swap(self, instance: str, within: timedelta) -> Status:
        """Let it serve the staged version."""
        return await self._say("swap", within, instance=instance)

    async def back(self, instance: str, within: timedelta) -> Status:
        """Let it serve the old version again."""
        return await self._say("back", within, instance=instance)

    async def drop(self, keep: str, within: timedelta) -> Status:
        """Let it forget every version but one; an empty name leaves none."""
        return await self._say("drop", within, keep=keep)

    async def _say(self, word: str, within: timedelta, **more: object) -> Status:
        body = {"component": self.component, "within_seconds": within.total_seconds(), **more}
        patience = 2 * within + WORD_TIMEOUT  # a way back may take its time twice
        try:
            answer = await self.keeper.say(self.seen.id, f"module.{word}", patience, body)
        except processes.KeeperError as error:
            raise _silent(self.seen.component, error) from error
        if "refused" in answer.body:
            raise refusal(str(answer.body["refused"]), str(answer.body.get("message", "")))
        return _status(answer.body)


async def find(keeper: processes.Keeper, host: str, component: str) -> Host | None:
    """Return the living process of a host: the committed one, where there are two."""
    seen = [each for each in await instances.Instances(keeper).of(host) if each.pid and not each.is_plain]
    living = [each for each in seen if each.state is not processes.InstanceState.EXITED]
    found = next((each for each in living if each.is_kept), None)
    return None if found is None else Host(keeper, found, component)


def refusal(code: str, message: str) -> drivers.DriverError:
    """The error for a code of the host."""
    fault = model.Fault.INFRASTRUCTURE
    if code in VERSION_CODES:
        fault = model.Fault.VERSION
    elif code in COMMAND_CODES:
        fault = model.Fault.COMMAND
    return drivers.DriverError(message, fault=fault, reason=code)


def _silent(host: str, error: processes.KeeperError) -> drivers.DriverError:
    if error.code == "instance_refused":
        message = f"cannot change a module in {host}: {error.message}"
        return drivers.DriverError(message, fault=model.Fault.COMMAND, reason="host_without_modules")
    if error.code in instances.GONE:
        return HostGoneError(error.message, fault=model.Fault.INFRASTRUCTURE, reason="host_gone")
    return drivers.DriverError(error.message, fault=model.Fault.INFRASTRUCTURE, reason="host_silent")


def _status(body: Mapping[str, Any]) -> Status:
    generations = tuple(
        Generation(each["instance"], each["version"], each["digest"], STATES[each["state"]], each["served"])
        for each in body["generations"]
    )
    return Status(generations, tuple(body["blockers"]), body)
