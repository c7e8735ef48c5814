from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from controller.core import model
from controller.core.analysis import samples
from tests.controller.core.analysis import figures

pytestmark = pytest.mark.core

TIMES = "\N{MULTIPLICATION SIGN}"
TEN_MINUTES = figures.minutes(10)

F, C = model.Finding, model.Comparison
LIKE = [9.0, 10, 11, 8, 12, 10, 9, 11, 10, 10]  # events of ten nodes in ten minutes, of which 120 in two hours
FOURFOLD = [4 * each for each in LIKE]
STEADY = [1.0, 1.02, 0.98, 1.01, 0.99, 1.0, 1.03, 0.97, 1.0, 1.0]  # figures of ten nodes, where it was 1 before
ONE_ERROR_METRIC = figures.analysis(figures.ERRORS)
SLOWER = [1.5 * each for each in STEADY]


def errors(canary: list[float], control: list[float]) -> samples.Sample:
    return figures.sample(canary, control, 120)


def found(
    metric: model.JudgedMetric,
    sample: samples.Sample,
    elapsed: timedelta = TEN_MINUTES,
    before: model.Judgement | None = None,
) -> model.Evidence:
    return figures.only(figures.judged(figures.analysis(metric), elapsed, before, **{metric.name: sample}))


def test_ten_nodes_with_four_times_the_errors_are_worse() -> None:
    evidence = found(figures.ERRORS, errors(FOURFOLD, LIKE))
    assert (evidence.finding, evidence.comparison) == (F.WORSE, C.NODES)
    assert (evidence.canary_nodes, evidence.control_nodes, evidence.events) == (10, 10, 400)
    assert evidence.lift == pytest.approx(4, rel=0.01)
    assert evidence.canary_value == pytest.approx(0.02)
    assert evidence.control_value == pytest.approx(0.005)
    assert evidence.lift_low is not None
    assert evidence.lift_low > 1.1
    assert evidence.p is not None
    assert evidence.p <= evidence.alpha == 0.01


def test_the_evidence_is_one_sentence() -> None:
    assert found(figures.ERRORS, errors([25] * 5, [10.0] * 9)).message == (
        f"errors: {TIMES}2.5 (1.5 to 3.6) on 5 changed nodes against 9 untouched nodes, each against its own past: "
        "worse (p under 0.0001 of 0.01)"
    )
    assert found(figures.ERRORS, errors(LIKE, LIKE)).message == (
        f"errors: {TIMES}1.0 (0.59 to 1.4) on 10 changed nodes against 10 untouched nodes, each against its own past: "
        "no worse (p 1 of 0.01)"
    )
    assert found(figures.ERRORS, errors([1e8] * 5, [0.0] * 5)).message.startswith(f"errors: {TIMES}1e+09 (")


def test_ten_nodes_like_the_others_are_no_worse_once_the_duration_is_over() -> None:
    early = figures.judged(ONE_ERROR_METRIC, figures.minutes(9), errors=errors(LIKE, LIKE))
    assert (early.finding, early.message) == (F.EARLY, "too early to say of errors")
    later = figures.judged(ONE_ERROR_METRIC, figures.minutes(10), early, errors=errors(LIKE, LIKE))
    assert (later.finding, later.message) == (F.NO_WORSE, "no worse in errors")


def test_before_the_first_look_figures_are_shown_and_nothing_is_found() -> None:
    judgement = figures.judged(ONE_ERROR_METRIC, timedelta(seconds=59), errors=errors(FOURFOLD, LIKE))
    evidence = figures.only(judgement)
    assert (judgement.look, evidence.finding, evidence.p) == (0, F.EARLY, None)
    assert evidence.lift == pytest.approx(4, rel=0.01)
    assert "p " not in evidence.message.rpartition(":")[2]


def test_between_looks_the_last_one_stands() -> None:
    first = figures.judged(ONE_ERROR_METRIC, figures.minutes(1), errors=errors(LIKE, LIKE))
    second = figures.judged(ONE_ERROR_METRIC, figures.minutes(1.2), first, errors=errors(FOURFOLD, LIKE))
    assert (second.look, second.evidence) == (first.look, first.evidence)
    third = figures.judged(ONE_ERROR_METRIC, figures.minutes(1.6), second, errors=errors(FOURFOLD, LIKE))
    assert (third.look, third.finding) == (2, F.WORSE)


def test_what_is_worse_stays_so_whatever_comes_after() -> None:
    worse = figures.judged(ONE_ERROR_METRIC, figures.minutes(2), errors=errors(FOURFOLD, LIKE))
    later = figures.judged(ONE_ERROR_METRIC, figures.minutes(30), worse, errors=errors(LIKE, LIKE))
    assert (later.finding, later.evidence) == (F.WORSE, worse.evidence)
    assert figures.judged(ONE_ERROR_METRIC, figures.minutes(31), later).finding is F.WORSE


def test_what_was_no_worse_is_looked_at_again() -> None:
    fine = figures.judged(ONE_ERROR_METRIC, figures.minutes(10), errors=errors(LIKE, LIKE))
    doubtful = errors([1.7 * each for each in LIKE[:5]], LIKE[:5])
    still = figures.judged(ONE_ERROR_METRIC, figures.minutes(12), fine, errors=doubtful)
    assert still.finding is F.NO_WORSE
    again = figures.judged(ONE_ERROR_METRIC, figures.minutes(16), still, errors=doubtful)
    assert again.finding is F.EARLY


def test_what_is_not_decided_in_time_is_inconclusive() -> None:
    doubtful = errors([1.7 * each for each in LIKE[:5]], LIKE[:5])
    judgement = figures.judged(ONE_ERROR_METRIC, figures.minutes(60), errors=doubtful)
    assert judgement.finding is F.INCONCLUSIVE
    assert judgement.message == "neither worse nor no worse in time in errors"
    assert "not shown in time to be worse or no worse" in judgement.evidence[0].message


def test_without_figures_nothing_is_known_and_what_was_spent_is_remembered() -> None:
    first = figures.judged(ONE_ERROR_METRIC, figures.minutes(5), errors=errors([1.7 * each for each in LIKE], LIKE))
    p = first.evidence[0].p
    assert p is not None
    assert p < 1
    for by_name in ({}, {"errors": errors([], LIKE)}, {"errors": errors([np.nan], LIKE)}):
        outage = figures.judged(ONE_ERROR_METRIC, figures.minutes(6), first, **by_name)
        assert (outage.finding, outage.message) == (F.UNKNOWN, "nothing is known of errors")
        assert (outage.evidence[0].p, outage.evidence[0].lift) == (p, None)
        assert outage.evidence[0].message == (
            "errors: no changed node has figures before and after its change: unknown"
        )
        back = figures.judged(ONE_ERROR_METRIC, figures.minutes(7), outage, errors=errors(LIKE, LIKE))
        assert (back.finding, back.evidence[0].p) == (F.EARLY, p)
        assert back.evidence[0].lift == pytest.approx(1)


def test_errors_where_there_were_none_are_found() -> None:
    evidence = found(figures.ERRORS, figures.sample([10.0] * 10, [0.0] * 10, 0))
    assert evidence.finding is F.WORSE
    assert evidence.lift == pytest.approx(201)
    assert found(figures.ERRORS, figures.sample([10.0], [0.0] * 10, 0)).finding is F.WORSE
    assert found(figures.ERRORS, figures.sample([10.0], [], 0)).finding is F.WORSE


def test_no_errors_at_all_are_no_proof_of_anything() -> None:
    assert found(figures.ERRORS, figures.sample([0.0] * 10, [0.0] * 10, 0)).finding is F.EARLY


def test_rare_errors_do_not_pass_for_no_harm() -> None:
    # Most of the thousand nodes count none, fourfold or not: a mean over single nodes' logarithms sees no difference.
    canary, control = [1.0] * 40 + [0.0] * 10, [1.0] * 200 + [0.0] * 800
    evidence = found(figures.ERRORS, figures.sample(canary, control, 2.4))
    assert evidence.lift == pytest.approx(4, rel=0.1)
    assert evidence.finding is F.WORSE


def test_a_shared_trend_and_unlike_nodes_cancel() -> None:
    before = np.array([10.0, 1000, 30, 400, 120, 50, 5000, 20, 90, 160] * 2)
    both = errors(LIKE, LIKE)
    grown = replace(both, before=before, after=before / 12 * 1.3)
    evidence = found(figures.ERRORS, grown)
    assert evidence.lift == pytest.approx(1, abs=0.01)
    assert evidence.finding is not F.WORSE


def test_a_single_broken_node_is_no_bad_version() -> None:
    assert found(figures.ERRORS, errors([2000.0, *LIKE[1:]], LIKE)).finding is not F.WORSE


@pytest.mark.parametrize("control", [5, 100])
def test_figures_half_as_great_again_are_worse(control: int) -> None:
    evidence = found(figures.LATENCY, figures.sample(SLOWER[:5], (STEADY * 10)[:control], 1))
    assert (evidence.finding, evidence.comparison, evidence.events) == (F.WORSE, C.NODES, 0)
    assert evidence.lift == pytest.approx(1.5, rel=0.02)
    assert evidence.canary_value == pytest.approx(1.5)
    assert found(figures.LATENCY, figures.sample(STEADY[:5], (STEADY * 10)[:control], 1)).finding is F.NO_WORSE


def test_less_is_worse_where_it_is_said() -> None:
    quarter = [each / 4 for each in LIKE]
    assert found(figures.HITS, errors(quarter, LIKE)).lift == pytest.approx(4, rel=0.03)
    assert found(figures.HITS, errors(quarter, LIKE)).finding is F.WORSE
    assert found(figures.HITS, errors(FOURFOLD, LIKE)).finding is F.NO_WORSE
    assert found(figures.FREE, figures.sample([0.5] * 5, STEADY, 1)).finding is F.WORSE
    assert found(figures.FREE, figures.sample([2] * 5, STEADY, 1)).finding is F.NO_WORSE


def test_few_changed_nodes_are_pooled() -> None:
    evidence = found(figures.ERRORS, errors([40], LIKE))
    assert (evidence.finding, evidence.comparison, evidence.events) == (F.WORSE, C.POOLED, 40)
    assert evidence.lift == pytest.approx(4, rel=0.1)
    assert evidence.lift_low is not None
    assert evidence.lift_low > 1.1
    assert found(figures.ERRORS, errors([10], LIKE)).finding is F.EARLY
    assert found(figures.ERRORS, errors([10] * 4, LIKE)).finding is F.NO_WORSE


def test_pooled_events_are_looked_at_whenever_the_judge_is_asked() -> None:
    early = figures.judged(ONE_ERROR_METRIC, timedelta(seconds=10), errors=errors([10], LIKE))
    assert figures.judged(ONE_ERROR_METRIC, timedelta(seconds=20), early, errors=errors([40], LIKE)).finding is F.WORSE


def test_fewer_of_few_are_worse_where_it_is_said() -> None:
    many = [each * 10 for each in LIKE]
    sample = figures.sample([30], many, 1200)
    evidence = found(figures.HITS, sample)
    assert (evidence.finding, evidence.comparison) == (F.WORSE, C.POOLED)
    assert evidence.lift == pytest.approx(100 / 30, rel=0.02)
    none = found(figures.HITS, figures.sample([0], LIKE, 120))
    assert none.lift_high is None
    assert "to more)" in none.message
    assert found(figures.HITS, figures.sample([100] * 4, many, 1200)).finding is F.NO_WORSE


def test_unlike_others_make_few_nodes_doubtful() -> None:
    unlike = [1.0, 60, 2, 40, 1, 3, 50, 2, 1, 40]
    like, doubtful = found(figures.ERRORS, errors([60], [20.0] * 10)), found(figures.ERRORS, errors([60], unlike))
    assert like.lift == pytest.approx(doubtful.lift)
    assert (like.finding, doubtful.finding) == (F.WORSE, F.EARLY)


def test_a_figure_of_few_is_held_against_how_the_others_spread() -> None:
    evidence = found(figures.LATENCY, figures.sample([1.5], STEADY, 1))
    assert (evidence.finding, evidence.comparison) == (F.WORSE, C.POOLED)
    wild = [0.5, 2, 1, 1.8, 0.6, 1, 1.3, 0.7, 1, 1.1]
    assert found(figures.LATENCY, figures.sample([1.5], wild, 1)).finding is F.EARLY
    assert found(figures.LATENCY, figures.sample([1.01], STEADY, 1)).finding is F.NO_WORSE


def test_without_others_the_own_past_has_to_do_and_it_is_said() -> None:
    evidence = found(figures.ERRORS, errors([40], []))
    assert (evidence.finding, evidence.comparison, evidence.control_value) == (F.WORSE, C.OWN_PAST, None)
    assert "on 1 changed node against its own past alone, where a change of load may look like harm" in evidence.message
    assert "against their own pasts alone" in found(figures.ERRORS, errors([10, 10], [10, 10])).message
    assert found(figures.ERRORS, errors([10] * 9, [])).finding is F.NO_WORSE


def test_a_restless_past_makes_the_own_past_doubtful() -> None:
    restless = replace(errors([40], []), past_spread=np.array([0.9]))
    assert found(figures.ERRORS, restless).finding is F.EARLY


def test_a_figure_is_held_against_its_own_past_where_there_is_none_to_compare_with() -> None:
    sample = replace(figures.sample([1.5], [1, 1], 1), past_spread=np.full(3, 0.02))
    evidence = found(figures.LATENCY, sample, figures.minutes(2))
    assert (evidence.finding, evidence.comparison) == (F.WORSE, C.OWN_PAST)
    assert found(figures.LATENCY, replace(sample, after=np.ones(3))).finding is F.NO_WORSE


def test_without_a_spread_of_the_past_a_figure_alone_shows_nothing() -> None:
    sample = replace(figures.sample([1.5], [], 1), past_spread=np.array([np.nan]))
    evidence = found(figures.LATENCY, sample, figures.minutes(60))
    assert (evidence.finding, evidence.p, evidence.lift_high) == (F.INCONCLUSIVE, 1, None)
    known = replace(figures.sample([1.5, 1.5], [], 1), past_spread=np.array([np.nan, 0.02]))
    assert found(figures.LATENCY, known, figures.minutes(2)).finding is F.WORSE


def test_nodes_that_were_seen_for_less_than_half_of_the_past_drop_out() -> None:
    sample = figures.sample(FOURFOLD, LIKE, 120)
    seconds = np.where(np.arange(20) == 0, 3599.0, 7200.0)
    evidence = found(figures.RESTARTS, replace(sample, before_exposure=seconds))
    assert (evidence.canary_nodes, evidence.control_nodes) == (9, 10)
    assert found(figures.ERRORS, replace(sample, before_exposure=seconds)).canary_nodes == 10


def test_alpha_is_shared_by_all_metrics_and_the_worst_finding_counts() -> None:
    how = figures.analysis(figures.ERRORS, figures.LATENCY, figures.RESTARTS, figures.HITS)
    fine = errors(LIKE, LIKE)
    judgement = figures.judged(
        how, figures.minutes(10), errors=errors(FOURFOLD, LIKE), latency=figures.sample(STEADY, STEADY, 1), hits=fine
    )
    assert [each.alpha for each in judgement.evidence] == [0.0025] * 4
    assert [each.finding for each in judgement.evidence] == [F.WORSE, F.NO_WORSE, F.UNKNOWN, F.NO_WORSE]
    assert (judgement.finding, judgement.message) == (F.WORSE, "worse in errors")
    judgement = figures.judged(how, figures.minutes(9), errors=fine, latency=fine, hits=fine)
    assert (judgement.finding, judgement.message) == (F.UNKNOWN, "nothing is known of restarts")
    judgement = figures.judged(how, figures.minutes(60), errors=fine, latency=fine, hits=fine, restarts=fine)
    assert judgement.message == "no worse in errors, latency, restarts, hits"


def test_an_analysis_of_nothing_passes_nothing() -> None:
    judgement = figures.judged(figures.analysis(), figures.minutes(60))
    assert (judgement.finding, judgement.message) == (F.UNKNOWN, "nothing is known of anything")


def test_the_clock_may_be_at_nothing_and_durations_too() -> None:
    none = timedelta(0)
    how = replace(ONE_ERROR_METRIC, first_look=none, duration=none, inconclusive_after=none)
    assert figures.judged(how, none, errors=errors(FOURFOLD, LIKE)).finding is F.INCONCLUSIVE
    assert figures.judged(how, figures.minutes(1), errors=errors(FOURFOLD, LIKE)).finding is F.WORSE
