"""Asks an instance over its private probe socket whether it is well, and reads its metrics.

Rules kept here: every question has a deadline and reads a bounded answer, so no component can hold or fill the agent;
an instance that cannot be asked is not well. `HealthWatch` counts: it is a value, and time is an argument. Left out:
when to ask (`agent.runner`).
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import assert_never

from agent.core import model

HEAD_BYTES_MAX = 4096  # status line and headers of any sane answer
BODY_BYTES_MAX = 65536  # G12 speaks of 200 lines; this leaves 300 bytes for each
LINES_MAX = 200  # lines that are looked at; a component that shows more names too much
SCRAPE_TIMEOUT_SECONDS = 2.0  # under half of the default period, so that two readings never overlap
STATUS_OK = range(200, 400)
STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3})(?: |\r)")
LENGTH = re.compile(rb"(?i)\r\ncontent-length:[ \t]*(\d{1,9})[ \t]*\r\n")
CHUNKED = re.compile(rb"(?i)\r\ntransfer-encoding:[ \t]*chunked[ \t]*\r\n")
SAMPLE = re.compile(r"(?P<name>[A-Za-z_:][A-Za-z0-9_:]*)(?P<labels>\{[^}]*\})?\s+(?P<value>\S+)(?:\s+-?\d+)?")


class ProbeError(Exception):
    """An instance did not answer as it should; the message says how."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one asking found; ``reason`` is empty where the instance is well."""

    is_success: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class HealthWatch:
    """What the probe of one instance said so far; another instance or pid begins with a new one.

    Invariant: ``healthy_since_seconds`` is set exactly while ``health`` is HEALTHY.

    Args:
        failure_threshold: Failures in a row that make the instance unhealthy, from 1.
        failures: Failures in a row so far.
        healthy_since_seconds: Monotonic instant of the first success since the last break.
    """

    failure_threshold: int
    health: model.Health = model.Health.UNKNOWN
    failures: int = 0
    healthy_since_seconds: float | None = None

    def seen(self, *, is_success: bool, now_seconds: float) -> HealthWatch:
        """Count one answer, given at a monotonic instant."""
        if is_success:
            since = now_seconds if self.healthy_since_seconds is None else self.healthy_since_seconds
            return replace(self, health=model.Health.HEALTHY, failures=0, healthy_since_seconds=since)
        failures = self.failures + 1
        if failures < self.failure_threshold:
            return replace(self, failures=failures)
        return replace(self, health=model.Health.UNHEALTHY, failures=failures, healthy_since_seconds=None)

    def healthy_for(self, now_seconds: float) -> timedelta:
        """Time without a break until a monotonic instant; zero while it is not healthy."""
        if self.healthy_since_seconds is None:
            return timedelta()
        return timedelta(seconds=max(0.0, now_seconds - self.healthy_since_seconds))


async def ask(probe: model.Probe, socket_path: Path) -> Answer:
    """Ask an instance once; any failure is an answer too."""
    try:
        async with asyncio.timeout(probe.timeout.total_seconds()):
            await _check(probe.check, socket_path)
    except TimeoutError:
        return Answer(is_success=False, reason=f"no answer within {probe.timeout.total_seconds():g} s")
    except (OSError, ProbeError) as error:
        return Answer(is_success=False, reason=str(error))
    return Answer(is_success=True)


async def scrape(source: model.MetricsSource, component: str, socket_path: Path) -> tuple[model.Metric, ...]:
    """Read the series that the manifest names; a series that is not shown is absent.

    Raises:
        ProbeError: The answer is no success, or too large, or did not come in time.
    """
    try:
        async with asyncio.timeout(SCRAPE_TIMEOUT_SECONDS), _connection(socket_path) as (reader, writer):
            body = await _read_body(await _get(source.path, reader, writer), reader)
    except TimeoutError as error:
        raise ProbeError(f"cannot read {source.path}: no answer within {SCRAPE_TIMEOUT_SECONDS:g} s") from error
    except (OSError, ValueError, asyncio.IncompleteReadError) as error:
        raise ProbeError(f"cannot read {source.path}: {error}") from error
    values = read_series(body.decode(errors="replace"), source.series)
    return tuple(model.Metric(name, component, value) for name, value in values.items())


def read_series(text: str, series: tuple[str, ...]) -> dict[str, float]:
    """Take named series from Prometheus text.

    A name without labels stands for the sum over all its labels; a name with labels, written as the component writes
    it, for that one alone. What is no number, or not finite, is absent.
    """
    values: dict[str, float] = {}
    samples = [line for line in text.splitlines() if line and not line.startswith("#")][:LINES_MAX]
    for line in samples:
        match = SAMPLE.fullmatch(line.strip())
        value = _number(match["value"]) if match else None
        if match is None or value is None:
            continue
        for name in {match["name"], match["name"] + (match["labels"] or "")} & set(series):
            values[name] = values.get(name, 0.0) + value
    return dict(sorted(values.items()))


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


async def _check(check: model.HttpCheck | model.TcpCheck, socket_path: Path) -> None:
    async with _connection(socket_path) as (reader, writer):
        match check:
            case model.TcpCheck():
                pass
            case model.HttpCheck():
                await _get(check.path, reader, writer)
            case _:
                assert_never(check)


@contextlib.asynccontextmanager
async def _connection(socket_path: Path) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_unix_connection(socket_path, limit=HEAD_BYTES_MAX)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()  # an answer that is not read to its end is not wanted
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _get(path: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
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


async def _read_body(head: bytes, reader: asyncio.StreamReader) -> bytes:
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
