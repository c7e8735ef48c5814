"""`instar up`: a controller and a node to try things out with, as secure as in earnest, and nothing left behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import psutil

from controller.cli.demo import bundles, process

DEADLINE_SECONDS = 120.0


async def instar(environment: dict[str, str], *arguments: str) -> tuple[int, str, str]:
    """Run a command in the surroundings that `instar up` has told."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("INSTAR_")}
    running = await asyncio.create_subprocess_exec(
        process.script("instar"),
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=inherited | environment,
    )
    async with asyncio.timeout(DEADLINE_SECONDS):
        out, err = await running.communicate()
    return running.returncode or 0, out.decode(), err.decode()


async def test_what_is_signed_is_installed_and_what_is_not_is_refused_and_nothing_stays(tmp_path: Path) -> None:
    up = await asyncio.create_subprocess_exec(
        process.script("instar"), "up", "-o", "json", stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
    )
    assert up.stdout is not None
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            places = json.loads(await up.stdout.readuntil(b"}\n"))
        environment = {name: value for name, value in places.items() if name.startswith("INSTAR_")}
        bundles.FIRST.write(tmp_path / "web")
        bundle = str(tmp_path / "web.tar")
        assert (await instar(environment, "release", "build", str(tmp_path / "web"), "-o", bundle))[0] == 0
        code, _, err = await instar(environment, "release", "publish", bundle)
        assert (code, "no signed metadata name" in err) == (8, True)
        for arguments in (
            ("release", "sign", bundle),
            ("release", "publish", bundle),
            ("upgrade", "start", "web", "1.0.0", "--install", "--strategy", "immediate", "--watch", "--timeout", "90s"),
        ):
            done = await instar(environment, *arguments)
            assert done[0] == 0, (arguments, done)
        assert 'root = "root.json"' in Path(places["node_config"]).with_name("trust.toml").read_text()
    finally:
        up.send_signal(signal.SIGINT)
        async with asyncio.timeout(DEADLINE_SECONDS):
            code = await up.wait()
    assert code == 0
    assert not left_behind(places["folder"])


def left_behind(folder: str) -> list[str]:
    """Files, and processes that know of them."""
    told = (" ".join(one.info["cmdline"] or []) for one in psutil.process_iter(["cmdline"]))
    return [*(line for line in told if folder in line), *map(str, Path(folder).rglob("*"))]
