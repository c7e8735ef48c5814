from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.core import beta

pytestmark = pytest.mark.core

# What SciPy 1.17.1 gives: scipy.stats.beta.ppf(share, first, second).
KNOWN = [
    (0.05, 0.5, 0.5, 0.0061558297024311365),
    (0.5, 0.5, 0.5, 0.5),
    (0.95, 0.5, 0.5, 0.9938441702975689),
    (0.05, 5.5, 0.5, 0.6942544153110504),
    (0.95, 0.5, 5.5, 0.30574558468894947),
    (0.05, 20.5, 0.5, 0.9095235734621276),
    (0.5, 100.5, 2.5, 0.9787398169096474),
    (0.05, 1000.5, 10.5, 0.9838811699307906),
    (0.05, 1_000_000, 3.5, 0.9999929664633027),
    (0.95, 3.5, 1_000_000, 7.033536697291521e-06),
    (0.05, 1_000_000, 1_000_000, 0.4994184565471427),
]
parameters = st.floats(0.5, 10_000)
shares = st.floats(0.01, 0.99)


@pytest.mark.parametrize(("share", "first", "second", "expected"), KNOWN)
def test_quantiles_are_the_known_ones(share: float, first: float, second: float, expected: float) -> None:
    assert beta.quantile(share, first, second) == pytest.approx(expected, abs=1e-11)


@given(shares, parameters, parameters)
def test_a_distribution_and_its_mirror_image_agree(share: float, first: float, second: float) -> None:
    mirrored = 1 - beta.quantile(1 - share, second, first)
    assert beta.quantile(share, first, second) == pytest.approx(mirrored, abs=1e-8)


@given(shares, parameters, parameters)
def test_another_success_moves_every_quantile_up(share: float, first: float, second: float) -> None:
    assert beta.quantile(share, first + 1, second) > beta.quantile(share, first, second) - 1e-9
