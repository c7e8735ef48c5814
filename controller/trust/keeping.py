"""The metadata that a controller serves: put by publishers, signed again each hour, asked before a release is taken.

Rules kept: one change at a time; it is durable before it is served, and what is served always belongs together; the
instant of the next signing is stored, and a clock that was set is seen. A controller that cannot sign says so in its
log and goes on trying: nodes then see metadata that grow old, which is the truth. Left out: who may put (`rpc`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

from controller.core import errors, model
from controller.trust import folder, keys, metadata, online, repository, succession

SIGN_PERIOD = timedelta(hours=1)  # a day of validity forgives a controller that is away for almost a day
RETRY_PERIOD = timedelta(minutes=1)  # after a signing that failed
LOOK_SECONDS = 15.0  # between two looks at the clock, so that one that was set is seen
ROOT_NAME = "root.json"  # in trust_dir: the root that is trusted as it stands

_log = logging.getLogger(__name__)


class Clock(Protocol):
    """What time it is."""

    def now(self) -> datetime:
        """Return the present instant, aware and in UTC."""
        ...


class Trust:
    """All of it, for one controller.

    Args:
        state: Folder of the metadata; this controller's alone.
        trust_dir: Folder of ``root.json`` and of the online keys; only read, anew for each signing.
        clock: What time it is.

    Raises:
        InvalidRequestError: ``root.json`` of ``trust_dir`` cannot be read, code ``root_unreadable``, or is no root.
        RefusedError: What is kept follows from another root.
        UnavailableError: What is kept was damaged.
    """

    def __init__(self, state: Path, trust_dir: Path, clock: Clock) -> None:
        self._folder = folder.Folder(state)
        self._trust_dir = trust_dir
        self._clock = clock
        self._turn = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        first = read_root(trust_dir / ROOT_NAME)
        kept = self._folder.read() or folder.Kept(repository.Repository((first,)), clock.now())
        _refuse_other_root(kept.repository, first, trust_dir)
        self._kept = kept

    @property
    def served(self) -> repository.Repository:
        """What is served now."""
        return self._kept.repository

    @property
    def due_at(self) -> datetime:
        """When snapshot and timestamp are signed again."""
        return self._kept.due_at

    async def start(self) -> None:
        """Sign where that is due, and go on doing so until ``stop``."""
        await self.look()
        self._task = asyncio.get_running_loop().create_task(self._run(), name="signing of metadata")

    async def stop(self) -> None:
        """Sign no more."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def look(self) -> None:
        """Sign snapshot and timestamp where that is due; a fault is logged, and it is due again soon."""
        async with self._turn:
            now = self._clock.now()
            # One that lies further ahead than a period was stored before the clock was set back.
            if self.served.targets is None or now < self.due_at <= now + SIGN_PERIOD:
                return
            try:
                await self._keep(self.served, now)
            except (errors.InstarError, OSError) as fault:
                _log.error("cannot sign the metadata of releases: %s", fault)
                self._kept = folder.Kept(self.served, now + RETRY_PERIOD)

    async def put(self, files: Iterable[tuple[str, bytes]]) -> tuple[str, ...]:
        """Take files that people have signed: all of them, durable and served when this returns, or none.

        Returns:
            Names of those that were new, in the order in which they were taken.

        Raises:
            InvalidRequestError: Code ``metadata_invalid``.
            RefusedError: They do not follow from what is served; see `succession.succeed`.
            UnavailableError: The online keys that they ask for are not here; or the disk is full.
        """
        async with self._turn:
            now, before = self._clock.now(), self.served
            after = await asyncio.to_thread(_succeeded, before, list(files), now)
            known = {file.name for file in before.signed_offline()}
            stored = tuple(file.name for file in after.signed_offline() if file.name not in known)
            if stored:
                await self._keep(after, now)
            return stored

    def read(self, root_version: int, component: str = "") -> tuple[tuple[str, bytes], ...]:
        """Names and bytes of the files that a reader needs, in the order in which it needs them."""
        return tuple(self.served.served(root_version, component))

    def versions(self) -> Mapping[str, int]:
        """Versions of what is served; 0 for what is not there yet."""
        served = self.served
        return {
            "root_version": served.roots[-1].version,
            "timestamp_version": 0 if served.timestamp is None else served.timestamp.version,
            "snapshot_version": 0 if served.snapshot is None else served.snapshot.version,
        }

    def refuse_unsigned(self, component: model.ComponentName, version: str, digest: str, size_bytes: int) -> None:
        """See that signed metadata name these very bytes.

        Raises:
            RefusedError: Code ``release_unsigned`` where they do not, ``metadata_expired`` where they did.
        """
        role = self.served.components.get(component)
        target = None if role is None else role.targets.targets.get(f"{component}/{version}")
        told = None if target is None else (f"sha256:{target.hashes['sha256']}", target.length)
        if role is None or told != (digest, size_bytes):
            raise errors.RefusedError(
                f"cannot publish {component} {version}: no signed metadata name {digest} with {size_bytes} bytes",
                code="release_unsigned",
                field="digest",
                value=digest,
                rule="a bundle that the metadata of its component name, signed and put before it",
            )
        for file in (self.served.roots[-1], self.served.targets, role):
            if file is not None:
                succession.check_fresh(file, self._clock.now())

    async def _run(self) -> None:
        while True:
            until_due = (self.due_at - self._clock.now()).total_seconds()
            await asyncio.sleep(min(LOOK_SECONDS, max(0.0, until_due)) if self.served.targets else LOOK_SECONDS)
            await self.look()

    async def _keep(self, offline: repository.Repository, now: datetime) -> None:
        """Sign what belongs together, keep it, and serve it from then on; who waits may go, it is done all the same."""
        running = asyncio.ensure_future(self._done(offline, now))
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            await asyncio.wait([running])
            raise

    async def _done(self, offline: repository.Repository, now: datetime) -> None:
        def work() -> folder.Kept:
            signers = keys.read_folder(self._trust_dir)
            kept = folder.Kept(online.signed(offline, signers, now), now + SIGN_PERIOD)
            self._folder.write(kept)
            return kept

        self._kept = await asyncio.to_thread(work)


def read_root(path: Path) -> metadata.File:
    """The root that is trusted as it stands.

    Raises:
        InvalidRequestError: It cannot be read, or does not vouch for itself.
    """
    try:
        content = path.read_bytes()
    except OSError as fault:
        raise errors.InvalidRequestError(
            f"cannot use root {path}: it must be a file that can be read ({fault.strerror})",
            code="root_unreadable",
            field="root",
            value=str(path),
            rule="root.json, as `instar trust init` makes it",
        ) from fault
    root = metadata.read_root(content)
    metadata.check_signed(root, root.root)
    return root


def _succeeded(before: repository.Repository, files: list[tuple[str, bytes]], now: datetime) -> repository.Repository:
    return succession.succeed(before, [metadata.read(name, content) for name, content in files], now)


def _refuse_other_root(kept: repository.Repository, first: metadata.File, trust_dir: Path) -> None:
    if all(first.content != file.content for file in kept.roots):
        raise errors.RefusedError(
            f"cannot use trust_dir {trust_dir}: its root.json is none of the roots that the kept metadata follow from",
            code="trust_root_changed",
            field="trust_dir",
            value=str(trust_dir),
            rule="the root of the repository that this controller keeps; for another one, move its folder away",
        )
