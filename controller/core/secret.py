"""A secret: something that is shown to nobody by accident.

Rules kept: it is told only where it is asked for by `reveal`; text made of it, in whatever way, is ``***``; it is
written nowhere, neither pickled nor copied nor as JSON; it is compared in a time that tells nothing. Left out: memory
that is wiped, for Python's strings are copied at will.
"""

from __future__ import annotations

import hmac
from typing import Generic, NoReturn, SupportsIndex, TypeVar

Value = TypeVar("Value", str, bytes)

HIDDEN = "***"


class Secret(Generic[Value]):
    """Text or bytes that are a secret."""

    __slots__ = ("__value",)
    __hash__ = None  # type: ignore[assignment]  # what is hashed can be looked for

    def __init__(self, value: Value) -> None:
        self.__value: Value = value

    def reveal(self) -> Value:
        """Tell it, for the one use that it has; whoever calls this answers for where it goes."""
        return self.__value

    def __repr__(self) -> str:
        return HIDDEN

    def __format__(self, specification: str) -> str:
        """Hide it whatever form is wanted: not even its length is told."""
        return HIDDEN

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(_bytes(self.__value), _bytes(other.reveal()))

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """Refuse to be pickled or copied."""
        raise TypeError("cannot write a secret down")


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value
