"""A real Prometheus server on this machine, and real nodes that it scrapes once a second."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import re
import shutil
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from http import server as http
from pathlib import Path

import pytest

PATIENCE_SECONDS = 60.0
STOP_SECONDS = 0.02  # after which a server that is to stop sees that
_LISTENING = re.compile(r'msg="Listening on" address=(127\.0\.0\.1:\d+)')
_CONFIGURATION = """
global: {{scrape_interval: 1s, scrape_timeout: 900ms}}
scrape_configs:
- job_name: web
  static_configs: [{{targets: [{targets}]}}]
"""

needed = pytest.mark.skipif(shutil.which("prometheus") is None, reason="no prometheus is installed")


@dataclass
class Node:
    """What a node shows; with each scrape its counters grow by ``grows``."""

    name: str
    grows: dict[str, float] = field(default_factory=dict)
    gauges: dict[str, float] = field(default_factory=dict)
    counters: dict[str, float] = field(default_factory=dict)
    scrapes: int = 0
    address: str = ""

    def text(self) -> str:
        """What one scrape finds."""
        for series, more in self.grows.items():
            self.counters[series] = self.counters.get(series, 0.0) + more
        self.scrapes += 1
        return "".join(f"{series} {value}\n" for series, value in (self.counters | self.gauges).items())


class Request(http.BaseHTTPRequestHandler):
    """One request, read whole."""

    asked = b""

    def do_GET(self) -> None:
        self.asked = self.rfile.read(int(self.headers.get("content-length", "0")))
        self.answer()

    do_POST = do_GET  # noqa: N815 http.server names its methods

    def answer(self) -> None:
        raise NotImplementedError

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Server(http.ThreadingHTTPServer):
    """Says nothing of clients that have heard enough."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]  # whatever it was called with


@contextlib.contextmanager
def serving(answer: Callable[[Request], None]) -> Iterator[str]:
    """A real HTTP server on this machine; yields its address."""
    handler = type("Handler", (Request,), {"answer": lambda request: answer(request)})  # noqa: PLW0108 a method, whatever is callable
    with Server(("127.0.0.1", 0), handler) as served:
        thread = threading.Thread(target=served.serve_forever, args=(STOP_SECONDS,))
        thread.start()
        try:
            yield f"127.0.0.1:{served.server_address[1]}"
        finally:
            served.shutdown()
            thread.join()


def reply(request: Request, body: str, status: int = 200, **headers: str) -> None:
    """Answer once, whole."""
    request.send_response(status)
    for name, value in headers.items():
        request.send_header(name.replace("_", "-"), value)
    request.send_header("content-length", str(len(body.encode())))
    request.end_headers()
    request.wfile.write(body.encode())


def _show(node: Node, request: Request) -> None:
    reply(request, node.text())


@contextlib.asynccontextmanager
async def scraping(path: Path, nodes: list[Node]) -> AsyncIterator[str]:
    """A Prometheus server that scrapes these nodes; yields its URL."""
    with contextlib.ExitStack() as stack:
        for node in nodes:
            node.address = stack.enter_context(serving(functools.partial(_show, node)))
        targets = ", ".join(f'"{node.address}"' for node in nodes)
        (path / "prometheus.yml").write_text(_CONFIGURATION.format(targets=targets))
        process = await asyncio.create_subprocess_exec(
            "prometheus",
            f"--config.file={path / 'prometheus.yml'}",
            f"--storage.tsdb.path={path / 'data'}",
            "--web.listen-address=127.0.0.1:0",
            stderr=asyncio.subprocess.PIPE,
            limit=1 << 20,
        )
        try:
            assert process.stderr is not None
            async with asyncio.timeout(PATIENCE_SECONDS):
                address = await _address(process.stderr)
            reading = asyncio.ensure_future(process.stderr.read())
            yield f"http://{address}"
            process.terminate()
            await reading
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
            await process.wait()


async def _address(lines: asyncio.StreamReader) -> str:
    async for line in lines:
        if found := _LISTENING.search(line.decode()):
            return found[1]
    raise AssertionError("the server ended before it listened")


async def until(holds: Callable[[], bool | Awaitable[bool]]) -> None:
    """Wait for something that comes true by itself."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            found = holds()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(0.05)
