"""Each guard of a trigger is once shut and once open, over a real service on real nodes; see `test_triggers`."""

from __future__ import annotations

import pytest

from tests.integration.test_triggers import UPGRADE, up


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_each_guard_of_a_trigger_is_once_shut_and_once_open() -> None:
    async with up() as stage:
        house = stage.house
        told = "action.notify = {}"
        await stage.apply("plain", "by_hand = {}", told)
        await house.ask("trigger", "disable", "plain", "--reason", "drill")
        assert "it is disabled" in await house.refused("trigger", "fire", "plain", "--reason", "drill")
        await house.ask("trigger", "enable", "plain", "--reason", "drill")
        assert [await stage.fire("plain") for _ in range(2)] == ["reported", "reported"]

        await stage.apply("cooling", "by_hand = {}", told, 'cooldown = "1h"')
        await stage.apply("capped", "by_hand = {}", told, "firings_per_hour_max = 1")
        for name, code in (("cooling", "cooldown"), ("capped", "hourly_cap")):
            assert [await stage.fire(name) for _ in range(2)] == ["reported", code]

        shut = 'windows = ["00:00+1m UTC", "12:00+1m UTC"]'
        await stage.apply("window", "by_hand = {}", told, shut)
        assert await stage.fire("window") == "window_shut"
        await stage.apply("window", "by_hand = {}", told, 'windows = ["00:00+24h UTC"]')
        assert await stage.fire("window") == "reported"

        upgrade = UPGRADE.format(version="1.1.0")
        frozen = await house.ask("freeze", "add", "--reason", "fair")
        await stage.apply("frozen", "by_hand = {}", upgrade)
        assert await stage.fire("frozen") == "frozen"
        assert await stage.fire("frozen") == "firing_open", "an earlier firing is not at its end"
        explained = await house.say("trigger", "explain", "frozen")
        assert "fair" in explained.out, explained
        await house.ask("freeze", "remove", frozen["freeze_id"], "--reason", "over")
        await stage.leads_to("frozen", "1.1.0")

        await stage.apply("asking", "by_hand = {}", UPGRADE.format(version="1.2.0"), 'approval = { deadline = "1h" }')
        assert await stage.fire("asking") == "approval_awaited"
        [waiting] = await stage.firings("asking")
        assert "asked for it" in await house.refused("trigger", "approve", waiting["firing_id"])
        await house.say("controller", "token", "bob", "--out", str(house.root / "bob.token"))
        await house.ask("trigger", "approve", waiting["firing_id"], "--token-file", str(house.root / "bob.token"))
        await stage.leads_to("asking", "1.2.0")
