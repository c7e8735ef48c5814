"""The headers and the body of a request: bounded in bytes and in time; and what a body says in JSON."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Never

from starlette import requests

from controller.core import errors

HEADERS_BYTES_MAX = 16 << 10  # 16 KiB with the path: a signature, and attributes of an event, have some hundreds
BYTES_MAX = 1 << 20  # 1 MiB: a thousand events of a kilobyte
SECONDS_MAX = 10.0  # from the headers to the last byte
TOO_LARGE = "body_too_large"  # codes that have a status of their own
HEADERS_TOO_LARGE = "headers_too_large"
TOO_SLOW = "body_too_slow"


def check_headers(request: requests.Request) -> None:
    """See that the headers are not too large, where they came so quickly that the server has not looked.

    Raises:
        InvalidRequestError: They are.
    """
    size = len(request.scope["raw_path"]) + len(request.scope["query_string"])
    if size + sum(len(name) + len(value) for name, value in request.headers.raw) > HEADERS_BYTES_MAX:
        _refuse(HEADERS_TOO_LARGE, f"with the path at most {HEADERS_BYTES_MAX} bytes long", "headers")


async def read(request: requests.Request) -> bytes:
    """The whole body.

    Raises:
        InvalidRequestError: It is too large, of which no more is read, or too slow.
    """
    told = request.headers.get("content-length", "")
    if told.isdecimal() and int(told) > BYTES_MAX:
        _refuse(TOO_LARGE, f"at most {BYTES_MAX} bytes long")
    body = bytearray()
    try:
        async with asyncio.timeout(SECONDS_MAX):
            async for part in request.stream():
                body += part
                if len(body) > BYTES_MAX:
                    _refuse(TOO_LARGE, f"at most {BYTES_MAX} bytes long")
    except TimeoutError:
        _refuse(TOO_SLOW, f"here within {SECONDS_MAX:g} s")
    return bytes(body)


def parse(body: bytes) -> Any:  # noqa: ANN401  # whatever JSON says
    """What a body says.

    Raises:
        InvalidRequestError: It is no JSON in UTF-8.
        RecursionError: Nobody could follow how deeply it is nested.
    """
    try:
        return json.loads(body.decode("utf-8"), parse_constant=_no_number)
    except ValueError as fault:
        _refuse("body_invalid", f"JSON in UTF-8 ({fault})")


def _no_number(text: str) -> Never:
    raise ValueError(f"there is no number {text}")


def _refuse(code: str, rule: str, field: str = "body") -> Never:
    raise errors.InvalidRequestError(f"cannot take the {field}: must be {rule}", code=code, field=field, rule=rule)
