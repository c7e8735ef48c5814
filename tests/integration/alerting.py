"""A real Alertmanager that a real Prometheus server sends its alerts to, and a controller that takes them.

Rules kept: all three are configured as docs/triggers.md says; who shows the token is let in, and nobody else.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import httpx

from controller.cli.demo import fleet, ports, process

READY_SECONDS = 30.0  # for the program to come up on two busy cores
TOKEN = "a token that an Alertmanager shows"  # noqa: S105  # of the test
ALERT = "WebFails"
_WEB = """\
[web]
listen = "{address}"
alertmanager_token_file = "{token_file}"
"""
_ROUTED = """\
route: {{receiver: instar, group_wait: 1s, group_interval: 1s, repeat_interval: 2s}}
receivers:
- name: instar
  webhook_configs:
  - url: http://{address}/v1/alertmanager
    send_resolved: true
    http_config:
      authorization: {{type: Bearer, credentials_file: {token_file}}}
"""
_ALERTING = """\
rule_files: [{rules}]
alerting: {{alertmanagers: [{{static_configs: [{{targets: ["{address}"]}}]}}]}}
"""
_RULES = """\
groups:
- name: web
  interval: 1s
  rules:
  - alert: {alert}
    expr: sum(increase(web_errors_total[10s])) > 0
    for: 2s
    labels: {{severity: page}}
    annotations: {{summary: it fails requests}}
"""


class Controller(fleet.Controller):
    """A controller whose configuration file says that it takes alerts.

    Args:
        folder: Where its state, its log, its configuration file and the token lie.
    """

    def __init__(self, folder: Path, heartbeat_period: str) -> None:
        super().__init__(folder, None, heartbeat_period)
        self.web_address = f"{ports.HOST}:{ports.free(1)[0]}"
        self.token_file = folder / "alertmanager.token"
        self.token_file.write_text(f"{TOKEN}\n", encoding="utf-8")
        self._config_file = folder / "controller.toml"
        text = _WEB.format(address=self.web_address, token_file=self.token_file)
        self._config_file.write_text(text, encoding="utf-8")

    def _environment(self) -> Mapping[str, str]:
        return {**super()._environment(), "INSTAR_CONFIG": str(self._config_file)}


class Alertmanager:
    """An Alertmanager of its own.

    Args:
        folder: Where its configuration, its data and its log lie, and the rules that raise alerts.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._address = f"{ports.HOST}:{ports.free(1)[0]}"
        self._process: process.Process | None = None

    async def start(self, controller: Controller) -> None:
        """Notify a controller; return when it answers.

        Raises:
            ProcessError: There is no such program here, or it does not come up.
        """
        program = shutil.which("prometheus-alertmanager")
        if program is None:
            raise process.ProcessError("cannot pass alerts on: no prometheus-alertmanager is installed")
        self._folder.mkdir()
        config = self._folder / "alertmanager.yml"
        routed = _ROUTED.format(address=controller.web_address, token_file=controller.token_file)
        config.write_text(routed, encoding="utf-8")
        argv = [program, f"--config.file={config}", f"--storage.path={self._folder / 'data'}", "--log.level=debug"]
        argv += [f"--web.listen-address={self._address}", "--cluster.listen-address="]
        log = self._folder / "alertmanager.log"
        self._process = await process.start("the alertmanager", argv, log=log, environment=os.environ)
        try:
            await process.until("the alertmanager answers", self._answers, seconds=READY_SECONDS)
        except process.ProcessError as error:
            raise self._process.failure("start the alertmanager") from error

    async def stop(self) -> None:
        """Stop it, if it runs."""
        if self._process is not None:
            await self._process.stop()

    def asked(self) -> str:
        """What a Prometheus server has to be told: when there is an alert, and where it goes."""
        rules = self._folder / "rules.yml"
        rules.write_text(_RULES.format(alert=ALERT), encoding="utf-8")
        return _ALERTING.format(rules=rules, address=self._address)

    async def notified(self) -> int:
        """How many notifications it has sent that were taken, by its own counters."""
        async with httpx.AsyncClient(trust_env=False) as client:
            told = (await client.get(f"http://{self._address}/metrics")).raise_for_status().text
        counts = {
            word: sum(
                float(line.split()[-1])
                for line in told.splitlines()
                if line.startswith(f"{name}{{") and _WEBHOOK in line
            )
            for word, name in (
                ("all", "alertmanager_notifications_total"),
                ("lost", "alertmanager_notifications_failed_total"),
            )
        }
        return int(counts["all"] - counts["lost"])

    async def _answers(self) -> bool:
        async with httpx.AsyncClient(trust_env=False) as client:
            try:
                return (await client.get(f"http://{self._address}/-/ready")).is_success
            except httpx.TransportError:
                return False


_WEBHOOK = 'integration="webhook"'
