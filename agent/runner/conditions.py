"""What is wrong with this node, as the controller and `instar-agent status` are told.

Rules kept here: a condition has stood since it was seen first, for as long as it is seen each time; they are
bounded in number and length, and nothing is put right here. Left out: finding drift (`drift`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from agent.core import model

CONDITIONS_MAX = 64  # of one node, as the controller takes; a few kinds for each of its components
MESSAGE_CHARS_MAX = 512  # of one condition, as the controller takes; it is for people
DISK_LOW_BYTES = 256 * 1024**2  # free at least; below it a release of ordinary size finds no room

JOURNAL_FAILED = "journal_failed"
DRIFT = "drift"
CRASH_LOOP = "crash_loop"
DISK_LOW = "disk_low"
AGENT_BAD_VERSION = "agent_bad_version"
TRUST_NOT_CONFIGURED = "trust_not_configured"
TRUST_UNUSABLE = "trust_unusable"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong, as it is seen now."""

    code: str
    component: str
    message: str


class Conditions:
    """What is wrong, and since when."""

    def __init__(self) -> None:
        self._items: tuple[model.Condition, ...] = ()

    @property
    def items(self) -> tuple[model.Condition, ...]:
        """Everything that is wrong, in a stable order."""
        return self._items

    def see(self, findings: Iterable[Finding], at: datetime) -> bool:
        """Take note of everything that is wrong now; say whether that has changed."""
        before = {(item.code, item.component): item for item in self._items}
        found = {(finding.code, finding.component): _condition(finding, at) for finding in findings}
        items = tuple(
            replace(item, since=before[key].since) if key in before else item
            for key, item in sorted(found.items())[:CONDITIONS_MAX]
        )
        has_changed = items != self._items
        self._items = items
        return has_changed


def _condition(finding: Finding, at: datetime) -> model.Condition:
    return model.Condition(finding.code, finding.component, finding.message[:MESSAGE_CHARS_MAX], at)
