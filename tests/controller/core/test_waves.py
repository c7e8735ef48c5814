from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.core import model, waves
from tests.controller.core import planning

pytestmark = pytest.mark.core

parameters = st.one_of(
    st.builds(model.CanaryParameters, st.integers(1, 9)),
    st.builds(model.RollingParameters, st.integers(1, 9)),
    st.sets(st.integers(1, 99), max_size=4).map(lambda some: model.GradualParameters((*sorted(some), 100))),
    st.builds(model.BlueGreenParameters),
    st.none(),
)


@given(parameters, st.integers(0, 30))
def test_the_waves_of_each_strategy_take_every_change_once_and_none_is_empty(
    given: model.Parameters | None, count: int
) -> None:
    sizes = waves.sizes(_request(given), count)
    assert sum(sizes) == count
    assert all(size > 0 for size in sizes)
    match given:
        case model.RollingParameters(batch_nodes=most):
            assert all(size == most for size in sizes[:-1])
        case model.GradualParameters(percents=percents):
            ends = [sum(sizes[:number]) for number in range(1, len(sizes) + 1)]
            assert set(ends) == {-(-count * each // 100) for each in percents if count}
        case model.CanaryParameters(nodes=nodes):
            assert len(sizes) <= 2
            assert sizes[:1] in ((min(nodes, count),), ())
        case _:
            assert len(sizes) == min(count, 1)


def _request(given: model.Parameters | None) -> model.UpgradeRequest:
    strategy = next(
        (name for name, type_ in planning.PARAMETERS.items() if type(given) is type_),
        "IMMEDIATE",
    )
    return model.UpgradeRequest(
        component=model.ComponentName("web"),
        target_version="1.1.0",
        strategy=model.Strategy[strategy],
        parameters=given,
    )


@given(st.lists(st.sampled_from("aaabbc"), max_size=30), st.text(max_size=3))
def test_each_stretch_of_the_order_spreads_over_the_domains_that_are_left(domains: list[str], seed: str) -> None:
    ids = [model.NodeId(f"n{number}") for number in range(len(domains))]
    mixed = waves.shuffled(waves.Members(ids, list(range(len(ids))), domains), seed)
    assert sorted(mixed.ids) == sorted(ids)
    assert all(domains[kind] == domain for kind, domain in zip(mixed.kinds, mixed.domains, strict=True))
    left, out = Counter(domains), Counter[str]()
    for domain in mixed.domains:
        assert out[domain] == min(out[each] for each in left if out[each] < left[each])
        out[domain] += 1


def test_the_order_follows_what_is_asked() -> None:
    ids = [model.NodeId(f"n{number}") for number in range(20)]
    members = waves.Members(ids, [0] * 20, [""] * 20)
    assert waves.shuffled(members, "x") == waves.shuffled(members, "x") != waves.shuffled(members, "y")
