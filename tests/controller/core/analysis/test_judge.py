from __future__ import annotations

import pytest

from controller.core import model
from tests.controller.core.analysis import figures

pytestmark = pytest.mark.core

F, C = model.Finding, model.Comparison
LIKE = [9.0, 10, 11, 8, 12, 10, 9, 11, 10, 10]  # events of ten nodes in ten minutes, of which 120 in two hours
FOURFOLD = [4 * each for each in LIKE]


def test_ten_nodes_with_four_times_the_errors_are_worse() -> None:
    found = figures.only(
        figures.judged(figures.analysis(figures.ERRORS), figures.minutes(5), errors=figures.sample(FOURFOLD, LIKE, 120))
    )
    assert (found.finding, found.comparison) == (F.WORSE, C.NODES)
    assert (found.canary_nodes, found.control_nodes, found.events) == (10, 10, 400)
    assert found.lift == pytest.approx(4, rel=0.01)
    assert found.canary_value == pytest.approx(0.02)
    assert found.control_value == pytest.approx(0.005)
    assert found.lift_low is not None
    assert found.lift_low > 1.1
    assert found.p is not None
    assert found.p <= found.alpha == 0.01


def test_ten_nodes_like_the_others_are_no_worse_once_the_duration_is_over() -> None:
    how = figures.analysis(figures.ERRORS)
    early = figures.judged(how, figures.minutes(9), errors=figures.sample(LIKE, LIKE, 120))
    assert early.finding is F.EARLY
    found = figures.judged(how, figures.minutes(10), early, errors=figures.sample(LIKE, LIKE, 120))
    assert found.finding is F.NO_WORSE
    assert found.message == "no worse in errors"
