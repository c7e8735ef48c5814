"""Errors cross the wire and arrive as they left."""

from __future__ import annotations

import grpc
import pytest
from grpc import aio

from controller.core import errors
from controller.rpc import errors as rpc_errors

KINDS = [
    errors.InvalidRequestError,
    errors.NotFoundError,
    errors.RefusedError,
    errors.UnauthenticatedError,
    errors.UnavailableError,
    errors.ConflictError,
    errors.IllegalEventError,
    errors.InstarError,
]


def journey(error: errors.InstarError) -> errors.InstarError:
    status = rpc_errors.to_status(error)
    trailing = aio.Metadata(*status.trailing_metadata)
    return rpc_errors.from_rpc(aio.AioRpcError(status.code, None, trailing, status.details))


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_arrives_with_its_type_and_all_that_it_names(kind: type[errors.InstarError]) -> None:
    sent = kind("cannot do «it»", code="some_code", field="policy.x", value="7", rule="at most 5")
    found = journey(sent)
    assert type(found) is kind
    assert str(found) == str(sent)
    assert (found.code, found.field, found.value, found.rule) == (sent.code, sent.field, sent.value, sent.rule)


def test_every_type_of_error_has_a_status_of_its_own() -> None:
    assert set(KINDS) == {errors.InstarError, *errors.InstarError.__subclasses__()}
    assert len({rpc_errors.status_code(kind("cannot", code="x")) for kind in KINDS}) == len(KINDS)


def test_a_permission_that_is_missing_arrives_as_a_refusal() -> None:
    sent = errors.RefusedError("cannot let the caller", code=rpc_errors.PERMISSION_DENIED, field="token")
    assert rpc_errors.status_code(sent) is grpc.StatusCode.PERMISSION_DENIED
    assert type(journey(sent)) is errors.RefusedError


def test_a_huge_value_does_not_burst_the_trailing_metadata() -> None:
    sent = errors.InvalidRequestError("cannot " + "m" * 10_000, code="x", field="f", value="v" * 10_000)
    found = journey(sent)
    assert len(str(found)) == rpc_errors.MESSAGE_CHARS_MAX
    assert len(found.value) == rpc_errors.VALUE_CHARS_MAX


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED])
def test_silence_is_told_as_an_unreachable_controller(code: grpc.StatusCode) -> None:
    found = rpc_errors.from_rpc(aio.AioRpcError(code, None, None, "connection refused"))
    assert isinstance(found, errors.UnavailableError)
    assert found.code == rpc_errors.UNREACHABLE
    assert found.is_retryable


def test_a_status_without_details_is_nobodys_refusal() -> None:
    found = rpc_errors.from_rpc(aio.AioRpcError(grpc.StatusCode.UNIMPLEMENTED, None, None, "no such method"))
    assert type(found) is errors.InstarError
    assert str(found).startswith("cannot")


def test_each_of_several_problems_arrives_with_its_field_and_its_message() -> None:
    problems = [
        errors.InvalidRequestError(f"cannot use {field}", code="some_code", field=field, value="7", rule="at most 5")
        for field in ("when.threshold.condition", "guards.cooldown")
    ]
    found = journey(errors.InvalidFieldsError("cannot accept the trigger", problems))
    assert isinstance(found, errors.InvalidFieldsError)
    assert str(found) == "cannot accept the trigger"
    assert [(str(one), one.field, one.code) for one in found.problems] == [
        ("cannot use when.threshold.condition", "when.threshold.condition", "some_code"),
        ("cannot use guards.cooldown", "guards.cooldown", "some_code"),
    ]
    assert (found.field, found.code) == ("when.threshold.condition", "some_code")


def test_a_thousand_problems_do_not_burst_the_trailing_metadata_and_are_counted() -> None:
    problems = [errors.InvalidRequestError("cannot " + "m" * 10_000, code="x", field=f"f{n}") for n in range(1000)]
    sent = errors.InvalidFieldsError("cannot accept it", problems)
    found = journey(sent)
    assert isinstance(found, errors.InvalidFieldsError)
    told = len(found.problems) - 1
    assert f"cannot accept {1000 - told} more fields" in str(found.problems[-1])
    assert sum(len(value) for _, value in rpc_errors.to_status(sent).trailing_metadata) < 8192
