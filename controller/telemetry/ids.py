"""Identities of traces and spans: hashes of the keys of the rows that they are derived from.

Rules kept: the same row gives the same identity in every life of every controller; the attempt is part of an
operation's identity, so that no two attempts share a span.
"""

from __future__ import annotations

import functools
import hashlib
from datetime import UTC, datetime

from controller.core import model

_PERSON = b"instar-trace"
_TRACE_BYTES = 16
_SPAN_BYTES = 8
# Cannot stand in an identity, so that ("a", "bc") and ("ab", "c") differ.
_SEPARATOR = "\x1f"
# Identities that are kept: each operation names its rollout, its wave and itself several times.
_KEPT_MAX = 1024


def trace_id(rollout_id: model.RolloutId) -> str:
    """Return the identity of a rollout's trace, 32 hexadecimal digits."""
    return _hash(_TRACE_BYTES, "trace", rollout_id)


def span_id(rollout_id: model.RolloutId, *key: str) -> str:
    """Return the identity of one of its spans, 16 hexadecimal digits."""
    return _hash(_SPAN_BYTES, "span", rollout_id, *key)


def root(rollout_id: model.RolloutId) -> str:
    """Return the identity of the root span."""
    return span_id(rollout_id, "root")


def wave(rollout_id: model.RolloutId, index: int) -> str:
    """Return the identity of a wave's span."""
    return span_id(rollout_id, "wave", str(index))


def operation(rollout_id: model.RolloutId, operation_id: model.OperationId) -> str:
    """Return the identity of an operation's "upgrade node" span."""
    return span_id(rollout_id, "operation", operation_id)


def application(rollout_id: model.RolloutId, operation_id: model.OperationId) -> str:
    """Return the identity of what the agent did about an operation: its "apply upgrade" span."""
    return span_id(rollout_id, "application", operation_id)


def step(rollout_id: model.RolloutId, operation_id: model.OperationId, index: int) -> str:
    """Return the identity of one step's span."""
    return span_id(rollout_id, "step", operation_id, str(index))


def refusal_trace(number: int, at: datetime) -> str:
    """Return the identity of the trace that tells of one refused request.

    Args:
        number: How-manieth refused request it is, since the store was made.
        at: When it was refused, which tells the requests of several stores apart.
    """
    return _hash(_TRACE_BYTES, "refusal trace", str(number), _instant(at))


def refusal(number: int, at: datetime) -> str:
    """Return the identity of the only span of such a trace."""
    return _hash(_SPAN_BYTES, "refusal", str(number), _instant(at))


def traceparent(rollout_id: model.RolloutId, operation_id: model.OperationId) -> str:
    """Write the context of an operation as W3C Trace Context does, sampled."""
    return f"00-{trace_id(rollout_id)}-{operation(rollout_id, operation_id)}-01"


def _instant(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds")


@functools.lru_cache(maxsize=_KEPT_MAX)
def _hash(size_bytes: int, *key: str) -> str:
    digest = hashlib.blake2b(_SEPARATOR.join(key).encode(), digest_size=size_bytes, person=_PERSON).digest()
    # All zeros is no identity in W3C Trace Context.
    return digest.hex() if any(digest) else (1).to_bytes(size_bytes, "big").hex()
