"""The audit log on the wire: rows, beginnings of epochs, heads, and what is wrong with them.

Rules kept here: what comes back is what was sent, to the last bit, since its hash is over all of it. Left out: how it
looks in a file (`controller.cli.audit_files`).
"""

from __future__ import annotations

from controller.core.audit import chain, checking
from controller.rpc import convert
from instar.v1 import audit_pb2, audit_service_pb2

_FAULT = "AUDIT_FAULT_"


def head(told: chain.Head) -> audit_pb2.AuditHead:
    """Up to where the log goes."""
    return audit_pb2.AuditHead(epoch=told.epoch, position=told.position, hash=told.hash)


def from_head(told: audit_pb2.AuditHead) -> chain.Head:
    """Up to where the log goes, as somebody says."""
    return chain.Head(told.epoch, told.position, told.hash)


def row(told: chain.Row) -> audit_pb2.AuditRow:
    """A row."""
    entry = told.entry
    return audit_pb2.AuditRow(
        epoch=told.epoch,
        position=told.position,
        time=convert.timestamp(entry.at),
        actor=entry.actor,
        action=entry.action,
        subject=entry.subject,
        reason=entry.reason,
        result=entry.result,
        previous_hash=told.previous_hash,
        hash=told.hash,
    )


def record(told: chain.Record) -> audit_pb2.AuditRecord:
    """A row, or the beginning of an epoch."""
    if isinstance(told, chain.Row):
        return audit_pb2.AuditRecord(row=row(told))
    epoch = audit_pb2.AuditEpoch(
        number=told.number,
        start_time=convert.timestamp(told.started_at),
        previous=head(told.previous),
        hash=told.hash,
    )
    return audit_pb2.AuditRecord(epoch=epoch)


def from_record(told: audit_pb2.AuditRecord) -> chain.Record:
    """A row, or the beginning of an epoch, as a controller says that it is.

    Raises:
        InvalidRequestError: Its time is none.
    """
    if told.HasField("epoch"):
        epoch = told.epoch
        started_at = convert.instant(epoch.start_time, "epoch.start_time")
        return chain.Epoch(epoch.number, started_at, from_head(epoch.previous), epoch.hash)
    one = told.row
    at = convert.instant(one.time, "row.time")
    entry = chain.Entry(at, one.actor, one.action, one.subject, one.reason, one.result)
    return chain.Row(one.epoch, one.position, entry, one.previous_hash, one.hash)


def report(told: checking.Report) -> audit_service_pb2.VerifyAuditResponse:
    """What came of a check."""
    return audit_service_pb2.VerifyAuditResponse(
        findings=map(_finding, told.findings),
        rows=told.rows,
        epochs=told.epochs,
        head=head(told.head),
        cut_short=not told.is_whole,
    )


def from_report(told: audit_service_pb2.VerifyAuditResponse) -> checking.Report:
    """What came of a check, as a controller says."""
    findings = tuple(map(_from_finding, told.findings))
    return checking.Report(findings, told.rows, told.epochs, from_head(told.head), is_whole=not told.cut_short)


def _finding(told: checking.Finding) -> audit_pb2.AuditFinding:
    number = convert.number(audit_pb2.AuditFault.Value, _FAULT, told.fault)
    return audit_pb2.AuditFinding(
        fault=number, epoch=told.place.epoch, position=told.place.position, message=told.message
    )


def _from_finding(told: audit_pb2.AuditFinding) -> checking.Finding:
    fault = convert.member(checking.Fault, audit_pb2.AuditFault.Value, _FAULT, told.fault, "findings.fault")
    place = chain.Place(told.epoch, told.position)
    return checking.Finding(fault or checking.Fault.CHANGED, place, told.message)
