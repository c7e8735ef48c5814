"""What leaves: JSON documents, and of errors always the same one, with the status that says whose turn it is.

Rules kept here: the mapping is total; what was not foreseen leaves as 500 and says nothing of our insides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from starlette import responses

from controller.core import errors
from controller.web import bodies, cloud_events

_BY_CODE: Mapping[str, int] = {
    bodies.HEADERS_TOO_LARGE: 431,
    bodies.TOO_LARGE: 413,
    bodies.TOO_SLOW: 408,
    cloud_events.UNSUPPORTED: 415,
}
_BY_TYPE: Mapping[type[errors.InstarError], int] = {
    errors.InvalidRequestError: 400,
    errors.UnauthenticatedError: 401,
    errors.NotFoundError: 404,
    errors.RefusedError: 409,
    errors.ExhaustedError: 429,
    errors.ConflictError: 503,  # to be tried again, as senders understand it
    errors.UnavailableError: 503,
    errors.InstarError: 500,
}


def status(error: errors.InstarError) -> int:
    """The HTTP status that an error leaves as."""
    if error.code in _BY_CODE:
        return _BY_CODE[error.code]
    return next(_BY_TYPE[kind] for kind in type(error).__mro__ if kind in _BY_TYPE)


def refusal(error: errors.InstarError) -> responses.JSONResponse:
    """The answer of an error."""
    answer = problem(status(error), error.code, str(error), error.field, error.rule)
    if isinstance(error, errors.ExhaustedError):
        answer.headers["retry-after"] = str(math.ceil(error.retry_after.total_seconds()))
    return answer


def problem(number: int, code: str, message: str, field: str = "", rule: str = "") -> responses.JSONResponse:
    """The answer of what went wrong."""
    found = {"code": code, "field": field, "rule": rule, "message": message}
    headers = {"www-authenticate": "Bearer"} if number == 401 else None  # noqa: PLR2004  # as RFC 9110 wants it
    return responses.JSONResponse(found, status_code=number, headers=headers)


def unexpected() -> responses.JSONResponse:
    """What a caller is told of an error that nobody foresaw; the log has the rest."""
    return problem(500, "internal", "cannot answer: the controller failed; its log says why")
