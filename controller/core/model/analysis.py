"""What is measured of a fleet, what is compared, and what was found.

Rules kept: missing is NaN or None, never zero; shares and lifts are given in percent as whole numbers where people set
them, and as plain ratios only in what was measured. Left out: where the figures come from (`controller.metrics`) and
what is made of them (`controller.core.analysis`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, unique

from controller.core.model.words import NodeId


@unique
class SeriesKind(Enum):
    """What a reported number is: one that only grows until its process ends, or one that goes up and down."""

    COUNTER = "COUNTER"
    GAUGE = "GAUGE"


@unique
class MeasureKind(Enum):
    """How a figure is made of series.

    RATIO is how much the series grew over how much ``per`` grew, both counts of events: errors per request. RATE is how
    much it grew per second, a count as well. MEAN is how much the series grew over how much ``per`` grew where the
    series is an amount: seconds per request. QUANTILE is a quantile of a histogram. LEVEL is the mean of a gauge.
    """

    RATIO = "RATIO"
    RATE = "RATE"
    MEAN = "MEAN"
    QUANTILE = "QUANTILE"
    LEVEL = "LEVEL"

    @property
    def is_count(self) -> bool:
        """Whether events are counted, so that chance alone moves it by the root of their number."""
        return self in (MeasureKind.RATIO, MeasureKind.RATE)


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure of a node.

    Args:
        series: Name as the node reports it; for QUANTILE the histogram without ``_bucket``.
        per: The other series of RATIO and MEAN; empty for the rest.
        quantile_percent: For QUANTILE, 1 to 99.
        query: For a Prometheus server: what to ask for in the place of ``series``; empty for the usual question.
        per_query: The same in the place of ``per``, and for what a QUANTILE was made over.
    """

    kind: MeasureKind
    series: str
    per: str = ""
    quantile_percent: int = 99
    query: str = ""
    per_query: str = ""


@dataclass(frozen=True, slots=True)
class JudgedMetric:
    """One figure by which the new version is compared with the old one.

    Args:
        name: For people, unique within the analysis.
        is_lower_worse: True where less is worse, such as for a hit rate.
        tolerance_percent: By so much the new version may be worse and still count as no worse.
        harm_percent: That it is worse by so much has to be excluded before it is promoted; above the tolerance.
    """

    name: str
    measure: Measure
    is_lower_worse: bool = False
    tolerance_percent: int = 10
    harm_percent: int = 100


@unique
class Doubt(Enum):
    """What becomes of a rollout whose evidence does not suffice in time; none of them lets it pass (G7).

    HOLD waits for somebody to promote or revert it. FAIL stops it where it is. REVERT takes it back, and is not to be
    had for missing data: an outage is not a bad version (G8).
    """

    HOLD = "HOLD"
    FAIL = "FAIL"
    REVERT = "REVERT"


@dataclass(frozen=True, slots=True)
class Analysis:
    """How the canary wave is judged before the next wave begins.

    Args:
        metrics: What is compared, at least one.
        duration: Evidence is gathered for at least so long before the wave is promoted.
        past: How much of each node's own past it is compared with.
        warm_up: Time after a node's change that counts for nothing: caches fill.
        first_look: Time after which evidence of node-level tests is first looked at; later looks lie further apart.
        false_alarms_per_1000: Of a thousand harmless rollouts so many may be reverted, over all metrics and looks.
        inconclusive: What is done where the evidence decides neither way.
        inconclusive_after: Time since the judging began after which that is so.
        unknown: What is done where there is no evidence; HOLD or FAIL.
        unknown_after: Time without evidence after which that is so.
        source: Name of a configured Prometheus server; empty for what the nodes report themselves.
    """

    metrics: tuple[JudgedMetric, ...]
    duration: timedelta = timedelta(minutes=10)
    past: timedelta = timedelta(hours=2)
    warm_up: timedelta = timedelta(0)
    first_look: timedelta = timedelta(minutes=1)
    false_alarms_per_1000: int = 10
    inconclusive: Doubt = Doubt.HOLD
    inconclusive_after: timedelta = timedelta(hours=1)
    unknown: Doubt = Doubt.HOLD
    unknown_after: timedelta = timedelta(minutes=10)
    source: str = ""


@unique
class Finding(Enum):
    """What the evidence says of one metric, or of all of them together.

    WORSE and NO_WORSE are shown; EARLY means that more evidence is on its way; INCONCLUSIVE that the time is up and it
    shows neither; UNKNOWN that there is none.
    """

    WORSE = "WORSE"
    NO_WORSE = "NO_WORSE"
    EARLY = "EARLY"
    INCONCLUSIVE = "INCONCLUSIVE"
    UNKNOWN = "UNKNOWN"


@unique
class Comparison(Enum):
    """How canary and control were compared.

    NODES compares the changes of single nodes, canary against control, each against its own past. POOLED adds up the
    events of few canary nodes against the control's. OWN_PAST has no control. NONE was possible.
    """

    NODES = "NODES"
    POOLED = "POOLED"
    OWN_PAST = "OWN_PAST"
    NONE = "NONE"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was found of one metric.

    Args:
        metric: Name of the judged metric.
        canary_nodes: Changed nodes with data before and after.
        control_nodes: Untouched nodes with data before and after.
        canary_value: The figure of the canary nodes since their change; None where there is none. A mean over nodes,
            of pooled counts for RATIO and RATE.
        control_value: The same of the control nodes.
        lift: By which factor the canary's figure changed more than the control's, each against its own past; above 1 is
            worse, also where less is worse.
        lift_low: Lower end of what the lift may be, at the confidence of the verdict.
        lift_high: Upper end.
        p: Always-valid p-value of "it is no worse than tolerated", over the looks so far, before weighing metrics.
        alpha: It is WORSE where ``p`` falls to this.
        events: Events counted on canary nodes since their change; 0 for what is no count.
        message: One sentence for people.
    """

    metric: str
    finding: Finding
    comparison: Comparison
    canary_nodes: int
    control_nodes: int
    canary_value: float | None
    control_value: float | None
    lift: float | None
    lift_low: float | None
    lift_high: float | None
    p: float | None
    alpha: float
    events: int
    message: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was found at one instant, over all metrics.

    Args:
        at: When it was looked at.
        elapsed: How long evidence had been gathered, without the time in which the clocks stood.
        look: Number of the latest look of the node-level tests, from 1; 0 before the first.
        finding: WORSE where one metric is; NO_WORSE where all are shown to be no worse.
        message: One sentence for people.
    """

    at: datetime
    elapsed: timedelta
    look: int
    finding: Finding
    evidence: tuple[Evidence, ...]
    message: str


@dataclass(frozen=True, slots=True)
class Power:
    """What an analysis will find, said beforehand.

    Args:
        metric: Name of the judged metric.
        lift_percent: A change for the worse by so much ...
        found_within: ... is found within this time in half of the cases; None where not before the analysis ends.
        message: One sentence for people, with what weakens it.
    """

    metric: str
    comparison: Comparison
    lift_percent: int
    found_within: timedelta | None
    message: str


@dataclass(frozen=True, slots=True)
class Forecast:
    """What an analysis that is asked for can find, said before anything moves.

    Args:
        canary_nodes: Nodes of the first canary wave.
        control_nodes: Untouched nodes with which they are compared, as far as they are known now.
        control_total: How many such nodes there are; more than the named ones where these are enough.
        powers: What is found of each metric, in the order of the metrics.
        basis: What that is reckoned from, in a sentence.
    """

    canary_nodes: tuple[NodeId, ...]
    control_nodes: tuple[NodeId, ...]
    control_total: int
    powers: tuple[Power, ...]
    basis: str


@dataclass(frozen=True, slots=True)
class Judging:
    """How a canary wave is judged, or was.

    Args:
        wave: Number of the wave.
        left_at: When the first of its nodes began to change.
        began_at: When it had: evidence counts from there on.
        inconclusive_at: Instant at which the evidence has to suffice; moved by what stops the clocks.
        unknown_since: Since when there is no evidence; None while there is some.
        unknown_at: Instant at which that has lasted for too long; None while there is some.
        heed_from: What was looked at before this instant promotes nothing: nobody was there to see what came after.
        stopped_for: How long its clocks stood still: in pauses, and while no controller was up.
        awaited_since: Since when nothing but the judge keeps the next wave back; None while something else does.
        doubt: Finding for which it is held: UNKNOWN or INCONCLUSIVE; None while it is not.
        latest: What was found at the latest look; None before the first.
        decided: What was found by then, once it is over; None where nothing was.
        decided_at: When it was over; None while it goes on.
        decided_by: Who promoted it by hand; empty where the evidence or the lack of it decided.
    """

    wave: int
    left_at: datetime
    began_at: datetime
    inconclusive_at: datetime
    unknown_since: datetime | None
    unknown_at: datetime | None
    heed_from: datetime
    stopped_for: timedelta = timedelta()
    awaited_since: datetime | None = None
    doubt: Finding | None = None
    latest: Judgement | None = None
    decided: Judgement | None = None
    decided_at: datetime | None = None
    decided_by: str = ""

    @property
    def is_over(self) -> bool:
        """Tell whether nothing more is looked at."""
        return self.decided_at is not None
