"""`python -m tests.bench.load HOST:PORT --rate R`: a load in a process of its own, which writes every request down.

Rules kept here: open loop: a request begins when it is due, however late the ones before it are, and its latency
counts from then; half of them on new connections, half on kept ones; nothing is retried. With ``--clients N`` instead
of a rate the loop is closed: N clients that ask again at once. It ends when its standard input ends, and prints one
JSON document.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import time
from collections import deque
from dataclasses import dataclass, field

REQUEST = b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n"
LAST_REQUEST = b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"
TIMEOUT_SECONDS = 10.0  # a request that takes longer has failed
KEPT_MAX = 16  # connections that are kept; the clients of the open loop take them in turn

Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Seen:
    """Every request: when it was due, how long it took, and why it failed."""

    host: str
    port: int
    samples: list[tuple[float, float, str]] = field(default_factory=list)
    kept: deque[Pair] = field(default_factory=deque)
    is_over: bool = False


async def _ask(seen: Seen, due: float, *, is_kept: bool) -> None:
    why = ""
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await (_ask_kept(seen) if is_kept else _ask_new(seen))
    except (OSError, EOFError, TimeoutError, ValueError) as error:
        why = repr(error) or "time-out"
    seen.samples.append((due, time.monotonic() - due, why))


async def _ask_new(seen: Seen) -> None:
    pair = await asyncio.open_connection(seen.host, seen.port)
    try:
        await _exchange(pair, LAST_REQUEST)
    finally:
        pair[1].close()


async def _ask_kept(seen: Seen) -> None:
    pair = seen.kept.popleft() if seen.kept else None
    while pair is not None and pair[0].at_eof():  # the end was announced: nobody writes into it
        pair[1].close()
        pair = seen.kept.popleft() if seen.kept else None
    pair = pair or await asyncio.open_connection(seen.host, seen.port)
    is_last = True
    try:
        is_last = await _exchange(pair, REQUEST)
    finally:
        if is_last or len(seen.kept) >= KEPT_MAX:
            pair[1].close()
        else:
            seen.kept.append(pair)


async def _exchange(pair: Pair, request: bytes) -> bool:
    """Ask once; return whether the answer was the last on this connection."""
    reader, writer = pair
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    if not head.startswith(b"http/1.1 200"):
        raise ValueError(head.partition(b"\r\n")[0].decode())
    await reader.readexactly(int(head.partition(b"content-length:")[2].partition(b"\r\n")[0]))
    return b"connection: close" in head


async def _open_loop(seen: Seen, rate: float, group: asyncio.TaskGroup) -> None:
    began = time.monotonic()
    count = 0
    while not seen.is_over:
        due = began + count / rate
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        group.create_task(_ask(seen, due, is_kept=count % 2 == 0))
        count += 1


async def _closed_loop(seen: Seen, number: int) -> None:
    while not seen.is_over:
        await _ask(seen, time.monotonic(), is_kept=number % 2 == 0)


async def _until_input_ends() -> None:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()


async def _run(chosen: argparse.Namespace) -> Seen:
    host, _, port = chosen.address.rpartition(":")
    seen = Seen(host, int(port))
    async with asyncio.TaskGroup() as group:
        if chosen.clients:
            for number in range(chosen.clients):
                group.create_task(_closed_loop(seen, number))
        else:
            group.create_task(_open_loop(seen, chosen.rate, group))
        await _until_input_ends()
        seen.is_over = True
    for _, writer in seen.kept:
        with contextlib.suppress(OSError):
            writer.close()
    return seen


def main() -> None:
    """Run the load."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.load", description=__doc__)
    parser.add_argument("address")
    parser.add_argument("--rate", type=float, default=0.0)
    parser.add_argument("--clients", type=int, default=0)
    json.dump(asyncio.run(_run(parser.parse_args())).samples, sys.stdout)


if __name__ == "__main__":
    main()
