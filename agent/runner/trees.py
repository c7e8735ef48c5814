"""`python -m agent.runner.trees DIRECTORY`: a child that reads the whole tree of a release, prints its digest and ends.

Rules kept here: the agent itself neither spends the memory nor the time; the child stands behind everything else that
wants the processor. Left out: what a difference means (`drift`).
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from agent.keeper import digest, errors

NICENESS = 19  # the last of all
READ_SECONDS_MAX = 600.0  # for one release; a bundle has at most a gigabyte
UNREADABLE = "not that of any bundle"


async def tree_digest(directory: Path) -> str:
    """Read a tree in a child; empty where the child could not tell."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "agent.runner.trees",
        str(directory),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(READ_SECONDS_MAX):
            output, _ = await child.communicate()
    except TimeoutError:
        return ""
    finally:
        if child.returncode is None:
            child.kill()
    return output.decode().strip() if child.returncode == 0 else ""


def main(arguments: Sequence[str]) -> int:
    """Run the child; returns its exit code."""
    [directory] = arguments
    os.nice(NICENESS)
    try:
        found = digest.tree_digest(Path(directory))
    except errors.RequestError:
        found = UNREADABLE
    except OSError as error:  # it is gone, or the disk fails: nothing can be said of it
        sys.stderr.write(f"cannot read {directory}: {error}\n")
        return 1
    sys.stdout.write(f"{found}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
