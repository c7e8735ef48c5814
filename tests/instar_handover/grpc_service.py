"""A gRPC service of two methods, its messages plain bytes: answers with its version."""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import grpc.aio

from instar_handover import grpc_server

WORK_SECONDS = 0.003  # so that calls are in flight when something happens
TICK_SECONDS = 0.02
VERSION = os.environ.get("INSTAR_VERSION", "0").encode()


async def say(asked: bytes, _: object) -> bytes:
    await asyncio.sleep(WORK_SECONDS)
    return VERSION + b" " + asked


async def tick(asked: bytes, _: object) -> AsyncIterator[bytes]:
    """Answer so many times; 0 is for ever."""
    count = 0
    while count < int(asked) or not int(asked):
        yield VERSION + b" tick"
        count += 1
        await asyncio.sleep(TICK_SECONDS)


async def echo(asked: AsyncIterator[bytes], _: object) -> AsyncIterator[bytes]:
    async for each in asked:
        yield VERSION + b" " + each


def make_server(interceptors: Sequence[grpc.aio.ServerInterceptor]) -> grpc.aio.Server:
    server = grpc.aio.server(interceptors=interceptors)
    methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "Say": grpc.unary_unary_rpc_method_handler(say),
        "Tick": grpc.unary_stream_rpc_method_handler(tick),
        "Echo": grpc.stream_stream_rpc_method_handler(echo),
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test.Service", methods)])
    return server


def context() -> ssl.SSLContext | None:
    if "CERTIFICATE" not in os.environ:
        return None
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    made.load_cert_chain(os.environ["CERTIFICATE"])
    return made


if __name__ == "__main__":
    asyncio.run(grpc_server.serve(make_server, ssl=context()))
