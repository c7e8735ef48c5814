"""How long what is over is kept, as the table ``retention`` of the configuration file says it.

Rules kept: each has a default and bounds; the audit log has no key here: it is kept whole. Left out: metrics, whose own
key is ``metrics_retention``, and events of others, which are remembered for two days.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from controller.config import fields

_LEAST = timedelta(days=1)  # below it a request that is repeated would be done again
_MOST = timedelta(days=3650)


@dataclass(frozen=True, slots=True)
class Retention:
    """How long.

    Args:
        rollouts: From the end of a rollout on, with all that belongs to it, such as its request's identity; and from
            the begin of a firing that is over.
        refusals: Requests that were refused.
        spans: Spans, sent or not, unless their rollout is under way.
        outcomes: What operations came to, which advice is made of.
        answers: What calls with a request identity were answered; for so long they may be repeated.
    """

    rollouts: timedelta = timedelta(days=90)
    refusals: timedelta = timedelta(days=90)
    spans: timedelta = timedelta(days=30)
    outcomes: timedelta = timedelta(days=365)
    answers: timedelta = timedelta(days=7)


USUAL = Retention()


def read(found: object) -> Retention:
    """Read the table.

    Raises:
        InvalidRequestError: A key is unknown, or a value breaks its rule.
    """
    table, usual = fields.Table("retention", found), USUAL
    kept = Retention(
        rollouts=table.duration("rollouts", usual.rollouts, _LEAST, _MOST),
        refusals=table.duration("refusals", usual.refusals, _LEAST, _MOST),
        spans=table.duration("spans", usual.spans, _LEAST, _MOST),
        outcomes=table.duration("outcomes", usual.outcomes, _LEAST, _MOST),
        answers=table.duration("answers", usual.answers, _LEAST, _MOST),
    )
    table.end()
    return kept
