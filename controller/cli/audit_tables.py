"""The audit log, and what is wrong with it, as the commands print them."""

from __future__ import annotations

from collections.abc import Iterable

import rich.table

from controller.cli import tables
from controller.core.audit import checking
from instar.v1 import audit_pb2


def rows(told: Iterable[audit_pb2.AuditRow]) -> rich.table.Table:
    """Rows, as they come."""
    shown = [
        (
            f"{one.epoch}:{one.position}",
            tables.when(one.time),
            one.actor,
            one.action,
            one.subject,
            one.result,
            one.reason,
        )
        for one in told
    ]
    return tables.table(("ROW", "AT", "BY", "ACTION", "SUBJECT", "RESULT", "REASON"), shown)


def report(told: checking.Report) -> dict[str, object]:
    """What came of a check, as a document."""
    return {
        "whole": not told.findings,
        "rows": told.rows,
        "epochs": told.epochs,
        "head": str(told.head),
        "cut_short": not told.is_whole,
        "findings": [
            {
                "fault": each.fault.value,
                "epoch": each.place.epoch,
                "position": each.place.position,
                "message": each.message,
            }
            for each in told.findings
        ],
    }
