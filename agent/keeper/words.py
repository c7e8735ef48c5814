"""The words that the keeper obeys itself, by signals and processes: all words to plain instances, and parking.

Rules kept here: repeating a word is success; a word that the state does not allow is refused and changes nothing; a
parked instance has no process and keeps its record, so that it can serve again. Left out: the words of the hand-over
protocol (`control`).
"""

import signal
from collections.abc import Callable

from agent.keeper import control, errors, instance, lives, loop, processes

PARK = "park"
WAIT_SECONDS = 0.02  # between looks at an instance that is on its way to serve
TARGETS = {
    "activate": instance.ACTIVE,
    "pause": instance.PAUSED,
    "resume": instance.ACTIVE,
    "drain": instance.DRAINING,
}

OnAnswer = Callable[[control.Answer], None]
OnLaunched = Callable[[errors.RequestError | None], None]


class Words:
    """Obeys words for instances that are plain or parked.

    Args:
        launch_parked: Gives a parked instance a process again.
    """

    def __init__(
        self,
        on: loop.Loop,
        living: lives.Lives,
        launch_parked: Callable[[instance.Instance, OnLaunched], None],
    ) -> None:
        self._loop = on
        self._lives = living
        self._launch_parked = launch_parked

    def obeys(self, found: instance.Instance, word: str) -> bool:
        """Whether this word to this instance is obeyed here."""
        return word == PARK or found.specification.is_plain or found.is_parked

    def say(self, found: instance.Instance, word: str, timeout_seconds: float, on_answer: OnAnswer) -> None:
        """Obey a word; the answer is called back exactly once.

        Raises:
            errors.RequestError: instance_gone or instance_refused.
        """
        if not found.is_alive or found.stopping is not None:
            raise errors.RequestError("instance_gone", f"cannot say {word} to {found.id}: it has ended")
        signals = found.specification.signals if found.has_process and not found.is_parked else {}
        if word == "resume" and found.is_parked:
            self._resume(found, self._loop.now() + timeout_seconds, on_answer)
        elif word == PARK or (word == "pause" and word not in signals):
            self._park(found, lambda: on_answer(_answer(found)))
        elif word in ("hello", "status"):
            on_answer(_answer(found))
        elif found.is_parked or (word == "resume" and found.state == instance.DRAINING and word not in signals):
            raise _refuse(found, word)
        elif found.launching is not None:
            found.launching.append(lambda _: self._say_launched(found, word, timeout_seconds, on_answer))
        else:
            self._move(found, word, signals)
            on_answer(_answer(found))

    def park(self, found: instance.Instance) -> None:
        """Go on with the parking of an instance that another keeper began."""
        self._park(found, lambda: None)

    def _say_launched(self, found: instance.Instance, word: str, timeout_seconds: float, on_answer: OnAnswer) -> None:
        try:
            self.say(found, word, timeout_seconds, on_answer)
        except errors.RequestError as refusal:
            on_answer(control.Answer(None, refusal))

    def _park(self, found: instance.Instance, on_parked: Callable[[], None]) -> None:
        if not found.has_process and not found.is_ending:
            on_parked()
            return
        found.parking.append(on_parked)
        if len(found.parking) == 1 and found.has_process:
            found.is_parked, found.is_reviving = True, False
            self._lives.record(found)
            self._lives.end(found, found.specification.stop_timeout_seconds)

    def _resume(self, found: instance.Instance, until_seconds: float, on_answer: OnAnswer) -> None:
        def on_launched(refusal: errors.RequestError | None) -> None:
            if refusal is not None:
                on_answer(control.Answer(None, refusal))
            else:
                self._await_active(found, until_seconds, on_answer)

        if (found.has_process and found.launching is None) or found.is_ending:
            found.parking.append(lambda: self._resume(found, until_seconds, on_answer))
        else:
            self._launch_parked(found, on_launched)

    def _await_active(self, found: instance.Instance, until_seconds: float, on_answer: OnAnswer) -> None:
        if found.state == instance.ACTIVE:
            on_answer(_answer(found))
        elif not found.has_process:
            rule = "it ended when it was started again"
            on_answer(control.Answer(None, errors.RequestError("instance_gone", f"cannot resume {found.id}: {rule}")))
        elif self._loop.now() >= until_seconds:
            rule = "it does not serve yet"
            late = errors.RequestError("instance_timeout", f"cannot wait for {found.id} to resume any longer: {rule}")
            on_answer(control.Answer(None, late))
        else:
            self._loop.call_later(WAIT_SECONDS, lambda: self._await_active(found, until_seconds, on_answer))

    def _move(self, found: instance.Instance, word: str, signals: dict[str, str]) -> None:
        target = TARGETS.get(word)
        if target is None or (word == "activate" and found.state != instance.ACTIVE):
            raise _refuse(found, word)
        if found.state == target:
            return
        if word in signals:
            processes.signal_process(found.pidfd, signal.Signals[signals[word]])
        elif word == "drain":
            self._lives.groups.signal(found.group(), signal.SIGTERM)
        self._lives.move(found, target)
        self._lives.record(found)


def _answer(found: instance.Instance) -> control.Answer:
    return control.Answer(control.Status(found.state, 0, 0, 0, 0), None)


def _refuse(found: instance.Instance, word: str) -> errors.RequestError:
    state = "parked" if found.is_parked else found.state
    return errors.RequestError("instance_refused", f"cannot say {word} to {found.id}: it is {state}")
