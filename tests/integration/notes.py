"""What the load clients have asked since somebody last looked, and what became of it.

Rules kept: each request is counted once, when it is over, by the clients' own notes.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from controller.cli.demo import exchange, figures, record


@dataclass(frozen=True, slots=True)
class Told:
    """What became of the requests of some span of time.

    Args:
        per_second: Requests that were over, over all nodes.
        p99_ms: Of the time from when a request was due until it was over.
        answered: Requests by version.
        failed: Those of them that the service said had failed, by version.
        lost: Requests without a whole answer.
    """

    per_second: float
    p99_ms: float | None
    answered: Mapping[str, int]
    failed: Mapping[str, int]
    lost: int


@dataclass(slots=True)
class Notes:
    """Reads on in the clients' notes.

    Args:
        paths: Where they are.
    """

    paths: Sequence[Path]
    _read_bytes: Counter[Path] = field(default_factory=Counter)
    _since_seconds: float = field(default_factory=time.monotonic)

    def since(self) -> Told:
        """Tell of the requests that were over since this was last asked."""
        now_seconds = time.monotonic()
        span_seconds, self._since_seconds = now_seconds - self._since_seconds, now_seconds
        return _told([each for path in self.paths for each in self._more(path)], span_seconds)

    def _more(self, path: Path) -> Iterator[record.Record]:
        with path.open("rb") as file:
            file.seek(self._read_bytes[path])
            for line in file:
                if line.endswith(b"\n"):
                    self._read_bytes[path] += len(line)
                    yield record.parsed(line.decode("ascii"))


def _told(found: list[record.Record], span_seconds: float) -> Told:
    failed = [each for each in found if each.failure is exchange.Failure.SERVER_ERROR]
    answered = [each for each in found if each.version]
    return Told(
        per_second=len(found) / span_seconds,
        p99_ms=figures.percentile([each.latency_ms for each in answered], 99),
        answered=Counter(each.version for each in answered),
        failed=Counter(each.version for each in failed),
        lost=len(found) - len(answered),
    )
