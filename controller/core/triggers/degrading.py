"""What the monitor watches for on behalf of a trigger of kind DEGRADATION.

Left out: how a rule moves (`monitoring`), and what a trigger makes of that (`raising`).
"""

from __future__ import annotations

from controller.core import errors, model

PREFIX = "trigger:"  # a colon stands in no name that people give, so that it is never taken for one of theirs
_WHOLE_PERCENT = 100


def rule(trigger: model.Trigger) -> model.Rule:
    """Give the rule: the figure against the line that its own past was on, as a ratio.

    Args:
        trigger: One of kind DEGRADATION.

    Raises:
        InvalidRequestError: It is of another kind.
    """
    when = trigger.when
    if not isinstance(when, model.Degradation):
        raise errors.InvalidRequestError(
            f"cannot watch for trigger {trigger.name}: it compares nothing with its past",
            code="invalid_trigger",
            field="when.kind",
            value=trigger.kind.value,
            rule="only DEGRADATION is watched for by the monitor",
        )
    sign = -1 if when.is_below else 1
    return model.Rule(
        name=f"{PREFIX}{trigger.name}",
        component=when.component,
        measure=when.measure,
        fire_at=(_WHOLE_PERCENT + sign * when.worse_percent) / _WHOLE_PERCENT,
        clear_at=(_WHOLE_PERCENT + sign * when.clear_percent) / _WHOLE_PERCENT,
        scope=when.scope,
        basis=model.RuleBasis.TRENDLINE,
        is_below=when.is_below,
        window=when.window,
        past=when.past,
        pending_for=when.pending_for,
        keep_firing_for=when.keep_firing_for,
        least_exposure=when.least_exposure,
    )
