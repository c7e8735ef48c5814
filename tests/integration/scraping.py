"""A real Prometheus server that scrapes the components of real nodes, and a controller that may ask it.

Rules kept: it is configured as an operator would: the target says which node it is, the component itself which version
it is, the address is the one that clients use; and the controller is told of it by its own configuration file.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import httpx

from controller.cli.demo import fleet, ports, process

SOURCE = "main"  # by which the controller's configuration names it
READY_SECONDS = 30.0  # for the server to come up, and for its first scrapes, on two busy cores
_SCRAPED = """\
global: {scrape_interval: 1s, scrape_timeout: 900ms}
scrape_configs:
- job_name: web
  static_configs:
"""
_TARGET = '  - {{targets: ["{address}"], labels: {{node: "{node}"}}}}\n'
_ASKED = """\
[[prometheus]]
name = "{name}"
url = "{url}"
step = "1s"
node_label = "node"
selector = 'job="{{{{component}}}}"'
"""


class Controller(fleet.Controller):
    """A controller whose configuration file names a Prometheus server.

    Args:
        folder: Where its state, its log and its configuration file lie.
        url: Of the server.
    """

    def __init__(self, folder: Path, heartbeat_period: str, url: str) -> None:
        super().__init__(folder, None, heartbeat_period)
        self._config_file = folder / "controller.toml"
        self._config_file.write_text(_ASKED.format(name=SOURCE, url=url), encoding="utf-8")

    def _environment(self) -> Mapping[str, str]:
        return {**super()._environment(), "INSTAR_CONFIG": str(self._config_file)}


class Prometheus:
    """A Prometheus server of its own.

    Args:
        folder: Where its configuration, its data and its log lie.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._address = f"{ports.HOST}:{ports.free(1)[0]}"
        self._process: process.Process | None = None

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{self._address}"

    async def start(self, nodes: Iterable[fleet.Node], more: str = "") -> None:
        """Scrape the component of each node; return when it answers.

        Args:
            nodes: Which.
            more: Of its configuration, behind what is scraped.

        Raises:
            ProcessError: There is no such program here, or it does not come up.
        """
        program = shutil.which("prometheus")
        if program is None:
            raise process.ProcessError("cannot scrape the nodes: no prometheus is installed")
        self._folder.mkdir()
        config = self._folder / "prometheus.yml"
        targets = (_TARGET.format(address=f"{ports.HOST}:{node.port}", node=node.id) for node in nodes)
        config.write_text(_SCRAPED + "".join(targets) + more, encoding="utf-8")
        argv = [program, f"--config.file={config}", f"--storage.tsdb.path={self._folder / 'data'}"]
        argv += [f"--web.listen-address={self._address}", "--log.level=warn"]
        log = self._folder / "prometheus.log"
        self._process = await process.start("prometheus", argv, log=log, environment=os.environ)
        try:
            await process.until("prometheus answers", self._answers, seconds=READY_SECONDS)
        except process.ProcessError as error:
            raise self._process.failure("start prometheus") from error

    async def stop(self) -> None:
        """Stop it, if it runs."""
        if self._process is not None:
            await self._process.stop()

    async def ask(self, query: str) -> dict[str, float]:
        """Ask a question of this instant; the value of each series, by its label `version`."""
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.post(f"{self.url}/api/v1/query", data={"query": query})
        found: Any = answer.raise_for_status().json()
        return {each["metric"].get("version", ""): float(each["value"][1]) for each in found["data"]["result"]}

    async def questions(self) -> int:
        """How many range queries it has answered, by its own counter."""
        async with httpx.AsyncClient(trust_env=False) as client:
            told = (await client.get(f"{self.url}/metrics")).raise_for_status().text
        wanted = 'prometheus_http_requests_total{code="200",handler="/api/v1/query_range"} '
        return sum(int(line.removeprefix(wanted)) for line in told.splitlines() if line.startswith(wanted))

    async def _answers(self) -> bool:
        async with httpx.AsyncClient(trust_env=False) as client:
            try:
                return (await client.get(f"{self.url}/-/ready")).is_success
            except httpx.TransportError:
                return False
