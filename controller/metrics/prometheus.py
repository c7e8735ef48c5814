"""A Prometheus server as a source: range queries, answered as samples of the judge.

Theory of operation. Time is cut into steps, anchored at the instant at which the evidence begins: so the past is the
same at every look, and chunks of steps that are long over are asked for once and kept. Each metric is one or two
queries (`queries`); every answer has one series for each node, told apart by a label (`answers`); steps add up to a
sample (`grids`).

Rules kept: every wait and every answer is bounded; no redirect is followed, and no proxy of the environment used; a
token is read when it is needed and shown to nobody; whatever goes wrong is one `SourceError`, and no version is at
fault for it. Left out: what becomes of the samples (`controller.core.analysis`).
"""

from __future__ import annotations

import asyncio
import ssl
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Never

import httpx
import numpy as np

from controller.config import sources
from controller.core import errors, model, secret
from controller.core.analysis import samples
from controller.metrics import answers, grids, queries

ANSWER_BYTES_MAX = 32 << 20  # 32 MiB: 10,000 nodes and a chunk of steps are 18 MB
TOKEN_BYTES_MAX = 16 << 10  # 16 KiB: what servers take as a header; tokens have some hundreds of bytes
CHUNK_STEPS = 60  # in one query: half an hour at the usual step
PAST_STEPS_MAX = 240  # of the past: 2 h at the usual step; where it is longer, so are the steps
PRESENT_STEPS_MAX = 5_000  # since the change: 41 h at the usual step
KEPT_BYTES_MAX = 64 << 20  # 64 MiB of steps that are over
SETTLED_AFTER = timedelta(minutes=1)  # after it a step is not expected to change: scrapes and rules have come in
QUERIES_AT_ONCE_MAX = 4  # of one server, which has others to serve
LOOK_SECONDS_MAX = 60.0  # for all questions of one look; the next look is due long before
_MS = timedelta(milliseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_Key = tuple[str, answers.Span]


@dataclass(frozen=True, slots=True)
class _Steps:
    """How time is cut: the past has the steps up to 0, which ends at the anchor; the present those from 1 on."""

    anchor_ms: int
    step_ms: int
    past: int
    present: int

    def spans(self, first: int, last: int) -> list[answers.Span]:
        """Cut steps into chunks, always at the same places."""
        starts = range(first, last + 1, CHUNK_STEPS)
        sizes = (min(CHUNK_STEPS, last + 1 - start) for start in starts)
        return [
            answers.Span(self.anchor_ms + start * self.step_ms, self.step_ms, size)
            for start, size in zip(starts, sizes, strict=True)
        ]


class Prometheus:
    """One configured server."""

    def __init__(self, server: sources.Server) -> None:
        self._server = server
        self._client = _client(server)
        self._slots = asyncio.Semaphore(QUERIES_AT_ONCE_MAX)
        self._kept: OrderedDict[_Key, answers.Grid] = OrderedDict()
        self._kept_bytes = 0

    async def aclose(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    async def samples(  # noqa: PLR0913  # what is asked for has so many parts, and each is named
        self,
        subject: queries.Subject,
        metrics: Sequence[model.JudgedMetric],
        canary: Mapping[model.NodeId, datetime],
        control: Sequence[model.NodeId],
        *,
        past: timedelta,
        began_at: datetime,
        at: datetime,
    ) -> dict[str, samples.Sample]:
        """Ask for a sample of each metric, by its name; its entries are the canary nodes, then the control nodes.

        Args:
            subject: What stands for the placeholders of queries.
            metrics: What is judged.
            canary: For each changed node the instant from which its evidence counts.
            control: The untouched nodes; their evidence counts from the earliest of those instants.
            past: How much of the time before ``began_at`` is the past of the nodes.
            began_at: When the first node began to change.
            at: Now.

        Raises:
            SourceError: The server gave no answer that counts.
        """
        steps = self._cut(past, began_at, at)
        pairs = [self._pair(metric.measure, subject, steps.step_ms) for metric in metrics]
        asked = {query for pair in pairs for query in (pair.value, pair.exposure) if query}
        spans = [*steps.spans(1 - steps.past, 0), *steps.spans(1, steps.present)]
        keys = [(query, span) for query in sorted(asked) for span in spans]
        found = await self._ask_all(keys, _ms(at))
        nodes = (*canary, *control)
        first = _steps_until(steps, min(canary.values(), default=began_at))
        begins = [*(_steps_until(steps, each) for each in canary.values()), *(first for _ in control)]
        is_canary = [*(True for _ in canary), *(False for _ in control)]
        made: dict[str, samples.Sample] = {}
        for metric, pair in zip(metrics, pairs, strict=True):
            kind = metric.measure.kind
            before = _rows(kind, pair, nodes, steps, steps.spans(1 - steps.past, 0), found)
            after = _rows(kind, pair, nodes, steps, steps.spans(1, steps.present), found)
            made[metric.name] = grids.sample(kind, is_canary, before, after, begins)
        return made

    def _cut(self, past: timedelta, began_at: datetime, at: datetime) -> _Steps:
        longest = -(-past // (PAST_STEPS_MAX * _MS))
        step_ms = max(self._server.step // _MS, longest)
        present = max(0, (_ms(at) - _ms(began_at)) // step_ms)
        if present > PRESENT_STEPS_MAX:
            what = f"more than {PRESENT_STEPS_MAX} steps of {step_ms} ms have passed since the change"
            raise answers.fault(self._server, "too_long", what, blame=errors.Blame.CALLER, is_retryable=False)
        return _Steps(_ms(began_at), step_ms, max(1, past // _MS // step_ms), present)

    def _pair(self, measure: model.Measure, subject: queries.Subject, step_ms: int) -> queries.Pair:
        try:
            return queries.pair(measure, subject, self._server, step_ms * _MS)
        except errors.InvalidRequestError as error:
            blame = errors.Blame.CONTROLLER if error.field == "selector" else errors.Blame.CALLER
            raise answers.fault(self._server, error.code, str(error), blame=blame, is_retryable=False) from error

    async def _ask_all(self, keys: Iterable[_Key], now_ms: int) -> dict[_Key, answers.Grid]:
        """Ask all questions, several at a time; the first fault ends them all."""
        try:
            async with asyncio.timeout(LOOK_SECONDS_MAX), asyncio.TaskGroup() as group:
                tasks = {key: group.create_task(self._ask(key, now_ms)) for key in keys}
        except TimeoutError as error:
            raise answers.fault(self._server, "timed_out", f"no look ended within {LOOK_SECONDS_MAX:.0f} s") from error
        except ExceptionGroup as error:
            raise error.exceptions[0] from None
        return {key: task.result() for key, task in tasks.items()}

    async def _ask(self, key: _Key, now_ms: int) -> answers.Grid:
        kept = self._kept.get(key)
        if kept is not None:
            self._kept.move_to_end(key)
            return kept
        query, span = key
        async with self._slots:
            body = await self._fetch(query, span)
            grid = await asyncio.to_thread(answers.read, self._server, body, span)
        if span.end_ms <= now_ms - SETTLED_AFTER // _MS:
            self._keep(key, grid)
        return grid

    def _keep(self, key: _Key, grid: answers.Grid) -> None:
        self._kept[key] = grid
        self._kept_bytes += grid.values.nbytes
        while self._kept_bytes > KEPT_BYTES_MAX:
            _, oldest = self._kept.popitem(last=False)
            self._kept_bytes -= oldest.values.nbytes

    async def _fetch(self, query: str, span: answers.Span) -> bytes:
        try:
            async with asyncio.timeout(self._server.time_out.total_seconds()):
                return await self._receive(query, span)
        except (TimeoutError, httpx.TimeoutException) as error:
            what = f"it takes longer than {self._server.time_out.total_seconds():g} s"
            raise answers.fault(self._server, "timed_out", what) from error
        except httpx.HTTPError as error:
            what = f"the connection fails: {type(error).__name__}"  # its text may hold what was sent
            raise answers.fault(self._server, "unreachable", what) from error

    async def _receive(self, query: str, span: answers.Span) -> bytes:
        form = {
            "query": query,
            "start": f"{span.start_ms / 1000:.3f}",
            "end": f"{span.end_ms / 1000:.3f}",
            "step": f"{span.step_ms / 1000:.3f}",
        }
        url = f"{self._server.url}/api/v1/query_range"
        token = await self._token()
        headers = {} if token is None else {"authorization": f"Bearer {token.reveal()}"}
        async with self._client.stream("POST", url, data=form, headers=headers) as response:
            if response.headers.get("content-encoding", "identity") != "identity":
                raise answers.fault(self._server, "wrong_answer", "it is packed, and that was not asked for")
            body = await self._bounded(response)
            location = response.headers.get("location", "")
            if token is not None:
                body, location = _without(token, body), _without(token, location.encode()).decode()
            answers.check_status(self._server, response.status_code, location, body)
            return body

    async def _bounded(self, response: httpx.Response) -> bytes:
        body = bytearray()
        async for part in response.aiter_raw():
            body += part
            if len(body) > ANSWER_BYTES_MAX:
                what = f"it is longer than {ANSWER_BYTES_MAX >> 20} MiB"
                raise answers.fault(self._server, "too_large", what, blame=errors.Blame.CALLER, is_retryable=False)
        return bytes(body)

    async def _token(self) -> secret.Secret[str] | None:
        file = self._server.token_file
        if file is None:
            return None
        try:
            token = secret.Secret((await asyncio.to_thread(file.read_bytes)).strip().decode("ascii"))
        except (OSError, UnicodeDecodeError) as error:
            self._refuse_token(type(error).__name__)
        if not _is_token(token.reveal()):
            self._refuse_token("it holds no token")
        return token

    def _refuse_token(self, why: str) -> Never:
        what = f"its token_file cannot be used: {why}"
        raise answers.fault(
            self._server, "token_unusable", what, blame=errors.Blame.CONTROLLER, is_retryable=False
        ) from None


def _without(token: secret.Secret[str], said: bytes) -> bytes:
    """Take out of a server's words what it was shown: servers, and proxies before them, repeat what they dislike."""
    known = token.reveal().encode()
    for form in (known, known.replace(b"/", b"\\/")):  # as it is, and as some write it in JSON
        said = said.replace(form, secret.HIDDEN.encode())
    return said


def _is_token(text: str) -> bool:
    return 0 < len(text) <= TOKEN_BYTES_MAX and text.isprintable() and " " not in text


class Servers:
    """All configured servers, by name."""

    def __init__(self, servers: Iterable[sources.Server]) -> None:
        self._servers = {each.name: Prometheus(each) for each in servers}

    def __iter__(self) -> Iterator[str]:
        """Give the names."""
        return iter(self._servers)

    def named(self, name: str) -> Prometheus:
        """Find a server.

        Raises:
            NotFoundError: None of the configuration has the name.
        """
        if name not in self._servers:
            raise errors.NotFoundError(
                f"cannot ask the Prometheus server {name!r}: the configuration names none of this name",
                code="source_not_found",
                field="analysis.source",
                value=name,
                rule=f"one of {', '.join(sorted(self._servers)) or 'none'}",
            )
        return self._servers[name]

    async def aclose(self) -> None:
        """Close every connection of each."""
        for each in self._servers.values():
            await each.aclose()


def _client(server: sources.Server) -> httpx.AsyncClient:
    is_secure = server.url.startswith("https://")
    context = (
        ssl.create_default_context(cafile=server.ca_file) if is_secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    )
    return httpx.AsyncClient(
        verify=context,
        trust_env=False,
        follow_redirects=False,
        timeout=server.time_out.total_seconds(),
        headers={"accept": "application/json", "accept-encoding": "identity", "user-agent": "instar"},
        limits=httpx.Limits(max_connections=QUERIES_AT_ONCE_MAX, max_keepalive_connections=QUERIES_AT_ONCE_MAX),
    )


def _ms(at: datetime) -> int:
    return (at - _EPOCH) // _MS


def _steps_until(steps: _Steps, at: datetime) -> int:
    """Count the steps of the present that do not lie wholly behind an instant."""
    return max(0, -(-(_ms(at) - steps.anchor_ms) // steps.step_ms))


def _rows(
    kind: model.MeasureKind,
    pair: queries.Pair,
    nodes: Sequence[model.NodeId],
    steps: _Steps,
    spans: Sequence[answers.Span],
    found: Mapping[_Key, answers.Grid],
) -> grids.Steps:
    """Put the answers of chunks side by side, one row for each node."""
    values = _joined(pair.value, nodes, spans, found)
    if pair.exposure:
        return grids.Steps(values, _joined(pair.exposure, nodes, spans, found))
    each = steps.step_ms / 1000 if kind is model.MeasureKind.RATE else 1.0
    return grids.Steps(values, np.full_like(values, each))


def _joined(
    query: str, nodes: Sequence[model.NodeId], spans: Sequence[answers.Span], found: Mapping[_Key, answers.Grid]
) -> samples.Floats:
    parts = [np.full((len(nodes), 0), np.nan)]
    for span in spans:
        grid = found[query, span]
        part = np.full((len(nodes), span.steps), np.nan)
        known = [(row, grid.rows[node]) for row, node in enumerate(nodes) if node in grid.rows]
        if known:
            to, source = zip(*known, strict=True)
            part[list(to)] = grid.values[list(source)]
        parts.append(part)
    return np.concatenate(parts, axis=1)
