"""Versions of a module that prices orders, written as tests need them, and the words that a driver says."""

import hashlib
from pathlib import Path
from typing import Any

from instar_handover import module_host

RULES = '''"""Prices orders."""
VERSION = "{version}"
STATE_SCHEMA = {schema!r}
STATE_FROM = {known!r}
{more}
_state = {state!r}

def price(order):
    return VERSION, order

def remember(name, amount):
    _state["totals"][name] = amount

def total(name):
    return _state["totals"].get(name)

def export_state():
    return _state

def import_state(state):
    global _state
    _state = state

def code_change(state, from_version):
    return {change}
{last}
'''
SCHEMA = {"totals": {"*": "int"}}


def write(  # noqa: PLR0913  # each is one thing that a version may have of its own
    folder: Path,
    version: str,
    *,
    schema: object = SCHEMA,
    known: str = ">=1.0.0,<3.0.0",
    change: str = "state",
    more: str = "",
    last: str = "",
    state: object = None,
) -> dict[str, Any]:
    """Write a version; returns what `module.stage` is told of it."""
    start = {"totals": {}} if state is None else state
    text = RULES.format(version=version, schema=schema, known=known, change=change, more=more, last=last, state=start)
    file = folder / f"rules-{version}.py"
    file.write_text(text)
    return {
        "component": "billing.rules",
        "instance": f"rules-{version}",
        "file": str(file),
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "version": version,
        "digest": f"sha256:{version}",
        "within_seconds": 5.0,
    }


def spoil(release: dict[str, Any], text: str | None) -> None:
    """Change the file of a version behind the driver's back, or take it away."""
    file = Path(release["file"])
    if text is None:
        file.unlink()
    else:
        file.write_text(text)


async def say(host: module_host.ModuleHost, word: str, **body: object) -> dict[str, Any]:
    """Say a word that must be obeyed."""
    answer = await host.answer(f"module.{word}", {"component": "billing.rules", "within_seconds": 5.0, **body})
    assert "refused" not in answer, answer
    return dict(answer)


async def refused(host: module_host.ModuleHost, word: str, **body: object) -> str:
    """Say a word that must be refused; returns the code."""
    answer = await host.answer(f"module.{word}", {"component": "billing.rules", "within_seconds": 5.0, **body})
    assert answer["message"].startswith("cannot "), answer
    return str(answer["refused"])


async def swapped(host: module_host.ModuleHost, release: dict[str, Any]) -> dict[str, Any]:
    """Let a version serve; the old one is kept."""
    await say(host, "stage", **release)
    return await say(host, "swap", instance=release["instance"])


async def installed(host: module_host.ModuleHost, release: dict[str, Any]) -> None:
    """Let a version serve alone."""
    await swapped(host, release)
    await say(host, "drop", keep=release["instance"])
