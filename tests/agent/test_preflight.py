"""Preflight: each check names what is missing, whose fault it is, and changes nothing."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest

from agent import drivers, preflight, processes
from agent.config import settings
from agent.core import model
from tests.agent import launches

HOST = preflight.Host(free_bytes=10**12, memory_available_bytes=10**12, descriptors_max=1024)
TEXT = 'name = "web"\nversion = "{0}"\ndriver = "{1}"\ncommand = ["main.sh"]\n{2}'
CONFIG = settings.parse('node_id = "n"\n[secrets.web]\nkey = "/key"\n', {})


@dataclass
class Ran:
    exit_code: int | None = 0
    is_timeout: bool = False
    output: str = ""


class Keeper:
    """The sockets that the keeper holds: those of these names."""

    def __init__(self, *held: str) -> None:
        self.held = held

    async def listen(self, name: str, address: str, *, backlog: int = 1024) -> str:
        if name not in self.held:
            raise processes.KeeperError("listen_failed", f"cannot listen at {address} with backlog {backlog}")
        return address


async def passes(_command: tuple[str, ...], _timeout: timedelta) -> Ran:
    return Ran()


def request(
    root: Path,
    more: str = "",
    old: str | None = "",
    method: model.Method = model.Method.RESTART,
    driver: str = "process",
    at: str = "",
) -> preflight.Request:
    """What is asked where a version with these lines takes the place of one with those; None for none."""
    more += '[reload]\nprogram = "RELOAD_PROGRAM_NGINX"\n' if driver == "reload" else ""
    new = launches.launch(root, TEXT.format("2.0.0", driver, more), addresses={"http": at} if at else {})
    was = launches.launch(root, TEXT.format("1.0.0", driver, old)) if old is not None else None
    return preflight.Request(launches.change(new, was, method), CONFIG, {"db": "1.5.0", "web": "1.0.0"})


async def refusal(
    asked: preflight.Request, host: preflight.Host = HOST, keeper: Keeper | None = None
) -> drivers.DriverError:
    with pytest.raises(drivers.DriverError) as caught:
        await preflight.check(asked, host, keeper or Keeper(), passes)
    assert str(caught.value).startswith("cannot ")
    return caught.value


async def test_a_change_that_lacks_nothing_passes_and_says_what_was_seen(tmp_path: Path) -> None:
    more = 'secrets = ["key"]\nrequirements = [{component = "db", versions = "<2.0.0"}]\nresources.disk_bytes = 9\n'
    seen = await preflight.check(request(tmp_path, more), HOST, Keeper(), passes)
    assert seen["disk"] == str(HOST.free_bytes)
    assert (seen["requirements"], seen["secrets"], seen["agent"]) == ("1", "1", settings.agent_version())


async def test_what_leaves_the_node_needs_nothing(tmp_path: Path) -> None:
    old = request(tmp_path).change.new
    asked = preflight.Request(launches.change(None, old), CONFIG, {})
    assert await preflight.check(asked, HOST, Keeper(), passes) == {}


@pytest.mark.parametrize(
    ("more", "reason", "word"),
    [
        ('minimum_agent_version = "99.0.0"', "agent_too_old", "99.0.0"),
        ('requirements = [{component = "cache"}]', "requirement_missing", "cache"),
        ('requirements = [{component = "db", versions = ">=2.0.0"}]', "requirement_version", "1.5.0"),
        ('secrets = ["other"]', "secret_not_mapped", "secrets.web.other"),
        ('[[sockets]]\nname = "http"', "address_missing", "sockets.web.http"),
    ],
)
async def test_what_this_node_does_not_have_is_a_fault_of_the_command(
    tmp_path: Path, more: str, reason: str, word: str
) -> None:
    error = await refusal(request(tmp_path, more))
    assert (error.reason, error.fault) == (reason, model.Fault.COMMAND)
    assert word in str(error)


async def test_a_hot_swap_is_done_only_from_the_versions_that_allow_it(tmp_path: Path) -> None:
    swap = request(tmp_path, 'hot_swap_from = ">=1.5.0"', method=model.Method.HOT_SWAP)
    error = await refusal(swap)
    assert (error.reason, error.fault) == ("hot_swap_not_allowed", model.Fault.COMMAND)
    restart = replace(swap, change=replace(swap.change, method=model.Method.RESTART))
    assert (await preflight.check(restart, HOST, Keeper(), passes))["hot_swap_from"] == ">=1.5.0"


NEEDS = "resources = {memory_bytes = 1000, disk_bytes = 1000, descriptors = 100}\n"


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        (replace(HOST, free_bytes=preflight.DISK_RESERVE_BYTES + 1499), "disk_full"),
        (replace(HOST, memory_available_bytes=999), "memory_low"),
        (replace(HOST, descriptors_max=100), "descriptors_low"),
    ],
)
async def test_what_the_host_lacks_now_is_a_fault_of_the_infrastructure(
    tmp_path: Path, host: preflight.Host, reason: str
) -> None:
    asked = replace(request(tmp_path, NEEDS), copies_bytes=500)
    error = await refusal(asked, host)
    assert (error.reason, error.fault) == (reason, model.Fault.INFRASTRUCTURE)


@pytest.mark.parametrize(
    ("method", "more", "is_enough"),
    [
        (model.Method.RESTART, "", True),
        (model.Method.HOT_SWAP, "", False),
        (model.Method.RESTART, "process.overlap = true\n", False),
    ],
)
async def test_two_instances_need_memory_for_two_and_one_after_the_other_for_the_difference(
    tmp_path: Path, method: model.Method, more: str, *, is_enough: bool
) -> None:
    needs = "resources.memory_bytes = 1000\n"
    asked = request(tmp_path, needs + more, "resources.memory_bytes = 800\n", method)
    host = replace(HOST, memory_available_bytes=200)
    if is_enough:
        assert "memory" in await preflight.check(asked, host, Keeper(), passes)
    else:
        assert (await refusal(asked, host)).reason == "memory_low"


SOCKET = '[[sockets]]\nname = "http"\n'


def listening_tcp(_root: Path) -> tuple[socket.socket, str]:
    listener = socket.create_server(("127.0.0.1", 0))
    return listener, f"127.0.0.1:{listener.getsockname()[1]}"


def listening_unix(root: Path) -> tuple[socket.socket, str]:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(root / "s"))
    listener.listen()
    return listener, f"unix:{root}/s"


@pytest.mark.parametrize("listen", [listening_tcp, listening_unix])
async def test_an_address_that_somebody_else_has_is_refused_and_one_that_is_free_or_ours_passes(
    tmp_path: Path, listen: Callable[[Path], tuple[socket.socket, str]]
) -> None:
    listener, address = listen(tmp_path)
    for driver in ("process", "held", "reload"):
        error = await refusal(request(tmp_path, SOCKET, None, driver=driver, at=address))
        assert (error.reason, error.fault) == ("address_in_use", model.Fault.INFRASTRUCTURE)
    for driver in ("handover", "held", "reload"):
        ours = request(tmp_path, SOCKET, None, driver=driver, at=address)
        assert (await preflight.check(ours, HOST, Keeper("web.http"), passes))["addresses"] == "1"
    running = request(tmp_path, SOCKET, SOCKET, at=address)
    assert (await preflight.check(running, HOST, Keeper(), passes))["addresses"] == "1"
    listener.close()
    free = request(tmp_path, SOCKET, None, at=address)
    assert (await preflight.check(free, HOST, Keeper(), passes))["addresses"] == "1"


async def test_an_address_that_this_host_does_not_have_is_not_free(tmp_path: Path) -> None:
    asked = request(tmp_path, SOCKET, None, at="192.0.2.1:80")
    assert (await refusal(asked)).reason == "address_in_use"


@pytest.mark.parametrize(
    ("ran", "word"), [(Ran(2, output="no such table"), "no such table"), (Ran(is_timeout=True), "did not end in time")]
)
async def test_a_release_that_fails_its_own_check_is_at_fault(tmp_path: Path, ran: Ran, word: str) -> None:
    asked: list[tuple[str, ...]] = []

    async def run(command: tuple[str, ...], _timeout: timedelta) -> Ran:
        asked.append(command)
        return ran

    checked = request(tmp_path, 'check_command = ["python", "check.py"]\n')
    with pytest.raises(drivers.DriverError, match=word) as caught:
        await preflight.check(checked, HOST, Keeper(), run)
    assert (caught.value.reason, caught.value.fault) == ("check_failed", model.Fault.VERSION)
    assert asked == [("python", "check.py")]
    assert (await preflight.check(checked, HOST, Keeper(), passes))["check_command"] == "passed"


def test_the_host_is_measured(tmp_path: Path) -> None:
    host = preflight.measure(tmp_path)
    assert min(host.free_bytes, host.memory_available_bytes, host.descriptors_max) > 0
