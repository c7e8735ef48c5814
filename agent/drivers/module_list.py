"""The lists that hosts start with: `<state>/modules/<host>.json`, one entry for each module component.

Rules kept here: a list is replaced whole and is durable when `keep` returns, for it is what decides COMMIT; a component
stands in the list of its host from its preparation on, without a version until one is committed, so that whoever looks
for the component finds its host. Left out: what a host does with its list (`instar_handover.module_host`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agent.config import layout
from agent.drivers import note

FOLDER = "modules"
SUFFIX = ".json"
VARIABLE = "INSTAR_MODULES"  # tells a host where its list is, also when the keeper starts it again


@dataclass(frozen=True, slots=True)
class Entry:
    """The committed version of a module.

    Args:
        file: In its release, by the resolved path.
        sha256: Of the file, in hexadecimal digits.
        digest: Of the release.
    """

    instance: str
    file: str
    sha256: str
    version: str
    digest: str


def of_host(release_dir: Path, host: str) -> Path:
    """Where the list of a host is, there or not, by the path of any release of the node."""
    return release_dir.parents[1] / FOLDER / f"{layout.component_name(host, field='module.host')}{SUFFIX}"


class ModuleLists:
    """The lists of one node.

    Args:
        state_dir: State directory of the node.
    """

    def __init__(self, state_dir: Path) -> None:
        self._folder = state_dir / FOLDER

    def hosts(self, component: str) -> tuple[str, ...]:
        """Hosts in whose lists a component stands."""
        found = sorted(self._folder.glob(f"*{SUFFIX}")) if self._folder.is_dir() else []
        return tuple(path.name.removesuffix(SUFFIX) for path in found if component in self._read(path))

    def entry(self, host: str, component: str) -> Entry | None:
        """Return what is committed of a component."""
        found = self._read(self._path(host)).get(component)
        return None if found is None else Entry(**found)

    def note(self, host: str, component: str) -> None:
        """Let a component stand in a list; one that does so already stays as it is."""
        if component not in self._read(self._path(host)):
            self._change(host, {component: None})

    def keep(self, host: str, component: str, entry: Entry) -> None:
        """Commit a version."""
        if self.entry(host, component) != entry:
            self._change(host, {component: asdict(entry)})

    def forget(self, host: str, component: str) -> None:
        """Take a component out of a list; one that does not stand there is success."""
        modules = self._read(self._path(host))
        if modules.pop(component, self) is not self:
            self._write(self._path(host), modules)

    def _path(self, host: str) -> Path:
        return self._folder / f"{layout.component_name(host, field='module.host')}{SUFFIX}"

    def _change(self, host: str, changed: Mapping[str, Any]) -> None:
        path = self._path(host)
        self._write(path, {**self._read(path), **changed})

    def _read(self, path: Path) -> dict[str, Any]:
        modules: dict[str, Any] = note.read(path).get("modules", {})
        return modules

    def _write(self, path: Path, modules: Mapping[str, Any]) -> None:
        note.write(path, {"modules": modules})
