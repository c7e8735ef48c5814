"""What this host and this agent use, under the names of OpenTelemetry's semantic conventions.

Rules kept here: reading costs a few system calls and nothing is sampled between two readings, so the agent stays light
(G12); utilizations are shares from 0 to 1. Left out: the metrics of components (`agent.probes`).

Source: https://opentelemetry.io/docs/specs/semconv/system/system-metrics/
"""

from __future__ import annotations

from pathlib import Path

import psutil

from agent.core import model

PERCENT = 100.0


class HostMetrics:
    """Reads the metrics of the host; the CPU's utilization is that since the reading before.

    Args:
        state_dir: Directory whose file system is measured.
    """

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._process = psutil.Process()
        self._cpu_times = psutil.cpu_times()

    def read(self) -> tuple[model.Metric, ...]:
        """Measure now."""
        values = {
            "system.cpu.utilization": self._cpu_utilization(),
            "system.memory.utilization": psutil.virtual_memory().percent / PERCENT,
            "system.filesystem.utilization": psutil.disk_usage(str(self._state_dir)).percent / PERCENT,
            "process.memory.usage": float(self._process.memory_info().rss),
        }
        return tuple(model.Metric(name, component="", value=value) for name, value in values.items())

    def _cpu_utilization(self) -> float:
        before, self._cpu_times = self._cpu_times, psutil.cpu_times()
        spent = [now - then for now, then in zip(self._cpu_times, before, strict=True)]
        total_seconds = sum(spent) - self._guest_seconds(before)
        idle_seconds = self._cpu_times.idle + self._cpu_times.iowait - before.idle - before.iowait
        return min(1.0, max(0.0, 1 - idle_seconds / total_seconds)) if total_seconds > 0 else 0.0

    def _guest_seconds(self, before: psutil._pslinux.scputimes) -> float:
        now = self._cpu_times
        return now.guest + now.guest_nice - before.guest - before.guest_nice  # counted in user and nice already
