"""A tiny HTTP service on `instar_handover`, as a bundle has it: says its version and its pid."""

import asyncio
import os

from instar_handover import asyncio_server, connection

WORK_SECONDS = 0.003  # so that requests are in flight when something happens


async def on_connection(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, accepted: connection.Connection
) -> None:
    """Answer requests until the client leaves or the instance moves on."""
    while True:
        await reader.readuntil(b"\r\n\r\n")
        accepted.begin()
        await asyncio.sleep(WORK_SECONDS)
        is_last = accepted.should_close
        body = f"{os.environ['INSTAR_VERSION']} {os.getpid()}"
        head = f"Content-Length: {len(body)}\r\nConnection: {'close' if is_last else 'keep-alive'}"
        writer.write(f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}".encode())
        await writer.drain()
        accepted.end()
        if is_last:
            return


if __name__ == "__main__":
    asyncio.run(asyncio_server.serve(on_connection))
