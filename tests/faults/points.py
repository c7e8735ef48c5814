"""Crash points: what strace saw in a run without faults, and how one of its calls is hit in another run.

Rules kept here: a point is a distinct (process, step, system call, class of path); the first call that is of it stands
for it; a call is found again by its number among the like calls of its process, on its own path where the path is the
same in each run.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

MUTATING = (
    *("write", "pwrite64", "writev", "fsync", "fdatasync", "syncfs", "sync_file_range", "ftruncate", "truncate"),
    *("fallocate", "openat", "mkdir", "mkdirat", "rename", "renameat", "renameat2", "link", "linkat", "symlink"),
    *("symlinkat", "unlink", "unlinkat", "rmdir", "fchmod", "fchmodat", "chmod", "copy_file_range", "sendfile", "bind"),
    *("ioctl",),
)
CREATES = re.compile(r"O_CREAT")
CLONES = re.compile(r"FICLONE")  # the one ioctl that writes
LINE = re.compile(r"^(?:(?P<pid>\d+) +)?(?P<time>\d+\.\d+) (?P<call>[a-z0-9_]+)\((?P<rest>.*)$")
PATH = re.compile(r'"((?:/|\.)[^"]*)"|\d+<(/[^>]*)>|"([^"]+)"')
RELATIVE = re.compile(r'^\d+<(/[^>]*)>, "(?!/)')
DESCRIPTOR = re.compile(r"\d+<(/[^>]*)>")
BY_DESCRIPTOR = frozenset(
    {"write", "pwrite64", "writev", "fsync", "fdatasync", "syncfs", "sync_file_range", "ftruncate", "fallocate"}
    | {"fchmod", "copy_file_range", "sendfile", "ioctl"}
)  # what else they name is data
PHASE = re.compile(r'\\?"phase\\?":\\?"([A-Z_]+)\\?"')
HEX = re.compile(r"[0-9a-f]{64}")
LEADERS = frozenset({"agent", "new_agent"})  # their journal says where the operation stands
THREADED = LEADERS  # what they copy they copy in threads, which strace must follow
OWN_NAMES = re.compile(r"/(releases|environments)/\.(staging|gone)")  # they hold the pid of who made them
STATE_CLASSES = (
    (re.compile(r"^journal$"), "journal"),
    (re.compile(r"^identity\.json"), "identity"),
    (re.compile(r"^incoming(/|$)"), "incoming"),
    (re.compile(r"^releases/\.staging[^/]*(/.*)?$"), "staging tree"),
    (re.compile(r"^releases/\.[^/]*(/.*)?$"), "release in removal"),
    (re.compile(r"^releases$"), "releases folder"),
    (re.compile(r"^releases/[^/]+$"), "release"),
    (re.compile(r"^environments/\.staging[^/]*(/.*)?$"), "environment being made"),
    (re.compile(r"^environments/\.gone[^/]*(/.*)?$"), "environment in removal"),
    (re.compile(r"^environments(/|$)"), "environments"),
    (re.compile(r"^components/[^/]+/stopped$"), "mark of a stop"),
    (re.compile(r"^components(/|$)"), "pointers"),
    (re.compile(r"^data/\.next-[^/]+/state(/.*)?$"), "copy of the state"),
    (re.compile(r"^data/\.next-[^/]+(/.*)?$"), "schema of the copy"),
    (re.compile(r"^data/\.kept-[^/]+(/.*)?$"), "kept state"),
    (re.compile(r"^data/\.gone-[^/]+(/.*)?$"), "state in removal"),
    (re.compile(r"^data(/|$)"), "state"),
    (re.compile(r"^rollback_points/[^/]+/\.staging[^/]*/state(/.*)?$"), "snapshot being made"),
    (re.compile(r"^rollback_points/[^/]+/\.staging[^/]*(/.*)?$"), "rollback point being made"),
    (re.compile(r"^rollback_points/[^/]+/\.gone[^/]*(/.*)?$"), "rollback point in removal"),
    (re.compile(r"^rollback_points(/|$)"), "rollback points"),
    (re.compile(r"^agent\.json"), "memory of agents"),
    (re.compile(r"^$"), "state folder"),
)
RUN_CLASSES = (
    (re.compile(r"^keeper\.marks"), "marks"),
    (re.compile(r"\.json(\.part)?$"), "record of an instance"),
    (re.compile(r"\.(ctl|probe)$"), "socket of an instance"),
    (re.compile(r"\.log"), "log of an instance"),
    (re.compile(r"\.cred"), "credentials"),
)

Key = tuple[str, str, str, str]  # of a point: role, step, call, class of path


@dataclass(frozen=True, slots=True)
class Call:
    """One mutating call of a traced process.

    Args:
        path: What it is about: where it names two, the second.
        source: The first where it names two; the folder that it is relative to; else the same. strace finds it by this.
        number: How-manieth of its name in its thread.
        number_on_path: How-manieth of its name on its source in its thread.
    """

    role: str
    at_seconds: float
    name: str
    path: str
    source: str
    number: int
    number_on_path: int
    step: str = ""


@dataclass(frozen=True, slots=True)
class Point:
    """A place in an operation at which a process can be hit."""

    role: str
    step: str
    name: str
    path_class: str
    call: Call

    @property
    def key(self) -> Key:
        """What makes it distinct."""
        return self.role, self.step, self.name, self.path_class

    @property
    def title(self) -> str:
        """How it is printed."""
        return f"{self.role} / {self.step} / {self.name} / {self.path_class}"


@dataclass(frozen=True, slots=True)
class Places:
    """The folders of the run in which something was seen, or shall be."""

    state: Path
    run: Path

    def class_of(self, path: str) -> str | None:
        """Class of a path; None where it is nothing of the node's."""
        for root, classes in ((self.run, RUN_CLASSES), (self.state, STATE_CLASSES)):
            inside = _below(path, root)
            if inside is not None:
                return next((name for form, name in classes if form.search(inside)), None)
        return None

    def moved(self, path: str, to: Places) -> str:
        """Return the same path in another run."""
        for root, other in ((self.run, to.run), (self.state, to.state)):
            inside = _below(path, root)
            if inside is not None:
                return str(other / inside) if inside else str(other)
        return path


def _below(path: str, root: Path) -> str | None:
    if path == str(root):
        return ""
    return path.removeprefix(f"{root}/") if path.startswith(f"{root}/") else None


def read(role: str, text: str) -> tuple[Call, ...]:
    """Read what strace wrote of one process."""
    by_name: Counter[tuple[str, str]] = Counter()
    on_path: Counter[tuple[str, str, str]] = Counter()
    calls = []
    step = ""
    for line in text.splitlines():
        match = LINE.match(line)
        if match is None:
            continue
        name, rest, thread = match["call"], match["rest"], match["pid"] or ""
        if name not in MUTATING:
            continue
        by_name[thread, name] += 1
        paths = _paths_of(name, rest)
        source, path = _source_of(name, rest, paths), paths[-1]
        on_path[thread, name, source] += 1
        found = PHASE.search(rest) if name == "pwrite64" else None
        step = found.group(1) if found else step
        if _changes_nothing(name, rest):
            continue
        numbers = (by_name[thread, name], on_path[thread, name, source])
        calls.append(Call(role, float(match["time"]), name, path, source, *numbers, step))
    return tuple(calls)


def _changes_nothing(name: str, rest: str) -> bool:
    is_look = (name == "openat" and not CREATES.search(rest)) or (name == "ioctl" and not CLONES.search(rest))
    return is_look or ") = -1 " in rest


def _paths_of(name: str, rest: str) -> Sequence[str]:
    """The files that a call names, each joined with the folder that it is relative to; an empty name where none is."""
    if name in BY_DESCRIPTOR:
        described = DESCRIPTOR.search(rest)
        return [described[1] if described else ""]
    folder = ""
    found = []
    for absolute, described, relative in PATH.findall(rest):
        if described:
            folder = described
        elif absolute.startswith("/"):
            found.append(absolute)
        else:
            found.append(f"{folder}/{absolute or relative}" if folder else absolute or relative)
    return found or [folder]


def _source_of(name: str, rest: str, paths: Sequence[str]) -> str:
    """The path by which strace finds a call: what is told relative to a folder it finds by the folder."""
    relative = RELATIVE.match(rest)
    if relative is not None and name not in BY_DESCRIPTOR:
        return relative[1]
    return paths[0] if name.startswith("rename") else paths[-1]


def enumerate_points(
    calls: Iterable[Call], places: Places, *, since_seconds: float, instance: str
) -> tuple[Point, ...]:
    """List the distinct points, in the order of their first calls.

    Args:
        calls: Those of all roles.
        places: Where they were seen.
        since_seconds: When the operation was ordered; what came before is not part of it.
        instance: End of the id of the instance that the operation starts; another's files have another name each time.
    """
    ordered = sorted(calls, key=lambda call: call.at_seconds)
    found: dict[Key, Point] = {}
    step = "ORDERED"
    for call in ordered:
        if call.at_seconds < since_seconds:
            continue
        step = call.step if call.role in LEADERS and call.step else step
        path_class = places.class_of(call.path)
        if path_class is None or (path_class.endswith("of an instance") and instance not in call.path):
            continue
        key = (call.role, step, call.name, path_class)
        found.setdefault(key, Point(*key, call))
    return tuple(found.values())


def is_stable(path: str) -> bool:
    """Say whether a path is the same in each run; staging folders are named by pid."""
    return OWN_NAMES.search(path) is None


def arguments(point: Point, action: str, seen_at: Places, now_at: Places, output: Path) -> Sequence[str]:
    """Arguments for strace that hit the point.

    Args:
        action: "signal=KILL" or "error=ENOSPC", for example.
    """
    call = point.call
    path = seen_at.moved(call.source, now_at)
    by_path = is_stable(call.source) and call.name != "bind"  # strace does not find a bind by the path of the socket
    number = call.number_on_path if by_path else call.number
    chosen = ["-P", path] if by_path else []
    return [
        *(*_follow(point.role), "-o", str(output), "-y", "-ttt", "-s", "60", *chosen, "-e", f"trace={call.name}"),
        *("-e", f"inject={call.name}:{action}:when={number}"),
    ]


def recording(role: str, output: Path) -> Sequence[str]:
    """Arguments for strace that write down everything mutating, and hit nothing."""
    return [*_follow(role), "-o", str(output), "-y", "-ttt", "-s", "4096", "-e", f"trace={','.join(MUTATING)}"]


def _follow(role: str) -> Sequence[str]:
    return ("-f",) if role in THREADED else ()


def has_fired(text: str) -> bool:
    """Say whether strace's output shows that the fault happened."""
    return "+++ killed by SIGKILL +++" in text or "(INJECTED)" in text
