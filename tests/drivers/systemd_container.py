"""A real systemd as the first process of namespaces of its own, beside whatever runs this host."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path

from agent.drivers.systemd import systemctl

PROGRAM = Path("/lib/systemd/systemd")
CGROUPS = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))
TARGETS = ("sysinit", "basic", "shutdown", "sockets")
PATIENCE_SECONDS = 30.0
BOOT = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system
umount -R /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for name in {targets}; do
  printf '[Unit]\\nDefaultDependencies=no\\n' > /run/systemd/system/$name.target
done
printf '[Unit]\\nDefaultDependencies=no\\nRequires=sysinit.target basic.target\\n' > /run/systemd/system/first.target
exec env -i PATH="$PATH" container=lxc SYSTEMD_UNIT_PATH=/run/systemd/system {program} --system \
  --log-target=null --show-status=false --unit=first.target
"""
NAMESPACES = ("--pid", "--fork", "--mount", "--mount-proc", "--uts", "--ipc", "--cgroup")


def missing() -> str:
    """Why it cannot run here; empty where it can."""
    if os.geteuid() != 0:
        return "namespaces and mounts need root"
    absent = [name for name in ("unshare", "nsenter", "systemctl") if shutil.which(name) is None]
    if absent or not PROGRAM.exists():
        return f"{', '.join(absent) or PROGRAM} is not installed"
    return "" if _cgroup2() else "there is no cgroup2 hierarchy to write to"


class Entered(systemctl.Systemctl):
    """The edge to that systemd; its pids are turned into those of this host."""

    def __init__(self, first: int, cgroup: Path) -> None:
        command = ("nsenter", "-t", str(first), "-p", "-m", "-u", "-i", "-C", "--", "systemctl")
        super().__init__(command, Path(f"/proc/{first}/root/run/systemd/system"))
        self._cgroup = cgroup

    async def show(self, names: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
        pids = {"0": "0", **dict(_pids(self._cgroup))}
        shown = await super().show(names)
        return {name: {**each, "MainPID": pids.get(each["MainPID"], "0")} for name, each in shown.items()}


@contextlib.asynccontextmanager
async def booted() -> AsyncIterator[Entered]:
    """Boot one, and end it with everything in it."""
    hierarchy = _cgroup2()
    assert hierarchy is not None, missing()
    cgroup = hierarchy / f"test-instar-{os.getpid()}-{os.urandom(3).hex()}"
    cgroup.mkdir()
    script = BOOT.format(targets=" ".join(TARGETS), program=PROGRAM)
    enter = f'echo $$ > {cgroup}/cgroup.procs; exec unshare {" ".join(NAMESPACES)} sh -c "$0"'
    process = subprocess.Popen(["sh", "-c", enter, script], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    first = 0
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            first = await _first(process.pid)
            edge = Entered(first, cgroup)
            while not await _is_up(edge):  # noqa: ASYNC110  # another process
                await asyncio.sleep(0.05)
        yield edge
    finally:
        if first:
            os.kill(first, signal.SIGKILL)  # the kernel ends the rest of the namespace
        else:
            process.kill()
        process.wait()
        await _removed(cgroup)


async def _first(parent: int) -> int:
    """The process that is the first one inside."""
    while (first := _systemd_under(parent)) == 0:  # noqa: ASYNC110  # another process
        await asyncio.sleep(0.02)
    return first


def _systemd_under(parent: int) -> int:
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
            if Path(f"/proc/{child}/exe").readlink() == PROGRAM.resolve():
                return int(child)
    return 0


async def _is_up(edge: Entered) -> bool:
    try:
        await edge.start(["first.target"], systemctl.ANSWER_TIMEOUT)
    except systemctl.SystemctlError:
        return False
    return True


async def _removed(cgroup: Path) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not _is_removed(cgroup):  # noqa: ASYNC110  # what was killed leaves it
            await asyncio.sleep(0.01)


def _is_removed(cgroup: Path) -> bool:
    for folder, _, _ in os.walk(cgroup, topdown=False):  # what vanishes meanwhile is passed over
        with contextlib.suppress(OSError):
            os.rmdir(folder)  # noqa: PTH106  # os.walk names it as text
    return not cgroup.exists()


def _pids(cgroup: Path) -> Iterator[tuple[str, str]]:
    """Pids inside, and what they are outside."""
    for folder, _, _ in os.walk(cgroup):  # what vanishes meanwhile is passed over
        with contextlib.suppress(OSError):
            for pid in Path(folder, "cgroup.procs").read_text().split():
                status = Path(f"/proc/{pid}/status").read_text()
                inside = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[-1]
                yield inside, pid


def _cgroup2() -> Path | None:
    return next((path for path in CGROUPS if (path / "cgroup.controllers").exists() and os.access(path, os.W_OK)), None)
