"""An ordinary Starlette application, which knows nothing of the hand-over."""

import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

WORK_SECONDS = 0.003  # so that requests are in flight when something happens
LARGE_BYTES = 1 << 20
PIECES = 10
BACKGROUND_SECONDS = 1.5  # longer than any idle grace
VERSION = os.environ.get("INSTAR_VERSION", "0")


@contextlib.asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[dict[str, str]]:
    print("application started", flush=True)  # noqa: T201  # into the instance's log, where the test reads it
    yield {"greeting": "hello"}
    print("application stopped", flush=True)  # noqa: T201  # likewise


async def index(request: Request) -> PlainTextResponse:
    await asyncio.sleep(WORK_SECONDS)
    return PlainTextResponse(f"{VERSION} {request.state.greeting}")


async def echo(request: Request) -> PlainTextResponse:
    seen = hashlib.sha256()
    async for chunk in request.stream():
        seen.update(chunk)
    return PlainTextResponse(f"{VERSION} {seen.hexdigest()}")


async def unread(_: Request) -> PlainTextResponse:
    return PlainTextResponse(f"{VERSION} not read")


async def large(_: Request) -> PlainTextResponse:
    return PlainTextResponse(f"{VERSION} ".ljust(LARGE_BYTES, "x"))


async def background(_: Request) -> PlainTextResponse:
    async def work() -> None:
        await asyncio.sleep(BACKGROUND_SECONDS)
        print("background done", flush=True)  # noqa: T201  # into the instance's log, where the test reads it

    return PlainTextResponse(f"{VERSION} in the background", background=BackgroundTask(work))


async def stream(_: Request) -> StreamingResponse:
    async def pieces() -> AsyncIterator[str]:
        yield f"{VERSION} "
        for _ in range(PIECES):
            await asyncio.sleep(WORK_SECONDS)
            yield "piece "

    return StreamingResponse(pieces())


async def websocket(accepted: WebSocket) -> None:
    await accepted.accept()
    async for text in accepted.iter_text():
        await accepted.send_text(f"{VERSION} {text}")


app = Starlette(
    routes=[
        Route("/", index),
        Route("/echo", echo, methods=["POST"]),
        Route("/unread", unread, methods=["POST"]),
        Route("/large", large),
        Route("/stream", stream),
        Route("/background", background),
        WebSocketRoute("/ws", websocket),
    ],
    lifespan=lifespan,
)
