"""The wheel that service developers install: built offline, and run where nothing else is installed."""

import os
import re
import signal
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import agent

SDK = Path(agent.__file__).parent / "sdk"
PATIENCE_SECONDS = 60.0


def test_the_wheel_holds_the_package_alone_and_runs_in_an_empty_environment(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=SDK,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.startswith(f"instar_handover-{agent.__version__}-")
    with zipfile.ZipFile(wheel) as packed:
        names = packed.namelist()
        metadata = packed.read(next(name for name in names if name.endswith("METADATA"))).decode()
        assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"instar_handover"}
        assert "Requires-Dist" not in metadata
        venv.create(tmp_path / "empty", symlinks=True)
        (packages,) = (tmp_path / "empty" / "lib").glob("*/site-packages")
        packed.extractall(packages)
    python, clean = str(tmp_path / "empty/bin/python"), {"PATH": os.environ["PATH"]}
    program = (
        "import asyncio, sys; from instar_handover import asyncio_server\n"
        "async def attend(reader, writer, _): writer.write(await reader.readline())\n"
        "async def say(): print('prepared', flush=True)\n"
        "asyncio.run(asyncio_server.serve(attend, prepare=say, address='127.0.0.1:0'))\n"
    )
    with subprocess.Popen([python, "-c", program], env=clean, stdout=subprocess.PIPE) as served:
        assert served.stdout is not None
        assert served.stdout.readline() == b"prepared\n"
        served.send_signal(signal.SIGTERM)
        assert served.wait(PATIENCE_SECONDS) == 0
    refused = subprocess.run(
        [python, "-m", "instar_handover", "serve", "asgi", "absent:app"],
        env=clean,
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 1
    assert re.search(r"^instar_handover: cannot serve absent:app: uvicorn is not installed", refused.stderr)
