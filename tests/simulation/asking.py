"""What is asked for, drawn from the seed: strategies, policies, selectors, windows, priorities.

Rules kept: most of it can be done; some of it contradicts itself or the fleet, and has to be refused.
"""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta

from controller.core import model

SELECTORS = ("", "", "", "zone in (a,b)", "zone in (c,d)", "zone=a", "zone!=a")
WRONG_SHARE = 0.04  # of the requests, which cannot be in themselves
INSTALL_SHARE = 0.5  # of the requests, which also bring back what a revert has removed
BY_HAND_SHARE = 0.2  # of the requests, whose first wave somebody has to promote
WINDOW_SHARE = 0.15  # of the requests
WINDOW_PERIOD_MINUTES = 10  # between the openings of two windows, all day
WINDOW_MINUTES = 8  # that each is open
WINDOWS = 60  # ten hours of them, which no run outlasts
PERCENTS = ((10, 100), (5, 25, 50, 100), (20, 60, 100))
_S = model.Strategy


def upgrade(draw: random.Random, release: model.Release, name: str) -> model.UpgradeRequest:
    """Draw a request for a release."""
    strategy = draw.choice(list(_S))
    wanted = model.UpgradeRequest(
        component=release.component,
        target_version=release.version,
        strategy=strategy,
        selector=draw.choice(SELECTORS),
        parameters=parameters(draw, strategy),
        policy=policy(draw, strategy),
        install=draw.random() < INSTALL_SHARE,
        name=name,
        also=_also(draw, release),
        level=draw.choice([model.ValidationLevel.NORMAL, *[model.ValidationLevel.PERMISSIVE] * 3]),
        conflict=draw.choice([model.ConflictPolicy.REJECT, *[model.ConflictPolicy.QUEUE] * 2, _SUPERSEDE]),
        priority=draw.randint(0, 3),
        is_revertible=draw.random() < 0.9,
    )
    return _wronged(draw, wanted) if draw.random() < WRONG_SHARE else wanted


def first(release: model.Release, name: str) -> model.UpgradeRequest:
    """Ask for the first version everywhere."""
    return model.UpgradeRequest(
        component=release.component,
        target_version=release.version,
        strategy=_S.IMMEDIATE,
        policy=replace(model.Policy(), unknown_deadline=timedelta(seconds=120)),
        install=True,
        name=name,
    )


_SUPERSEDE = model.ConflictPolicy.SUPERSEDE


def _also(draw: random.Random, release: model.Release) -> tuple[model.Target, ...]:
    """Ask for what it requires as well, which is forgotten now and then."""
    is_forgotten = draw.random() < 0.2
    needed = () if is_forgotten else release.requirements
    return tuple(model.Target(each.component, each.versions.removeprefix(">=")) for each in needed)


def _wronged(draw: random.Random, wanted: model.UpgradeRequest) -> model.UpgradeRequest:
    return draw.choice(
        [
            replace(wanted, target_version="9.9.9"),
            replace(wanted, component=model.ComponentName("nothing")),
            replace(wanted, selector="zone in ("),
            replace(wanted, policy=replace(wanted.policy, healthy_deadline=wanted.policy.progress_deadline)),
            replace(wanted, policy=replace(wanted.policy, floor_percent=100)),
        ]
    )


def parameters(draw: random.Random, strategy: model.Strategy) -> model.Parameters | None:
    """Draw the parameters of a strategy; None for its defaults."""
    match strategy:
        case _S.CANARY:
            return model.CanaryParameters(nodes=draw.randint(1, 2))
        case _S.ROLLING:
            return model.RollingParameters(batch_nodes=draw.randint(2, 8))
        case _S.GRADUAL:
            return model.GradualParameters(percents=draw.choice(PERCENTS))
        case _S.BLUE_GREEN:
            return model.BlueGreenParameters(verify_duration=timedelta(seconds=draw.randint(0, 20)))
        case _S.IMMEDIATE:
            return None


def policy(draw: random.Random, strategy: model.Strategy) -> model.Policy:
    """Draw the numbers of a strategy."""
    is_spread = draw.random() < 0.3
    drawn = model.Policy(
        max_parallel=draw.choice([0, 2, 2, 3, 5]),
        healthy_deadline=timedelta(seconds=draw.choice([60, 120])),
        progress_deadline=timedelta(seconds=draw.choice([150, 240])),
        unknown_deadline=timedelta(seconds=draw.choice([60, 120])),
        max_failures=draw.choice([0, 0, 1]),
        max_infrastructure_failures=draw.choice([None, 2, 4]),
        floor_percent=draw.choice([0, 0, 50, 75, 90]),
        domain_label="zone" if is_spread else "",
        domain_max_parallel=draw.randint(1, 3),
        bake_duration=timedelta(seconds=draw.choice([0, 10, 30])),
        is_promoted_by_hand=draw.random() < BY_HAND_SHARE,
        windows=_windows(draw) if draw.random() < WINDOW_SHARE else (),
        offline=draw.choice([model.OfflinePolicy.WAIT, *model.OfflinePolicy]),
        offline_deadline=timedelta(seconds=draw.choice([30, 90])),
        join=draw.choice(list(model.JoinPolicy)),
        revert_max_parallel=draw.choice([0, 0, 2, 4]),
        deadline=draw.choice([None, timedelta(minutes=15)]),
    )
    is_together = strategy is _S.BLUE_GREEN and draw.random() < 0.95
    return replace(drawn, max_parallel=0, floor_percent=0, domain_label="") if is_together else drawn


def _windows(draw: random.Random) -> tuple[model.Window, ...]:
    first_minute = draw.randrange(WINDOW_PERIOD_MINUTES)
    return tuple(
        model.Window(
            opens=timedelta(minutes=first_minute + number * WINDOW_PERIOD_MINUTES),
            duration=timedelta(minutes=WINDOW_MINUTES),
        )
        for number in range(WINDOWS)
    )
