"""Launches and changes for tests, from manifests as people write them; and what runs their commands."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from agent import drivers, processes
from agent.config import manifest
from agent.core import model


def launch(
    root: Path, text: str, files: Mapping[str, str] | None = None, addresses: Mapping[str, str] | None = None
) -> drivers.Launch:
    """Lay a release with this manifest below a folder and say how it is started."""
    hex_digits = hashlib.sha256(text.encode()).hexdigest()
    folder = root / "releases" / hex_digits
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {"instar.toml": text, **(files or {})}.items():
        (folder / name).write_text(content)
    return drivers.Launch("", f"sha256:{hex_digits}", folder, manifest.parse_toml(text), addresses or {})


def change(
    new: drivers.Launch | None,
    old: drivers.Launch | None,
    method: model.Method = model.Method.RESTART,
    operation_id: str = "op-1",
) -> drivers.Change:
    """Make the change from one to the other."""
    some = new or old
    assert some is not None
    return drivers.Change(operation_id, some.manifest.name, method, new, old, timedelta(seconds=60))


class Commands:
    """Runs commands as the keeper does: from the release, with nothing but their own environment."""

    def __init__(self) -> None:
        self.tasks: list[processes.Task] = []

    async def run(self, task: processes.Task) -> processes.TaskEnd:
        """Run a command and wait for its end."""
        self.tasks.append(task)
        environment = {"PATH": os.environ["PATH"], **task.environment}
        started = await asyncio.create_subprocess_exec(
            *task.command,
            cwd=task.release_dir,
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(task.timeout.total_seconds()):
                output, _ = await started.communicate()
        except TimeoutError:
            started.kill()
            output, _ = await started.communicate()
            return processes.TaskEnd(None, 9, is_timeout=True, output=output.decode())
        return processes.TaskEnd(started.returncode, None, is_timeout=False, output=output.decode())
