"""A tiny HTTP service of our own on asyncio streams, with TLS where CERTIFICATE says so, and WORKERS processes."""

import asyncio
import contextlib
import os
import ssl

from instar_handover import asyncio_server, connection

WORK_SECONDS = 0.003  # so that requests are in flight when something happens


async def on_connection(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, accepted: connection.Connection
) -> None:
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        accepted.begin()
        if b"GET /die" in head:
            os._exit(1)
        await asyncio.sleep(WORK_SECONDS)
        is_last = accepted.should_close
        body = f"{os.environ['INSTAR_VERSION']} {accepted.listener} {os.getpid()} hello".encode()
        ending = "close" if is_last else "keep-alive"
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: {ending}\r\n\r\n".encode() + body)
        await writer.drain()
        accepted.end()
        if is_last:
            return


async def prepare() -> None:
    if "FAILS_AS" in os.environ:
        with contextlib.suppress(FileExistsError):
            os.mkdir(os.environ["FAILS_AS"])  # noqa: PTH102  # whoever makes it is the worker that fails
            raise ValueError("broken")


def context() -> ssl.SSLContext | None:
    if "CERTIFICATE" not in os.environ:
        return None
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    made.load_cert_chain(os.environ["CERTIFICATE"])
    return made


if __name__ == "__main__":
    workers = int(os.environ.get("WORKERS", "1"))
    asyncio.run(asyncio_server.serve(on_connection, prepare=prepare, ssl=context(), workers=workers))
