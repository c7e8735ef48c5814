"""How a release gets onto this node: its bundle is fetched and verified, by what this node trusts where it was told.

Rules kept here: a release that is here and whole is not fetched; where the node was told whom to trust, no release is
asked for that signed metadata does not name, and no byte of it beyond the length that they say; a fetch goes on where
it broke off; nothing is unpacked that the verifier did not accept. Left out: the transport (the link), the checks
themselves (the verifier).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Protocol, cast

from agent import depot, drivers, processes
from agent.config import layout
from agent.core import admission, model, operation
from agent.keeper import digest as trees
from agent.keeper import errors as keeper_errors
from agent.link import transport
from agent.runner import cleaning, releases, trusting
from agent.runner.faults import StepError

FETCH_RETRY_SECONDS = 1.0  # between two tries of a download; the operation's deadline ends them

FAULT_OF_CODE = {
    "digest_mismatch": model.Fault.INFRASTRUCTURE,
    "bundle_not_found": model.Fault.INFRASTRUCTURE,
    "disk_failed": model.Fault.INFRASTRUCTURE,
    "agent_too_old": model.Fault.COMMAND,
    "component_mismatch": model.Fault.COMMAND,
}
NOT_VOUCHED_FOR = (
    "release"  # field of a refusal by signed metadata: what was asked for may not exist, whatever it holds
)
NOBODY_BELIEVED = ("metadata_", "trust_")  # beginnings of codes that say nothing of the release


class Source(trusting.Source, Protocol):
    """Where bundles come from, and what is said of them."""

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
    trusting: trusting.Trusting
    source: Source

    async def fetch(self, state: operation.Operation) -> drivers.Evidence:
        """Get the bundle, however often the way breaks."""
        digest = state.assignment.new_digest
        if await self.is_intact(digest) or self.disk.has_bundle(digest):
            return {"fetched_bytes": "0"}
        bytes_max = await self._bytes_max(state.assignment)
        await self.cleaning.make_room(state.assignment.old_digest)
        tries = 0
        while True:
            tries += 1
            incoming = self.disk.receive(digest, bytes_max)
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

    async def _bytes_max(self, assignment: model.Assignment) -> int:
        """How long the bundle may be: as signed metadata say, where the node believes any."""
        if not self.trusting.is_configured:
            return layout.BUNDLE_BYTES_MAX
        await self.trusting.fetch(assignment.component)
        digest = assignment.new_digest
        try:
            verdict = await self.keeper.vouch(digest, assignment.component, assignment.to_version)
        except processes.KeeperError as error:
            if error.code != processes.UNKNOWN_VERB:
                raise
            return layout.BUNDLE_BYTES_MAX  # a keeper from before; the bundle is judged once it is here
        return cast("int", self._document(digest, verdict)["size_bytes"])

    async def is_intact(self, digest: str) -> bool:
        """True where the release is unpacked and has every byte that it should."""
        if not self.disk.has_release(digest):
            return False
        try:
            return await asyncio.to_thread(trees.tree_digest, self.disk.release_dir(digest)) == digest
        except keeper_errors.RequestError:
            return False

    async def verify(self, state: operation.Operation) -> drivers.Evidence:
        """Let the verifier unpack the bundle, and see that it is what was asked for, and what signed metadata names."""
        assignment = state.assignment
        digest = assignment.new_digest
        has_bundle = self.disk.has_bundle(digest)
        trusted = await self._vouched(assignment) if has_bundle or self._is_ordered(assignment) else {}
        if has_bundle:  # a release that was found damaged is replaced by what was fetched anew
            self.disk.discard_bundle(digest)
            self.releases.forget(digest)
        read = self.releases.manifest(digest)
        told = (assignment.component, assignment.to_version)
        if (read.name, read.version) != told:
            message = f"cannot install {digest}: it is {read.name} {read.version}, not {told[0]} {told[1]}"
            raise StepError(message, fault=model.Fault.COMMAND, reason="component_mismatch")
        return {"digest": digest, "version": read.version, "driver": read.driver, **trusted}

    def _is_ordered(self, assignment: model.Assignment) -> bool:
        """Whether what is here already is judged anew: people of this node go back without asking anybody."""
        return self.trusting.is_configured and not admission.is_local(assignment.operation_id)

    async def _vouched(self, assignment: model.Assignment) -> drivers.Evidence:
        """Ask the verifier; returns which metadata vouches for the release."""
        digest = assignment.new_digest
        if self.trusting.is_configured:
            await self.trusting.fetch(assignment.component)
        document = self._document(digest, await self.keeper.verify(digest, assignment.component, assignment.to_version))
        trusted = cast("Mapping[str, object]", document.get("trust", {}))
        return {"trust": ", ".join(f"{name} {told}" for name, told in trusted.items())} if trusted else {}

    def _document(self, digest: str, verdict: processes.Verdict) -> Mapping[str, object]:
        """What the verifier has answered; raises its refusal."""
        try:
            document = cast("Mapping[str, object]", json.loads(verdict.output))
            trusted = document.get("trust")
            error = cast("Mapping[str, str]", document["error"]) if verdict.exit_code else None
        except (ValueError, KeyError, TypeError, AttributeError) as cause:
            self.disk.discard_bundle(digest)
            message = f"cannot verify {digest}: the verifier ended with {verdict.exit_code}"
            raise StepError(message, fault=model.Fault.INFRASTRUCTURE, reason="verifier_failed") from cause
        if error is not None:
            raise self._refusal(digest, error)
        if self.trusting.is_configured and not trusted:
            message = f"cannot install {digest}: the keeper is too old to look at signatures"
            raise StepError(message, fault=model.Fault.INFRASTRUCTURE, reason="trust_not_checked")
        return document

    def _refusal(self, digest: str, error: Mapping[str, str]) -> StepError:
        code = error["code"]
        if code.startswith(NOBODY_BELIEVED):
            fault = model.Fault.INFRASTRUCTURE
        else:
            self.disk.discard_bundle(digest)
            is_known = error["field"] == NOT_VOUCHED_FOR
            fault = model.Fault.COMMAND if is_known else FAULT_OF_CODE.get(code, model.Fault.VERSION)
        return StepError(error["message"], fault=fault, reason=code)
