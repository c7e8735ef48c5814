"""The beta distribution, as far as a share that is known from few trials needs it.

Rules kept: the standard library only; exact to 1e-11 for counts up to a million. Left out: all other
distributions.

Source: the continued fraction of the incomplete beta function, NIST Digital Library of Mathematical Functions, 8.17.22,
evaluated by the method of Lentz.
"""

from __future__ import annotations

import math

_STEPS_MAX = 10_000  # of the fraction; it takes about the square root of the larger count
_HALVINGS = 40  # of the interval from 0 to 1: to a millionth of a millionth
_TINY = 1e-300  # in place of a zero, by which nothing can be divided
_PRECISION = 1e-13  # of the fraction, where it stops


def quantile(share: float, first: float, second: float) -> float:
    """Give the point below which a share of the distribution lies, to a millionth of a millionth.

    Args:
        share: Between 0 and 1, and neither of them.
        first: The parameter that grows with each success, above 0.
        second: The parameter that grows with each failure, above 0.
    """
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _below(middle, first, second) < share:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _below(at: float, first: float, second: float) -> float:
    """Give the share of the distribution that lies below a point."""
    scale = math.lgamma(first + second) - math.lgamma(first) - math.lgamma(second)
    front = math.exp(scale + first * math.log(at) + second * math.log1p(-at))
    # The fraction is quick on one side of the mean only; the other side is its mirror image.
    if at < (first + 1) / (first + second + 2):
        return front * _fraction(at, first, second) / first
    return 1 - front * _fraction(1 - at, second, first) / second


def _fraction(at: float, first: float, second: float) -> float:
    ahead, behind = 1.0, _inverse(1 - (first + second) * at / (first + 1))
    value, factor, step = behind, 0.0, 0
    while abs(factor - 1) > _PRECISION and step < _STEPS_MAX:
        step += 1
        whole = first + 2 * step
        for coefficient in (
            step * (second - step) * at / ((whole - 1) * whole),
            -(first + step) * (first + second + step) * at / (whole * (whole + 1)),
        ):
            behind = _inverse(1 + coefficient * behind)
            ahead = _not_zero(1 + coefficient / ahead)
            factor = ahead * behind
            value *= factor
    return value


def _inverse(value: float) -> float:
    return 1 / _not_zero(value)


def _not_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
