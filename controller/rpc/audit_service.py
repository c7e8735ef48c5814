"""The audit log over gRPC: searched, sent whole, verified.

Rules kept here: a page says where the next one begins, so that nothing is shown twice though the log grows; what is
sent whole ends with its head. Left out: writing it.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

from grpc import aio

from controller import engine
from controller.core.audit import chain, choosing
from controller.rpc import audit_convert, convert
from instar.v1 import audit_pb2, audit_service_pb2, audit_service_pb2_grpc

PAGE_SIZE_DEFAULT = 100
PAGE_SIZE_MAX = 1000  # rows in one answer: more would pass the message limit
PAGE_TOKEN_RULE = "the next_page_token of the page before"  # noqa: S105  # no secret
HASH_RULE = "64 hexadecimal digits in lower case"
NUMBER_MAX = (1 << 63) - 1  # what the store can count to
_PAGE_TOKEN = re.compile(r"([0-9]{1,18}):([0-9]{1,18})", re.ASCII)
_HASH = re.compile(r"[0-9a-f]{64}")
_Context = aio.ServicerContext[Any, Any]


class AuditService(audit_service_pb2_grpc.AuditServiceServicer):
    """Shows the audit log."""

    def __init__(self, machine: engine.Engine) -> None:
        self._engine = machine

    async def ListAudit(
        self, request: audit_service_pb2.ListAuditRequest, context: _Context
    ) -> audit_service_pb2.ListAuditResponse:
        """Find rows, newest first."""
        del context
        limit = min(request.page_size or PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX)
        page = self._engine.audit_page(_wanted(request), _before(request.page_token), limit)
        return audit_service_pb2.ListAuditResponse(
            rows=map(audit_convert.row, page.rows),
            next_page_token="" if page.goes_on is None else str(page.goes_on),
        )

    async def ExportAudit(
        self, request: audit_service_pb2.ExportAuditRequest, context: _Context
    ) -> AsyncIterator[audit_service_pb2.ExportAuditResponse]:
        """Send the log, in order."""
        del context
        begin = _known(request.since) if request.HasField("since") else chain.GENESIS
        end = self._engine.audit_head()
        records = self._engine.audit_from(begin, end)
        yield audit_service_pb2.ExportAuditResponse(begin=audit_convert.head(begin))
        async for some in records:
            yield audit_service_pb2.ExportAuditResponse(records=map(audit_convert.record, some))
        yield audit_service_pb2.ExportAuditResponse(head=audit_convert.head(end))

    async def GetAuditHead(
        self, request: audit_service_pb2.GetAuditHeadRequest, context: _Context
    ) -> audit_service_pb2.GetAuditHeadResponse:
        """Say up to where the log goes."""
        del request, context
        return audit_service_pb2.GetAuditHeadResponse(head=audit_convert.head(self._engine.audit_head()))

    async def VerifyAudit(
        self, request: audit_service_pb2.VerifyAuditRequest, context: _Context
    ) -> audit_service_pb2.VerifyAuditResponse:
        """Look for whatever is wrong with the log."""
        del context
        since = _known(request.since) if request.HasField("since") else None
        return audit_convert.report(await self._engine.verify_audit(since))


def _wanted(request: audit_service_pb2.ListAuditRequest) -> choosing.Wanted:
    since = convert.instant(request.start_time, "start_time") if request.HasField("start_time") else None
    until = convert.instant(request.end_time, "end_time") if request.HasField("end_time") else None
    return choosing.Wanted(request.actor, request.action, request.subject, since, until)


def _before(token: str) -> chain.Place | None:
    if not token:
        return None
    found = _PAGE_TOKEN.fullmatch(token)
    if found is None:
        raise convert.refusal("page_token", token[: convert.REASON_CHARS_MAX], PAGE_TOKEN_RULE)
    return chain.Place(int(found[1]), int(found[2]))


def _known(told: audit_pb2.AuditHead) -> chain.Head:
    """A head that a caller has kept."""
    shown = told.hash[: convert.REASON_CHARS_MAX]
    convert.refuse_unless(_HASH.fullmatch(told.hash) is not None, "since.hash", shown, HASH_RULE)
    for field, number in (("epoch", told.epoch), ("position", told.position)):
        convert.refuse_unless(number <= NUMBER_MAX, f"since.{field}", str(number), f"at most {NUMBER_MAX}")
    return audit_convert.from_head(told)
