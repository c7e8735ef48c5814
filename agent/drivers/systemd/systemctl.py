"""The edge to systemd: unit files and the command `systemctl`, and nothing else.

Rules kept here: a unit file is replaced whole; each command has a deadline; what systemd says is given back as text by
property. Left out: what the units mean (`units`), and when they are started.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path

UNIT_DIR = Path("/run/systemd/system")  # gone after a boot, as the instances are
ANSWER_TIMEOUT = timedelta(seconds=30)  # over what a start or a stop itself may take
PROPERTIES = (
    "Id",
    "LoadState",
    "ActiveState",
    "SubState",
    "MainPID",
    "NRestarts",
    "Result",
    "ExecMainStatus",
    "ExecMainStartTimestampMonotonic",
)


class SystemctlError(Exception):
    """The command failed, or took too long.

    Args:
        is_timeout: The latter.
    """

    def __init__(self, message: str, *, is_timeout: bool = False) -> None:
        super().__init__(message)
        self.is_timeout = is_timeout


class Systemctl:
    """One systemd.

    Args:
        command: What runs `systemctl`, such as a command that enters a container first.
        unit_dir: Where that systemd reads units that are gone after a boot.
    """

    def __init__(self, command: Sequence[str] = ("systemctl",), unit_dir: Path = UNIT_DIR) -> None:
        self._command = tuple(command)
        self._unit_dir = unit_dir

    def units(self, prefix: str) -> Mapping[str, str]:
        """Texts of the unit files whose names begin so, by name."""
        found = sorted(self._unit_dir.glob(f"{prefix}*"))
        return {path.name: path.read_text(encoding="utf-8") for path in found if not path.name.endswith(".part")}

    async def write(self, texts: Mapping[str, str]) -> None:
        """Write unit files and let systemd read them; ones that are so already change nothing."""
        changed = {name: text for name, text in texts.items() if self._text(name) != text}
        for name, text in changed.items():
            part = self._unit_dir / f"{name}.part"
            part.write_text(text, encoding="utf-8")
            part.replace(self._unit_dir / name)
        if changed:
            await self._run("daemon-reload")

    async def remove(self, names: Sequence[str]) -> None:
        """Remove unit files of stopped units; ones that are not there are success."""
        if not names:
            return
        for name in names:
            (self._unit_dir / name).unlink(missing_ok=True)
        await self._run("daemon-reload")
        with contextlib.suppress(SystemctlError):  # a unit that has not failed is not known any more
            await self._run("reset-failed", *names)

    async def start(self, names: Sequence[str], within: timedelta) -> None:
        """Start units and wait until they are as started as their type says."""
        await self._run("start", *names, within=within)

    async def stop(self, names: Sequence[str], within: timedelta) -> None:
        """Stop units and wait for their end."""
        if names:
            await self._run("stop", *names, within=within)

    async def begin_stop(self, name: str) -> None:
        """Tell a unit to stop, and wait for nothing."""
        await self._run("stop", "--no-block", name)

    async def show(self, names: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
        """Properties of units, by name."""
        if not names:
            return {}
        output = await self._run("show", f"--property={','.join(PROPERTIES)}", "--", *names)
        blocks = [dict(line.split("=", 1) for line in block.splitlines()) for block in output.strip().split("\n\n")]
        return {block["Id"]: block for block in blocks}

    def _text(self, name: str) -> str | None:
        try:
            return (self._unit_dir / name).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    async def _run(self, verb: str, *words: str, within: timedelta = timedelta(0)) -> str:
        seconds = (within + ANSWER_TIMEOUT).total_seconds()
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                verb,
                *words,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            raise SystemctlError(f"cannot run {self._command[0]}: {error}") from error
        try:
            async with asyncio.timeout(seconds):
                output, errors = await process.communicate()
        except TimeoutError as error:
            message = f"cannot {verb} {' '.join(words)} within {seconds:g} s"
            raise SystemctlError(message, is_timeout=True) from error
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            why = " | ".join(errors.decode(errors="replace").strip().splitlines())
            raise SystemctlError(f"cannot {verb} {' '.join(words)}: {why}")
        return output.decode(errors="replace")
