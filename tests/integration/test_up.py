"""`instar up`, from outside: certificates from the first minute on, and nothing left at the end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sysconfig
from pathlib import Path

from tests.integration import stage

INSTAR = str(Path(sysconfig.get_path("scripts")) / "instar")


async def test_a_controller_and_an_agent_come_up_with_certificates_and_go_without_a_trace() -> None:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("INSTAR_", "OTEL_"))}
    pipe = asyncio.subprocess.PIPE
    up = await asyncio.create_subprocess_exec(INSTAR, "up", "-o", "json", stdout=pipe, env=inherited)
    assert up.stdout is not None
    try:
        async with asyncio.timeout(2 * stage.WAIT_SECONDS):
            place = json.loads(await up.stdout.readuntil(b"}\n"))
            told = inherited | {"INSTAR_CONTROLLER": place["controller"], "INSTAR_STATE_DIR": place["state_dir"]}
            while True:
                child = await asyncio.create_subprocess_exec(
                    INSTAR, "node", "list", "-o", "json", stdout=pipe, env=told
                )
                out, _ = await child.communicate()
                if any(each["connected"] for each in json.loads(out)["nodes"]):
                    break
        assert not list(Path(place["node_config"]).parent.glob("token"))
        assert (Path(place["node_config"]).parent / "state" / "identity" / "identity.json").exists()
    finally:
        up.send_signal(signal.SIGTERM)
        code = await up.wait()
    assert code == 0
    assert not os.path.exists(place["state_dir"])  # noqa: ASYNC240, PTH110  # nothing else waits here
