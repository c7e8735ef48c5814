"""As much of HTTP/1.1 as asking an instance takes: one GET for each connection, and a bounded answer.

Rules kept here: head and body have bounds, so no component can fill the agent. Left out: deadlines, which are those of
who asks.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator

UNIX = "unix:"
HEAD_BYTES_MAX = 4096  # status line and headers of any sane answer
BODY_BYTES_MAX = 65536  # G12 speaks of 200 lines; this leaves 300 bytes for each
STATUS_OK = range(200, 400)
STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3})(?: |\r)")
LENGTH = re.compile(rb"(?i)\r\ncontent-length:[ \t]*(\d{1,9})[ \t]*\r\n")
CHUNKED = re.compile(rb"(?i)\r\ntransfer-encoding:[ \t]*chunked[ \t]*\r\n")


class ProbeError(Exception):
    """An instance did not answer as it should; the message says how."""


@contextlib.asynccontextmanager
async def connection(address: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connect to "unix:/path" or "host:port"; what was not read at the end is dropped."""
    reader, writer = await _open(address)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()  # an answer that is not read to its end is not wanted
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _open(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if address.startswith(UNIX):
        return await asyncio.open_unix_connection(address.removeprefix(UNIX), limit=HEAD_BYTES_MAX)
    host, _, port = address.rpartition(":")
    return await asyncio.open_connection(host.strip("[]"), int(port), limit=HEAD_BYTES_MAX)


async def get(path: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """Send a GET and read the head of its answer; nothing of the body."""
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: instar-agent\r\nConnection: close\r\n\r\n"
    writer.write(request.encode())
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        raise ProbeError(f"cannot read {path}: the connection ended within the head") from error
    except asyncio.LimitOverrunError as error:
        raise ProbeError(f"cannot read {path}: the head has more than {HEAD_BYTES_MAX} bytes") from error
    match = STATUS_LINE.match(head)
    if match is None:
        raise ProbeError(f"cannot read {path}: the answer is not HTTP/1.1")
    if int(match[1]) not in STATUS_OK:
        raise ProbeError(f"cannot accept {path}: status {int(match[1])}, not 200 to 399")
    return head


async def read_body(head: bytes, reader: asyncio.StreamReader) -> bytes:
    """Read a body however the answer frames it: by chunks, by its length, or by the end of the connection."""
    if CHUNKED.search(head):
        return await _read_chunks(reader)
    length = LENGTH.search(head)
    if length is not None:
        return await reader.readexactly(_bounded(int(length[1])))
    body = b""
    while data := await reader.read(BODY_BYTES_MAX):
        body += data
        _bounded(len(body))
    return body


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size_bytes := int((await reader.readline()).partition(b";")[0], base=16):
        _bounded(len(body) + size_bytes)
        body += await reader.readexactly(size_bytes)
        await reader.readexactly(len(b"\r\n"))
    return body


def _bounded(size_bytes: int) -> int:
    if not 0 <= size_bytes <= BODY_BYTES_MAX:
        raise ValueError(f"the body has {size_bytes} bytes, more than {BODY_BYTES_MAX}")
    return size_bytes
