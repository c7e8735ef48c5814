"""A controller that lives again and again on one folder, and where its lives die.

Rules kept here: a life that ended where it was told to is followed by the next one at once, which dies at what is left;
a life that ended otherwise is a violation. Left out: what is asked of it (`callers`), and what the points are
(`transitions`, `led_controller`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from controller.cli.demo import ports, process
from controller.rpc import principals, register
from tests.faults import stage

PATIENCE_SECONDS = 60.0  # for anything that has to come true, on a machine that is busy
_LINE_BYTES = 1 << 20

Point = tuple[str, str]  # boundary, and the name of the transition
Passed = Sequence[tuple[str, tuple[str, ...]]]  # boundaries, each with the names of all that was come by together


@dataclass
class Life:
    """One life, as far as it is known."""

    number: int
    listens: asyncio.Future[str]
    ended: asyncio.Future[int]
    pid: int = 0
    passed: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    died_at: tuple[str, tuple[str, ...]] | None = None


class Source:
    """Where lives come from: one process for any number of controllers."""

    def __init__(self, child: asyncio.subprocess.Process) -> None:
        self._child = child
        self._lives: dict[int, Life] = {}
        self._count = 0

    def begin(self, order: Mapping[str, object]) -> Life:
        """Begin a life that dies at the first of some points that it comes by."""
        self._count += 1
        loop = asyncio.get_running_loop()
        life = self._lives[self._count] = Life(self._count, loop.create_future(), loop.create_future())
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps({"life": life.number, **order}).encode() + b"\n")
        return life

    async def hear(self) -> None:
        """Take what lives say, until cancelled."""
        assert self._child.stdout is not None
        while line := await self._child.stdout.readline():
            said = json.loads(line)
            self._take(self._lives[said["life"]], said)

    def _take(self, life: Life, said: Mapping[str, Any]) -> None:
        if "pid" in said:
            life.pid = said["pid"]
        elif "listens" in said:
            life.listens.set_result(said["listens"])
        elif "boundary" in said:
            life.passed.append((said["boundary"], tuple(said["names"])))
        elif "died_at" in said:
            life.died_at = said["died_at"], tuple(said["names"])
        elif "ended" in said:
            life.ended.set_result(said["ended"])


@contextlib.asynccontextmanager
async def source() -> AsyncIterator[Source]:
    """Have lives while the block runs; who still lives then is killed."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("INSTAR_", "OTEL_"))}
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.faults.led_controller"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=inherited,
        limit=_LINE_BYTES,
    )
    made = Source(child)
    hearing = asyncio.ensure_future(made.hear())
    try:
        yield made
    finally:
        assert child.stdin is not None
        child.stdin.close()
        await child.wait()
        hearing.cancel()


class House:
    """The folder of one controller, and its life of now.

    Args:
        armed: Where lives shall die, once at each.
        dies_at_each: Lives die at each kind of transition, once, at a boundary that is its turn.
        is_hasty: They acknowledge before they commit.
    """

    def __init__(
        self,
        lives: Source,
        folder: Path,
        armed: Collection[Point] = (),
        *,
        dies_at_each: bool = False,
        is_hasty: bool = False,
    ) -> None:
        self.folder = folder
        self.state_dir = folder / "state"
        self.address = f"{ports.HOST}:{ports.free(1)[0]}"
        self.armed = set(armed)
        self.dies_at_each = dies_at_each
        self.spared: set[str] = set()
        self.deaths: list[tuple[str, tuple[str, ...]]] = []
        self.passed: list[tuple[str, tuple[str, ...]]] = []
        self.life: Life | None = None
        self.fault = ""
        self._lives = lives
        self._is_hasty = is_hasty
        self._environment = {
            "INSTAR_STATE_DIR": str(self.state_dir),
            "INSTAR_LISTEN": self.address,
            "INSTAR_HEARTBEAT_PERIOD": "0.5s",
            "INSTAR_SELF_APPROVAL": "allow",
        }

    def configure(self, config: Path) -> None:
        """Give it a file of settings, before the first life."""
        self._environment["INSTAR_CONFIG"] = str(config)

    def enrol(self, kind: principals.Kind, name: str) -> str:
        """Make the token of an agent, before the first life."""
        known = register.Register(self.state_dir / "tokens" / "principals")
        return known.make_token(principals.Principal(kind, name)).reveal()

    @property
    def operator_token(self) -> str:
        """What the first life made for its operator."""
        return (self.state_dir / "tokens" / "operator.token").read_text().strip()

    async def live(self) -> None:
        """Begin one life after another, until one ends in order or otherwise than it should, or until cancelled."""
        while True:
            order = {
                "armed": [*self.armed],
                "spared": [*self.spared] if self.dies_at_each else None,
                "environment": {**self._environment},
                "log": str(self.folder / "controller.log"),
                "hasty": self._is_hasty,
            }
            self.life = life = self._lives.begin(order)
            code = await life.ended
            self.passed += life.passed
            if life.died_at is None:
                self.fault = "" if code == 0 else f"life {life.number} ended by itself, with {code}: {self.said}"
                return
            boundary, names = life.died_at
            self.armed -= {(boundary, name) for name in names}
            self.spared |= {*names}
            self.deaths.append(life.died_at)

    def kill(self) -> None:
        """Kill the life of now, if it lives."""
        if self.life is not None and self.life.pid and not self.life.ended.done():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.life.pid, signal.SIGKILL)

    @property
    def said(self) -> str:
        """The end of the log."""
        return process.tail(self.folder / "controller.log")

    async def listening(self) -> Life:
        """The life of now, once it listens.

        Raises:
            stage.Violation: None comes up any more.
        """
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                life = self.life
                if self.fault:
                    raise stage.Violation(self.fault)
                if life is None or life.ended.done():
                    await asyncio.sleep(stage.POLL_SECONDS)
                    continue
                await asyncio.wait((life.listens, life.ended), return_when=asyncio.FIRST_COMPLETED)
                if life.listens.done() and not life.ended.done():
                    return life

    async def stop(self) -> None:
        """Ask the life of now to end, and the next one where it dies in doing so; one must end in order."""
        while True:
            life = await self.listening()
            os.kill(life.pid, signal.SIGTERM)
            async with asyncio.timeout(PATIENCE_SECONDS):
                code = await life.ended
            if life.died_at is None:
                break
        if code != 0:
            raise stage.Violation(f"it ended with {code}: {self.said}")
