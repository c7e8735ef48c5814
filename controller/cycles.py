"""How seldom Python's collector looks for cycles in a controller's own process.

A fleet is millions of small values that live long and are in no cycle; reference counts free what is replaced. As
Python sets its collector, it goes through the young ones of them after each few reports, and through all of them each
time that a rollout makes their number grow by a quarter: a tenth of the work of an emergency, and each time a quarter
of a second in which nobody is answered. What cycles there are, mostly of errors that were caught, are still found.

Rules kept: only who owns the process calls this, for it concerns all that runs there.
"""

from __future__ import annotations

import gc

YOUNG_MAX = 50_000  # values made and not freed since the last look; some 5 MiB, in milliseconds gone through
LOOKS_MAX = 20  # looks at the young ones before one at the middle-aged, and of those before one at all


def seek_seldom() -> None:
    """Let the collector look at a process seldom, from now on."""
    gc.set_threshold(YOUNG_MAX, LOOKS_MAX, LOOKS_MAX)
