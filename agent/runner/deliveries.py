"""How a release gets onto this node: its bundle is fetched and verified.

Rules kept here: a release that is here and whole is not fetched; a fetch goes on where it broke off; nothing is
unpacked that the verifier did not accept. Left out: the transport (the link), the checks themselves (the verifier).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Protocol, cast

from agent import depot, drivers, processes
from agent.core import model, operation
from agent.keeper import digest as trees
from agent.keeper import errors as keeper_errors
from agent.link import transport
from agent.runner import cleaning, releases
from agent.runner.faults import StepError

FETCH_RETRY_SECONDS = 1.0  # between two tries of a download; the operation's deadline ends them

FAULT_OF_CODE = {
    "digest_mismatch": model.Fault.INFRASTRUCTURE,
    "bundle_not_found": model.Fault.INFRASTRUCTURE,
    "disk_failed": model.Fault.INFRASTRUCTURE,
    "agent_too_old": model.Fault.COMMAND,
}


class Source(Protocol):
    """Where bundles come from."""

    def fetch(self, digest: str, offset: int) -> AsyncIterator[bytes]:
        """Read a bundle from a byte on; raises `transport.LinkError` when it breaks off."""
        ...


@dataclass(frozen=True, slots=True)
class Deliveries:
    """The way of releases onto a node."""

    disk: depot.Depot
    keeper: processes.Keeper
    releases: releases.Releases
    cleaning: cleaning.Cleaning
    source: Source

    async def fetch(self, state: operation.Operation) -> drivers.Evidence:
        """Get the bundle, however often the way breaks."""
        digest = state.assignment.new_digest
        if await self.is_intact(digest) or self.disk.has_bundle(digest):
            return {"fetched_bytes": "0"}
        await self.cleaning.make_room(state.assignment.old_digest)
        tries = 0
        while True:
            tries += 1
            incoming = self.disk.receive(digest)
            begun_at = incoming.offset
            try:
                async for chunk in self.source.fetch(digest, begun_at):
                    incoming.write(chunk)
                incoming.complete()
            except transport.LinkError:
                await asyncio.sleep(FETCH_RETRY_SECONDS)
            else:
                return {"fetched_bytes": str(incoming.offset - begun_at), "tries": str(tries)}
            finally:
                incoming.close()

    async def is_intact(self, digest: str) -> bool:
        """True where the release is unpacked and has every byte that it should."""
        if not self.disk.has_release(digest):
            return False
        try:
            return await asyncio.to_thread(trees.tree_digest, self.disk.release_dir(digest)) == digest
        except keeper_errors.RequestError:
            return False

    async def verify(self, state: operation.Operation) -> drivers.Evidence:
        """Let the verifier unpack the bundle, and see that it is what was asked for."""
        assignment = state.assignment
        digest = assignment.new_digest
        if self.disk.has_bundle(digest):  # a release that was found damaged is replaced by what was fetched anew
            self._check_verdict(digest, await self.keeper.verify(digest))
            self.disk.discard_bundle(digest)
            self.releases.forget(digest)
        read = self.releases.manifest(digest)
        told = (assignment.component, assignment.to_version)
        if (read.name, read.version) != told:
            message = f"cannot install {digest}: it is {read.name} {read.version}, not {told[0]} {told[1]}"
            raise StepError(message, fault=model.Fault.COMMAND, reason="release_differs")
        return {"digest": digest, "version": read.version, "driver": read.driver}

    def _check_verdict(self, digest: str, verdict: processes.Verdict) -> None:
        if verdict.exit_code == 0:
            return
        self.disk.discard_bundle(digest)
        try:
            error = cast("Mapping[str, str]", json.loads(verdict.output)["error"])
        except (ValueError, KeyError, TypeError) as cause:
            message = f"cannot verify {digest}: the verifier ended with {verdict.exit_code}"
            raise StepError(message, fault=model.Fault.INFRASTRUCTURE, reason="verifier_failed") from cause
        fault = FAULT_OF_CODE.get(error["code"], model.Fault.VERSION)
        raise StepError(error["message"], fault=fault, reason=error["code"])
