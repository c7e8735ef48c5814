"""A cgroup (version 2) for each instance and each task, below the keeper's own, where the host lets it.

Rules kept here: a child enters by itself before it runs anything; one that may not removes the folder again, so a
folder that is there holds its processes. What is killed lies in the folder of this node, whose name no other run
directory makes. Folders that killed keepers have left are removed, whosever they are, once nothing lives anywhere
below them: who needs one makes it again. Nothing is limited here, so no controller is needed. Left out: what is done
where there is none (`groups`).

Source: Documentation/admin-guide/cgroup-v2.rst of Linux; cgroup.kill is there since 5.14.
"""

import contextlib
from collections.abc import Collection
from pathlib import Path

from agent.keeper import places, processes

OWN_LINE = "0::"  # of /proc/PID/cgroup
PREFIX = "instar-"
ESCAPES = (("\\", "\\x5c"), ("-", "\\x2d"), ("/", "-"))  # as systemd-escape: different paths, different names


class Cgroups:
    """The folder below which every cgroup of this node is made; None where there is none."""

    def __init__(self, where: places.Places) -> None:
        self._name = _name(where)
        self._root = _root(self._name)
        if self._root is not None and not _make(self._root):
            self._root = None

    def make(self, name: str) -> str:
        """Make a cgroup; empty where the host does not let it."""
        if self._root is None:
            return ""
        folder = self._root / name
        return str(folder) if _make(self._root) and _make(folder) else ""

    def own(self, folder: str, name: str) -> str:
        """Return the folder that a record names for an instance; empty where it is none that this node has made."""
        path = Path(folder)
        mount = processes.cgroup_mount()
        is_own = (path.name, path.parent.name) == (name, self._name) and ".." not in path.parts
        return folder if is_own and mount is not None and path.is_relative_to(mount) else ""

    def sweep(self, known: Collection[str]) -> None:
        """End and remove everything that belongs to nobody who is known, and remove what is empty and left over."""
        if self._root is None:
            return
        with contextlib.suppress(OSError):  # another keeper may remove what is empty, too
            for folder in self._root.iterdir():
                if folder.is_dir() and folder.name not in known:
                    kill(str(folder))
                    remove(str(folder))
        for folder in self._root.parent.glob(f"{PREFIX}*"):
            if is_empty(str(folder)):  # else who lives there may be about to enter one of the empty ones below
                remove(str(folder))

    def close(self) -> None:
        """Remove the folder of the node, unless something lives below it."""
        if self._root is not None:
            remove(str(self._root))


def enter(folder: str) -> None:
    """Move this very process into a cgroup, or remove the cgroup where that is not allowed."""
    path = Path(folder)
    try:
        for each in (path.parent, path):  # while they were empty, another keeper may have removed them
            each.mkdir(exist_ok=True)
        (path / "cgroup.procs").write_text("0")
    except OSError:
        remove(folder)


def is_there(folder: str) -> bool:
    """Whether the cgroup exists, and so holds what entered it."""
    return bool(folder) and Path(folder).is_dir()


def pids(folder: str) -> list[int]:
    """List the processes of a cgroup."""
    try:
        return [int(line) for line in (Path(folder) / "cgroup.procs").read_text().split()]
    except OSError:
        return []


def kill(folder: str) -> None:
    """Kill every process of a cgroup and of those below it, at once; without a folder nothing."""
    if not folder:
        return
    with contextlib.suppress(OSError):
        (Path(folder) / "cgroup.kill").write_text("1")


def is_empty(folder: str) -> bool:
    """Whether no process is left in a cgroup or below it."""
    try:
        events = (Path(folder) / "cgroup.events").read_text()
    except OSError:
        return True
    return "populated 0" in events


def remove(folder: str) -> None:
    """Remove an empty cgroup and the empty ones below it; one that is not empty stays, and none is fine."""
    if not folder:
        return
    with contextlib.suppress(OSError):
        for below in sorted(Path(folder).rglob("*/"), reverse=True):
            with contextlib.suppress(OSError):
                below.rmdir()
        Path(folder).rmdir()


def _name(where: places.Places) -> str:
    name = str(where.run).strip("/")
    for part, escaped in ESCAPES:
        name = name.replace(part, escaped)
    return f"{PREFIX}{name}"


def _root(name: str) -> Path | None:
    mount = processes.cgroup_mount()
    own = [line for line in processes.own_cgroups() if line.startswith(OWN_LINE)]
    if mount is None or not own or ".." in own[0]:
        return None
    return Path(mount) / own[0].removeprefix(OWN_LINE).lstrip("/") / name


def _make(folder: Path) -> bool:
    try:
        folder.mkdir(exist_ok=True)
        return (folder / "cgroup.kill").exists()
    except OSError:
        return False
