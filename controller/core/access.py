"""What decides who may do what, as facts by their names; and in words how two sights of it differ.

Rules kept: the same facts have the same digest, in whatever order they come, and no others do; what is said of a
difference is bounded, and says how much it leaves out. Left out: where facts come from (`controller.rpc.access`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

LENGTH_BYTES = 8  # of the length before each text, most significant first
TOLD_CHARS_MAX = 4_096  # of a difference: some fifty principals; what is more is counted
FACT_CHARS_MAX = 512  # of one fact
NAME = "instar.access.v1"

Facts = Mapping[str, str]


def digest(facts: Facts) -> str:
    """SHA-256 over NAME, and each name with its fact in the order of names: each text behind its length."""
    hashed = hashlib.sha256()
    for text in (NAME, *(part for name in sorted(facts) for part in (name, facts[name]))):
        body = text.encode()
        hashed.update(len(body).to_bytes(LENGTH_BYTES, "big") + body)
    return hashed.hexdigest()


def told(before: Facts | None, now: Facts) -> str:
    """Say how what is seen now differs from what was seen before.

    Args:
        before: None where nothing was ever seen.
        now: What is seen.
    """
    begin = "first seen" if before is None else f"changed from sha256:{digest(before)}"
    parts = list(_parts(before or {}, now))
    text, shown = f"{begin} to sha256:{digest(now)}", 0
    for part in parts:
        if len(text) + len(part) > TOLD_CHARS_MAX:
            return f"{text}; and {len(parts) - shown} more"
        text, shown = f"{text}; {part}", shown + 1
    return text


def _parts(before: Facts, now: Facts) -> Iterator[str]:
    for name in sorted(now.keys() - before.keys()):
        yield f"added {name}: {_short(now[name])}"
    for name in sorted(before.keys() - now.keys()):
        yield f"removed {name}: {_short(before[name])}"
    for name in sorted(before.keys() & now.keys()):
        if before[name] != now[name]:
            yield f"changed {name}: from {_short(before[name])} to {_short(now[name])}"


def _short(fact: str) -> str:
    return fact if len(fact) <= FACT_CHARS_MAX else f"{fact[:FACT_CHARS_MAX]} ..."
