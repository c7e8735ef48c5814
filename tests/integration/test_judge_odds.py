from __future__ import annotations

import pytest

from controller.core import model
from tests.integration import judge_odds, trials

RUNS = 1000
SEED = 20_260_101


@pytest.mark.parametrize("trial", [trials.WHOLE, trials.SHORT], ids=["whole", "short"])
def test_what_is_run_for_real_is_decided_rightly_all_but_always(trial: trials.Trial) -> None:
    harmful = judge_odds.verdicts(trial, trial.harmful_percent, RUNS, SEED)
    harmless = judge_odds.verdicts(trial, trial.harmless_percent, RUNS, SEED)
    assert harmful[model.Finding.WORSE] >= RUNS - 2
    assert harmless[model.Finding.NO_WORSE] >= RUNS - 2
