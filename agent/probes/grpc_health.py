"""Asks by the gRPC health protocol; its two messages are one field each and are written here byte by byte.

Source: https://github.com/grpc/grpc/blob/master/doc/health-checking.md
"""

from __future__ import annotations

from collections.abc import Iterator

import grpc.aio

from agent.probes import http

METHOD = "/grpc.health.v1.Health/Check"
SERVICE_FIELD = b"\x0a"  # field 1, a string
STATUS_FIELD = 8  # field 1, a varint
STATUS_NAMES = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
SERVING = 1
VARINT_BITS = 7
MORE = 0x80  # another byte follows
ANSWER_BYTES_MAX = 64  # the message has two
OPTIONS = (
    ("grpc.enable_http_proxy", 0),
    (
        "grpc.use_local_subchannel_pool",
        1,
    ),  # each asking is a connection of its own: a new instance has the same address
    ("grpc.max_receive_message_length", ANSWER_BYTES_MAX),
)


async def check(address: str, service: str) -> None:
    """Ask once; returns where the answer is SERVING.

    Raises:
        http.ProbeError: Any other answer, or none.
    """
    async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
        call = channel.unary_unary(METHOD, request_serializer=_request, response_deserializer=_status)
        try:
            status = await call(service)
        except grpc.aio.AioRpcError as error:
            raise http.ProbeError(f"cannot ask for {service!r}: {error.code().name}: {error.details()}") from error
    if status != SERVING:
        raise http.ProbeError(f"cannot accept {service!r}: {STATUS_NAMES.get(status, status)}, not SERVING")


def _request(service: str) -> bytes:
    text = service.encode()
    return SERVICE_FIELD + _varint(len(text)) + text if text else b""


def _varint(number: int) -> bytes:
    data = bytearray()
    while number >= MORE:
        data.append(number % MORE | MORE)
        number >>= VARINT_BITS
    return bytes([*data, number])


def _status(data: bytes) -> int:
    """Read the status; a message that leaves it out means 0, and one that begins otherwise is not understood."""
    rest = iter(data)
    field = next(rest, None)
    return _number(rest) if field == STATUS_FIELD else 0


def _number(data: Iterator[int]) -> int:
    number = shift = 0
    for byte in data:
        number |= byte % MORE << shift
        shift += VARINT_BITS
        if byte < MORE:
            break
    return number
