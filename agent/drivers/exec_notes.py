"""What the driver `exec` must know of a component's instances after everything else has died: which release runs which.

Rules kept here: an instance is noted before its first command runs, so its release can always be found again; the note
that an instance is kept is what decides COMMIT; where a component has no command that shows its instances, what the
last command did to them counts, in the same run of the kernel. Left out: the commands themselves (`exec`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent import drivers
from agent.config import layout, manifest
from agent.core import model
from agent.drivers import note

FOLDER = "exec"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Noted:
    """One instance, and the release that runs it.

    Args:
        state: After the last command; EXITED in another run of the kernel.
        is_kept: It is the committed one.
    """

    launch: drivers.Launch
    state: model.InstanceState
    is_kept: bool


class ExecNotes:
    """The notes of one node.

    Args:
        state_dir: State directory of the node.
    """

    def __init__(self, state_dir: Path) -> None:
        self._folder = state_dir / FOLDER

    def of(self, component: str) -> tuple[Noted, ...]:
        """What is noted of a component, the oldest first."""
        document = note.read(self._path(component))
        boot_id = _boot_id()
        return tuple(
            _noted(instance_id, entry, document["kept"], boot_id)
            for instance_id, entry in document.get("instances", {}).items()
        )

    def put(self, component: str, launch: drivers.Launch, state: model.InstanceState) -> None:
        """Note where an instance stands."""
        document = self._document(component)
        document["instances"][launch.instance_id] = {
            "digest": launch.digest,
            "release_dir": str(launch.release_dir),
            "environment_dir": str(launch.environment_dir or ""),
            "state_dir": str(launch.state_dir or ""),
            "addresses": dict(launch.addresses),
            "state": state.value,
            "boot_id": _boot_id(),
        }
        note.write(self._path(component), document)

    def keep(self, component: str, instance_id: str) -> None:
        """Note that an instance is the committed one."""
        note.write(self._path(component), {**self._document(component), "kept": instance_id})

    def forget(self, component: str, instance_id: str) -> None:
        """Forget an instance that has ended; unknown is success."""
        document = self._document(component)
        document["instances"].pop(instance_id, None)
        if document["kept"] == instance_id:
            document["kept"] = ""
        if document["instances"]:
            note.write(self._path(component), document)
        else:
            note.remove(self._path(component))

    def _document(self, component: str) -> dict[str, Any]:
        return note.read(self._path(component)) or {"kept": "", "instances": {}}

    def _path(self, component: str) -> Path:
        return self._folder / f"{layout.component_name(component)}.json"


def _noted(instance_id: str, entry: Mapping[str, Any], kept: str, boot_id: str) -> Noted:
    release_dir = Path(entry["release_dir"])
    launch = drivers.Launch(
        instance_id=instance_id,
        digest=entry["digest"],
        release_dir=release_dir,
        manifest=manifest.read(release_dir),
        addresses=entry["addresses"],
        environment_dir=Path(entry["environment_dir"]) if entry["environment_dir"] else None,
        state_dir=Path(entry["state_dir"]) if entry["state_dir"] else None,
    )
    is_of_this_boot = entry["boot_id"] == boot_id
    state = model.InstanceState(entry["state"]) if is_of_this_boot else model.InstanceState.EXITED
    return Noted(launch, state, is_kept=instance_id == kept)


def _boot_id() -> str:
    return BOOT_ID.read_text(encoding="ascii").strip()
