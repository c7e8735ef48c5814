"""How well an instance without a health probe is, by where it stands."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import cast

import pytest

from agent.core import model
from agent.runner import clock, health, releases
from tests.agent import launches

NO_RELEASES = cast("releases.Releases", None)  # nothing of them is asked where there is no probe
INSTANCE = model.Instance("web-1", "sha256:1", 7, model.InstanceState.STARTING, 0)
TEXT = {
    "process": 'name = "web"\nversion = "1.0.0"\ndriver = "process"\ncommand = ["main.sh"]\n',
    "module": 'name = "web"\nversion = "1.0.0"\ndriver = "module"\n[module]\nhost = "api"\nfile = "rules.py"\n',
}
S = model.InstanceState


@pytest.mark.parametrize("driver", ["process", "module"])
async def test_without_a_probe_it_is_well_while_it_is_active_and_unknown_before(
    tmp_path: Path, driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "ALIVE_PERIOD_SECONDS", 0.001)
    manifest = launches.launch(tmp_path, TEXT[driver]).manifest
    async with asyncio.TaskGroup() as group, asyncio.timeout(10):
        board = health.HealthBoard(NO_RELEASES, clock.now, group, lambda: True, lambda: None)

        async def is_seen(state: model.InstanceState, expected: model.Health) -> None:
            """Let it stand there, and wait until it was looked at: until one that is active was, that came later."""
            witness = f"witness-{state.value}"
            board.follow(replace(INSTANCE, state=state), "web", manifest)
            board.follow(replace(INSTANCE, id=witness, state=S.ACTIVE), "web", manifest)
            while board.health(INSTANCE.id) is not expected or board.health(witness) is not model.Health.HEALTHY:  # noqa: ASYNC110  # looks set no event
                await asyncio.sleep(0)
            assert board.health(INSTANCE.id) is expected

        await is_seen(S.STARTING, model.Health.UNKNOWN)
        await is_seen(S.PREPARED, model.Health.UNKNOWN)
        assert board.healthy_for(INSTANCE.id) == timedelta()
        await is_seen(S.ACTIVE, model.Health.HEALTHY)
        await is_seen(S.PAUSED, model.Health.HEALTHY)  # a swap under way is no word against it
        await is_seen(S.DRAINING, model.Health.UNHEALTHY)
        for instance_id in board.followed:
            board.leave(instance_id)


async def test_what_has_no_process_of_its_own_is_asked_again_when_it_comes_back(tmp_path: Path) -> None:
    manifest = launches.launch(tmp_path, TEXT["process"]).manifest
    shown = replace(INSTANCE, pid=0, state=S.ACTIVE)  # as a command shows it that knows no process
    async with asyncio.TaskGroup() as group, asyncio.timeout(10):
        board = health.HealthBoard(NO_RELEASES, clock.now, group, lambda: True, lambda: None)
        for _ in range(2):
            board.follow(shown, "web", manifest)
            while board.health(shown.id) is not model.Health.HEALTHY:  # noqa: ASYNC110  # as above
                await asyncio.sleep(0)
            board.pause(shown.id)
            assert board.health(shown.id) is model.Health.UNKNOWN
        board.leave(shown.id)
