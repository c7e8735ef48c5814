"""What a component has of its own on a real node: state that is led from version to version, packages, secrets."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.core import model
from tests.agent import live_node, wheels

RESTART: dict[str, Any] = {
    "method": model.Method.RESTART,
    "soak_duration": timedelta(seconds=0.2),
    "min_healthy_duration": timedelta(seconds=0.2),
}
HIDDEN = b"as deep as the sea"
MANIFEST = """\
name = "web"
version = "{version}"
driver = "process"
command = ["python", "main.py"]
[process]
settle_duration = "0.2s"
"""
MAIN = b"""\
import os, pathlib, signal, sys
state = pathlib.Path(os.environ["STATE_DIRECTORY"])
rows = state / "rows.%d"
assert rows.exists() or not list(state.iterdir()), "not a schema that this version reads"
with rows.open("a") as file:
    file.write(os.environ["INSTAR_VERSION"] + " ")
if os.path.exists(os.environ.get("DIE", "")):
    sys.exit("no oil")
signal.pause()
"""
MOVE = b"""\
import os, pathlib, sys
state = pathlib.Path(os.environ["STATE_DIRECTORY"])
(state / f"rows.{sys.argv[1]}").rename(state / f"rows.{sys.argv[2]}")
"""
WAY = """\
[[state.migrations]]
from_schema = {0}
to_schema = {1}
command = ["python", "move.py", "{0}", "{1}"]
"""
PYTHON = """\
[python]
requirements = "requirements.txt"
wheelhouse = "wheels"
"""
READS_SECRET = b"""\
import hashlib, os, pathlib, signal
folder = pathlib.Path(os.environ["CREDENTIALS_DIRECTORY"])
found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
print(found, oct(folder.stat().st_mode & 0o777), oct((folder / "token").stat().st_mode & 0o777), flush=True)
signal.pause()
"""


@pytest.fixture
async def a_node() -> AsyncIterator[live_node.LiveNode]:
    async with live_node.running() as made:
        yield made


def release(a_node: live_node.LiveNode, version: str, schema: int, *ways: tuple[int, int]) -> str:
    """Publish a version that keeps its rows in a file of its own schema; returns its digest."""
    lines = f'[environment]\nDIE = "{a_node.root}/die-{version}"\n[state]\nschema = {schema}\nsnapshot = true\n'
    text = MANIFEST.format(version=version) + lines + "".join(WAY.format(*way) for way in ways)
    return a_node.publish(text, {"main.py": MAIN % schema, "move.py": MOVE})


def rows(a_node: live_node.LiveNode) -> dict[str, list[str]]:
    """The files of the component's state, and the versions that wrote them."""
    state = a_node.keeper.state / "data" / "web" / "state"
    return {path.name: path.read_text().split() for path in state.iterdir()}


async def installed(a_node: live_node.LiveNode, digest: str) -> None:
    await a_node.until_state(a_node.assign("1.0.0", digest, **RESTART), "PERMANENT")
    assert rows(a_node) == {"rows.1": ["1.0.0"]}


async def test_a_schema_is_led_forth_and_back_and_no_row_is_lost(a_node: live_node.LiveNode) -> None:
    old, new = release(a_node, "1.0.0", 1), release(a_node, "2.0.0", 2, (1, 2), (2, 1))
    await installed(a_node, old)
    forth = a_node.assign("2.0.0", new, old, **RESTART)
    await a_node.until_state(forth, "PERMANENT")
    assert rows(a_node) == {"rows.2": ["1.0.0", "2.0.0"]}
    point = a_node.evidence(forth, model.Step.ROLLBACK_POINT)
    assert (point["version"], int(point["snapshot_bytes"]) > 0) == ("1.0.0", True)
    back = a_node.assign("1.0.0", old, new, **RESTART)
    await a_node.until_state(back, "PERMANENT")
    assert rows(a_node) == {"rows.1": ["1.0.0", "2.0.0", "1.0.0"]}
    assert [each.version for each in await a_node.instances()] == ["1.0.0"]


async def test_a_new_version_that_dies_after_its_migration_gives_the_old_one_its_state_back(
    a_node: live_node.LiveNode,
) -> None:
    old, new = release(a_node, "1.0.0", 1), release(a_node, "2.0.0", 2, (1, 2))
    await installed(a_node, old)
    (a_node.root / "die-2.0.0").touch()
    ended = await a_node.until_state(a_node.assign("2.0.0", new, old, **RESTART), "ABORTED")
    assert ended["fault"] == "VERSION"
    await a_node.until(lambda: rows(a_node) == {"rows.1": ["1.0.0", "1.0.0"]})  # the old one, before and after
    assert a_node.component()["digest"] == old


async def test_going_back_over_newer_writes_is_refused_unless_they_may_be_dropped(a_node: live_node.LiveNode) -> None:
    old, new = release(a_node, "1.0.0", 1), release(a_node, "2.0.0", 2, (1, 2))
    await installed(a_node, old)
    await a_node.until_state(a_node.assign("2.0.0", new, old, **RESTART), "PERMANENT")
    [serving] = await a_node.instances()
    refused = await a_node.until_state(a_node.assign("1.0.0", old, new, **RESTART), "ABORTED")
    assert (refused["fault"], refused["reason"]) == ("COMMAND", "state_schema_newer")
    assert [each.pid for each in await a_node.instances()] == [serving.pid]
    assert rows(a_node) == {"rows.2": ["1.0.0", "2.0.0"]}
    back = a_node.assign("1.0.0", old, new, discard_writes=True, **RESTART)
    await a_node.until_state(back, "PERMANENT")
    assert rows(a_node) == {"rows.1": ["1.0.0", "1.0.0"]}


@pytest.mark.skipif(shutil.which("uv") is None, reason="uv is not installed")
async def test_a_component_runs_with_the_packages_of_its_own_wheelhouse(a_node: live_node.LiveNode) -> None:
    held = dict([wheels.wheel("alpha", "2.0", "WORD = 'two'\n")])
    main = b"import alpha, signal\nprint('alpha says', alpha.WORD, flush=True)\nsignal.pause()\n"
    files = {f"wheels/{name}": data for name, data in held.items()}
    text = MANIFEST.format(version="1.0.0") + PYTHON
    digest = a_node.publish(text, {"main.py": main, "requirements.txt": wheels.lock(held).encode(), **files})
    operation_id = a_node.assign("1.0.0", digest, **RESTART)
    await a_node.until_state(operation_id, "PERMANENT")
    assert a_node.evidence(operation_id, model.Step.STAGE)["packages"] == "1"
    assert "alpha says two" in (await a_node.log())["text"]


async def test_a_secret_reaches_its_component_as_a_file_and_is_written_nowhere_else(
    capfd: pytest.CaptureFixture[str],
) -> None:
    async with live_node.running('[secrets.web]\ntoken = "{root}/token"\n') as a_node:
        (a_node.root / "token").write_bytes(HIDDEN)
        (a_node.root / "token").chmod(0o600)
        text = f'secrets = ["token"]\n{MANIFEST.format(version="1.0.0")}'
        digest = a_node.publish(text, {"main.py": READS_SECRET})
        await a_node.until_state(a_node.assign("1.0.0", digest, **RESTART), "PERMANENT")
        said = (await a_node.log())["text"]
        assert hashlib.sha256(HIDDEN).hexdigest() in said
        assert "0o500 0o400" in said
        [serving] = await a_node.instances()
        private = a_node.keeper.run / f"{serving.id}.cred"
        kept = [path for path in _files(a_node.root) if HIDDEN in path.read_bytes()]
        assert kept == [private / "token", a_node.root / "token"]
    assert HIDDEN.decode() not in "".join(capfd.readouterr())


def _files(root: Path) -> list[Path]:
    """Every file of a node: its report, its journal, its logs, its records."""
    return sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
