"""Errors on the wire: a gRPC status with one `google.rpc.ErrorInfo`, and back into the same typed error on the client.

Rules kept here: the mapping is total and the same for every method; code, field, value and rule survive the journey,
and where several fields are wrong also field and message of each, as a `google.rpc.BadRequest`; what was not foreseen
leaves as INTERNAL and says nothing of our insides. Left out: exit codes (`controller.cli`).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import grpc
from google.protobuf import any_pb2, message
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]  # ships no stubs
from grpc import aio
from grpc_status import rpc_status  # type: ignore[import-untyped]  # ships no stubs

from controller.core import errors

DOMAIN = "instar"
MESSAGE_CHARS_MAX = 1024  # with VALUE_CHARS_MAX: the whole stays below the 8 KiB that peers take as trailing metadata
VALUE_CHARS_MAX = 256
VIOLATIONS_BYTES_MAX = 4096  # of all that is said of single fields; what comes after is only counted
VIOLATION_CHARS_MAX = 512
PERMISSION_DENIED = "permission_denied"  # code of the refusals that are about the caller, not about the state of things
_ABOUT_THE_CALLER = frozenset({PERMISSION_DENIED, "principal_denied", "node_quarantined"})
RETRY_AFTER_KEY = "retry-after-ms"  # trailing metadata of whoever is turned away for now
UNREACHABLE = "controller_unreachable"  # code of failures in which no controller answered

_STATUS_BY_TYPE: dict[type[errors.InstarError], grpc.StatusCode] = {
    errors.InvalidRequestError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFoundError: grpc.StatusCode.NOT_FOUND,
    errors.RefusedError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.UnauthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    errors.UnavailableError: grpc.StatusCode.UNAVAILABLE,
    errors.ExhaustedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.ConflictError: grpc.StatusCode.ABORTED,
    errors.IllegalEventError: grpc.StatusCode.OUT_OF_RANGE,
    errors.InstarError: grpc.StatusCode.INTERNAL,
}
_TYPE_BY_STATUS = {status: error for error, status in _STATUS_BY_TYPE.items()} | {
    grpc.StatusCode.PERMISSION_DENIED: errors.RefusedError,
}
_SILENCE = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED})


def unexpected() -> errors.InstarError:
    """What a caller is told of an error that nobody foresaw; the log has the rest."""
    return errors.InstarError("cannot answer: the controller failed; its log says why", code="internal")


def status_code(error: errors.InstarError) -> grpc.StatusCode:
    """The gRPC status that an error leaves as."""
    if error.code in _ABOUT_THE_CALLER:
        return grpc.StatusCode.PERMISSION_DENIED
    for kind in type(error).__mro__:
        if kind in _STATUS_BY_TYPE:
            return _STATUS_BY_TYPE[kind]
    return grpc.StatusCode.INTERNAL


def to_status(error: errors.InstarError) -> grpc.Status:
    """The rich status of an error, as `ServicerContext.abort_with_status` wants it."""
    info = error_details_pb2.ErrorInfo(
        reason=error.code,
        domain=DOMAIN,
        metadata={
            "field": error.field,
            "value": error.value[:VALUE_CHARS_MAX],
            "rule": error.rule,
            "blame": error.blame.value,
            "retryable": str(error.is_retryable).lower(),
        },
    )
    details = [_packed(info)]
    if isinstance(error, errors.InvalidFieldsError):
        details.append(_packed(_bad_request(error)))
    code: int = status_code(error).value[0]
    text = str(error)[:MESSAGE_CHARS_MAX]
    found = rpc_status.to_status(status_pb2.Status(code=code, message=text, details=details))
    if isinstance(error, errors.ExhaustedError):
        milliseconds = error.retry_after // timedelta(milliseconds=1) + 1  # whoever comes then does not come too early
        told = (*found.trailing_metadata, (RETRY_AFTER_KEY, str(milliseconds)))
        found = found._replace(trailing_metadata=told)
    status: grpc.Status = found
    return status


def _packed(told: message.Message) -> any_pb2.Any:
    detail = any_pb2.Any()
    detail.Pack(told)
    return detail


def _bad_request(error: errors.InvalidFieldsError) -> error_details_pb2.BadRequest:
    """One violation for each problem, as long as there is room; the last one then says how many there are more."""
    told = error_details_pb2.BadRequest()
    for number, one in enumerate(error.problems):
        text = str(one)[:VIOLATION_CHARS_MAX]
        violation = told.FieldViolation(field=one.field, description=text, reason=one.code.upper())
        if told.ByteSize() + violation.ByteSize() > VIOLATIONS_BYTES_MAX:
            rest = f"cannot accept {len(error.problems) - number} more fields, of which there is no room to tell"
            told.field_violations.add(field=one.field, description=rest, reason=one.code.upper())
            break
        told.field_violations.append(violation)
    return told


def from_rpc(failure: aio.AioRpcError) -> errors.InstarError:
    """The typed error behind a failed call; UnavailableError with code UNREACHABLE where no controller answered."""
    details = _details(failure)
    text = failure.details() or failure.code().name
    info = _error_info(details)
    if info is None:
        return _without_info(failure.code(), text)
    problems = tuple(_problems(details))
    if problems:
        return errors.InvalidFieldsError(text, problems)
    told = info.metadata
    if failure.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return errors.ExhaustedError(
            text, code=info.reason, field=told["field"], rule=told["rule"], retry_after=retry_after(failure)
        )
    kind = _TYPE_BY_STATUS.get(failure.code(), errors.InstarError)
    return kind(text, code=info.reason, field=told["field"], value=told["value"], rule=told["rule"])


def retry_after(failure: aio.AioRpcError) -> timedelta:
    """How long the controller wants to be left alone; nothing where it does not say."""
    text = str(dict(failure.trailing_metadata() or ()).get(RETRY_AFTER_KEY, ""))
    return timedelta(milliseconds=int(text)) if text.isdecimal() else timedelta()


def _without_info(code: grpc.StatusCode, text: str) -> errors.InstarError:
    if code in _SILENCE:
        return errors.UnavailableError(f"cannot reach the controller: {text}", code=UNREACHABLE, field="controller")
    return errors.InstarError(f"cannot complete the call: {code.name}: {text}", code="call_failed")


def _details(failure: aio.AioRpcError) -> tuple[any_pb2.Any, ...]:
    for key, value in failure.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            return tuple(status_pb2.Status.FromString(value).details)
    return ()


def _error_info(details: tuple[any_pb2.Any, ...]) -> error_details_pb2.ErrorInfo | None:
    for detail in details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info) and info.domain == DOMAIN:
            return info
    return None


def _problems(details: tuple[any_pb2.Any, ...]) -> Iterator[errors.InvalidRequestError]:
    for detail in details:
        told = error_details_pb2.BadRequest()
        if detail.Unpack(told):
            for one in told.field_violations:
                yield errors.InvalidRequestError(one.description, code=one.reason.lower(), field=one.field)
