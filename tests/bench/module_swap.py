"""What the swap of a module costs its callers, and whether a call is lost or sees two versions.

Swaps with nobody inside, then under four threads that call all the time, then with 100,000 entries of state that
change their form. Beside it in the same run: importlib.reload of the same module under the same threads, as tools for
development do it; it is counted by the calls that see half a module.
"""

from __future__ import annotations

import asyncio
import importlib
import statistics
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instar_handover import module_host
from tests.bench import result
from tests.instar_handover import module_releases as releases

IDLE_SWAPS = 300
BUSY_SWAPS = 300
THREADS = 4
ENTRIES = 100_000
STATE_SWAPS = 5
RELOADS = 60
PERCENTILE = 0.99
VERSIONS = ("1.0.0", "2.0.0")
# Each version says its name from two places; a call that sees two versions tells them apart.
SAYS_TWICE = """
def _name():
    return VERSION
def twice(order):
    first = VERSION
    total = sum(range(200))
    return first, _name(), order
"""
CENTS = {"totals": {"*": {"cents": "int"}}}
UP = "{'totals': {k: {'cents': v * 100} for k, v in state['totals'].items()}}"


@dataclass(slots=True)
class Calls:
    """What the callers saw."""

    total: int = 0
    lost: int = 0
    mixed: int = 0


def measure() -> result.Result:
    """Swap idle, under load and with state; reload for comparison."""
    with tempfile.TemporaryDirectory(prefix="in-") as folder:
        return asyncio.run(_measure(Path(folder)))


async def _measure(folder: Path) -> result.Result:
    host = module_host.ModuleHost()
    versions = [releases.write(folder, version, more=SAYS_TWICE) for version in VERSIONS]
    await releases.installed(host, versions[0])
    idle = [await _swap(host, versions, number) for number in range(IDLE_SWAPS)]
    cell = host.cell("billing.rules")
    with _callers(lambda order: cell.call("twice", order)) as calls:
        busy = [await _swap(host, versions, number) for number in range(BUSY_SWAPS)]
    reloaded = _reload(folder)
    migrated = [await _migrate(folder) for _ in range(STATE_SWAPS)]
    idle_us = 1e6 * statistics.median(idle)
    figures = {
        "idle_us": round(idle_us, 1),
        "p99_ms": round(1000 * sorted(busy)[int(len(busy) * PERCENTILE)], 3),
        "calls": calls.total,
        "lost": calls.lost,
        "mixed": calls.mixed,
        "state_ms": round(1000 * statistics.median(migrated), 1),
        "state_entries": ENTRIES,
        "peers": {"importlib_reload": {"calls": reloaded.total, "lost": reloaded.lost, "mixed": reloaded.mixed}},
    }
    return result.Result("module_swap", round(idle_us, 1), "us", IDLE_SWAPS + BUSY_SWAPS, figures)


async def _swap(host: module_host.ModuleHost, versions: list[dict[str, Any]], number: int) -> float:
    """Swap to the other version and forget the old one; returns the seconds for which calls had to wait."""
    release = versions[(number + 1) % len(versions)]
    told = await releases.swapped(host, release)
    await releases.say(host, "drop", keep=release["instance"])
    return float(told["paused_seconds"])


async def _migrate(folder: Path) -> float:
    """Swap to a version whose state is of another form; returns the seconds for which calls had to wait."""
    host = module_host.ModuleHost()
    state = {"totals": {f"customer-{number}": number for number in range(ENTRIES)}}
    await releases.installed(host, releases.write(folder, "3.0.0", state=state, known=">=1.0.0", change="state"))
    new = releases.write(folder, "4.0.0", schema=CENTS, known=">=1.0.0", change=UP)
    told = await releases.swapped(host, new)
    assert host.cell("billing.rules").call("total", "customer-7") == {"cents": 700}
    return float(told["paused_seconds"])


@contextmanager
def _callers(call: Callable[[int], tuple[str, str, int]]) -> Iterator[Calls]:
    """Let threads call all the time while the block runs."""
    seen = Calls()
    lock = threading.Lock()
    is_over = threading.Event()

    def run() -> None:
        own = Calls()
        while not is_over.is_set():
            own.total += 1
            try:
                first, second, order = call(own.total)
            except Exception:  # noqa: BLE001  # whatever it raises, the call is lost
                own.lost += 1
                continue
            own.mixed += first != second or order != own.total
        with lock:
            seen.total, seen.lost, seen.mixed = seen.total + own.total, seen.lost + own.lost, seen.mixed + own.mixed

    threads = [threading.Thread(target=run, name=f"caller {number}") for number in range(THREADS)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


def _reload(folder: Path) -> Calls:
    """Reload a module in place while it is called."""
    file = folder / "reloaded.py"
    texts = [(folder / f"rules-{version}.py").read_text() for version in VERSIONS]
    file.write_text(texts[0])
    sys.path.insert(0, str(folder))
    try:
        module = importlib.import_module("reloaded")
        with _callers(lambda order: module.twice(order)) as seen:  # noqa: PLW0108  # looked up at each call
            for number in range(RELOADS):
                file.write_text(texts[(number + 1) % len(texts)])
                for compiled in folder.glob("__pycache__/*"):
                    compiled.unlink()
                importlib.invalidate_caches()
                importlib.reload(module)
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop("reloaded", None)
    return seen
