"""`instar-agent`, as a process."""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PATIENCE_SECONDS = 20.0


@pytest.fixture
def config() -> Iterator[Path]:
    root = Path(tempfile.mkdtemp(prefix="ic-"))  # tmp_path is too long for socket paths
    path = root / "agent.toml"
    path.write_text(f'node_id = "n1"\nstate_dir = "{root}/s"\nrun_dir = "{root}/r"\n')
    yield path
    shutil.rmtree(root)


def agent(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "import sys; from agent import cli; sys.exit(cli.main())", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS)


def status(config: Path) -> tuple[int, dict[str, object]]:
    done = agent("status", "--config", str(config), "-o", "json")
    return done.returncode, json.loads(done.stdout)


def test_a_node_that_was_never_up_has_a_status_all_the_same(config: Path) -> None:
    code, document = status(config)
    assert code == 7
    assert document == {
        "node_id": "n1",
        "is_keeper_up": False,
        "highest_fence": 0,
        "components": [],
        "operations": [],
    }


def test_run_brings_the_node_up_and_a_signal_ends_it(config: Path) -> None:
    code = "import sys; from agent import cli; sys.exit(cli.main())"
    running = subprocess.Popen([sys.executable, "-c", code, "run", "--config", str(config)])
    try:
        until = time.monotonic() + PATIENCE_SECONDS
        while status(config)[0] != 0:
            assert time.monotonic() < until
        assert agent("status", "--config", str(config)).stdout.startswith("node n1, keeper up")
    finally:
        running.terminate()
        assert running.wait(PATIENCE_SECONDS) == 0


def test_a_configuration_that_cannot_be_used_is_a_usage_error_that_names_the_field(config: Path) -> None:
    config.write_text('node_id = "n1"\nsurprise = 1\n')
    done = agent("status", "--config", str(config))
    assert (done.returncode, done.stdout) == (2, "")
    assert "surprise" in done.stderr
