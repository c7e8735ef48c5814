"""Wrong tokens, counted by the address that they come from: whoever tries many has to wait for each.

Rules kept here: a token that is good passes at once, whatever else comes from its address; memory is bounded, and so is
how many wait; nobody can lock anybody out. Left out: what a good token is (`callers`).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from datetime import timedelta

from controller.core import errors

FREE_ATTEMPTS = 10  # wrong tokens of one address at once
FORGIVEN_PER_SECOND = 0.2  # of these; so that an agent with an old token is never slowed for long
PAUSE_SECONDS = 1.0  # before each answer beyond
WAITING_MAX = 64  # answers that are held back at once, of all addresses; the others are refused at once
ADDRESSES_MAX = 4_096  # that are remembered; the longest quiet one is forgotten first
EXHAUSTED = "too_many_attempts"


class Attempts:
    """How many wrong tokens came from where.

    Args:
        monotonic: Seconds that never go back.
        waiting_max: Answers that are held back at once; None for WAITING_MAX.
    """

    def __init__(self, monotonic: Callable[[], float], waiting_max: int | None = None) -> None:
        self._monotonic = monotonic
        self._wrong: OrderedDict[str, tuple[float, float]] = OrderedDict()  # count, and when it was true
        self._waiting = 0
        self._waiting_max = WAITING_MAX if waiting_max is None else waiting_max

    def failed(self, peer: str) -> None:
        """Note that a wrong token came."""
        address = address_of(peer)
        self._wrong[address] = (self._count(address) + 1, self._monotonic())
        self._wrong.move_to_end(address)
        while len(self._wrong) > ADDRESSES_MAX:
            self._wrong.popitem(last=False)

    async def wait(self, peer: str) -> None:
        """Hold back what is to be done about a token that is not known to be good.

        Raises:
            ExhaustedError: Too many are held back already.
        """
        if self._count(address_of(peer)) < FREE_ATTEMPTS:
            return
        if self._waiting >= self._waiting_max:
            raise errors.ExhaustedError(
                "cannot let the caller in: too many wrong tokens or secrets came",
                code=EXHAUSTED,
                field="token",
                rule=f"at most {FREE_ATTEMPTS} wrong tokens at once from one address",
                retry_after=timedelta(seconds=PAUSE_SECONDS),
            )
        self._waiting += 1
        try:
            await asyncio.sleep(PAUSE_SECONDS)
        finally:
            self._waiting -= 1

    def _count(self, address: str) -> float:
        count, at_seconds = self._wrong.get(address, (0.0, 0.0))
        return max(0.0, count - (self._monotonic() - at_seconds) * FORGIVEN_PER_SECOND)


def address_of(peer: str) -> str:
    """The address of a peer as gRPC names it, without its port: ``ipv4:127.0.0.1:5`` is ``ipv4:127.0.0.1``."""
    return peer.rpartition(":")[0] if peer.startswith(("ipv4:", "ipv6:")) else peer
