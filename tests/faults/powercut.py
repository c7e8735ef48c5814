"""Power cuts: the state lies on an ext4 file system of its own that forgets all that was not flushed.

Rules kept here: the file system is shut down at an instant of the operation, then everything is killed, mounted again
(ext4 replays its journal), booted and judged. Where a loop mount is not allowed the cases are skipped, and counted.

Source: EXT4_IOC_SHUTDOWN with EXT4_GOING_FLAGS_NOLOGFLUSH, as xfstests cuts the power.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import random
import shutil
import struct
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from tests.faults import cases, scenarios, stage

SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN
NO_LOG_FLUSH = 2
DISK_MIB = 160
LONGEST_SECONDS = 2.5  # of an operation, on a quiet machine: a cut falls anywhere in it
# Nothing reaches the disk by itself within a case: what was not flushed is lost.
OPTIONS = "loop,noauto_da_alloc,commit=300"


class NoLoopMountError(Exception):
    """This machine does not let us mount."""


@contextlib.contextmanager
def _disk(root: Path, place: Path) -> Iterator[None]:
    image = root / "disk.img"
    with image.open("wb") as file:
        file.truncate(DISK_MIB << 20)
    _run("mkfs.ext4", "-q", str(image))
    try:
        _run("mount", "-o", OPTIONS, str(image), str(place))
    except subprocess.CalledProcessError as error:
        raise NoLoopMountError(error.stderr.decode(errors="replace").strip()) from error
    try:
        yield
    finally:
        _unmount(place)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def _unmount(place: Path) -> None:
    subprocess.run(["umount", "--lazy", str(place)], check=False, capture_output=True)


def _mount_again(root: Path, place: Path) -> None:
    """Mount what reached the disk; a copy, for another node's namespace may still hold the dead file system."""
    _unmount(place)
    copy = root / "copy.img"
    _run("cp", "--sparse=always", str(root / "disk.img"), str(copy))
    _run("mount", "-o", OPTIONS, str(copy), str(place))


def cut(place: Path) -> None:
    """Cut the power of a file system."""
    descriptor = os.open(place, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
    finally:
        os.close(descriptor)


async def play(scenario: scenarios.Scenario, saved: Path, seed: int) -> cases.Outcome:
    """Cut the power at an instant that the seed says."""
    title = f"{scenario.name}: power cut, seed {seed}"
    after_seconds = random.Random(seed).uniform(0, LONGEST_SECONDS)  # noqa: S311  # a seed, no secret
    try:
        async with stage.node() as made, _on_disk(made, saved):
            await _cut_and_boot(made, scenario, after_seconds)
    except (NoLoopMountError, FileNotFoundError) as error:
        return cases.Outcome(title, skipped=f"no loop mount: {error}")
    except (stage.Violation, AssertionError) as violation:
        return cases.Outcome(title, violation=f"after {after_seconds:.3f} s: {violation}")
    return cases.Outcome(title)


@contextlib.asynccontextmanager
async def _on_disk(made: stage.FaultNode, saved: Path) -> AsyncIterator[None]:
    state = made.keeper.state
    made.load(saved)
    kept = state.rename(state.with_name("kept"))
    state.mkdir()
    with _disk(made.root, state):
        shutil.copytree(kept, state, symlinks=True, dirs_exist_ok=True)
        os.sync()
        try:
            yield
        finally:
            await made.die()


async def _cut_and_boot(made: stage.FaultNode, scenario: scenarios.Scenario, after_seconds: float) -> None:
    made.start()
    await made.settle()
    async with cases.traffic(made, scenario) as seen:
        operation_id = scenario.order(made)
        await asyncio.sleep(after_seconds)  # the instant is the case
        cut(made.keeper.state)
        await made.die()
        _mount_again(made.root, made.keeper.state)
        made.check_disk()
        made.start()
        await made.until_state(operation_id, *cases.ENDED)
        await made.settle()
    seen.is_same_boot = False
    await cases.judge(made, scenario, seen, is_lossy=True)
