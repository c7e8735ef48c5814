"""Makes the interpreter brisk while calls wait: threads take turns quickly, and nothing is collected.

Rules kept here: what was set before is set again when the last who is in a hurry ends; ending twice is success. Left
out: when to hurry.
"""

import gc
import sys
import threading

TURN_SECONDS = 0.0001  # a thread that computes hands over after so long; with the usual 5 ms four of them cost 20 ms


class Hurry:
    """The hurry of one process, over all its cells."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hurrying: set[int] = set()
        self._turn_seconds = sys.getswitchinterval()
        self._is_collecting = gc.isenabled()

    def begin(self, who: object) -> None:
        """Hurry from now on."""
        with self._lock:
            if not self._hurrying:
                self._turn_seconds, self._is_collecting = sys.getswitchinterval(), gc.isenabled()
                sys.setswitchinterval(min(TURN_SECONDS, self._turn_seconds))
                gc.disable()
            self._hurrying.add(id(who))

    def end(self, who: object) -> None:
        """Hurry no more for this one's sake."""
        with self._lock:
            if id(who) not in self._hurrying:
                return
            self._hurrying.discard(id(who))
            if not self._hurrying:
                sys.setswitchinterval(self._turn_seconds)
                if self._is_collecting:
                    gc.enable()
