"""What the controller has been told in a session, and what is still to be told.

Rules kept here: a delta holds what differs from what was told last, and names what is there no longer; results are
told in every message until the controller has them; what the node forgot is forgotten here too. Left out: when to tell
(`session`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from agent.core import model

OPERATIONS_MAX = 64  # told in one message; the rest follows once these are acknowledged
STEPS_MAX = 256  # as above; about 64 KiB, far below what one message may hold


@dataclass(frozen=True, slots=True)
class Told:
    """What the controller has been told in this session, and which results it has made durable."""

    metrics: Mapping[tuple[str, str], model.Metric] = field(default_factory=dict)
    components: Mapping[str, model.ComponentStatus] = field(default_factory=dict)
    conditions: tuple[model.Condition, ...] = ()
    operations: frozenset[model.OperationStatus] = frozenset()
    steps: frozenset[tuple[str, int]] = frozenset()

    def settled(self, operations: tuple[model.OperationStatus, ...], steps: tuple[model.StepRecord, ...]) -> Told:
        """The same once these results are durable at the controller."""
        return replace(
            self,
            operations=self.operations | frozenset(operations),
            steps=self.steps | {(record.operation_id, record.index) for record in steps},
        )

    def after(self, report: model.Report) -> Told:
        """The same once the controller was told of everything in a report."""
        return Told(
            metrics={metric.key: metric for metric in report.metrics},
            components={component.name: component for component in report.components},
            conditions=report.conditions or (),
            operations=self.operations & frozenset(report.operations),
            steps=self.steps & {(record.operation_id, record.index) for record in report.steps},
        )

    def delta(self, report: model.Report) -> model.Report:
        """What of everything in a report is still to be told."""
        names = {component.name for component in report.components}
        shown = {metric.key for metric in report.metrics}
        operations = tuple(status for status in report.operations if status not in self.operations)
        steps = tuple(record for record in report.steps if (record.operation_id, record.index) not in self.steps)
        conditions = report.conditions or ()
        return model.Report(
            metrics=tuple(m for m in report.metrics if self.metrics.get(m.key) != m),
            components=tuple(c for c in report.components if self.components.get(c.name) != c),
            removed=tuple(sorted(self.components.keys() - names)),
            operations=operations[:OPERATIONS_MAX],
            steps=steps[:STEPS_MAX],
            conditions=conditions if conditions != self.conditions else None,
            gone_metrics=tuple(sorted(self.metrics.keys() - shown)),
        )


def everything(report: model.Report) -> model.Report:
    """A report as a full one is told."""
    return replace(
        report,
        removed=(),
        gone_metrics=(),
        operations=report.operations[:OPERATIONS_MAX],
        steps=report.steps[:STEPS_MAX],
        conditions=report.conditions or (),
    )
