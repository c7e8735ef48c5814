from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from controller.core import errors, model
from controller.core.triggers import degrading
from tests.controller.core.triggers import definitions

pytestmark = pytest.mark.core


def test_a_figure_that_has_become_worse_is_a_ratio_above_the_line_of_its_past() -> None:
    when = replace(
        definitions.DEGRADATION,
        window=timedelta(minutes=2),
        past=timedelta(minutes=30),
        pending_for=timedelta(seconds=20),
        keep_firing_for=timedelta(seconds=40),
        scope=model.RuleScope.NODE,
        least_exposure=100.0,
    )
    assert degrading.rule(definitions.trigger(when)) == model.Rule(
        name="trigger:tide",
        component=definitions.WEB,
        measure=definitions.MEASURE,
        fire_at=1.5,
        clear_at=1.1,
        scope=model.RuleScope.NODE,
        basis=model.RuleBasis.TRENDLINE,
        is_below=False,
        window=timedelta(minutes=2),
        past=timedelta(minutes=30),
        pending_for=timedelta(seconds=20),
        keep_firing_for=timedelta(seconds=40),
        least_exposure=100.0,
    )


def test_where_low_figures_are_bad_it_is_a_ratio_below_the_line() -> None:
    rule = degrading.rule(definitions.trigger(replace(definitions.DEGRADATION, is_below=True)))
    assert (rule.is_below, rule.fire_at, rule.clear_at) == (True, 0.5, 0.9)


def test_a_trigger_of_another_kind_is_watched_for_by_nobody() -> None:
    with pytest.raises(errors.InvalidRequestError, match="cannot watch for trigger tide") as refused:
        degrading.rule(definitions.trigger())
    assert (refused.value.field, refused.value.value) == ("when.kind", "SCHEDULE")
