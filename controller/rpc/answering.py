"""Calls that come again: told by their request identity, answered as the first time, and carried out once.

Rules kept here: every method that changes something says its answer here, so that none forgets to; what is looked up is
looked up before anything is done, and again where what was done meanwhile makes the call one that is refused. Left
out: that answer and act are stored together (`controller.engine.repeating`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

from google.protobuf import message

from controller.core import errors
from controller.engine import repeating
from controller.rpc import convert
from controller.store import rows

REQUEST_ID_CHARS_MAX = 128
REQUEST_ID_FIELD = "request_id"
_RULE = f"printable and at most {REQUEST_ID_CHARS_MAX} characters long"
Made = TypeVar("Made")
Answer = TypeVar("Answer", bound=message.Message)
Find = Callable[[str], "rows.Answer | None"]


async def keep(act: Awaitable[Made], say: Callable[[Made], Answer]) -> Answer:
    """Carry out what a call asks for, and answer; the answer is stored with the act where the call has an identity.

    Args:
        act: What is done; it has not begun yet.
        say: Makes the answer of what that returns.
    """
    call = repeating.current()
    if call is None:
        return say(await act)
    said: list[Answer] = []

    def spoken(made: Made) -> bytes:
        said[:] = [say(made)]
        return said[0].SerializeToString(deterministic=True)

    call.say = spoken
    made = await act
    return said[0] if said else say(made)


async def keep_secret(act: Awaitable[Made], tell: Callable[[Made], str]) -> Made:
    """Carry out what a call asks for whose answer is secret: stored is why it is not, and what was made.

    Args:
        act: What is done; it has not begun yet.
        tell: Says that.
    """
    call = repeating.current()
    if call is not None:
        call.say, call.is_secret = lambda made: tell(made).encode(), True
    return await act


async def once(find: Find, call: repeating.Call, behaviour: Callable[[], Awaitable[Any]]) -> Any:  # noqa: ANN401  # any answer
    """Answer a call as it was answered before, or carry it out.

    Returns:
        A message, or the bytes of one.

    Raises:
        InstarError: Whatever the call is refused for; nothing of it was done, and it may come again.
    """
    known = find(call.request_id)
    if known is not None:
        return repeating.repeated(call, known)
    try:
        with repeating.carrying_out(call):
            return await behaviour()
    except repeating.RepeatedError as found:
        return found.answer
    except errors.InstarError:
        known = find(call.request_id)  # it may be what an earlier one of the same calls has done that is in the way
        if known is None:
            raise
        return repeating.repeated(call, known)


def request_id(request: object) -> str:
    """Read the identity of a call; empty where it has none.

    Raises:
        InvalidRequestError: It is none that is taken.
    """
    found = getattr(request, REQUEST_ID_FIELD, "")
    if not isinstance(found, str):
        return ""
    is_sane = len(found) <= REQUEST_ID_CHARS_MAX and found.isprintable()
    convert.refuse_unless(is_sane, REQUEST_ID_FIELD, found[:REQUEST_ID_CHARS_MAX], _RULE)
    return found


def content_hash(request: message.Message) -> str:
    """Sum up all that a message says but its request identity."""
    said = type(request)()
    said.CopyFrom(request)
    said.ClearField(REQUEST_ID_FIELD)
    return hashlib.sha256(said.SerializeToString(deterministic=True)).hexdigest()


def files_hash(files: Iterable[tuple[str, bytes]]) -> str:
    """Sum up files that came in pieces."""
    total = hashlib.sha256()
    for name, content in files:
        for part in (name.encode(), content):
            total.update(len(part).to_bytes(8, "big") + part)
    return total.hexdigest()
