"""What the fleet is watched for, and what was seen.

Rules kept: missing is None, and a state of its own; thresholds and figures are plain ratios only where they compare
measured figures. Left out: how a rule moves from state to state (`controller.core.monitoring`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, unique

from controller.core.model.analysis import Measure
from controller.core.model.words import ComponentName, NodeId


@unique
class RuleState(Enum):
    """How a rule stands on one node, or on the fleet.

    INACTIVE: what it watches for is not the case. PENDING: it is, and not for long enough yet. FIRING: it was for long
    enough, and has not cleared since. UNKNOWN: nobody can tell, whatever it was before.
    """

    INACTIVE = "INACTIVE"
    PENDING = "PENDING"
    FIRING = "FIRING"
    UNKNOWN = "UNKNOWN"


@unique
class RuleScope(Enum):
    """What a rule looks at: each node with the component for itself, or all of them as one."""

    NODE = "NODE"
    FLEET = "FLEET"


@unique
class RuleBasis(Enum):
    """What a rule compares with its thresholds.

    VALUE is the figure itself. OWN_PAST is the figure over that of the time before. PEERS is the figure of a node over
    the median of all nodes that have one. TREND is by how much the figure rises in an hour. TRENDLINE is the figure
    over what it would be had it stayed on the line that its own past was on.
    """

    VALUE = "VALUE"
    OWN_PAST = "OWN_PAST"
    PEERS = "PEERS"
    TREND = "TREND"
    TRENDLINE = "TRENDLINE"


@dataclass(frozen=True, slots=True)
class Rule:
    """Something that the fleet is watched for.

    Args:
        name: Unique among the rules.
        component: On whose nodes; the figure is made of its series.
        measure: The figure.
        fire_at: Threshold beyond which it is the case; in the unit of the figure, of a TREND that per hour, of a
            comparison a ratio.
        clear_at: Threshold on whose other side it is over. In between, what was stays.
        is_below: Low figures are what is watched for.
        window: The figure is taken over so much time.
        past: For OWN_PAST and TRENDLINE, how much of the time before the window it is compared with.
        pending_for: It has to be the case for so long before the rule fires.
        keep_firing_for: It has to be over for so long before the rule fires no longer.
        least_exposure: Of less than so much nothing is said: requests of RATIO, MEAN and QUANTILE, seconds of RATE,
            readings of LEVEL, within the window.
        least_percent: Of a FLEET, and of the peers, so many percent of the nodes have to have a figure.
    """

    name: str
    component: ComponentName
    measure: Measure
    fire_at: float
    clear_at: float
    scope: RuleScope = RuleScope.NODE
    basis: RuleBasis = RuleBasis.VALUE
    is_below: bool = False
    window: timedelta = timedelta(minutes=5)
    past: timedelta = timedelta(hours=1)
    pending_for: timedelta = timedelta(minutes=1)
    keep_firing_for: timedelta = timedelta(0)
    least_exposure: float = 1.0
    least_percent: int = 50


@dataclass(frozen=True, slots=True)
class Watch:
    """How one rule stands on one node or on the fleet; one state row.

    Args:
        since: Since when it is in this state.
        seen_at: When that was last looked at.
        fired_at: Since when it fires; kept while nobody can tell, for what fired has not cleared by that.
        clear_since: Since when it is over on one that fires.
        value: What was compared with the thresholds, at the latest look; None for missing.
    """

    state: RuleState
    since: datetime
    seen_at: datetime
    fired_at: datetime | None = None
    clear_since: datetime | None = None
    value: float | None = None


@dataclass(frozen=True, slots=True)
class Watched:
    """How a rule stands somewhere, with what tells where.

    Args:
        node_id: None for the fleet.
        of: What the rule said when that was seen, for what is stored: another rule of its name takes nothing over.
    """

    rule: str
    node_id: NodeId | None
    watch: Watch
    of: str = ""


@dataclass(frozen=True, slots=True)
class RuleHold:
    """A rule that keeps a rollout where it is.

    Args:
        rule: Name of the rule.
        state: FIRING or UNKNOWN.
        since: Since when, on the node where it is so for the longest time.
        node_id: That node; None for the fleet.
    """

    rule: str
    state: RuleState
    since: datetime
    node_id: NodeId | None
