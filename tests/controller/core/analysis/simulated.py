"""A fleet whose figures are drawn at random, many rollouts at once, and the judge's own tests run over all of them.

Rules kept: what decides is the code that `judge.judge` runs, over arrays with an axis for runs in front; only the
minimum over the looks is taken here, and `test_false_alarms` shows that both say the same. Errors have a base rate of
0.5 % at 200 requests a minute and node; restarts are ten times rarer; latency varies by its own size from request to
request. The past is two hours, the analysis one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
from scipy import signal

from controller.core import model
from controller.core.analysis import arms, judge, looks, readings, samples
from tests.controller.core.analysis import figures

PAST_MINUTES = 120
MINUTES = 60  # of the analysis
STEP_MINUTES = 1 / 6  # the judge is asked every ten seconds
KEPT = 0.8  # of a node's deviation from minute to minute, where it wanders
CHUNK = 20_000  # nodes times runs that are drawn at once, about 200 MiB

METRICS = (figures.ERRORS, figures.LATENCY, figures.RESTARTS)
EVENTS_PER_MINUTE = {figures.ERRORS.name: 1.0, figures.RESTARTS.name: 0.1}
ANALYSIS = figures.analysis(*METRICS)
MINUTE = timedelta(minutes=1)
HARM, NO_HARM = judge.schedule(ANALYSIS), judge.passing(ANALYSIS)


@dataclass(frozen=True, slots=True)
class Fleet:
    """How nodes behave while nothing is changed.

    Args:
        trend: By which factor all figures of all nodes grow over the hour of the analysis.
        unlike: Standard deviation of the logarithm of a figure between nodes, which lasts.
        wander: Standard deviation of what comes and goes by itself on each node, with a correlation of 0.8 a minute.
    """

    name: str
    trend: float = 1.0
    unlike: float = 0.0
    wander: float = 0.0


STATIONARY = Fleet("stationary")
TRENDING = Fleet("trending", trend=1.3)
HETEROGENEOUS = Fleet("heterogeneous", unlike=0.6)
AUTOCORRELATED = Fleet("autocorrelated", wander=0.2)
ALL_AT_ONCE = Fleet("all at once", trend=1.3, unlike=0.6, wander=0.3)
FLEETS = (STATIONARY, TRENDING, HETEROGENEOUS, AUTOCORRELATED, ALL_AT_ONCE)


@dataclass(frozen=True, slots=True)
class Nodes:
    """How many there are on each side."""

    canary: int
    control: int

    def __str__(self) -> str:
        return f"{self.canary} + {self.control}"


@dataclass(frozen=True, slots=True, eq=False)
class Paths:
    """The figures of one chunk of runs, to be asked for any instant.

    Args:
        past: By metric, of all nodes: events over the past, or the mean.
        sums: By metric, of all nodes and instants: events since the change, or the sum of the figure over minutes.
        minutes: The instants.
        levels: By metric, for what is no count, the figure in each minute of the past; where there is no control.
    """

    nodes: Nodes
    past: Mapping[str, samples.Floats]
    sums: Mapping[str, samples.Floats]
    minutes: samples.Floats
    levels: Mapping[str, samples.Floats]

    def arms(self, metric: model.JudgedMetric, index: int) -> arms.Arms:
        """Give both sides of one metric at an instant."""
        minutes, sums = float(self.minutes[index]), self.sums[metric.name][..., index]
        after = sums if metric.measure.kind.is_count else sums / minutes
        per_minute = 60.0 if metric.measure.kind is model.MeasureKind.RATE else figures.REQUESTS_PER_MINUTE
        return arms.Arms(
            *(
                arms.Arm(
                    before=self.past[metric.name][:, side],
                    before_exposure=np.full_like(after[:, side], per_minute * PAST_MINUTES),
                    after=after[:, side],
                    after_exposure=np.full_like(after[:, side], per_minute * minutes),
                    past_spread=self._spread(metric, minutes)[:, side],
                )
                for side in (slice(self.nodes.canary), slice(self.nodes.canary, None))
            )
        )

    def _spread(self, metric: model.JudgedMetric, minutes: float) -> samples.Floats:
        """Give how each node's figure moves between stretches of its past of such a length."""
        levels = self.levels.get(metric.name)
        if levels is None:
            return np.full_like(self.past[metric.name], math.nan)
        length = math.ceil(minutes)
        stretches = levels[..., : PAST_MINUTES // length * length].reshape(*levels.shape[:-1], -1, length).mean(-1)
        spread: samples.Floats = np.log(stretches).std(-1, ddof=1)
        return spread


def looked_at(comparison: model.Comparison) -> samples.Floats:
    """Give the minutes at which the judge, asked every ten seconds, says something new."""
    if comparison is not model.Comparison.NODES:
        return np.array([STEP_MINUTES * step for step in range(1, round(MINUTES / STEP_MINUTES) + 1)])
    due = [at / MINUTE for each in (HARM, NO_HARM) for at in each.instants()]
    steps = np.unique(np.ceil(np.array(due, dtype=np.float64) / STEP_MINUTES - 1e-6))
    return np.array([step * STEP_MINUTES for step in steps])


def drawn(
    fleet: Fleet, nodes: Nodes, runs: int, seed: int, lifts: Mapping[str, float], minutes: samples.Floats
) -> Iterator[Paths]:
    """Draw rollouts, a chunk of them at a time.

    Args:
        lifts: By metric, the factor by which the new version is worse from its first moment.
        minutes: The instants that are looked at.
    """
    random = np.random.default_rng(seed)
    at_once = max(CHUNK // (nodes.canary + nodes.control), 1)
    for begun in range(0, runs, at_once):
        count = min(at_once, runs - begun)
        made = {
            metric.name: _path(random, fleet, (count, nodes), metric, lifts.get(metric.name, 1.0), minutes)
            for metric in METRICS
        }
        yield Paths(
            nodes,
            {name: past for name, (past, _, _) in made.items()},
            {name: sums for name, (_, sums, _) in made.items()},
            minutes,
            {name: levels for name, (*_, levels) in made.items() if levels is not None},
        )


def found(paths: Paths, comparison: model.Comparison, metric: model.JudgedMetric) -> samples.Floats:
    """Give the minute at which each run's metric is found worse, infinity where it is not."""
    is_spent = readings.is_spent(comparison, is_count=metric.measure.kind.is_count)
    when = np.full(len(paths.past[metric.name]), np.inf)
    for index, elapsed in _looks(paths, HARM) if is_spent else enumerate(_elapsed(paths)):
        share = HARM.share(elapsed) if is_spent else 1.0
        p = readings.p(paths.arms(metric, index), comparison, metric, figures.PAST / elapsed)
        when = np.where((p / share <= judge.alpha(ANALYSIS)) & np.isinf(when), elapsed / MINUTE, when)
    return when


def passed(paths: Paths, comparison: model.Comparison, metric: model.JudgedMetric) -> samples.Flags:
    """Tell at which looks for no harm, the second axis, each run's metric is found no worse."""
    told = []
    for index, elapsed in _looks(paths, NO_HARM):
        levels = readings.Levels(judge.alpha(ANALYSIS), judge.MISSED_HARM * NO_HARM.share(elapsed))
        reading = readings.read(paths.arms(metric, index), comparison, metric, levels, figures.PAST / elapsed)
        told.append(reading.high < 1 + metric.harm_percent / 100)
    return np.stack(told, axis=-1)


def _elapsed(paths: Paths) -> list[timedelta]:
    return [timedelta(minutes=float(at)) for at in paths.minutes]


def _looks(paths: Paths, schedule: looks.Schedule) -> Iterator[tuple[int, timedelta]]:
    """Give the instants at which a look is taken that nobody has taken yet."""
    last = 0
    for index, elapsed in enumerate(_elapsed(paths)):
        if schedule.number(elapsed) > last:
            last = schedule.number(elapsed)
            yield index, elapsed


def _path(
    random: np.random.Generator,
    fleet: Fleet,
    shape: tuple[int, Nodes],
    metric: model.JudgedMetric,
    lift: float,
    minutes: samples.Floats,
) -> tuple[samples.Floats, samples.Floats, samples.Floats | None]:
    runs, nodes = shape
    level = _levels(random, fleet, runs, nodes.canary + nodes.control)
    level[:, : nodes.canary, PAST_MINUTES:] *= lift
    if not metric.measure.kind.is_count:
        level *= 1 + random.standard_normal(level.shape) / math.sqrt(figures.REQUESTS_PER_MINUTE)
        past_levels = level[..., :PAST_MINUTES]
        return past_levels.mean(-1), _summed(level, minutes), None if nodes.control else past_levels
    level *= EVENTS_PER_MINUTE[metric.name]
    expected = np.diff(_summed(level, minutes), prepend=0.0)
    past = random.poisson(level[..., :PAST_MINUTES].sum(-1)).astype(float)
    return past, random.poisson(expected).astype(float).cumsum(-1), None


def _levels(random: np.random.Generator, fleet: Fleet, runs: int, nodes: int) -> samples.Floats:
    """Draw how the figure of each node goes from minute to minute, around 1."""
    total = PAST_MINUTES + MINUTES
    log = np.zeros((runs, nodes, total))
    if fleet.unlike:
        log += fleet.unlike * random.standard_normal((runs, nodes, 1))
    if fleet.wander:
        pushes = random.standard_normal((runs, nodes, total)) * fleet.wander
        pushes[..., 1:] *= math.sqrt(1 - KEPT**2)
        log += signal.lfilter([1.0], [1.0, -KEPT], pushes, axis=-1)
    log[..., PAST_MINUTES:] += np.log(np.linspace(1, fleet.trend, MINUTES))
    return np.exp(log)


def _summed(level: samples.Floats, minutes: samples.Floats) -> samples.Floats:
    """Add up what came after the change until each instant."""
    sums = np.concatenate([np.zeros_like(level[..., :1]), level[..., PAST_MINUTES:].cumsum(-1)], -1)
    whole = np.minimum(minutes.astype(int), MINUTES - 1)
    part = minutes - whole
    summed: samples.Floats = sums[..., whole] * (1 - part) + sums[..., whole + 1] * part
    return summed
