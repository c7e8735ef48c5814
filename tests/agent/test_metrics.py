"""Host metrics: present, in range, and true of this process."""

from __future__ import annotations

import os
import time
from pathlib import Path

from agent import metrics

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def read(host: metrics.HostMetrics) -> dict[str, float]:
    return {metric.name: metric.value for metric in host.read() if metric.component == ""}


def test_utilizations_are_shares_and_memory_is_that_of_this_process(tmp_path: Path) -> None:
    values = read(metrics.HostMetrics(tmp_path))
    shares = {name: value for name, value in values.items() if name.endswith(".utilization")}
    assert set(shares) == {"system.cpu.utilization", "system.memory.utilization", "system.filesystem.utilization"}
    assert all(0 <= value <= 1 for value in shares.values())
    resident_bytes = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * PAGE_BYTES
    assert 0.5 < values["process.memory.usage"] / resident_bytes < 2


def test_the_cpu_is_busy_while_somebody_works(tmp_path: Path) -> None:
    host = metrics.HostMetrics(tmp_path)
    until = time.monotonic() + 0.3
    while time.monotonic() < until:
        pass
    assert 0 < read(host)["system.cpu.utilization"] <= 1
    assert 0 <= read(host)["system.cpu.utilization"] <= 1
