"""The controller's own process looks for cycles seldom; a process that only borrows its parts is left alone."""

from __future__ import annotations

import gc
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

from controller import cycles, server
from controller.config import settings

_SERVE = """
import gc, os, pathlib, signal, sys
from datetime import timedelta
from controller import server
from controller.config import settings

def ready(address):
    print(*gc.get_threshold())
    os.kill(os.getpid(), signal.SIGTERM)

folder = pathlib.Path(sys.argv[1])
server.run(settings.Settings("127.0.0.1:0", folder, timedelta(seconds=1), None, self_approval=False), ready)
"""
DEADLINE_SECONDS = 120.0


def test_a_controller_that_runs_looks_for_cycles_seldom(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _SERVE, str(tmp_path / "state")],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=DEADLINE_SECONDS,
    )
    assert ran.stdout.split() == [str(cycles.YOUNG_MAX), str(cycles.LOOKS_MAX), str(cycles.LOOKS_MAX)]


async def test_a_process_that_serves_beside_other_things_keeps_its_own_ways(tmp_path: Path) -> None:
    before = gc.get_threshold()
    chosen = settings.Settings("127.0.0.1:0", tmp_path / "state", timedelta(seconds=1), None, self_approval=False)
    async with server.serving(chosen):
        assert gc.get_threshold() == before
