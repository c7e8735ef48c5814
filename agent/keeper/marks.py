"""The uncommitted marks: who watches over a swap while the agent is away, and the one point where a swap is decided.

Rules kept here: a mark ends committed or rolled back, never both, and the answer is written down before it is given;
when the new instance ends, or no agent is attached past the deadline, or one that has fallen silent, the old one is
resumed FIRST and the new one retired only after the old one serves; if the old one cannot serve any more, the new one
is left serving. Where the new one is exclusive it is ended before the old one is resumed. Left out: the journal,
pointers.
"""

import contextlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass

from agent.keeper import control, errors, fields, instance, instances, loop, places, processes

COMMITTED = "committed"
ROLLED_BACK = "rolled_back"
AGENT_ASKED = "agent_asked"
AGENT_AWAY = "agent_away"
INSTANCE_DIED = "instance_died"
ALL_DIED = "all_died"
MARKS_MAX = 16  # one operation at a time holds a node; more is a broken agent
OUTCOMES_MAX = 64  # of the contract with the agent
WORD_TIMEOUT_SECONDS = 2.0  # an instance obeys within a turn of its event loop
RESUME_RETRY_SECONDS = 0.1
RESUME_TRIES_MAX = 300  # with the retry, half a minute: an old instance that is being started again may still come
DRAIN_SECONDS = 30.0  # for the connections of a new instance that failed; then it is stopped
SILENCE_MAX_SECONDS = 30.0  # an agent that works asks for something every few seconds; one that hangs is as if away
ADOPTION_GRACE_SECONDS = 5.0  # after a keeper's own start its agent has had no time to attach


@dataclass(slots=True)
class Mark:
    """An operation that is not committed.

    Args:
        deadline_monotonic: CLOCK_MONOTONIC seconds; comparable over keepers of one boot.
        tries: How often the old instance was told to resume.
    """

    operation_id: str
    new_instance_id: str
    old_instance_id: str | None
    deadline_monotonic: float
    is_rolling_back: bool = False
    tries: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an operation ended; ``cause`` for programs, ``why`` for people."""

    operation_id: str
    outcome: str
    cause: str
    why: str


class Marks:
    """All marks and the last outcomes.

    Args:
        agent_silence_seconds: For how long the attached agent has said nothing; without end when none is attached.
    """

    def __init__(
        self, on: loop.Loop, where: places.Places, live: instances.Instances, agent_silence_seconds: Callable[[], float]
    ) -> None:
        self._loop = on
        self._where = where
        self._instances = live
        self._agent_silence_seconds = agent_silence_seconds
        self._marks: dict[str, Mark] = {}
        self._outcomes: dict[str, Outcome] = {}

    def bodies(self) -> tuple[list[fields.Body], list[fields.Body]]:
        """Show marks and outcomes to a client."""
        now = self._loop.now()
        marks: list[fields.Body] = [
            {
                "operation_id": mark.operation_id,
                "new_instance_id": mark.new_instance_id,
                "old_instance_id": mark.old_instance_id,
                "remaining_seconds": mark.deadline_monotonic - now,
                "is_rolling_back": mark.is_rolling_back,
            }
            for mark in self._marks.values()
        ]
        return marks, [asdict(outcome) for outcome in self._outcomes.values()]

    def put(
        self, operation_id: str, new_instance_id: str, old_instance_id: str | None, deadline_seconds: float
    ) -> None:
        """Put a mark; the same again leaves it as it stands.

        The new instance need not be known yet: where only one may run, it is started after the end of the old one.

        Raises:
            errors.RequestError: mark_conflict, unknown_instance, instance_gone or too_many.
        """
        if operation_id in self._outcomes:
            rule = f"it has ended already: {self._outcomes[operation_id].outcome}"
            raise errors.RequestError("mark_conflict", f"cannot mark {operation_id}: {rule}")
        known = self._marks.get(operation_id)
        if known is not None:
            if (known.new_instance_id, known.old_instance_id) != (new_instance_id, old_instance_id):
                raise errors.RequestError("mark_conflict", f"cannot mark {operation_id}: it marks other instances")
            return
        if len(self._marks) >= MARKS_MAX:
            raise errors.RequestError("too_many", f"cannot mark {operation_id}: there are {MARKS_MAX} marks already")
        new = self._instances.find(new_instance_id)
        if new is not None and not new.has_process:
            raise errors.RequestError("instance_gone", f"cannot mark {operation_id}: {new_instance_id} has ended")
        if old_instance_id is not None:
            self._instances.get(old_instance_id)
        mark = Mark(operation_id, new_instance_id, old_instance_id, self._loop.now() + deadline_seconds)
        self._marks[operation_id] = mark
        self._save()
        self._watch_deadline(mark)

    def commit(self, operation_id: str, current_instance_id: str) -> Outcome:
        """Decide an operation, or tell how it was decided.

        Raises:
            errors.RequestError: mark_unknown, or invalid_request when another instance was marked.
        """
        mark = self._marks.get(operation_id)
        if mark is not None and mark.new_instance_id != current_instance_id:
            raise fields.refuse("current_instance_id", current_instance_id, f"{mark.new_instance_id} was marked")
        if mark is not None and not mark.is_rolling_back and not self._is_alive(mark.new_instance_id):
            self._roll_back(mark, INSTANCE_DIED, f"instance {mark.new_instance_id} ended before the commit")
        elif mark is not None and not mark.is_rolling_back:
            self._commit(mark)
        if operation_id not in self._outcomes:
            raise errors.RequestError(
                "mark_unknown", f"cannot commit {operation_id}: there is neither mark nor outcome"
            )
        return self._outcomes[operation_id]

    def refuse_start(self, instance_id: str, operation_id: str) -> None:
        """Refuse to start what an operation is going back from: an agent that was late must not undo that.

        Raises:
            errors.RequestError: mark_conflict.
        """
        decided = self._outcomes.get(operation_id)
        if decided is not None and decided.outcome == ROLLED_BACK:
            raise errors.RequestError("mark_conflict", f"cannot start {instance_id}: {operation_id} was rolled back")

    def unmark(self, operation_id: str) -> None:
        """Forget a mark after the agent's own abort; no mark is success."""
        mark = self._marks.get(operation_id)
        if mark is not None and not mark.is_rolling_back:
            del self._marks[operation_id]
            self._decide(Outcome(operation_id, ROLLED_BACK, AGENT_ASKED, "the agent aborted"))

    def on_exit(self, ended: instance.Instance) -> None:
        """Roll back what the ended instance was to become."""
        for mark in list(self._marks.values()):
            if mark.new_instance_id == ended.id:
                if mark.is_rolling_back and ended.specification.is_exclusive:
                    continue  # the old one is resumed when all of it is gone
                if mark.is_rolling_back:
                    self._finish_when_old_serves(mark)
                else:
                    self._roll_back(mark, INSTANCE_DIED, f"instance {ended.id} ended before the commit")

    def on_agent_gone(self) -> None:
        """Look at the deadlines at once: an agent that was late is away now."""
        for mark in list(self._marks.values()):
            if self._loop.now() >= mark.deadline_monotonic:
                self._on_deadline(mark)

    def restore(self, text: str = "") -> None:
        """Take up the marks of the keeper before this one, when it belongs to this boot; after the adoption.

        Args:
            text: What `image` has written; empty to read the file.
        """
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # unreadable marks are those of no boot
            saved = json.loads(text or self._where.marks.read_bytes())
            if saved["boot_id"] == processes.boot_id():
                self._outcomes = {body["operation_id"]: Outcome(**body) for body in saved["outcomes"]}
                self._marks = {body["operation_id"]: Mark(**body) for body in saved["marks"]}
        grace = self._loop.now() + ADOPTION_GRACE_SECONDS
        for mark in list(self._marks.values()):
            mark.deadline_monotonic = max(mark.deadline_monotonic, grace)
            mark.tries = 0
            if mark.is_rolling_back:
                self._go_back(mark)
            elif self._has_ended(mark.new_instance_id):
                self._roll_back_unseen(mark)
            else:
                self._watch_deadline(mark)

    def _roll_back_unseen(self, mark: Mark) -> None:
        """Blame the new instance only if the old one outlived the keeper: what kills all is not the version's fault."""
        if mark.old_instance_id is not None and self._is_alive(mark.old_instance_id):
            self._roll_back(mark, INSTANCE_DIED, f"instance {mark.new_instance_id} ended while there was no keeper")
        else:
            self._roll_back(mark, ALL_DIED, "no instance outlived the keeper")

    def _watch_deadline(self, mark: Mark) -> None:
        remaining = max(0.0, mark.deadline_monotonic - self._loop.now())
        self._loop.call_later(remaining, lambda: self._on_deadline(mark))

    def _on_deadline(self, mark: Mark) -> None:
        if self._marks.get(mark.operation_id) is not mark or mark.is_rolling_back:
            return
        patience = SILENCE_MAX_SECONDS - self._agent_silence_seconds()
        if patience <= 0:
            self._roll_back(mark, AGENT_AWAY, "no agent was attached past the deadline, or one that said nothing")
        else:
            self._loop.call_later(patience, lambda: self._on_deadline(mark))

    def _commit(self, mark: Mark) -> None:
        """Write the decision, then believe it: a keeper that dies right after the answer must not undo it."""
        outcome = Outcome(mark.operation_id, COMMITTED, AGENT_ASKED, "the agent committed")
        del self._marks[mark.operation_id]
        self._outcomes[mark.operation_id] = outcome
        try:
            self._write()
        except OSError as error:
            del self._outcomes[mark.operation_id]
            self._marks[mark.operation_id] = mark
            raise errors.RequestError("write_failed", f"cannot commit {mark.operation_id}: {error}") from error

    def _roll_back(self, mark: Mark, cause: str, why: str) -> None:
        if mark.is_rolling_back:
            return
        mark.is_rolling_back = True
        self._go_back(mark)  # first of all, before anything is written
        self._decide(Outcome(mark.operation_id, ROLLED_BACK, cause, why))

    def _go_back(self, mark: Mark) -> None:
        """Resume the old instance; after the end of the new one where only one may run."""
        new = self._instances.find(mark.new_instance_id)
        if new is None or not new.specification.is_exclusive:
            self._resume_old(mark)
        elif new.has_process:
            self._instances.stop(new.id, new.specification.stop_timeout_seconds, lambda: self._resume_old(mark))
        elif new.is_ending:
            new.parking.append(lambda: self._resume_old(mark))
        else:
            self._resume_old(mark)

    def _resume_old(self, mark: Mark) -> None:
        if mark.old_instance_id is None:
            self._stop_new(mark)
            return
        mark.tries += 1
        old = self._instances.find(mark.old_instance_id)
        is_coming_back = old is not None and old.is_kept and mark.tries <= RESUME_TRIES_MAX
        if old is None or not (old.is_alive or is_coming_back):
            self._forget(mark)  # nothing can take over: whatever serves goes on serving
        elif old.is_alive:
            self._say_resume(mark, old)
        else:
            self._retry_resume(mark)

    def _say_resume(self, mark: Mark, old: instance.Instance) -> None:
        try:
            self._instances.say(old.id, "resume", WORD_TIMEOUT_SECONDS, lambda answer: self._on_resumed(mark, answer))
        except errors.RequestError as refusal:
            self._on_resumed(mark, control.Answer(None, refusal))

    def _on_resumed(self, mark: Mark, answer: control.Answer) -> None:
        if answer.refusal is None:
            self._retire_new(mark)
        elif mark.tries <= RESUME_TRIES_MAX:
            self._retry_resume(mark)
        else:
            self._forget(mark)

    def _retry_resume(self, mark: Mark) -> None:
        self._loop.call_later(RESUME_RETRY_SECONDS, lambda: self._resume_old(mark))

    def _retire_new(self, mark: Mark) -> None:
        """The old one serves: take the connections from the new one, give them time, then end it."""
        if not self._is_alive(mark.new_instance_id):
            self._forget(mark)
            return
        for word in ("pause", "drain"):
            with contextlib.suppress(errors.RequestError):
                self._instances.say(mark.new_instance_id, word, WORD_TIMEOUT_SECONDS, lambda _: None)
        self._loop.call_later(DRAIN_SECONDS, lambda: self._stop_new(mark))

    def _stop_new(self, mark: Mark) -> None:
        if self._marks.get(mark.operation_id) is not mark:
            return
        new = self._instances.find(mark.new_instance_id)
        if new is None or not new.has_process:
            self._forget(mark)
        else:
            self._instances.stop(new.id, new.specification.stop_timeout_seconds, lambda: self._forget(mark))

    def _finish_when_old_serves(self, mark: Mark) -> None:
        """The new one has ended in the middle of a roll back; done, unless the old one has still to be resumed."""
        old = self._instances.find(mark.old_instance_id) if mark.old_instance_id is not None else None
        if old is None or old.state == "active":
            self._forget(mark)

    def _is_alive(self, instance_id: str) -> bool:
        found = self._instances.find(instance_id)
        return found is not None and found.has_process

    def _has_ended(self, instance_id: str) -> bool:
        found = self._instances.find(instance_id)
        return found is not None and not found.has_process

    def _forget(self, mark: Mark) -> None:
        if self._marks.pop(mark.operation_id, None) is not None:
            self._save()

    def _decide(self, outcome: Outcome) -> None:
        self._outcomes[outcome.operation_id] = outcome
        self._save()

    def _save(self) -> None:
        with contextlib.suppress(OSError):  # a full disk must not stop a roll back
            self._write()

    def image(self) -> str:
        """Write all marks and outcomes down for a new keeper."""
        saved = {
            "boot_id": processes.boot_id(),
            "marks": [asdict(mark) for mark in self._marks.values()],
            "outcomes": [asdict(outcome) for outcome in self._outcomes.values()],
        }
        return json.dumps(saved)

    def _write(self) -> None:
        while len(self._outcomes) > OUTCOMES_MAX:
            del self._outcomes[next(iter(self._outcomes))]
        places.replace(self._where.marks, self.image().encode())
