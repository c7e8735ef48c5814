"""`instar-agent`, as a process, beside a real keeper and a real agent, and without them."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from agent.core import model
from tests.agent import live_node
from tests.agent.keeper import load

PATIENCE_SECONDS = 30.0
PROGRAM = (sys.executable, "-m", "agent.cli")


@pytest.fixture
def config() -> Iterator[Path]:
    root = Path(tempfile.mkdtemp(prefix="ic-"))  # tmp_path is too long for socket paths
    path = root / "agent.toml"
    path.write_text(f'node_id = "n1"\nstate_dir = "{root}/s"\nrun_dir = "{root}/r"\n')
    yield path
    shutil.rmtree(root)


@pytest.fixture
async def a_node() -> AsyncIterator[live_node.LiveNode]:
    async with live_node.running() as made:
        yield made


def agent(config: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [*PROGRAM, words[0], "--config", str(config), *words[1:]]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS)


def asked(config: Path, *words: str) -> tuple[int, dict[str, Any]]:
    """Exit code and the one JSON document."""
    done = agent(config, *words, "-o", "json")
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, cast("dict[str, Any]", json.loads(done.stdout))


async def told(node: live_node.LiveNode, *words: str) -> tuple[int, dict[str, Any]]:
    return await asyncio.to_thread(asked, node.config, *words)


def refused(config: Path, *words: str) -> tuple[int, str]:
    code, document = asked(config, *words)
    assert document["error"]["message"].startswith("cannot ")
    return code, document["error"]["code"]


def test_a_node_that_was_never_up_has_a_status_all_the_same(config: Path) -> None:
    code, document = asked(config, "status")
    assert code == 7
    assert document == {
        "node_id": "n1",
        "agent_version": document["agent_version"],
        "is_keeper_up": False,
        "is_agent_up": False,
        "highest_fence": 0,
        "conditions": [],
        "components": [],
        "operations": [],
    }
    assert asked(config, "versions")[1]["releases"] == []


def test_run_brings_the_node_up_and_stop_ends_it(config: Path) -> None:
    running = subprocess.Popen([*PROGRAM, "run", "--config", config])
    try:
        until = time.monotonic() + PATIENCE_SECONDS
        while not asked(config, "status")[1]["is_agent_up"]:
            assert time.monotonic() < until
        assert agent(config, "status").stdout.startswith("node n1, keeper up")
        assert asked(config, "stop", "--components", "keep") == (0, {"is_keeper_up": False, "components": "keep"})
        assert running.wait(PATIENCE_SECONDS) == 0
    finally:
        if running.poll() is None:
            running.kill()
            running.wait()
    assert refused(config, "stop") == (7, "keeper_gone")


def test_a_signal_ends_the_node(config: Path) -> None:
    running = subprocess.Popen([*PROGRAM, "run", "--config", config])
    until = time.monotonic() + PATIENCE_SECONDS
    while asked(config, "status")[0] != 0:
        assert time.monotonic() < until
    running.terminate()
    assert running.wait(PATIENCE_SECONDS) == 0


def test_a_configuration_that_cannot_be_used_is_a_usage_error_that_names_the_field(config: Path) -> None:
    config.write_text('node_id = "n1"\nsurprise = 1\n')
    done = agent(config, "status")
    assert (done.returncode, done.stdout) == (2, "")
    assert "surprise" in done.stderr
    assert refused(config, "status") == (2, "invalid")


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (("rollback", "Web"), 2, "invalid"),
        (("rollback", "web"), 8, "not_installed"),
        (("start", "web"), 7, "agent_gone"),
        (("stop", "web"), 7, "agent_gone"),
        (("stop", "web", "--components", "keep"), 2, "invalid"),
        (("log", "web"), 7, "keeper_gone"),
        (("log", "web", "-f"), 2, "invalid"),
        (("versions", "web"), 8, "not_installed"),
    ],
)
def test_what_cannot_be_done_says_so_with_its_exit_code(
    config: Path, words: tuple[str, ...], code: int, reason: str
) -> None:
    assert refused(config, *words) == (code, reason)


@pytest.mark.parametrize("words", [("dance",), ("log", "web", "-n", "0"), ("log", "web", "-n", "x"), ("status", "-x")])
def test_a_wrong_command_line_is_a_usage_error(config: Path, words: tuple[str, ...]) -> None:
    done = agent(config, *words)
    assert (done.returncode, done.stdout) == (2, "")


def test_the_configuration_of_the_system_is_the_default(config: Path) -> None:
    environment = {**os.environ, "INSTAR_AGENT_CONFIG": str(config)}
    done = subprocess.run(
        [*PROGRAM, "status", "-o", "json"], capture_output=True, text=True, env=environment, check=False
    )
    assert json.loads(done.stdout)["node_id"] == "n1"


def test_a_doctor_of_a_node_that_is_down_names_what_is_wrong(config: Path) -> None:
    config.write_text(
        config.read_text() + f'token_file = "{config.parent}/token"\ncontroller = "127.0.0.1:1"\n'
        f'[secrets.web]\nkey = "{config.parent}/none"\nopen = "{config.parent}/open"\n'
    )
    (config.parent / "token").write_text("secret")
    (config.parent / "token").chmod(0o644)
    (config.parent / "open").write_text("secret")
    (config.parent / "open").chmod(0o644)
    code, document = asked(config, "doctor")
    wrong = {check["name"] for check in document["checks"] if not check["is_well"] and not check["is_note"]}
    assert (code, document["is_well"]) == (1, False)
    assert wrong >= {"state_dir", "run_dir", "keeper", "agent", "token_file", "controller"}
    assert wrong >= {"secrets.web.key", "secrets.web.open"}
    assert "secret\n" not in json.dumps(document)


def test_a_doctor_says_whom_the_node_trusts(config: Path) -> None:
    def seen() -> tuple[bool, bool, str]:
        [check] = [each for each in asked(config, "doctor")[1]["checks"] if each["name"] == "trust_file"]
        return check["is_well"], check["is_note"], check["message"]

    assert seen()[:2] == (False, True)
    config.write_text(f'trust_file = "{config.parent}/trust.toml"\n{config.read_text()}')
    assert seen()[:2] == (False, False)
    (config.parent / "trust.toml").write_text('root = "root.json"\n')
    (config.parent / "root.json").write_text('{"signed": {"_type": "root", "version": 7}}')
    assert seen()[:2] == (True, False)
    assert "version 7" in seen()[2]
    (config.parent / "root.json").chmod(0o666)
    assert seen()[:2] == (False, False)
    assert "only their owner writes" in seen()[2]


async def test_a_node_goes_back_by_hand_under_load_with_no_controller(a_node: live_node.LiveNode) -> None:
    old = await a_node.installed("1.0.0")
    new = a_node.bundle("1.1.0")
    await a_node.until_state(a_node.assign("1.1.0", new, old), "PERMANENT")
    async with load.on(a_node.address) as seen:
        await seen.until_served("1.1.0", 20)
        code, document = await told(a_node, "rollback", "web")
        await seen.until_served("1.0.0", 20)
    assert seen.failures == []
    assert (code, document["component"], document["fence"]) == (0, "web", 2)
    assert document["operation_id"].startswith("local/")
    await a_node.until(lambda: a_node.component()["digest"] == old)
    code, document = await told(a_node, "rollback", "web", "--to", "9.9.9")
    assert (code, document["error"]["code"]) == (8, "release_missing")
    code, _ = await told(a_node, "rollback", "web", "--to", "1.1.0", "--method", "RESTART")
    assert code == 0
    # The controller's next fence is above what was begun here.
    back = a_node.assign("1.0.0", old, new)
    assert (await a_node.until_state(back, "COMMITTED", "PERMANENT", "REFUSED"))["reason"] == ""


async def test_versions_and_status_show_what_there_is_to_go_back_to(a_node: live_node.LiveNode) -> None:
    old = await a_node.installed("1.0.0")
    new = a_node.bundle("1.1.0")
    await a_node.until_state(a_node.assign("1.1.0", new, old), "PERMANENT")
    code, document = await told(a_node, "versions", "web")
    rows = {row["version"]: row for row in document["releases"]}
    assert code == 0
    assert (rows["1.1.0"]["current_of"], rows["1.1.0"]["permanent_of"], rows["1.0.0"]["current_of"]) == (
        ["web"],
        ["web"],
        [],
    )
    assert rows["1.0.0"]["size_bytes"] > 0
    assert [point["digest"] for point in document["rollback_points"]] == [old]
    code, document = await told(a_node, "status")
    [component] = document["components"]
    assert (code, document["is_agent_up"], component["health"]) == (0, True, "HEALTHY")
    assert component["rollback_points"][0]["version"] == "1.0.0"
    text = await asyncio.to_thread(agent, a_node.config, "status")
    assert "can go back to 1.0.0" in text.stdout
    assert "1.0.0" in (await asyncio.to_thread(agent, a_node.config, "versions")).stdout


async def test_a_component_is_stopped_for_good_and_started_again_by_hand(a_node: live_node.LiveNode) -> None:
    await a_node.installed("1.0.0")
    code, document = await told(a_node, "stop", "web")
    assert (code, document["state"] in {"COMMITTED", "PERMANENT"}) == (0, True)
    await a_node.until(lambda: a_node.component().get("is_stopped", False))
    assert (await told(a_node, "status"))[1]["components"][0]["is_stopped"]
    code, _ = await told(a_node, "start", "web")
    assert code == 0
    await a_node.until(lambda: not a_node.component()["is_stopped"] and bool(a_node.component()["instances"]))


async def test_a_log_shows_its_last_lines_and_what_comes(a_node: live_node.LiveNode) -> None:
    await a_node.installed("1.0.0")
    [instance] = await a_node.instances()
    log = a_node.keeper.run / f"{instance.id}.log"
    with log.open("a") as file:
        file.write("one\ntwo\nthree\n")
    code, document = await told(a_node, "log", "web", "-n", "2")
    assert (code, document["lines"], document["instance_id"]) == (0, ["two", "three"], instance.id)
    command = [*PROGRAM, "log", "--config", str(a_node.config), "web", "-n", "1", "-f"]
    following = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert following.stdout is not None
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert await following.stdout.readline() == b"three\n"
        with log.open("a") as file:
            file.write("four\n")
        assert await following.stdout.readline() == b"four\n"
        following.send_signal(signal.SIGINT)
        await following.communicate()
    assert await told(a_node, "log", "db") == (8, (await told(a_node, "log", "db"))[1])


async def test_a_doctor_of_a_node_that_is_well_finds_nothing(a_node: live_node.LiveNode) -> None:
    await a_node.installed("1.0.0")
    code, document = await told(a_node, "doctor")
    wrong = [check for check in document["checks"] if not check["is_well"] and not check["is_note"]]
    assert (code, wrong) == (0, [])
    assert "component web" in {check["name"] for check in document["checks"]}
    assert (await asyncio.to_thread(agent, a_node.config, "doctor")).stdout.startswith("ok ")


async def test_a_node_that_is_busy_refuses_what_is_asked_by_hand(a_node: live_node.LiveNode) -> None:
    old = await a_node.installed("1.0.0")
    new = a_node.bundle("1.1.0")
    held = a_node.assign("1.1.0", new, old, hold_before=model.Step.COMMIT)
    await a_node.until_state(held, "HELD")
    code, document = await told(a_node, "stop", "web")
    assert (code, document["state"], document["reason"]) == (8, "REFUSED", "node_busy")
    a_node.command("cancel", model.Cancel(held, 2, "enough"))
    await a_node.until_state(held, "ABORTED")
