"""A tiny HTTP service on `instar_handover`, as a bundle has it; UNWELL_AFTER_SECONDS makes a version go bad in use."""

import asyncio
import os
import time

from instar_handover import asyncio_server, connection

WORK_SECONDS = 0.003  # so that requests are in flight when something happens
UNWELL_AFTER_SECONDS = float(os.environ.get("UNWELL_AFTER_SECONDS", "inf"))  # after its first request

MUTE_IF_EXISTS = os.environ.get("MUTE_IF_EXISTS", "")  # shows no metrics then
UNWELL_IF_EXISTS = os.environ.get("UNWELL_IF_EXISTS", "")


class Service:
    """Says its version; on the probe socket whether it is well."""

    def __init__(self) -> None:
        self._unwell_at = float("inf")
        self._served = 0

    async def on_connection(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, accepted: connection.Connection
    ) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if accepted.is_probe:
                await self._answer_probe(head, writer)
                return
            accepted.begin()
            if not self._served:
                self._unwell_at = time.monotonic() + UNWELL_AFTER_SECONDS
            self._served += 1
            await asyncio.sleep(WORK_SECONDS)
            is_last = accepted.should_close
            await _write(writer, "200 OK", f"{os.environ['INSTAR_VERSION']} {os.getpid()}", is_last=is_last)
            accepted.end()
            if is_last:
                return

    async def _answer_probe(self, head: bytes, writer: asyncio.StreamWriter) -> None:
        if b"/metrics" in head and os.path.exists(MUTE_IF_EXISTS):  # noqa: PTH110, ASYNC240  # as below
            await _write(writer, "503 Mute", "", is_last=True)
            return
        if b"/metrics" in head:
            await _write(writer, "200 OK", f"web_requests_total {self._served}\n", is_last=True)
            return
        is_well = time.monotonic() < self._unwell_at and not os.path.exists(UNWELL_IF_EXISTS)  # noqa: PTH110, ASYNC240  # as below
        await _write(writer, "200 OK" if is_well else "503 Unwell", "", is_last=True)


async def _write(writer: asyncio.StreamWriter, status: str, body: str, *, is_last: bool) -> None:
    head = f"Content-Length: {len(body)}\r\nConnection: {'close' if is_last else 'keep-alive'}"
    writer.write(f"HTTP/1.1 {status}\r\n{head}\r\n\r\n{body}".encode())
    await writer.drain()


if __name__ == "__main__":
    if os.path.exists(os.environ.get("DIE_IF_EXISTS", "")):  # noqa: PTH110  # pathlib has no empty path
        raise SystemExit(1)
    asyncio.run(asyncio_server.serve(Service().on_connection))
