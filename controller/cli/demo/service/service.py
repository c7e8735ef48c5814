"""A small web service: HTTP/1.1 with keep-alive, one answer that takes about 5 ms, and its version in each.

It speaks the hand-over protocol through `instar_handover`, so that it can be upgraded while it serves. It answers `/`,
`/healthz` and `/metrics`; its version comes from the environment that its keeper gives it. With
WEB_UNHEALTHY_AFTER_SECONDS it is a bad release of the insidious kind: it starts, takes traffic and answers correctly,
but says that it is not well from so many seconds after its first connection on. With WEB_FAILS_EVERY or
WEB_FAILS_PERCENT it is one that no probe finds: every so-manieth request fails, or each by chance, and only its own
counters tell. Chance is drawn from a generator that is seeded with the identity of the instance: what one life of one
node fails can be drawn again, and no two of them fail the same.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from dataclasses import dataclass

from instar_handover import asyncio_server, connection

HANDLER_SECONDS = 0.005  # what a small database query would take
REASONS = {200: "OK", 404: "Not Found", 500: "Internal Server Error", 503: "Service Unavailable"}
METRICS = """\
# TYPE web_requests_total counter
web_requests_total{{version="{version}"}} {requests}
# TYPE web_errors_total counter
web_errors_total{{version="{version}"}} {errors}
# TYPE web_handling_seconds_total counter
web_handling_seconds_total{{version="{version}"}} {seconds:.6f}
"""


@dataclass(frozen=True, slots=True)
class Faults:
    """Which requests fail.

    Args:
        every: Every so-manieth one; 0 for none.
        percent: So many in a hundred, each by chance.
        chance: Where chance is drawn from.
    """

    every: int
    percent: float
    chance: random.Random

    def meet(self, number: int) -> bool:
        """Whether the so-manieth request fails."""
        is_drawn = self.chance.random() * 100 < self.percent
        return is_drawn or (self.every > 0 and number % self.every == 0)


class Web:
    """The service.

    Args:
        version: Its version.
        unhealthy_after_seconds: Time after its first connection from which it is not well; None for never.
        faults: Which requests fail.
    """

    def __init__(self, version: str, unhealthy_after_seconds: float | None, faults: Faults) -> None:
        self._version = version
        self._unhealthy_after_seconds = unhealthy_after_seconds
        self._took_traffic_seconds: float | None = None
        self._faults = faults
        self._answered = 0
        self._failed = 0
        self._handling_seconds = 0.0

    async def attend(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, client: connection.Connection
    ) -> None:
        """Answer the requests of one connection until one side closes it."""
        if not client.is_probe and self._took_traffic_seconds is None:
            self._took_traffic_seconds = time.monotonic()
        is_last = False
        while not is_last:
            head = await reader.readuntil(b"\r\n\r\n")
            client.begin()
            status, body = await self._answer(head.split(b" ")[1].decode("ascii"))
            is_last = client.should_close or b"connection: close" in head.lower()
            writer.write(self._response(status, body, is_last=is_last))
            await writer.drain()
            client.end()

    async def _answer(self, path: str) -> tuple[int, str]:
        match path:
            case "/":
                return await self._handle()
            case "/healthz":
                return (200, "well\n") if self._is_well() else (503, "not well\n")
            case "/metrics":
                return 200, self._metrics()
            case _:
                return 404, "no such page\n"

    async def _handle(self) -> tuple[int, str]:
        began_seconds = time.monotonic()
        await asyncio.sleep(HANDLER_SECONDS)
        self._handling_seconds += time.monotonic() - began_seconds
        self._answered += 1
        if self._faults.meet(self._answered):
            self._failed += 1
            return 500, "this one failed\n"
        return 200, f"web {self._version}\n"

    def _metrics(self) -> str:
        return METRICS.format(
            version=self._version, requests=self._answered, errors=self._failed, seconds=self._handling_seconds
        )

    def _is_well(self) -> bool:
        if self._unhealthy_after_seconds is None or self._took_traffic_seconds is None:
            return True
        return time.monotonic() - self._took_traffic_seconds < self._unhealthy_after_seconds

    def _response(self, status: int, body: str, *, is_last: bool) -> bytes:
        head = (
            f"HTTP/1.1 {status} {REASONS[status]}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
            f"X-Version: {self._version}\r\nConnection: {'close' if is_last else 'keep-alive'}\r\n\r\n"
        )
        return (head + body).encode("ascii")


def main() -> None:
    """Serve until drained."""
    after = os.environ.get("WEB_UNHEALTHY_AFTER_SECONDS")
    faults = Faults(
        every=int(os.environ.get("WEB_FAILS_EVERY", "0")),
        percent=float(os.environ.get("WEB_FAILS_PERCENT", "0")),
        chance=random.Random(os.environ.get("INSTAR_INSTANCE_ID", "")),  # noqa: S311  # it keeps no secret
    )
    web = Web(os.environ.get("INSTAR_VERSION", "0.0.0"), float(after) if after else None, faults)
    asyncio.run(asyncio_server.serve(web.attend))


if __name__ == "__main__":
    main()
