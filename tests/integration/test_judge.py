"""What a canary measures decides: a real service under load, judged on real nodes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.controller.metrics import real_prometheus
from tests.integration import judged as houses

PNG = b"\x89PNG\r\n\x1a\n"


def finding(rollout: Any) -> str:  # noqa: ANN401  # JSON
    return str(rollout["judging"]["decided"]["finding"])


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(600)
async def test_what_fails_more_requests_is_taken_back_in_the_canary_wave_and_what_does_not_is_promoted(
    tmp_path: Path,
) -> None:
    async with houses.up(houses.Source.HEARTBEATS) as judged:
        good = await both_verdicts(judged)
        await shown(judged, good["name"], tmp_path / "judged.png")


@real_prometheus.needed
@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(600)
async def test_so_it_is_by_what_a_prometheus_server_has_scraped() -> None:
    async with houses.up(houses.Source.PROMETHEUS) as judged:
        await both_verdicts(judged)
        assert judged.prometheus is not None
        assert await judged.prometheus.questions() > 0
        scraped = await judged.prometheus.ask("count by (version) (last_over_time(web_requests_total[1h]))")
        assert scraped == {"1.1.0": houses.NODES, "1.2.0": houses.CANARY, "1.3.0": houses.NODES}


async def both_verdicts(judged: houses.Judged) -> Any:  # noqa: ANN401  # JSON
    """Roll out what does harm, then what does none; the second rollout."""
    bad = await judged.roll_out(houses.HARMFUL_FAILS_EVERY)
    assert (bad["state"], bad["reason"], bad["wave"], finding(bad)) == ("REVERTED", "analysis_worse", 1, "WORSE")
    assert await judged.house.versions() == {"1.1.0": houses.NODES}
    good = await judged.roll_out(houses.HARMLESS_FAILS_EVERY)
    assert (good["state"], finding(good)) == ("SUCCEEDED", "NO_WORSE")
    await judged.house.runs("1.3.0", nodes=houses.NODES)
    return good


async def shown(judged: houses.Judged, name: str, plot: Path) -> None:
    """It is explained in one line for each metric, and drawn."""
    said = await judged.house.say("rollout", "explain", name)
    assert [line for line in said.out.splitlines() if line.startswith("evidence: error rate: ")]
    plotted = await judged.house.say("rollout", "analysis", name, "--plot", str(plot))
    assert "error rate" in plotted.out, plotted
    found = await judged.house.ask("rollout", "analysis", name)
    assert (await asyncio.to_thread(plot.read_bytes)).startswith(PNG)
    (course,) = found["courses"]
    assert any(point["canary"] is not None and point["control"] is not None for point in course["points"])
    assert len(found["canary_nodes"]) == houses.CANARY
