"""The states of all components of a node: what becomes of each when a version changes, and how that is undone.

Rules kept here: a migration works on a copy and takes its place by one rename; the old one stays beside it until
`forget`; going back takes the declared way back where something was written since, else the old one; what the newer
version wrote and cannot stay is set aside as a rollback point. Each call is safe to repeat. Left out: when (`runner`).
"""

from __future__ import annotations

import asyncio
import pwd
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Protocol, assert_never

from agent import drivers, durability, processes
from agent.config import bounds, layout
from agent.core import model
from agent.state import copies, directories, points, schemas

OUTPUT_CHARS_MAX = 500  # of a migration that failed, in the message: its end says why
WITHOUT_DIRECTORY = frozenset({"module"})  # its state lives in its host; the host hands it over


class Commands(Protocol):
    """What runs the commands of releases; the keeper."""

    async def run(self, task: processes.Task) -> processes.TaskEnd:
        """Run a command and wait for its end."""
        ...


class States:
    """The states of one node; keeps nothing in memory.

    Args:
        users: User of each component that does not run as the keeper's own.
    """

    def __init__(
        self,
        places: layout.Layout,
        limits: bounds.RollbackPoints,
        users: Mapping[str, str],
        keeper: Commands,
        now: Callable[[], datetime],
    ) -> None:
        self._places = places
        self._limits = limits
        self._users = users
        self._keeper = keeper
        self._now = now
        self.points = points.Points(places, limits)

    def prepare(self) -> None:
        """Sweep what an earlier life left half-made."""
        directories.sweep(self._places)
        self.points.sweep()

    def schema(self, component: str) -> int | None:
        """Schema that the state of a component has; None where there is no state."""
        told = directories.running(self._places, component).told()
        return told.schema if told else None

    def size_bytes(self, component: str) -> int:
        """Bytes of the state of a component."""
        return copies.size_bytes(directories.running(self._places, component).state)

    def plan(self, change: drivers.Change, *, is_discarding: bool) -> schemas.Plan:
        """Decide what becomes of the state; changes nothing.

        Args:
            change: New and old release.
            is_discarding: A snapshot may be restored over newer writes.

        Raises:
            drivers.DriverError: The new version cannot use the state, or not by this method.
        """
        wanted = _state_of(change.new)
        if change.new is None or wanted is None:
            return schemas.Plan(schemas.Kind.NONE)
        with _refusals(change.component):
            on_disk = self.schema(change.component)
            snapshots = self._snapshots(change.component) if is_discarding else {}
            found = schemas.plan(on_disk, wanted, _migrations(change.new, change.old), snapshots)
        if found.kind in {schemas.Kind.MIGRATE, schemas.Kind.RESTORE} and not _is_exclusive(change):
            rule = f"schema {on_disk} becomes {found.to_schema} only while nothing runs: by RESTART, without overlap"
            message = f"cannot change {change.component}: {rule}"
            raise drivers.DriverError(message, fault=model.Fault.COMMAND, reason="state_needs_restart")
        return found

    async def make_point(self, change: drivers.Change) -> drivers.Evidence:
        """Make the rollback point of an operation, and the state's directory where there is none yet.

        Raises:
            drivers.DriverError: The copy would be larger than all points may be.
            OSError: The disk is full or fails; nothing is left of it.
        """
        return await asyncio.to_thread(self._make_point, change)

    async def before_new(self, change: drivers.Change, *, is_discarding: bool) -> drivers.Evidence:
        """Bring the state to what the new version can use, once the old one has ended.

        Raises:
            drivers.DriverError: A migration failed; the state is as it was.
        """
        await asyncio.to_thread(self._refresh_point, change)
        found = self.plan(change, is_discarding=is_discarding)
        match found.kind:
            case schemas.Kind.NONE | schemas.Kind.KEEP:
                return {"state": "kept"}
            case schemas.Kind.CREATE:
                await asyncio.to_thread(self._create, change.component, found.to_schema)
                return {"state": "created"}
            case schemas.Kind.MIGRATE:
                return await self._migrate(change, found)
            case schemas.Kind.RESTORE:
                return await asyncio.to_thread(self._restore, change.component, found)
            case _:
                assert_never(found.kind)

    async def before_old(self, change: drivers.Change, *, is_discarding: bool) -> drivers.Evidence:
        """Bring the state back to what the old version can use, once the new one has ended.

        Raises:
            drivers.DriverError: There is no state that it could use; everything is kept as it is.
        """
        wanted, component = _state_of(change.old), change.component
        root, other = self._both(component)
        told = root.told()
        is_restored = told is not None and told.is_restored and other.told() is not None
        if wanted is None or told is None or (schemas.can_use(wanted, told.schema) and not is_restored):
            return {"state": "kept"}
        if not is_discarding and not is_restored and await asyncio.to_thread(_has_writes, root, told):
            back = schemas.way(told.schema, wanted.schema, _migrations(change.new, change.old))
            if back and await self._is_led_back(change, schemas.Plan(schemas.Kind.MIGRATE, wanted.schema, back)):
                return {"state": "migrated_back", "schema": str(wanted.schema)}
        kept = other.told()
        if kept is None or not schemas.can_use(wanted, kept.schema):
            message = f"cannot go back with {component}: its state has schema {told.schema}, and no older one is kept"
            raise drivers.DriverError(message, fault=model.Fault.COMMAND, reason="state_schema_newer")
        directories.exchange(self._places, component)
        return {"state": "put_back", **await asyncio.to_thread(self._retire, component, is_discarding)}

    async def forget(self, component: str) -> None:
        """Let go of what stands beside the running state: the new version is permanent, or was undone."""
        await asyncio.to_thread(self._retire, component, is_discarding=False)
        await asyncio.to_thread(directories.kept(self._places, component).remove)
        await asyncio.to_thread(self.points.expire, self._now())

    # The point.

    def _make_point(self, change: drivers.Change) -> drivers.Evidence:
        wanted = _state_of(change.new)
        if wanted is not None and self.schema(change.component) is None:
            self._create(change.component, wanted.schema)
        if change.old is None:
            return {"point": "none"}
        made = self.points.get(change.component, change.operation_id) or self._write_point(change)
        self.points.expire(self._now())
        evidence = {"point": made.id, "digest": made.digest, "version": made.version}
        size = {"snapshot_bytes": str(made.size_bytes), "snapshot_digest": made.state_digest}
        return {**evidence, **size} if made.state_digest else evidence

    def _write_point(self, change: drivers.Change) -> points.Point:
        assert change.old is not None  # noqa: S101  # the caller has looked
        component, old = change.component, change.old
        running = directories.running(self._places, component)
        told = running.told()
        has_snapshot = told is not None and any(state and state.has_snapshot for state in _both_states(change))
        if has_snapshot:
            self._refuse_too_large(component)
        point = points.Point(
            id=points.id_of(change.operation_id),
            component=component,
            operation_id=change.operation_id,
            digest=old.digest,
            version=old.manifest.version,
            created_at=self._now(),
            schema=told.schema if told else 0,
        )
        return self.points.make(point, running.state if has_snapshot else None)

    def _refuse_too_large(self, component: str) -> None:
        size_bytes = self.size_bytes(component)
        if size_bytes > self._limits.max_bytes:
            rule = f"the state has {size_bytes} bytes, and rollback_points.max_bytes is {self._limits.max_bytes}"
            message = f"cannot make a rollback point of {component}: {rule}"
            raise drivers.DriverError(message, fault=model.Fault.INFRASTRUCTURE, reason="rollback_points_full")

    def _refresh_point(self, change: drivers.Change) -> None:
        """Copy again what was written to while it was copied; now nobody writes."""
        point = self.points.get(change.component, change.operation_id)
        if point is not None and point.state_digest and not point.is_quiet:
            self._write_point(change)

    def _snapshots(self, component: str) -> Mapping[str, int]:
        found = [point for point in self.points.of(component) if point.state_digest and point.is_quiet]
        return {point.id: point.schema for point in found if not point.is_set_aside}

    # The ways.

    def _both(self, component: str) -> tuple[directories.Directory, directories.Directory]:
        return directories.running(self._places, component), directories.beside(self._places, component)

    def _create(self, component: str, schema: int) -> None:
        user = self._users.get(component)
        entry = pwd.getpwnam(user) if user else None
        directories.create(self._places, component, schema, (entry.pw_uid, entry.pw_gid) if entry else None)

    async def _migrate(self, change: drivers.Change, found: schemas.Plan) -> drivers.Evidence:
        await self._build(change, found)
        directories.exchange(self._places, change.component)
        return {"state": "migrated", "schema": str(found.to_schema), "migrations": str(len(found.hops))}

    async def _build(self, change: drivers.Change, found: schemas.Plan) -> None:
        """Make the migrated copy beside the running state, whole and durable."""
        root, other = self._both(change.component)
        try:
            await asyncio.to_thread(_start_copy, root, other)
            for hop in found.hops:
                await self._run(change, hop, other.state)
            await asyncio.to_thread(_finish_copy, root, other, found.to_schema)
        except BaseException:
            other.remove()
            raise

    async def _run(self, change: drivers.Change, hop: schemas.Hop, state: Path) -> None:
        launch = next(each for each in (change.new, change.old) if each is not None and each.digest == hop.digest)
        end = await self._keeper.run(_task(change.component, launch, hop.migration, state))
        what = (
            f"cannot lead the state of {change.component} from {hop.migration.from_schema} to {hop.migration.to_schema}"
        )
        if end.is_timeout:
            message = f"{what}: no end within {hop.migration.timeout.total_seconds():g} s"
            raise drivers.DriverError(message, fault=model.Fault.VERSION, reason="migration_timeout")
        if end.exit_code != 0:
            message = f"{what}: exit code {end.exit_code}: {end.output[-OUTPUT_CHARS_MAX:]}"
            raise drivers.DriverError(message, fault=model.Fault.VERSION, reason="migration_failed")

    async def _is_led_back(self, change: drivers.Change, found: schemas.Plan) -> bool:
        """Migrate back what runs, keeping what stands beside it until that is there; False where a command fails."""
        other, kept = (
            directories.beside(self._places, change.component),
            directories.kept(self._places, change.component),
        )
        if other.told() is not None and kept.told() is None:
            other.root.rename(kept.root)
        try:
            await self._build(change, found)
        except drivers.DriverError:
            if kept.told() is not None:
                kept.root.rename(other.root)
            return False
        directories.exchange(self._places, change.component)
        kept.remove()
        return True

    def _restore(self, component: str, found: schemas.Plan) -> drivers.Evidence:
        point = next(each for each in self.points.of(component) if each.id == found.point_id)
        if not self.points.is_whole(point):
            message = f"cannot restore {component}: the snapshot {point.id} is damaged"
            raise drivers.DriverError(message, fault=model.Fault.INFRASTRUCTURE, reason="rollback_point_damaged")
        root, other = self._both(component)
        other.remove()
        other.root.mkdir(mode=directories.DIRECTORY_MODE)
        copied = copies.make(self.points.state_of(point), other.state)
        other.tell(directories.Told(point.schema, _generation(root) + 1, copied.digest, is_restored=True))
        directories.exchange(self._places, component)
        return {"state": "restored", "point": point.id, "schema": str(point.schema)}

    def _retire(self, component: str, is_discarding: bool) -> drivers.Evidence:  # noqa: FBT001  # passed to a thread
        """Remove what stands beside the running state; newer writes are set aside unless they may be dropped."""
        root, other = self._both(component)
        running, told = root.told(), other.told()
        is_newer = running is not None and told is not None and told.generation > running.generation
        if told is None or running is None or not is_newer or is_discarding or not _has_writes(other, told):
            other.remove()
            return {}
        operation_id = f"{component}/{told.generation}"
        point = points.Point(
            id=points.id_of(operation_id),
            component=component,
            operation_id=operation_id,
            digest="",
            version="",
            created_at=self._now(),
            schema=told.schema,
            is_set_aside=True,
        )
        self.points.take(point, other.state)
        other.remove()
        return {"set_aside": point.id}


def _start_copy(root: directories.Directory, other: directories.Directory) -> None:
    other.remove()
    other.root.mkdir(mode=directories.DIRECTORY_MODE)
    copies.make(root.state, other.state)


def _finish_copy(root: directories.Directory, other: directories.Directory, schema: int) -> None:
    disk = durability.FileSystem(other.root)
    try:
        disk.sync()
    finally:
        disk.close()
    other.tell(directories.Told(schema, _generation(root) + 1, copies.digest(other.state)))


def _generation(root: directories.Directory) -> int:
    told = root.told()
    return told.generation if told else 0


def _has_writes(directory: directories.Directory, told: directories.Told) -> bool:
    """Say whether anything was written since the state took its place."""
    return copies.digest(directory.state) != told.digest


def _state_of(launch: drivers.Launch | None) -> model.StateSchema | None:
    if launch is None or launch.manifest.driver in WITHOUT_DIRECTORY:
        return None
    return launch.manifest.state


def _both_states(change: drivers.Change) -> tuple[model.StateSchema | None, ...]:
    return _state_of(change.old), _state_of(change.new)


def _migrations(*launches: drivers.Launch | None) -> Mapping[str, Sequence[model.Migration]]:
    found = [(launch.digest, _state_of(launch)) for launch in launches if launch is not None]
    return {digest: state.migrations for digest, state in found if state is not None}


def _is_exclusive(change: drivers.Change) -> bool:
    """Say whether the old version has ended before the new one starts."""
    options = change.new.manifest.options if change.new else None
    has_overlap = isinstance(options, model.ProcessOptions) and options.has_overlap
    return change.method is model.Method.RESTART and not has_overlap


def _task(component: str, launch: drivers.Launch, migration: model.Migration, state: Path) -> processes.Task:
    return processes.Task(
        component=component,
        version=launch.manifest.version,
        digest=launch.digest,
        release_dir=launch.release_dir,
        command=migration.command,
        timeout=migration.timeout,
        environment={**launch.manifest.environment, "STATE_DIRECTORY": str(state)},
        secrets=launch.manifest.secrets,
        environment_dir=launch.environment_dir,
    )


@contextmanager
def _refusals(component: str) -> Iterator[None]:
    try:
        yield
    except schemas.NoWayError as error:
        message = f"cannot start {component}: {error}"
        raise drivers.DriverError(message, fault=model.Fault.COMMAND, reason=error.reason) from error
    except directories.DamagedStateError as error:
        raise drivers.DriverError(str(error), fault=model.Fault.INFRASTRUCTURE, reason="state_damaged") from error
