from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.core import gate, model

pytestmark = pytest.mark.core

counts = st.integers(0, 3)
tallies = st.builds(
    model.Tally,
    holding=counts,
    settling=counts,
    retrying=counts,
    done=counts,
    version_failed=counts,
    infrastructure_failed=counts,
    wave_done=counts,
)
policies = st.builds(model.Policy, max_failures=counts, max_infrastructure_failures=st.none() | counts)


@given(tallies, counts, policies)
def test_nothing_is_promoted_while_anything_is_out(tally: model.Tally, unassigned: int, policy: model.Policy) -> None:
    if gate.decide(tally, unassigned, policy).gate is model.Gate.PROMOTE:
        assert (unassigned, tally.holding, tally.settling, tally.retrying) == (0, 0, 0, 0)
        assert tally.wave_done > 0


@given(tallies, counts, policies)
def test_without_a_fault_of_the_version_nothing_reverts(
    tally: model.Tally, unassigned: int, policy: model.Policy
) -> None:
    verdict = gate.decide(replace(tally, version_failed=0), unassigned, policy)
    assert verdict.gate is not model.Gate.REVERT


@given(tallies, counts, policies)
def test_one_failure_too_many_reverts_however_many_nodes_are_done(
    tally: model.Tally, unassigned: int, policy: model.Policy
) -> None:
    verdict = gate.decide(replace(tally, version_failed=policy.max_failures + 1), unassigned, policy)
    assert verdict.gate is model.Gate.REVERT
    assert verdict.reason == "version_failed"


@given(tallies, policies)
def test_each_kind_of_failure_has_a_budget_of_its_own(tally: model.Tally, policy: model.Policy) -> None:
    within = replace(tally, version_failed=min(tally.version_failed, policy.max_failures))
    bound = policy.infrastructure_failures_max
    late = gate.decide(replace(within, infrastructure_failed=bound + 1), 1, policy)
    early = gate.decide(replace(within, infrastructure_failed=bound), 1, policy)
    assert (late.gate, early.gate) == (model.Gate.FAIL, model.Gate.HOLD)


@given(policies)
def test_a_wave_of_which_all_was_dropped_is_passed_only_where_others_have_shown_enough(policy: model.Policy) -> None:
    dropped = model.Tally(skipped=2, wave_skipped=2)
    assert gate.decide(dropped, 0, policy, may_be_empty=True).gate is model.Gate.PROMOTE
    verdict = gate.decide(dropped, 0, policy)
    assert (verdict.gate, verdict.reason) == (model.Gate.FAIL, "nothing_done")


@given(tallies, counts, policies)
def test_what_ends_a_rollout_badly_has_a_reason(tally: model.Tally, unassigned: int, policy: model.Policy) -> None:
    verdict = gate.decide(tally, unassigned, policy)
    assert bool(verdict.reason and verdict.message) is (verdict.gate in (model.Gate.REVERT, model.Gate.FAIL))
