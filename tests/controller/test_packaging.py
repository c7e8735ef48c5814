"""The unit of the controller: one that systemd takes, and under which a controller runs."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

UNIT = Path(__file__).parents[2] / "controller/packaging/instar-controller.service"
# What MemoryDenyWriteExecute= does, by prctl(2): PR_SET_MDWE with PR_MDWE_REFUSE_EXEC_GAIN, which stands over execve.
STRICT = f"""
import ctypes, os, sys
if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0) != 0:
    sys.exit({os.EX_UNAVAILABLE})
os.execv(sys.argv[1], sys.argv[1:])
"""
needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="this host has no systemd")


def analysed(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)


@needs_systemd
def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/usr/bin/instar", "/bin/true"))
    done = analysed("verify", str(unit))
    assert UNIT.name not in done.stderr
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_controller_runs_where_no_memory_may_be_written_and_executed(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", STRICT, sys.executable, "-m", "controller"]
    environment = {**os.environ, "INSTAR_STATE_DIR": str(tmp_path / "state"), "INSTAR_LISTEN": "127.0.0.1:0"}
    with subprocess.Popen(argv, stderr=subprocess.PIPE, env=environment, text=True) as running:
        assert running.stderr is not None
        lines = list(itertools.takewhile(lambda line: not line.startswith("listening on"), running.stderr))
        is_up = running.poll() is None
        running.terminate()
        running.stderr.read()
        if running.wait() == os.EX_UNAVAILABLE:
            pytest.skip("this kernel cannot forbid it for one process")
    assert is_up, "".join(lines)
    assert running.returncode == 0
