"""How an order is given in a run: under a name of its own, while a controller is up, and with trouble right behind it.

Rules kept: whatever is refused is refused by a typed error; what was refused has left no mark, and what was granted has
left one: the name is the reason of the order, or the name of its rollout, and the checkers look for it. Whoever hears
nothing, because the controller died, knows nothing.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TypeVar

from controller import engine as engines
from controller.core import errors, model
from tests.simulation import checkers, life
from tests.simulation import loop as loops

Answer = TypeVar("Answer")
Asking = Callable[[engines.Engine, str], Awaitable[Answer]]

ANSWER_SECONDS = 5.0  # that an answer is waited for; the controller is dead then
ASK_AGAIN_SECONDS = 1.0  # until somebody looks again whether a controller is up
UNMARKED = frozenset({"uncordon", "publish", "declare"})  # kinds whose audit has no reason
TROUBLE_SHARE = 0.12  # of the orders, which have a fault right behind them


class Orders:
    """Everything that is ordered in a run.

    Args:
        trouble: Lets something fail within moments.
    """

    def __init__(
        self,
        loop: loops.VirtualLoop,
        controller: life.Controller,
        checks: checkers.Checkers,
        trouble: Callable[[], None],
    ) -> None:
        self.given: Counter[str] = Counter()
        self.granted: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.refused_names: set[str] = set()
        self.is_troubled = True
        self._loop = loop
        self._controller = controller
        self._checks = checks
        self._trouble = trouble
        self._count = 0

    async def engine(self) -> engines.Engine:
        """The engine, once one is up."""
        while (engine := self._controller.engine) is None:  # noqa: ASYNC110 people poll
            await asyncio.sleep(ASK_AGAIN_SECONDS)
        return engine

    def state(self, rollout_id: model.RolloutId) -> model.RolloutState:
        """How a rollout stands, as the commits tell: asking for it would cost more than all that is simulated."""
        return self._checks.ledger.rollouts[rollout_id].state

    async def give(self, kind: str, asking: Asking[Answer], name: str = "") -> Answer | None:
        """Give an order; None where it was refused, or where nobody answered.

        Args:
            kind: What it is counted as.
            asking: Gives it to an engine, under a name.
            name: The same again where it may have been done before; empty for a new one.
        """
        engine = await self.engine()
        self._count += 1
        known_as = name or f"{kind} {self._count}"
        self.given[kind] += 1
        if self.is_troubled and self._loop.random.random() < TROUBLE_SHARE:
            self._trouble()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                answer = await asking(engine, known_as)
        except errors.InstarError as error:
            self._take_refusal(kind, known_as, error)
            return None
        except TimeoutError:
            self.refused["unanswered"] += 1
            return None
        self.granted[kind] += 1
        self._checks.granted(known_as, is_marked=kind not in UNMARKED)
        self._loop.record(f"{kind} granted")
        return answer

    def _take_refusal(self, kind: str, known_as: str, error: errors.InstarError) -> None:
        self.refused[error.code] += 1
        if error.blame is errors.Blame.CALLER:
            self.refused_names.add(known_as)
        self._loop.record(f"{kind} refused {error.code}")
        self._checks.refused(known_as, error)
