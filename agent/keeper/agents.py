"""The agent's processes: one is in charge; during a trial it is parked beside the new one.

Rules kept here: the one in charge is of the release that `current` points at, unless that is known as bad, then of
`permanent`, then the packaged one; it is started again whenever it ends, after a pause. An undecided trial dies with
the keeper: the next one starts the old version. Left out: the course of a trial (`agent_trial`), what deaths tell
(`agent_deaths`), what the agent does.
"""

import contextlib
import sys
from collections.abc import Callable, Sequence

from agent.keeper import (
    agent_child,
    agent_deaths,
    agent_leftovers,
    agent_memory,
    agent_release,
    agent_trial,
    errors,
    fields,
    loop,
    marks,
    places,
)

PARK_SECONDS = 10.0  # the old agent gives up its link and its journal within a turn of its event loop
ATTACH_SECONDS = 30.0  # a new agent attaches within a second or two; one that has not by then hangs
PACKAGED_ID = "instar-agent-packaged"
ID_DIGITS = 6  # of the digest, in the id of a process that no operation has named

H = agent_trial.Happening


class Agents:
    """All processes of the agent.

    Args:
        argv: The command of the agent; an empty one means that there is none to watch.
        is_attached: Whether an agent is attached to the keeper.
    """

    def __init__(
        self, on: loop.Loop, where: places.Places, argv: Sequence[str], is_attached: Callable[[], bool]
    ) -> None:
        self.argv = argv
        self.memory = agent_memory.Memory(where.state / agent_memory.FILE_NAME)
        self._loop = on
        self._where = where
        self._is_attached = is_attached
        self._main: agent_child.Child | None = None
        self._new: agent_child.Child | None = None
        self._leaving: list[agent_child.Child] = []
        self._trial: agent_trial.Trial | None = None
        self._candidate = (agent_release.PACKAGED, PACKAGED_ID)
        self._decide_by = 0.0
        self._on_unparked: Callable[[], None] | None = None
        self._on_aborted: list[Callable[[], None]] = []
        self._restart: loop.Timer | None = None
        self._deaths = agent_deaths.Deaths(self.memory)
        self._on_stopped: Callable[[], None] | None = None

    # What the keeper asks.

    def start(self) -> None:
        """Start the agent, once what an earlier keeper left is gone."""
        agent_leftovers.end(self._loop, self._where, self._start_main)

    def adopt(self, inherited: agent_child.Inherited) -> None:
        """Go on with the agent of the image of this keeper before the execve."""
        self._main = agent_child.Child(
            self._loop,
            inherited.release,
            inherited.instance_id,
            pid=inherited.pid,
            pidfd=inherited.pidfd,
            report=None,
            started_at=inherited.started_at,
            on_death=self._on_death,
        )
        self._watch_steady(self._main)

    def stop(self, on_stopped: Callable[[], None]) -> None:
        """End every process for good."""
        self._on_stopped = on_stopped
        for child in self._children():
            child.end()
        self._finish_stop()

    @property
    def main(self) -> agent_child.Child | None:
        """The one in charge."""
        return self._main

    @property
    def is_settled(self) -> bool:
        """Whether no process of the agent is being ended or tried."""
        is_ending = bool(self._leaving) or (self._main is not None and self._main.is_dismissed)
        return self._trial is None and not is_ending

    @property
    def trial_operation_id(self) -> str | None:
        """The operation whose new agent is in charge for now."""
        is_trying = self._trial is not None and self._trial.phase is agent_trial.Phase.TRYING
        return self._trial.operation_id if self._trial is not None and is_trying else None

    def bodies(self) -> list[fields.Body]:
        """Show the processes to a client."""
        parked = self._on_unparked is not None
        roles = [(self._main, "parked" if parked else "main"), (self._new, "trial")]
        shown = [*roles, *((child, "leaving") for child in self._leaving)]
        return [self._body(child, role) for child, role in shown if child is not None]

    # What clients ask.

    def begin(self, operation_id: str, release: agent_release.Release, instance_id: str, seconds: float) -> None:
        """Begin a trial; the same again is success.

        Raises:
            errors.RequestError: mark_conflict, trial_conflict or digest_bad.
        """
        ended = self.memory.outcome(operation_id)
        if ended is not None:
            rule = f"it has ended already: {ended.outcome}"
            raise errors.RequestError("mark_conflict", f"cannot try {release.digest} for {operation_id}: {rule}")
        if self._trial is not None and self._trial.operation_id == operation_id:
            return
        self.refuse_bad(release)
        if self._main is None or not self.is_settled:
            rule = "the agent is being changed already"
            raise errors.RequestError("trial_conflict", f"cannot try {release.digest} for {operation_id}: {rule}")
        self._trial = agent_trial.Trial(operation_id)
        self._candidate = (release, instance_id)
        self._decide_by = self._loop.now() + seconds
        self._when_late(PARK_SECONDS, agent_trial.Phase.PARKING, "the old agent did not park")

    def park(self, operation_id: str, on_unparked: Callable[[], None]) -> None:
        """The old agent has given everything up; called back when it must go on."""
        if self._trial is None or self._trial.operation_id != operation_id:
            on_unparked()
        elif self._trial.phase is agent_trial.Phase.PARKING:
            self._on_unparked = on_unparked
            self._happen(H.PARKED, "")
        else:
            self._on_unparked = on_unparked

    def commit(self, operation_id: str) -> marks.Outcome:
        """Decide for the new agent, or tell how it was decided.

        Raises:
            errors.RequestError: mark_unknown, or write_failed when nothing is decided.
        """
        if self.trial_operation_id == operation_id:
            self._happen(H.COMMIT_ASKED, "the agent committed")
        decided = self.memory.outcome(operation_id)
        if decided is None:
            rule = "there is neither trial nor outcome"
            raise errors.RequestError("mark_unknown", f"cannot commit {operation_id}: {rule}")
        return decided

    def abort(self, operation_id: str, on_aborted: Callable[[], None]) -> None:
        """Go back to the old agent; called back when the new one is gone. No such trial is success."""
        if self._trial is None or self._trial.operation_id != operation_id:
            on_aborted()
            return
        self._on_aborted.append(on_aborted)
        self._happen(H.ABORT_ASKED, "the agent aborted")

    def restart(self) -> str:
        """Run what the pointers say, if something else runs; returns its digest, empty for the packaged agent.

        Raises:
            errors.RequestError: trial_conflict.
        """
        if self._trial is not None:
            rule = f"operation {self._trial.operation_id} tries a version"
            raise errors.RequestError("trial_conflict", f"cannot start the agent again: {rule}")
        chosen = self._choose()
        if self._main is not None and self._main.release != chosen:
            self._main.end()
        return chosen.digest

    def refuse_bad(self, release: agent_release.Release) -> None:
        """Refuse a version that is known as bad.

        Raises:
            errors.RequestError: digest_bad.
        """
        if release.digest in self.memory.bad:
            rule = f"it died early {agent_memory.EARLY_DEATHS_MAX} times in a row"
            raise errors.RequestError("digest_bad", f"cannot run {release.digest}: {rule}")

    # The one in charge.

    def _choose(self) -> agent_release.Release:
        for pointer in ("current", "permanent"):
            release = agent_release.pointed(self._where, pointer)
            if release is not None and self._deaths.is_fit(release):
                return release
        return agent_release.PACKAGED

    def _start_main(self) -> None:
        if not self.argv or self._on_stopped is not None or self._main is not None or self._is_tried:
            return
        release = self._choose()
        self._main = self._launch(release, _default_id(release))
        if self._main is None:
            self._start_later()
        else:
            self._watch_steady(self._main)

    @property
    def _is_tried(self) -> bool:
        """Whether a new agent has, or is about to have, the journal."""
        return self._trial is not None and self._trial.phase is not agent_trial.Phase.PARKING

    def _start_later(self) -> None:
        if self._restart is not None:
            self._restart.cancel()
        self._restart = self._loop.call_later(self._deaths.pause_seconds, self._start_main)

    def _watch_steady(self, child: agent_child.Child) -> None:
        left = max(0.0, agent_child.STEADY_SECONDS - (self._loop.now() - child.started_at))
        self._loop.call_later(left, lambda: self._on_steady(child))

    def _on_steady(self, child: agent_child.Child) -> None:
        if child is self._main:
            self._deaths.note_steady(child.release)

    def _launch(self, release: agent_release.Release, instance_id: str) -> agent_child.Child | None:
        program = agent_release.program(release, self.argv, self._where)
        try:
            child = agent_child.start(self._loop, program, release, instance_id, self._on_death)
        except OSError as error:
            _say(f"the agent cannot be started: {error}")
            return None
        agent_leftovers.note(self._where, [*self._children(), child])
        return child

    # Deaths.

    def _on_death(self, child: agent_child.Child, death: agent_child.Death) -> None:
        if child in self._leaving:
            self._leaving.remove(child)
        elif child is self._new:
            self._new = None
            self._count(child, death)
            self._happen(H.NEW_DIED, f"the new agent ended ({death.why})")
        elif child is self._main:
            self._lose_main(child, death)
        self._finish_stop()

    def _lose_main(self, child: agent_child.Child, death: agent_child.Death) -> None:
        self._main = None
        is_watched = self._on_stopped is None
        if is_watched and not child.is_dismissed:
            _say(f"the agent ended ({death.why}); it is started again")
            self._count(child, death)
        if self._trial is not None:
            self._on_unparked = None
            self._happen(H.OLD_DIED, f"the old agent ended ({death.why})")
        if self._main is None:
            self._start_later()

    def _count(self, child: agent_child.Child, death: agent_child.Death) -> None:
        if self._deaths.count(child.release, death):
            _say(f"agent {child.release.digest} died early too often: it is not run any more")

    # A trial.

    def _when_late(self, seconds: float, phase: agent_trial.Phase, why: str) -> None:
        trial = self._trial

        def look() -> None:
            current = self._trial
            is_same = current is not None and trial is not None and current.operation_id == trial.operation_id
            if is_same and current is not None and current.phase is phase:
                self._happen(H.LATE, why)

        self._loop.call_later(seconds, look)

    def _happen(self, happening: agent_trial.Happening, why: str) -> None:
        if self._trial is None:
            return
        before, after = self._trial, agent_trial.step(self._trial, happening, why)
        if after.outcome is not None and before.outcome is None:
            self._write_down(after.outcome)
        self._trial = after
        if before.phase is not after.phase:
            self._enter(after)

    def _write_down(self, outcome: marks.Outcome) -> None:
        if outcome.outcome == marks.ROLLED_BACK:
            self.memory.decide_unwritten(outcome)
            return
        try:
            self.memory.decide(outcome)
        except OSError as error:
            rule = f"the decision cannot be written: {error}"
            raise errors.RequestError("write_failed", f"cannot commit {outcome.operation_id}: {rule}") from error

    def _enter(self, trial: agent_trial.Trial) -> None:
        match trial.phase:
            case agent_trial.Phase.TRYING:
                self._try()
            case agent_trial.Phase.ENDING if self._new is not None:
                self._new.end(0.0)
            case agent_trial.Phase.COMMITTED:
                self._change_over()
            case agent_trial.Phase.ROLLED_BACK:
                self._go_back()
            case _:
                pass

    def _try(self) -> None:
        left = max(0.0, self._decide_by - self._loop.now())
        self._when_late(left, agent_trial.Phase.TRYING, "the new agent was not committed before the deadline")
        release, instance_id = self._candidate
        new = self._new = self._launch(release, instance_id)
        if new is None:
            self._happen(H.NEW_DIED, "the new agent could not be started")
            return

        def look() -> None:
            if self._new is new and self.trial_operation_id is not None and not self._is_attached():
                self._happen(H.LATE, f"the new agent did not attach within {ATTACH_SECONDS:g} s")

        self._loop.call_later(ATTACH_SECONDS, look)

    def _change_over(self) -> None:
        old, self._main, self._new = self._main, self._new, None
        self._trial, self._on_unparked = None, None
        self._deaths.begin_anew()
        if old is not None:
            self._leaving.append(old)
            old.end()
        if self._main is not None:
            self._watch_steady(self._main)

    def _go_back(self) -> None:
        self._trial = None
        unparked, self._on_unparked = self._on_unparked, None
        aborted, self._on_aborted = self._on_aborted, []
        if unparked is not None:
            unparked()
        for on_aborted in aborted:
            on_aborted()
        if self._main is None:
            self._start_later()

    # The rest.

    def _children(self) -> list[agent_child.Child]:
        return [child for child in (self._main, self._new, *self._leaving) if child is not None]

    def _finish_stop(self) -> None:
        if self._on_stopped is not None and not self._children():
            on_stopped, self._on_stopped = self._on_stopped, _nothing
            on_stopped()

    def _body(self, child: agent_child.Child, role: str) -> fields.Body:
        return {
            "instance_id": child.instance_id,
            "pid": child.pid,
            "digest": child.release.digest,
            "role": role,
            "started_at_monotonic": child.started_at,
            "early_deaths": self.memory.early_deaths(child.release.digest),
        }


def _default_id(release: agent_release.Release) -> str:
    digits = release.digest.removeprefix(agent_release.DIGEST_PREFIX)[:ID_DIGITS]
    return f"{agent_release.COMPONENT}-{digits}" if digits else PACKAGED_ID


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)  # noqa: T201  # the host's log


def _nothing() -> None:
    """Nobody waits any more."""
