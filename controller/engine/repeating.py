"""Calls that carry a request identity: carried out once, and answered the same however often they come.

Theory of operation. Whoever takes calls from outside puts the call into the context of its task, with how its answer is
said. The first work that the call hands in looks whether the call was answered before, and drafts the answer beside
what it does, so that both are durable together or neither is. A repetition that comes while the first is waiting is
drafted behind it, and finds its answer.

Rules kept: an identity stands for one call: its caller, its method and all that it says; a call that was refused leaves
nothing, and may come again; what is secret is never stored, and a repetition hears what was made instead. Left out:
what a call says, and how it is answered (`controller.rpc.answering`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from controller.core import errors
from controller.store import rows

REUSED = "request_id_reused"
WITHHELD = "answer_withheld"


@dataclass(slots=True)
class Call:
    """A call that must not be carried out twice, while it is carried out.

    Args:
        content_hash: Of all that it says but its identity.
        say: Makes the answer, as it goes over the wire, of what the engine answers; None until the call is begun.
        is_secret: True where the answer is not to be stored; what `say` makes is then why, and what was made.
        answer: As it went into the store; None before.
    """

    request_id: str
    method: str
    caller: str
    content_hash: str
    say: Callable[[Any], bytes] | None = None
    is_secret: bool = False
    answer: bytes | None = None

    def answered(self, made: object, at: datetime) -> rows.Answer:
        """Give the row of its answer."""
        if self.say is None:
            raise RuntimeError(f"{self.method} changes something and says no answer")
        self.answer = self.say(made)
        body, withheld = (b"", self.answer.decode()) if self.is_secret else (self.answer, "")
        return rows.Answer(self.request_id, self.method, self.caller, self.content_hash, at, body, withheld)

    def check_new(self, known: rows.Answer | None) -> None:
        """See that nothing was answered under its identity.

        Raises:
            RepeatedError: It was answered.
            RefusedError: Another call was, code ``request_id_reused``; or what was answered is kept nowhere, code
                ``answer_withheld``.
        """
        if known is not None:
            raise RepeatedError(repeated(self, known))


class RepeatedError(Exception):
    """A call was answered before, as this says."""

    def __init__(self, answer: bytes) -> None:
        super().__init__("the call was answered before")
        self.answer = answer


_current: ContextVar[Call | None] = ContextVar("call", default=None)


def current() -> Call | None:
    """Give the call that this task carries out and has no answer yet; None for any other."""
    call = _current.get()
    return None if call is None or call.answer is not None else call


@contextlib.contextmanager
def carrying_out(call: Call) -> Iterator[None]:
    """Let what is done in the block be done for a call."""
    token = _current.set(call)
    try:
        yield
    finally:
        _current.reset(token)


def repeated(call: Call, known: rows.Answer) -> bytes:
    """Answer a call that was answered before.

    Raises:
        RefusedError: Another call was answered under its identity, code ``request_id_reused``; or what was answered is
            kept nowhere, code ``answer_withheld``.
    """
    for what, before, now in (
        ("method", known.method, call.method),
        ("caller", known.caller, call.caller),
        ("content", known.content_hash, call.content_hash),
    ):
        if before != now:
            raise errors.RefusedError(
                f"cannot take request_id {call.request_id} for it: it was used at"
                f" {known.at.isoformat(timespec='seconds')} for a call with another {what}",
                code=REUSED,
                field="request_id",
                value=call.request_id,
                rule="a request identity stands for one call: its caller, its method and all that it says",
            )
    if known.withheld_because:
        raise errors.RefusedError(
            f"cannot answer request_id {call.request_id} again: {known.withheld_because}",
            code=WITHHELD,
            field="request_id",
            value=call.request_id,
            rule="what is secret is told once, and stored nowhere",
        )
    return known.body
