"""What is on the node already: a controller needs signed metadata for it as for anything, people of the node do not."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from agent.verifier import __main__ as verifier
from instar.v1 import operation_pb2
from tests.agent import bundles, live_node
from tests.security import controller, repository

PERMANENT, ABORTED = operation_pb2.OPERATION_STATE_PERMANENT, operation_pb2.OPERATION_STATE_ABORTED


async def test_a_release_that_is_unpacked_here_is_installed_only_if_it_is_signed_still() -> None:
    data = controller.web("1.0.0")
    signed = repository.Repository("web")
    signed.release("web", "1.0.0", data)
    honest = signed.served("web")
    signed.withdraw("web", "1.0.0")
    async with controller.leading(signed.root) as (leader, node):
        verifier.answer(node.keeper.state, bundles.put(node.keeper.state, data))
        (node.keeper.state / "incoming" / bundles.hex_of(data)).unlink()
        leader.metadata = signed.served("web")
        refused = await leader.ended(leader.order("1.0.0", leader.publish(data)))
        assert (refused.state, refused.reason) == (ABORTED, "release_unsigned")
        assert await node.versions() == []
    async with controller.leading(signed.root) as (leader, node):
        verifier.answer(node.keeper.state, bundles.put(node.keeper.state, data))
        (node.keeper.state / "incoming" / bundles.hex_of(data)).unlink()
        leader.metadata = honest
        taken = await leader.ended(leader.order("1.0.0", leader.publish(data)))
        assert taken.state == PERMANENT, taken
        assert leader.offsets == []  # it was not fetched
        [record] = [each for each in leader.steps if each.step == operation_pb2.STEP_VERIFY]
        assert record.evidence["trust"].startswith("root 1, timestamp ")


async def test_people_of_the_node_go_back_though_nobody_can_be_asked(
    short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed = repository.Repository("web")
    (short_path / "root.json").write_bytes(signed.root)
    (short_path / "trust.toml").write_text('root = "root.json"\n')
    monkeypatch.setenv("INSTAR_TRUST_FILE", str(short_path / "trust.toml"))
    async with live_node.running() as made:

        async def install(version: str, old: str = "") -> str:
            digest = made.bundle(version)
            signed.release("web", version, (made.root / "bundles" / digest.removeprefix("sha256:")).read_bytes())
            repository.lay(made.root / "metadata", signed.served("web"))
            await made.until_state(made.assign(version, digest, old), "PERMANENT")
            return digest

        first = await install("1.0.0")
        second = await install("1.1.0", first)
        repository.lay(made.root / "metadata", {})
        (made.root / "metadata").rmdir()
        ended = await made.until_state(made.assign("1.0.0", first, second), "ABORTED")
        assert ended["reason"] == "metadata_missing"
        words = [sys.executable, "-m", "agent.cli", "rollback", "--config", str(made.config), "web", "-o", "json"]
        done = await asyncio.to_thread(subprocess.run, words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done
        assert json.loads(done.stdout)["component"] == "web"
        await made.until(lambda: made.component()["digest"] == first)
