"""Which rows of the audit log somebody wants to see."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from controller.core.audit import chain


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is looked for; what is empty or None does not matter.

    Args:
        action: A whole one, such as ``rollout.pause``, or the noun before its dot.
        since: The first instant.
        until: The instant before which it was.
    """

    actor: str = ""
    action: str = ""
    subject: str = ""
    since: datetime | None = None
    until: datetime | None = None

    def takes(self, entry: chain.Entry) -> bool:
        """Tell whether an entry is wanted."""
        return (
            self.actor in ("", entry.actor)
            and self.action in ("", entry.action, entry.action.partition(".")[0])
            and self.subject in ("", entry.subject)
            and (self.since is None or self.since <= entry.at)
            and (self.until is None or entry.at < self.until)
        )
