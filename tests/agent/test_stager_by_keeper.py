"""Staging and migrating by the real keeper: the environment is made, proven before each use, and runs the commands."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent import drivers, processes, stager
from agent.config import bounds, layout, manifest
from agent.core import model
from agent.keeper import digest as trees
from agent.state import directories, states
from tests.agent import wheels
from tests.agent.keeper import node as keeper_node

WHEELS = dict([wheels.wheel("alpha", "2.0", "WORD = 'two'\ndef main(): print(WORD)\n")])
MANIFEST = """\
name = "web"
version = "2.0.0"
driver = "process"
command = ["python", "main.py"]
[python]
requirements = "requirements.txt"
wheelhouse = "wheels"
[state]
schema = 2
[[state.migrations]]
from_schema = 1
to_schema = 2
command = ["python", "up.py"]
"""
UP = "import alpha, os, pathlib\n(pathlib.Path(os.environ['STATE_DIRECTORY']) / 'schema').write_text(alpha.WORD)\n"


@pytest.fixture
async def a_node() -> AsyncIterator[keeper_node.Node]:
    root = Path(tempfile.mkdtemp(prefix="is-"))  # tmp_path is too long for socket paths
    async with keeper_node.running(root) as made:
        yield made
    shutil.rmtree(root, ignore_errors=True)


def lay(state_dir: Path, files: Mapping[str, str | bytes]) -> str:
    """Lay a release as an unpacked bundle lies; returns its digest."""
    tree = state_dir / "tree"
    for name, content in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        (tree / name).chmod(0o644)
    digest = trees.tree_digest(tree)
    tree.rename(state_dir / "releases" / layout.hex_of(digest))
    return digest


def launch_of(state_dir: Path, digest: str) -> drivers.Launch:
    places = layout.Layout(state_dir, state_dir)
    read = manifest.read(places.release_dir(digest))
    environment = places.environment_dir(digest)
    return drivers.Launch("", digest, places.release_dir(digest), read, {}, environment_dir=environment)


async def test_what_the_keeper_staged_runs_the_migration_and_is_proven_each_time(a_node: keeper_node.Node) -> None:
    wheelhouse = {f"wheels/{name}": data for name, data in WHEELS.items()}
    files = {"instar.toml": MANIFEST, "requirements.txt": wheels.lock(WHEELS), "main.py": "", "up.py": UP}
    digest = lay(a_node.state, {**files, **wheelhouse})
    keeper = await a_node.attached()
    verdict = await keeper.stage(digest)
    assert stager.read_answer(verdict.exit_code, verdict.output)["packages"] == "1"

    places, launch = layout.Layout(a_node.state, a_node.run), launch_of(a_node.state, digest)
    room = states.States(places, bounds.RollbackPoints(), {}, keeper, lambda: datetime(2026, 1, 1, tzinfo=UTC))
    room.prepare()
    directories.create(places, "web", 1, None)
    change = drivers.Change("op", "web", model.Method.RESTART, launch, None, timedelta(seconds=60))
    assert (await room.before_new(change, is_discarding=False))["state"] == "migrated"
    assert (places.data("web") / "schema").read_text() == "two"

    [module] = (a_node.state / "environments" / layout.hex_of(digest)).glob("lib/python*/site-packages/alpha.py")
    module.write_text("WORD = 'evil'\n")
    with pytest.raises(processes.KeeperError) as caught:
        await keeper.run(
            processes.Task(
                "web",
                "2.0.0",
                digest,
                launch.release_dir,
                ["python", "main.py"],
                timedelta(seconds=20),
                environment_dir=launch.environment_dir,
            )
        )
    assert caught.value.code == "digest_mismatch"
    assert "packages" in stager.read_answer(*_said(await keeper.stage(digest)))


def _said(verdict: processes.Verdict) -> tuple[int | None, str]:
    return verdict.exit_code, verdict.output
