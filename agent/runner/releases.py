"""The releases on this node: their manifests and drivers, and how each is started.

Rules kept here: a release is what its digest says, so its manifest is read once; the same operation starts the same
instance, also after the agent was killed. Left out: what becomes of them (`steps`, `upkeep`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from agent import depot, drivers, probes, processes
from agent.config import manifest, settings
from agent.core import model
from agent.drivers import registry

HASH_DIGITS = 8  # of the operation in an instance's id: one in four billion is like another
COMPONENT_CHARS = 10  # of the component in an instance's id; with the rest it fits the path of a Unix socket
MANIFESTS_MAX = 64  # read ones that are kept; a node has far fewer components, and two releases of each
KILLED_EXIT_CODE = -1  # of a command that a signal ended


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command of a release ended."""

    exit_code: int
    is_timeout: bool
    output: str


class Releases:
    """The releases of one node.

    Args:
        chosen: The drivers.
    """

    def __init__(
        self, config: settings.Config, disk: depot.Depot, keeper: processes.Keeper, chosen: registry.Registry
    ) -> None:
        self._config = config
        self._disk = disk
        self._keeper = keeper
        self._drivers = chosen
        self._manifests: dict[str, model.Manifest] = {}

    def manifest(self, digest: str) -> model.Manifest:
        """Return the manifest of an unpacked release.

        Raises:
            ConfigError: It is not there, or damaged.
        """
        if digest not in self._manifests:
            if len(self._manifests) >= MANIFESTS_MAX:
                self._manifests.clear()
            self._manifests[digest] = manifest.read(self._disk.release_dir(digest))
        return self._manifests[digest]

    def forget(self, digest: str) -> None:
        """Read the manifest of a release again; it was unpacked anew."""
        self._manifests.pop(digest, None)

    def driver(self, digest: str) -> drivers.Driver:
        """Return the driver that the manifest of an unpacked release names.

        Raises:
            ConfigError: As for `manifest`.
            DriverError: The node has no such driver.
        """
        return self._drivers.get(self.manifest(digest).driver)

    def launch(self, component: str, digest: str, instance_id: str, traceparent: str = "") -> drivers.Launch:
        """Say how an instance of a release is started; without an id it is whichever runs it."""
        read = self.manifest(digest)
        places = self._config.layout
        return drivers.Launch(
            instance_id=instance_id,
            digest=digest,
            release_dir=self._disk.release_dir(digest),
            manifest=read,
            addresses=self.addresses(component),
            environment_dir=places.environment_dir(digest) if read.python else None,
            state_dir=places.data(component) if read.state else None,
            traceparent=traceparent,
            user=self._config.users.get(component, ""),
        )

    def addresses(self, component: str) -> dict[str, str]:
        """Address of each socket that this node's configuration names for a component."""
        return dict(self._config.sockets.get(component, {}))

    def address(self, socket: str, instance: model.Instance, component: str) -> str:
        """Tell where an instance is asked; see `probes.target`."""
        read = self.manifest(instance.digest)
        return probes.target(socket, read, self.addresses(component), self._config.run_dir, instance.id)

    def commands(self, component: str, digest: str) -> probes.RunCommand:
        """Return what runs commands of a release as disposable children of the keeper."""

        async def run(command: tuple[str, ...], timeout: timedelta) -> Ran:  # noqa: ASYNC109  # the keeper keeps it
            return await self._run(self.launch(component, digest, ""), component, command, timeout)

        return run

    async def _run(self, launch: drivers.Launch, component: str, command: tuple[str, ...], timeout: timedelta) -> Ran:  # noqa: ASYNC109  # as above
        state = {"STATE_DIRECTORY": str(launch.state_dir)} if launch.state_dir else {}
        end = await self._keeper.run(
            processes.Task(
                component=component,
                version=launch.manifest.version,
                digest=launch.digest,
                release_dir=launch.release_dir,
                command=command,
                timeout=timeout,
                environment={**launch.manifest.environment, **state},
                secrets=launch.manifest.secrets,
                environment_dir=launch.environment_dir,
                is_repeated=True,
            )
        )
        return Ran(KILLED_EXIT_CODE if end.exit_code is None else end.exit_code, end.is_timeout, end.output)

    def release_dir(self, digest: str) -> Path:
        """Directory of an unpacked release."""
        return self._disk.release_dir(digest)


def instance_id(component: str, digest: str, operation_id: str) -> str:
    """Name the instance that an operation starts; the same again for the same operation."""
    of_operation = hashlib.sha256(operation_id.encode()).hexdigest()[:HASH_DIGITS]
    return f"{component[:COMPONENT_CHARS].rstrip('.-')}-{digest.removeprefix('sha256:')[:6]}-{of_operation}"
