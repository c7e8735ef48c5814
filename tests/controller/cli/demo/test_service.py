"""Which requests the demo's service fails."""

from __future__ import annotations

import itertools
import random

from controller.cli.demo.service import service

REQUESTS = 20_000


def failed(identity: str, *, every: int = 0, percent: float = 0.0) -> list[int]:
    faults = service.Faults(every, percent, random.Random(identity))  # noqa: S311  # as the service does
    return [number for number in range(1, REQUESTS + 1) if faults.meet(number)]


def test_a_sound_version_fails_none() -> None:
    assert failed("n1") == []


def test_every_so_manieth_request_fails() -> None:
    assert failed("n1", every=4000) == [4000, 8000, 12000, 16000, 20000]


def test_so_many_in_a_hundred_fail_at_distances_that_chance_makes() -> None:
    found = failed("n1", percent=5)
    assert 0.045 <= len(found) / REQUESTS <= 0.055
    gaps = [after - before for before, after in itertools.pairwise(found)]
    # A gap of chance is longer than its mean, 20, with probability 0.95 ** 20, and one with probability 0.05.
    assert 0.31 <= sum(gap > 20 for gap in gaps) / len(gaps) <= 0.41
    assert 0.03 <= gaps.count(1) / len(gaps) <= 0.07


def test_one_life_can_be_drawn_again_and_no_two_fail_the_same() -> None:
    assert failed("web-1", percent=5) == failed("web-1", percent=5)
    shared = set(failed("web-1", percent=5)) & set(failed("web-2", percent=5))
    assert 0.0015 <= len(shared) / REQUESTS <= 0.0035  # 0.05 squared, were they independent
