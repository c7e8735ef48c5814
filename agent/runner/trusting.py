"""Whom this node trusts, as far as the agent has to know: what to fetch before a release is verified, what is amiss.

Rules kept here: nothing that comes is believed, or even read; a node that was told whom to trust asks the verifier
about each release that it is given, also one that it has already. Left out: signatures (`agent.verifier`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Protocol

from agent import depot
from agent.config import settings, trust
from agent.config.errors import ConfigError
from agent.core import model
from agent.link import transport
from agent.runner import clock, conditions
from agent.runner.faults import StepError

FETCH_RETRY_SECONDS = 1.0  # between two tries; the operation's deadline ends them
LOOK_SECONDS = 60.0  # between two looks at the files; who changes them restarts the agent, or waits a minute
NOT_CONFIGURED = "no trust_file is configured: releases are installed that nobody has signed"


class Source(Protocol):
    """Where metadata comes from."""

    def fetch_metadata(self, root_version: int, component: str) -> AsyncIterator[transport.Piece]:
        """Read what a node needs for a component; raises `transport.LinkError` when it breaks off."""
        ...


class Trusting:
    """The agent's part in it."""

    def __init__(self, config: settings.Config, disk: depot.Depot, source: Source, now: clock.Now) -> None:
        self._config = config
        self._disk = disk
        self._source = source
        self._now = now
        self._looked_at_seconds: float | None = None
        self._finding: conditions.Finding | None = None

    @property
    def is_configured(self) -> bool:
        """Whether the node was told whom to trust; what cannot be used counts as told."""
        return self._config.trust_file is not None

    async def fetch(self, component: str) -> None:
        """Get the metadata of a component, however often the way breaks.

        It is asked for from the pinned root on, for what lies here may be damaged.

        Raises:
            StepError: The node's own files cannot be used, or the controller has no metadata.
            DepotError: What comes keeps no bounds.
        """
        root_version = self._root_version()
        while True:
            try:
                await self._receive(root_version, component)
            except transport.LinkError as error:
                if error.is_refusal:
                    infrastructure = model.Fault.INFRASTRUCTURE
                    raise StepError(str(error), fault=infrastructure, reason="metadata_missing") from error
                await asyncio.sleep(FETCH_RETRY_SECONDS)
            else:
                return

    async def _receive(self, root_version: int, component: str) -> None:
        incoming = self._disk.receive_metadata()
        try:
            async for piece in self._source.fetch_metadata(root_version, component):
                incoming.write(piece.name, piece.content, is_last_piece=piece.is_last_piece)
            incoming.complete()
        finally:
            incoming.close()

    def _root_version(self) -> int:
        try:
            read = trust.read(self._config)
        except ConfigError as error:
            raise StepError(str(error), fault=model.Fault.INFRASTRUCTURE, reason="trust_unusable") from error
        assert read is not None  # noqa: S101  # whoever fetches has asked whether it is configured
        return read.root_version

    def findings(self) -> Iterator[conditions.Finding]:
        """What is amiss."""
        now_seconds = self._now().monotonic_seconds
        if self._looked_at_seconds is None or now_seconds - self._looked_at_seconds >= LOOK_SECONDS:
            self._looked_at_seconds, self._finding = now_seconds, self._look()
        if self._finding is not None:
            yield self._finding

    def _look(self) -> conditions.Finding | None:
        try:
            read = trust.read(self._config)
        except ConfigError as error:
            return conditions.Finding(conditions.TRUST_UNUSABLE, "", str(error))
        return None if read else conditions.Finding(conditions.TRUST_NOT_CONFIGURED, "", NOT_CONFIGURED)
