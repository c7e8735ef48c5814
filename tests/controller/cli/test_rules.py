"""The rules of the monitor by the real program, before a real controller that has them in its configuration file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.controller.cli import house

QUICK = ("--soak-duration", "0s", "--min-healthy-duration", "100ms")
HOLDING = ("upgrade", "start", "web", "1.0.0", "--install", "--strategy", "immediate", *QUICK)
CONFIGURATION = """[monitor]
interval = "200ms"

[[monitor.rules]]
name = "queue"
component = "web"
measure = { kind = "level", series = "queue_size" }
above = 5
window = "10s"
"""


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[house.House]:
    found = house.House(tmp_path)
    file = tmp_path / "controller.toml"
    file.write_text(CONFIGURATION)
    async with found.serving("127.0.0.1:0", "--config", str(file)):
        await found.publish("1.0.0")
        yield found


async def test_a_rollout_that_names_a_rule_of_which_nobody_can_tell_waits_and_says_so(home: house.House) -> None:
    async with home.nodes("n-1"):
        refused = await home.instar(*HOLDING, "--hold-while-firing", "errors")
        assert refused.code == 8
        assert "queue" in refused.err
        started = await home.instar(*HOLDING, "--hold-while-firing", "queue", "-o", "json")
        assert started.code == 0, started
        rollout = started.document["rollout_id"]
        async with asyncio.timeout(house.DEADLINE_SECONDS):
            while "fires on n-1" not in (explained := await home.instar("rollout", "explain", rollout)).out:
                continue
        assert "nobody can tell whether rule queue fires on n-1" in explained.out
        assert "rule queue" in (await home.instar("node", "explain", "n-1")).out
        found = (await home.instar("fleet", "rules", "-o", "json")).document
        assert [one["name"] for one in found["rules"]] == ["queue"]
        assert [(one["node_id"], one["state"]) for one in found["standings"]] == [("n-1", "UNKNOWN")]
        stats = (await home.instar("fleet", "stats", "-o", "json")).document
        assert (stats["rules_firing"], stats["rules_unknown"]) == (0, 1)
        assert (await home.instar("fleet", "rules", "--rule", "errors")).code == 8
