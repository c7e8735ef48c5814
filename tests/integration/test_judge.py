"""What a canary measures decides: a real service under load, judged on real nodes.

One release that does harm and one that does none; `make judge-e2e` rolls out twenty of each, from either source.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.integration import judged as houses
from tests.integration import scraping, trials

PNG = b"\x89PNG\r\n\x1a\n"
HARMFUL, HARMLESS = trials.SHORT.harmful_percent, trials.SHORT.harmless_percent
IS_SCRAPED = shutil.which("prometheus") is not None
S = houses.Source


def finding(rollout: Any) -> str:  # noqa: ANN401  # JSON
    return str(rollout["judging"]["decided"]["finding"])


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_what_fails_more_requests_is_taken_back_in_the_canary_wave_and_what_does_not_is_promoted(
    tmp_path: Path,
) -> None:
    async with houses.up(trials.SHORT, is_scraped=IS_SCRAPED) as judged:
        bad = await judged.roll_out(HARMFUL, S.PROMETHEUS if IS_SCRAPED else S.HEARTBEATS)
        assert (bad["state"], bad["reason"], bad["wave"], finding(bad)) == ("REVERTED", "analysis_worse", 1, "WORSE")
        await judged.house.runs("1.1.0", nodes=trials.SHORT.nodes)
        good = await judged.roll_out(HARMLESS, S.HEARTBEATS)
        assert (good["state"], finding(good)) == ("SUCCEEDED", "NO_WORSE")
        await judged.house.runs("1.3.0", nodes=trials.SHORT.nodes)
        await shown(judged, good["name"], tmp_path / "judged.png")
        if judged.prometheus is not None:
            await asked(judged.prometheus)


async def shown(judged: houses.Judged, name: str, plot: Path) -> None:
    """It is explained in one line for each metric, and drawn."""
    said = await judged.house.say("rollout", "explain", name)
    assert [line for line in said.out.splitlines() if line.startswith("evidence: error rate: ")]
    found = await judged.house.ask("rollout", "analysis", name, "--plot", str(plot))
    assert (await asyncio.to_thread(plot.read_bytes)).startswith(PNG)
    (course,) = found["courses"]
    assert any(point["canary"] is not None and point["control"] is not None for point in course["points"])
    assert len(found["canary_nodes"]) == trials.SHORT.canary


async def asked(prometheus: scraping.Prometheus) -> None:
    """It was the server that was asked, and it has scraped what ran where."""
    assert await prometheus.questions() > 0
    scraped = await prometheus.ask("count by (version) (last_over_time(web_requests_total[1h]))")
    nodes, canary = trials.SHORT.nodes, trials.SHORT.canary
    assert scraped == {"1.1.0": nodes, "1.2.0": canary, "1.3.0": nodes}
