"""What a host does with the words of the driver: every refusal leaves what serves, and its state, as it was."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from instar_handover import module_host, module_source
from tests.instar_handover import module_releases as releases

SCHEMA_2 = {"totals": {"*": {"cents": "int"}}}
UP = "{'totals': {k: {'cents': v * 100} for k, v in state['totals'].items()}}"
DOWN_OR_SAME = "{'totals': {k: v if type(v) is int else v['cents'] // 100 for k, v in state['totals'].items()}}"


@pytest.fixture
async def host(tmp_path: Path) -> module_host.ModuleHost:
    made = module_host.ModuleHost()
    await releases.installed(made, releases.write(tmp_path, "1.0.0", change=DOWN_OR_SAME))
    made.cell("billing.rules").call("remember", "ann", 7)
    return made


def second(folder: Path, **more: str) -> dict[str, Any]:
    """Version 2.0.0, whose state is of another form."""
    return releases.write(
        folder, "2.0.0", schema=SCHEMA_2, known=more.pop("known", ">=1.0.0"), change=more.pop("change", UP), **more
    )


async def test_state_goes_to_the_new_version_and_back_with_what_was_written_since(
    host: module_host.ModuleHost, tmp_path: Path
) -> None:
    cell = host.cell("billing.rules")
    await releases.swapped(host, second(tmp_path))
    assert cell.call("total", "ann") == {"cents": 700}
    cell.call("remember", "bob", {"cents": 900})
    told = await releases.say(host, "back", instance="rules-1.0.0")
    assert told["state_of"] == "now"
    assert (cell.call("total", "ann"), cell.call("total", "bob")) == (7, 9)


async def test_every_word_repeated_is_success(host: module_host.ModuleHost, tmp_path: Path) -> None:
    release = second(tmp_path)
    words: tuple[tuple[str, dict[str, Any]], ...] = (
        ("stage", release),
        ("swap", {"instance": "rules-2.0.0"}),
        ("back", {"instance": "rules-1.0.0"}),
        ("swap", {"instance": "rules-2.0.0"}),
        ("drop", {"keep": "rules-2.0.0"}),
    )
    for word, body in words:
        first, again = [await releases.say(host, word, **body) for _ in range(2)]
        assert first["generations"] == again["generations"]
    [only] = (await releases.say(host, "status"))["generations"]
    assert only["instance"] == "rules-2.0.0"


async def test_a_third_version_is_not_staged_while_an_old_one_is_kept(
    host: module_host.ModuleHost, tmp_path: Path
) -> None:
    await releases.swapped(host, second(tmp_path))
    assert await releases.refused(host, "stage", **releases.write(tmp_path, "2.1.0")) == "not_now"


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"change": "1 / 0"}, "code_change_failed"),
        ({"change": "{'totals': {'ann': 7}}"}, "code_change_failed"),
        ({"change": "__import__('time').sleep(9)"}, "code_change_timed_out"),
        ({"last": "def import_state(state):\n    raise OSError"}, "import_failed"),
        ({"last": "def import_state(state):\n    __import__('time').sleep(0.3)"}, "import_timed_out"),
    ],
)
async def test_a_state_that_cannot_be_carried_over_leaves_the_old_one_serving_and_intact(
    host: module_host.ModuleHost, tmp_path: Path, more: dict[str, str], code: str
) -> None:
    cell = host.cell("billing.rules")
    release = second(tmp_path, **more)
    await releases.say(host, "stage", **release)
    assert await releases.refused(host, "swap", instance="rules-2.0.0", within_seconds=0.2) == code
    assert cell.call("total", "ann") == 7
    [serving, _] = (await releases.say(host, "drop", keep="rules-2.0.0"))["generations"]
    assert serving["instance"] == "rules-1.0.0"


async def test_code_change_gets_a_copy(host: module_host.ModuleHost, tmp_path: Path) -> None:
    await releases.say(host, "stage", **second(tmp_path, change="state['totals'].clear() or 1 / 0"))
    assert await releases.refused(host, "swap", instance="rules-2.0.0") == "code_change_failed"
    assert host.cell("billing.rules").call("total", "ann") == 7


async def test_an_old_version_that_cannot_export_is_not_the_new_ones_fault(
    host: module_host.ModuleHost, tmp_path: Path
) -> None:
    host.cell("billing.rules").call("remember", "ann", "seven")
    await releases.say(host, "stage", **second(tmp_path))
    assert await releases.refused(host, "swap", instance="rules-2.0.0") == "export_failed"


async def test_a_new_version_that_cannot_export_has_no_hold_on_the_old_one(
    host: module_host.ModuleHost, tmp_path: Path
) -> None:
    cell = host.cell("billing.rules")
    await releases.swapped(host, second(tmp_path))
    cell.call("remember", "ann", "broken")
    told = await releases.say(host, "back", instance="rules-1.0.0")
    assert (told["state_of"], cell.call("total", "ann")) == ("the swap", 7)
    assert "export" in told["why"]


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"known": ">=1.5.0"}, "state_unknown"),
        ({"known": ""}, "state_unknown"),
    ],
)
async def test_a_version_that_does_not_know_the_state_is_refused_before_anything_is_suspended(
    host: module_host.ModuleHost, tmp_path: Path, more: dict[str, str], code: str
) -> None:
    assert await releases.refused(host, "stage", **second(tmp_path, **more)) == code


async def test_a_version_without_a_way_back_is_refused_unless_it_says_so(tmp_path: Path) -> None:
    host = module_host.ModuleHost()
    await releases.installed(host, releases.write(tmp_path, "1.0.0", known=""))
    assert await releases.refused(host, "stage", **second(tmp_path)) == "no_way_back"
    await releases.swapped(host, second(tmp_path, more="ONE_WAY = True"))


async def test_versions_of_one_schema_need_no_change(tmp_path: Path) -> None:
    host = module_host.ModuleHost()
    await releases.installed(host, releases.write(tmp_path, "1.0.0", known="", change="1 / 0"))
    host.cell("billing.rules").call("remember", "ann", 7)
    await releases.swapped(host, releases.write(tmp_path, "1.1.0", known="", change="1 / 0"))
    assert host.cell("billing.rules").call("total", "ann") == 7


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"more": "raise RuntimeError"}, "module_broken"),
        ({"more": "def self_test():\n    return False"}, "self_test_failed"),
        ({"more": "def self_test():\n    assert price(1) == 2"}, "module_broken"),
        ({"more": "import time; time.sleep(9)"}, "load_timed_out"),
        ({"schema": "anything"}, "module_invalid"),
        ({"known": "~1"}, "module_invalid"),
    ],
)
async def test_a_version_that_cannot_serve_is_refused_and_leaves_no_name_behind(
    host: module_host.ModuleHost, tmp_path: Path, more: dict[str, Any], code: str
) -> None:
    names = {name for name in sys.modules if name.startswith(module_source.PREFIX)}
    release = {**releases.write(tmp_path, "1.1.0", **more), "within_seconds": 0.2}
    assert await releases.refused(host, "stage", **release) == code
    if code != "load_timed_out":
        assert {name for name in sys.modules if name.startswith(module_source.PREFIX)} == names


async def test_a_file_that_is_not_what_the_driver_said_is_not_executed(
    host: module_host.ModuleHost, tmp_path: Path
) -> None:
    release = releases.write(tmp_path, "1.1.0")
    releases.spoil(release, "import os; os._exit(1)")
    assert await releases.refused(host, "stage", **release) == "file_differs"
    releases.spoil(release, None)
    assert await releases.refused(host, "stage", **release) == "file_unreadable"


async def test_versions_live_side_by_side_under_names_of_their_own(
    host: module_host.ModuleHost, tmp_path: Path
) -> None:
    with host.cell("billing.rules").enter() as old:
        await releases.say(host, "stage", **second(tmp_path))
        assert old.__name__.startswith("instar_module_billing_rules_")
        assert sys.modules[old.__name__] is old
    await releases.say(host, "swap", instance="rules-2.0.0")
    with host.cell("billing.rules").enter() as new:
        assert (new.__name__ != old.__name__, sys.modules[old.__name__]) == (True, old)
    await releases.say(host, "drop", keep="rules-2.0.0")
    assert old.__name__ not in sys.modules


async def test_a_component_leaves_when_no_version_is_kept(host: module_host.ModuleHost) -> None:
    for _ in range(2):
        assert (await releases.say(host, "drop", keep=""))["generations"] == []


async def test_the_first_version_can_be_taken_back(tmp_path: Path) -> None:
    host = module_host.ModuleHost()
    await releases.swapped(host, releases.write(tmp_path, "1.0.0"))
    await releases.say(host, "back", instance="")
    assert (await releases.say(host, "drop", keep=""))["generations"] == []


async def test_a_host_that_starts_loads_what_is_listed_and_ends_where_it_cannot(tmp_path: Path) -> None:
    release = releases.write(tmp_path, "1.0.0")
    listed = tmp_path / "host.json"
    listed.write_text(json.dumps({"modules": {"billing.rules": release, "billing.tax": None}}))
    host = module_host.ModuleHost(listed)
    assert host.cell("billing.rules").call("price", 1) == ("1.0.0", 1)
    releases.spoil(release, "raise SystemExit")
    with pytest.raises(module_source.ModuleFaultError, match=r"^cannot load"):
        module_host.ModuleHost(listed)
    listed.write_text("[]")
    with pytest.raises(module_source.ModuleFaultError, match=r"^cannot read"):
        module_host.ModuleHost(listed)


@pytest.mark.parametrize(
    ("word", "body", "code"),
    [
        ("dance", {}, "unknown_word"),
        ("status", {"component": 1}, "invalid_request"),
        ("swap", {"instance": "rules-9"}, "instance_missing"),
        ("back", {"instance": "rules-9"}, "instance_missing"),
        ("swap", {"instance": None}, "invalid_request"),
        ("drop", {"keep": "", "within_seconds": 0}, "invalid_request"),
        ("stage", {"instance": "rules-9"}, "invalid_request"),
    ],
)
async def test_a_word_that_makes_no_sense_is_refused(
    host: module_host.ModuleHost, word: str, body: dict[str, Any], code: str
) -> None:
    assert await releases.refused(host, word, **body) == code


async def test_what_still_hangs_holds_up_neither_the_host_nor_the_next_swap(
    host: module_host.ModuleHost, tmp_path: Path
) -> None:
    cell = host.cell("billing.rules")
    await releases.say(host, "stage", **second(tmp_path, change="__import__('time').sleep(9)"))
    async with asyncio.timeout(5):
        assert (
            await releases.refused(host, "swap", instance="rules-2.0.0", within_seconds=0.05) == "code_change_timed_out"
        )
    await releases.swapped(host, releases.write(tmp_path, "1.1.0"))
    assert (cell.call("price", 1)[0], cell.call("total", "ann")) == ("1.1.0", 7)
