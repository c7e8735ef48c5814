"""The demo's client, a process of its own: an open loop that never retries.

Every request has an instant at which it is due, whatever became of those before it; half of them open a connection of
their own, half share the kept ones of their node. A request is asked once. SIGTERM ends the sending; what is in
flight is awaited and noted.

    python -m controller.cli.demo.load --node demo-1=127.0.0.1:8080 --rate 40 --out requests.tsv
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import cycle
from pathlib import Path
from typing import TextIO

from controller.cli.demo import exchange, record

# At 20 kept requests a second and node, each is used every 0.2 s: well inside the second that a draining server
# waits before it closes an idle connection.
KEPT_CONNECTIONS_PER_NODE = 4
FLUSH_SECONDS = 0.2  # readers of the file are at most this much behind


@dataclass(frozen=True, slots=True)
class Target:
    """A node's service."""

    node_id: str
    address: exchange.Address


class KeptClient:
    """A client that keeps its connection for as long as the server does."""

    def __init__(self, address: exchange.Address) -> None:
        self._address = address
        self._connection: exchange.Connection | None = None
        self._turn = asyncio.Lock()

    async def ask(self) -> exchange.Answer:
        """Ask over the kept connection; open one where there is none.

        Raises:
            exchange.LostError: No whole answer came.
        """
        async with self._turn:
            connection = await self._open()
            self._connection = None
            try:
                answer = await connection.ask(keep_alive=True)
            except BaseException:
                await connection.close()
                raise
            if answer.is_last:
                await connection.close()
            else:
                self._connection = connection
            return answer

    async def _open(self) -> exchange.Connection:
        kept = self._connection
        if kept is not None and not kept.is_ended():
            return kept
        if kept is not None:
            await kept.close()
        return await exchange.connect(self._address)

    async def close(self) -> None:
        """Let go of the connection."""
        if self._connection is not None:
            await self._connection.close()


async def ask_once(address: exchange.Address) -> exchange.Answer:
    """Ask over a connection of its own.

    Raises:
        exchange.LostError: No whole answer came.
    """
    connection = await exchange.connect(address)
    try:
        return await connection.ask(keep_alive=False)
    finally:
        await connection.close()


class Load:
    """The open loop over some nodes.

    Args:
        rate: Requests a second and node.
        out: Where the records go.
    """

    def __init__(self, targets: Sequence[Target], rate: float, out: TextIO) -> None:
        self._targets = targets
        self._interval_seconds = 1.0 / (rate * len(targets))
        self._out = out
        self._stopped = asyncio.Event()
        self._kept = {
            target.node_id: [KeptClient(target.address) for _ in range(KEPT_CONNECTIONS_PER_NODE)] for target in targets
        }

    def stop(self) -> None:
        """Send no more."""
        self._stopped.set()

    async def run(self) -> None:
        """Send until stopped; return when the last answer is noted."""
        began_at, began_seconds = _now(), time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            flushing = tasks.create_task(self._flush())
            async with asyncio.TaskGroup() as requests:
                for number, (target, client) in enumerate(self._turns()):
                    due_seconds = number * self._interval_seconds
                    if await self._is_stopped_by(began_seconds + due_seconds):
                        break
                    due_at = began_at + timedelta(seconds=due_seconds)
                    requests.create_task(self._request(target, client, due_at, began_seconds + due_seconds))
            flushing.cancel()
        for client in (client for clients in self._kept.values() for client in clients):
            await client.close()
        self._out.flush()

    def _turns(self) -> Iterator[tuple[Target, KeptClient | None]]:
        """Each node in turn by a new connection, then each by a kept one, without end."""
        kept = {node_id: cycle(clients) for node_id, clients in self._kept.items()}
        while True:
            for target in self._targets:
                yield target, None
            for target in self._targets:
                yield target, next(kept[target.node_id])

    async def _is_stopped_by(self, due_seconds: float) -> bool:
        wait_seconds = due_seconds - time.monotonic()
        if wait_seconds > 0:
            try:
                async with asyncio.timeout(wait_seconds):
                    await self._stopped.wait()
            except TimeoutError:
                return False
        return self._stopped.is_set()

    async def _request(self, target: Target, client: KeptClient | None, due_at: datetime, due_seconds: float) -> None:
        version, failure = await _outcome(target, client)
        self._out.write(
            record.line(
                record.Record(
                    due_at=due_at,
                    latency_ms=(time.monotonic() - due_seconds) * 1000,
                    node_id=target.node_id,
                    kind=record.Kind.KEEP_ALIVE if client else record.Kind.NEW_CONNECTION,
                    version=version,
                    failure=failure,
                )
            )
        )

    async def _flush(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            self._out.flush()


async def _outcome(target: Target, client: KeptClient | None) -> tuple[str, exchange.Failure | None]:
    try:
        async with asyncio.timeout(exchange.ANSWER_TIMEOUT_SECONDS):
            answer = await (client.ask() if client else ask_once(target.address))
    except TimeoutError:
        return "", exchange.Failure.TIMED_OUT
    except exchange.LostError as error:
        return "", error.failure
    return answer.version, exchange.Failure.SERVER_ERROR if answer.status >= 500 else None  # noqa: PLR2004 HTTP's own


def _now() -> datetime:
    return datetime.now(UTC)  # noqa: TID251 this process is its own shell: it reads the clock once, at its start


def _target(text: str) -> Target:
    node_id, _, address = text.partition("=")
    host, _, port = address.rpartition(":")
    if not (node_id and host and port.isdecimal()):
        raise argparse.ArgumentTypeError(f"cannot use --node {text!r}: NODE=HOST:PORT is needed")
    return Target(node_id, exchange.Address(host, int(port)))


async def _run(targets: Sequence[Target], rate: float, path: Path) -> None:
    with path.open("w", encoding="ascii") as out:
        load = Load(targets, rate, out)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, load.stop)
        await load.run()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the client until SIGTERM.

    Args:
        argv: Arguments; those of the process where left out.
    """
    parser = argparse.ArgumentParser(prog="python -m controller.cli.demo.load", description="open-loop HTTP client")
    parser.add_argument(
        "--node", dest="targets", action="append", type=_target, required=True, metavar="NODE=HOST:PORT"
    )
    parser.add_argument("--rate", type=float, required=True, help="requests a second and node")
    parser.add_argument("--out", type=Path, required=True, help="file for the records")
    arguments = parser.parse_args(argv)
    asyncio.run(_run(arguments.targets, arguments.rate, arguments.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
