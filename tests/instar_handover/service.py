"""A line service on `instar_handover`: answers each line with its version of it, slowly when told to."""

import asyncio
import sys

from instar_handover import asyncio_server, connection


async def on_connection(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, accepted: connection.Connection
) -> None:
    """Answer lines; "hold" is answered only when the next line comes."""
    while line := await reader.readline():
        accepted.begin()
        if line == b"hold\n":
            line = await reader.readline()
        is_last = accepted.should_close
        writer.write(b"close " + line if is_last else b"more " + line)
        await writer.drain()
        accepted.end()
        if is_last:
            return


if __name__ == "__main__":
    asyncio.run(asyncio_server.serve(on_connection, address=sys.argv[1]))
