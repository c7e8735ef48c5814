"""How each step of an operation is done on this node.

Rules kept here: every step is safe to do again; whatever stands in its way is a `StepError` that says whose fault it
is; nothing is undone here but by `ABORT`. Left out: what follows a step (`agent.core.machine`), and the verbs of a
driver (`agent.drivers`).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from typing import Protocol, cast

from agent import depot, drivers, processes
from agent.config import layout, manifest, settings
from agent.config.errors import ConfigError
from agent.core import model, operation
from agent.keeper import digest as trees
from agent.keeper import errors as keeper_errors
from agent.link import transport
from agent.runner import clock

FETCH_RETRY_SECONDS = 1.0  # between two tries of a download; the operation's deadline ends them
FREE_BYTES_MIN = 64 * 1024**2  # left for the journal, logs and pointers after a release is unpacked
HASH_DIGITS = 8  # of the operation in an instance's id: one in four billion is like another
COMPONENT_CHARS = 10  # of the component in an instance's id; with the rest it fits the path of a Unix socket

FAULT_OF_CODE = {
    "digest_mismatch": model.Fault.INFRASTRUCTURE,
    "bundle_not_found": model.Fault.INFRASTRUCTURE,
    "disk_failed": model.Fault.INFRASTRUCTURE,
    "agent_too_old": model.Fault.COMMAND,
}


class StepError(Exception):
    """A step did not do what it should.

    Args:
        reason: Stable, in snake_case.
        is_decided: True when the keeper has gone back: COMMIT can not come any more.
    """

    def __init__(self, message: str, *, fault: model.Fault, reason: str, is_decided: bool = False) -> None:
        super().__init__(message)
        self.fault = fault
        self.reason = reason
        self.is_decided = is_decided


class Source(Protocol):
    """Where bundles come from."""

    def fetch(self, digest: str, offset: int) -> AsyncIterator[bytes]:
        """Read a bundle from a byte on; raises `transport.LinkError` when it breaks off."""
        ...


class Steps:
    """The steps, over the disk, the keeper and the drivers of this node."""

    def __init__(
        self,
        config: settings.Config,
        disk: depot.Depot,
        keeper: processes.Keeper,
        known_drivers: Mapping[str, drivers.Driver],
        now: clock.Now,
    ) -> None:
        self._config = config
        self._disk = disk
        self._keeper = keeper
        self._drivers = known_drivers
        self._now = now
        self._manifests: dict[str, model.Manifest] = {}

    async def perform(self, state: operation.Operation, step: model.Step, source: Source) -> drivers.Evidence:
        """Do the work of a step.

        Raises:
            StepError: It could not be done.
        """
        try:
            if step is model.Step.FETCH:
                return await self._fetch(state, source)
            return await self._on_node(state, step)
        except drivers.DriverError as error:
            raise StepError(str(error), fault=error.fault, reason=error.reason) from error
        except processes.KeeperError as error:
            raise StepError(error.message, fault=model.Fault.INFRASTRUCTURE, reason=error.code) from error
        except depot.DepotError as error:
            raise StepError(str(error), fault=model.Fault.INFRASTRUCTURE, reason=error.code) from error
        except ConfigError as error:
            raise StepError(str(error), fault=model.Fault.VERSION, reason="manifest_invalid") from error
        except OSError as error:
            message = f"cannot do {step.value}: {error}"
            raise StepError(message, fault=model.Fault.INFRASTRUCTURE, reason="host_failed") from error

    async def _on_node(self, state: operation.Operation, step: model.Step) -> drivers.Evidence:
        match step:
            case model.Step.VERIFY:
                return await self._verify(state)
            case model.Step.STAGE:
                return await self.driver(state).stage(self.change(state))
            case model.Step.PREFLIGHT:
                return await self._preflight(state)
            case model.Step.ROLLBACK_POINT:
                return await self._rollback_point(state)
            case model.Step.PREPARE:
                return await self.driver(state).prepare(self.change(state))
            case _:
                return await self._on_instances(state, step)

    async def _on_instances(self, state: operation.Operation, step: model.Step) -> drivers.Evidence:
        match step:
            case model.Step.SWITCH:
                activated = await self.driver(state).activate(self.change(state))
                return {**activated, **await self.driver(state).pause_old(self.change(state))}
            case model.Step.COMMIT:
                return await self._commit(state)
            case model.Step.DRAIN:
                return await self.driver(state).drain(self.change(state))
            case model.Step.ABORT if self._is_launchable(state):
                return await self.driver(state).abort(self.change(state))
            case _:
                return {}

    def driver(self, state: operation.Operation) -> drivers.Driver:
        """Return the driver that the manifest of the changing release names."""
        return self.driver_of(state.assignment.to_digest or state.assignment.from_digest)

    def driver_of(self, digest: str) -> drivers.Driver:
        """Return the driver that the manifest of an unpacked release names."""
        read = self.manifest(digest)
        if read.driver not in self._drivers:
            message = f"cannot change {read.name}: this node has no driver {read.driver!r}"
            raise StepError(message, fault=model.Fault.COMMAND, reason="driver_missing")
        return self._drivers[read.driver]

    def driver_name(self, state: operation.Operation) -> str:
        """Name of that driver; empty until the release is unpacked."""
        digest = state.assignment.to_digest or state.assignment.from_digest
        try:
            return self.manifest(digest).driver
        except ConfigError:
            return ""

    def change(self, state: operation.Operation) -> drivers.Change:
        """What the driver is told of an operation."""
        assignment = state.assignment
        time_left = timedelta(seconds=max(0.0, state.deadline_seconds - self._now().monotonic_seconds))
        return drivers.Change(
            operation_id=assignment.operation_id,
            component=assignment.component,
            new=self.launch(assignment.component, assignment.to_digest, assignment.operation_id, assignment.traceparent)
            if assignment.to_digest
            else None,
            old=self.manifest(assignment.from_digest) if assignment.from_digest else None,
            time_left=time_left,
        )

    def launch(self, component: str, digest: str, operation_id: str, traceparent: str = "") -> drivers.Launch:
        """A release of this node, as it is started for an operation; the same operation, the same instance."""
        return drivers.Launch(
            instance_id=instance_id(component, digest, operation_id),
            digest=digest,
            release_dir=self._disk.release_dir(digest),
            manifest=self.manifest(digest),
            addresses=self._config.sockets.get(component, {}),
            traceparent=traceparent,
        )

    def manifest(self, digest: str) -> model.Manifest:
        """Return the manifest of an unpacked release."""
        if digest not in self._manifests:
            self._manifests[digest] = manifest.read(self._disk.release_dir(digest))
        return self._manifests[digest]

    def _is_launchable(self, state: operation.Operation) -> bool:
        """True once there may be an instance: before its release was unpacked there was nothing to start."""
        return not state.assignment.to_digest or self._disk.has_release(state.assignment.to_digest)

    async def _fetch(self, state: operation.Operation, source: Source) -> drivers.Evidence:
        digest = state.assignment.to_digest
        if await self._is_intact(digest) or self._disk.has_bundle(digest):
            return {"fetched_bytes": "0"}
        tries = 0
        while True:
            tries += 1
            incoming = self._disk.receive(digest)
            begun_at = incoming.offset
            try:
                async for chunk in source.fetch(digest, begun_at):
                    incoming.write(chunk)
                incoming.complete()
            except transport.LinkError:
                await asyncio.sleep(FETCH_RETRY_SECONDS)
            else:
                return {"fetched_bytes": str(incoming.offset - begun_at), "tries": str(tries)}
            finally:
                incoming.close()

    async def _is_intact(self, digest: str) -> bool:
        """True where the release is unpacked and has every byte that it should."""
        if not self._disk.has_release(digest):
            return False
        try:
            return await asyncio.to_thread(trees.tree_digest, self._disk.release_dir(digest)) == digest
        except keeper_errors.RequestError:
            return False

    async def _verify(self, state: operation.Operation) -> drivers.Evidence:
        assignment = state.assignment
        digest = assignment.to_digest
        if self._disk.has_bundle(digest):  # a release that was found damaged is replaced by what was fetched anew
            self._check_verdict(digest, await self._keeper.verify(digest))
            self._disk.discard_bundle(digest)
        read = self.manifest(digest)
        told = (assignment.component, assignment.to_version)
        if (read.name, read.version) != told:
            message = f"cannot install {digest}: it is {read.name} {read.version}, not {told[0]} {told[1]}"
            raise StepError(message, fault=model.Fault.COMMAND, reason="release_differs")
        return {"digest": digest, "version": read.version, "driver": read.driver}

    def _check_verdict(self, digest: str, verdict: processes.Verdict) -> None:
        if verdict.exit_code == 0:
            return
        self._disk.discard_bundle(digest)
        try:
            error = cast("Mapping[str, str]", json.loads(verdict.output)["error"])
        except (ValueError, KeyError, TypeError) as cause:
            message = f"cannot verify {digest}: the verifier ended with {verdict.exit_code}"
            raise StepError(message, fault=model.Fault.INFRASTRUCTURE, reason="verifier_failed") from cause
        fault = FAULT_OF_CODE.get(error["code"], model.Fault.VERSION)
        raise StepError(error["message"], fault=fault, reason=error["code"])

    async def _preflight(self, state: operation.Operation) -> drivers.Evidence:
        free = self._disk.free_bytes()
        if free < FREE_BYTES_MIN:
            message = f"cannot begin: {free} bytes are free, and {FREE_BYTES_MIN} are needed"
            raise StepError(message, fault=model.Fault.INFRASTRUCTURE, reason="disk_full")
        chosen = self.driver(state)
        if state.assignment.method not in chosen.capabilities().methods:
            message = f"cannot change {state.assignment.component} by {state.assignment.method.value}"
            raise StepError(message, fault=model.Fault.COMMAND, reason="method_not_supported")
        return {"free_bytes": str(free), **await chosen.plan(self.change(state))}

    async def _rollback_point(self, state: operation.Operation) -> drivers.Evidence:
        digest = state.assignment.from_digest
        if not digest:
            return {"point": "none"}
        if not await self._is_intact(digest):
            message = f"cannot begin: the release to go back to, {digest}, is damaged"
            raise StepError(message, fault=model.Fault.INFRASTRUCTURE, reason="rollback_point_damaged")
        return {"point": digest, "version": self.manifest(digest).version}

    async def _commit(self, state: operation.Operation) -> drivers.Evidence:
        assignment = state.assignment
        if assignment.kind is model.ChangeKind.REMOVE:
            self._disk.remove_component(assignment.component)
            return {"removed": assignment.from_digest}
        verdict = await self.driver(state).commit(self.change(state))
        if verdict.outcome is drivers.Outcome.ROLLED_BACK:
            fault = verdict.fault or model.Fault.INFRASTRUCTURE
            raise StepError(verdict.message, fault=fault, reason="rolled_back", is_decided=True)
        self._disk.point_current(assignment.component, assignment.to_digest)
        return {"current": assignment.to_digest}

    def make_permanent(self, state: operation.Operation) -> drivers.Evidence:
        """Flip ``permanent`` to what is current.

        Raises:
            StepError: The disk refuses.
        """
        try:
            self._disk.point_permanent(state.assignment.component, state.assignment.to_digest)
        except (OSError, depot.DepotError) as error:
            raise StepError(str(error), fault=model.Fault.INFRASTRUCTURE, reason="host_failed") from error
        return {"permanent": state.assignment.to_digest}


def instance_id(component: str, digest: str, operation_id: str) -> str:
    """Name the instance that an operation starts; the same again for the same operation."""
    of_operation = hashlib.sha256(operation_id.encode()).hexdigest()[:HASH_DIGITS]
    return f"{component[:COMPONENT_CHARS]}-{layout.hex_of(digest)[:6]}-{of_operation}"
