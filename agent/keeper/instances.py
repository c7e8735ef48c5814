"""All instances of the node: started, spoken to, kept, stopped, and started again when they end.

Rules kept here: verbs are idempotent; an exit is told to the marks before anything else is done about it; only what
was kept is started again, with a pause that doubles; what dies early again and again is started again only every few
minutes, over lives of keepers too, until somebody starts, keeps or revives. Left out: which instance should run, the
uncommitted marks (`marks`), the processes (`lives`).
"""

from collections.abc import Callable, Iterable

from agent.keeper import (
    control,
    errors,
    fields,
    instance,
    listeners,
    lives,
    loop,
    places,
    specification,
    words,
)

LIVE_MAX = 64  # process groups of one node; a component has at most two
EXITED_MAX = 64  # ended instances that can still be asked about; the oldest is forgotten
REVIVE_FIRST_SECONDS = 0.2
REVIVE_MAX_SECONDS = 30.0
BROKEN_RETRY_SECONDS = 300.0  # what is broken may heal by itself: a full disk, a service that it needs
STEADY_SECONDS = 30.0  # a life this long makes the next death a first one

OnStarted = Callable[["instance.Instance | errors.RequestError"], None]


class Instances:
    """The instances of the node, by id."""

    def __init__(
        self, on: loop.Loop, where: places.Places, held: listeners.Listeners, listening: lives.Listening
    ) -> None:
        self._loop = on
        self._where = where
        self._held = held
        self._by_id: dict[str, instance.Instance] = {}
        self._listening = listening
        self.lives = lives.Lives(
            on, where, held=held, listening=listening, living=self._by_id.values, on_over=self._on_over
        )
        self._words = words.Words(on, self.lives, self._launch_parked)

    def all(self) -> Iterable[instance.Instance]:
        """Every instance that is not forgotten, oldest first."""
        return self._by_id.values()

    def ids(self) -> Iterable[str]:
        """The ids of all instances."""
        return self._by_id.keys()

    def find(self, instance_id: str) -> instance.Instance | None:
        """Return the instance, its end noticed if it has ended; None when it is unknown."""
        found = self._by_id.get(instance_id)
        if found is not None:
            self.lives.notice(found)
        return self._by_id.get(instance_id)

    def get(self, instance_id: str) -> instance.Instance:
        """Return the instance.

        Raises:
            errors.RequestError: unknown_instance.
        """
        found = self.find(instance_id)
        if found is None:
            raise errors.RequestError("unknown_instance", f"cannot find instance {instance_id}")
        return found

    def uses(self, socket_name: str) -> bool:
        """Whether a living or a parked instance has this listener."""
        return any(each.is_alive and socket_name in each.specification.sockets for each in self._by_id.values())

    def is_served(self, component: str) -> bool:
        """Whether an instance of the component has a process that is past its start."""
        mine = [each for each in self._by_id.values() if each.specification.component == component]
        return any(each.has_process and each.state != instance.STARTING for each in mine)

    def has_component(self, component: str) -> bool:
        """Whether there is an instance of the component, dead or alive."""
        return any(each.specification.component == component for each in self._by_id.values())

    def start(self, wanted: specification.Specification, on_done: OnStarted) -> None:
        """Start an instance; an id that is known already is success, if it means the same.

        Raises:
            errors.RequestError: It cannot be started.
        """
        known = self._by_id.get(wanted.id)
        if known is not None:
            _join(known, wanted, on_done)
            return
        self._check_room(wanted)
        made = instance.Instance(wanted)
        self.lives.launch(made, self._on_launched)
        made.launching = [on_done]
        self._by_id[wanted.id] = made

    def say(
        self,
        instance_id: str,
        word: str,
        timeout_seconds: float,
        on_answer: Callable[[control.Answer], None],
        body: fields.Body | None = None,
    ) -> None:
        """Say a word to an instance.

        Raises:
            errors.RequestError: unknown_instance, instance_gone, or instance_refused by a plain or parked one.
        """
        found = self.get(instance_id)
        if self._words.obeys(found, word):
            self._words.say(found, word, timeout_seconds, on_answer)
        elif found.conversation is None:
            raise errors.RequestError("instance_gone", f"cannot say {word} to {instance_id}: it has ended")
        else:
            found.conversation.ask(word, timeout_seconds, on_answer, body)

    def keep(self, component: str, instance_id: str) -> None:
        """Make it the one instance of its component that is started again whenever it ends by itself."""
        found = self.get(instance_id)
        if found.specification.component != component:
            rule = f"it belongs to {found.specification.component}"
            raise errors.RequestError("invalid_request", f"cannot keep {instance_id} for component {component}: {rule}")
        for each in self._by_id.values():
            if each.is_kept and each is not found and each.specification.component == component:
                each.is_kept = False
                self.lives.record(each)
        if not found.is_kept:
            found.is_kept, found.early_deaths = True, 0
            self.lives.record(found)
            if not found.is_alive and not found.is_ending:
                self._revive_later(found)

    def revive(self, instance_id: str, on_done: OnStarted) -> None:
        """Forget the early deaths, and start it now where it has no process.

        Raises:
            errors.RequestError: unknown_instance, instance_gone or what its start refuses.
        """
        found = self.get(instance_id)
        found.early_deaths = 0
        self.lives.record(found)
        if found.launching is not None:
            found.launching.append(on_done)
        elif found.has_process:
            on_done(found)
        elif found.is_ending:
            raise errors.RequestError("instance_gone", f"cannot revive {instance_id}: it is ending")
        else:
            found.cancel_timers()
            self._launch_again(found)
            found.launching = [on_done]

    def stop(self, instance_id: str, timeout_seconds: float, on_done: Callable[[], None]) -> None:
        """End an instance and forget it; one that is unknown is success."""
        found = self.find(instance_id)
        if found is None or not (found.has_process or found.is_ending):
            if found is not None:
                self._forget(found)
            on_done()
            return
        if found.stopping is not None:
            found.stopping.append(on_done)
            return
        found.is_kept = False
        found.stopping = [on_done]
        self.lives.record(found)
        if found.has_process:
            self.lives.end(found, timeout_seconds)

    def adopt(self, found: instance.Instance) -> None:
        """Take over an instance that another keeper started; it is not our child."""
        found.cgroup = self.lives.cgroups.own(found.cgroup, found.id)
        self._by_id[found.id] = found
        if found.has_process:
            self.lives.attend(found)
            self._await_steady(found)
            if found.is_parked:
                self._words.park(found)
        elif found.is_kept and not found.is_parked:
            self._revive_later(found)

    def _check_room(self, wanted: specification.Specification) -> None:
        if sum(each.is_alive for each in self._by_id.values()) >= LIVE_MAX:
            raise errors.RequestError("too_many", f"cannot start {wanted.id}: {LIVE_MAX} instances live already")

    def _on_launched(self, made: instance.Instance, refusal: errors.RequestError | None) -> None:
        waiting, made.launching = made.launching or [], None
        if refusal is None and self._by_id.get(made.id) is made:
            made.is_parked = bool(made.parking)
            self.lives.record(made)
            self._await_steady(made)
        elif refusal is not None and not (made.is_kept or made.is_parked) and self._by_id.get(made.id) is made:
            self._forget(made)
        for on_done in waiting:
            on_done(made if refusal is None else refusal)

    def _await_steady(self, made: instance.Instance) -> None:
        def settle() -> None:
            made.early_deaths = 0
            self.lives.record(made)

        if made.early_deaths and made.has_process:
            made.timers.append(self._loop.call_later(STEADY_SECONDS, settle))

    def _on_over(self, made: instance.Instance, was: str) -> None:
        """Nothing of its processes is left: do what it ended for, or start it again."""
        if self._by_id.get(made.id) is not made:
            return
        parking, made.parking = made.parking, []
        stopping, made.stopping = made.stopping, None
        if stopping is not None:
            self._forget(made)
        elif made.is_parked:
            self.lives.record(made)
        elif made.is_kept and was not in (instance.DRAINING, instance.DRAINED):
            self._revive_later(made, made.started_at_monotonic)
        for on_done in (*parking, *(stopping or ())):
            on_done()
        self._bound_exited()

    def _revive_later(self, made: instance.Instance, started_at_monotonic: float | None = None) -> None:
        """Start it again after a pause; without the start of a life that has ended, none is counted."""
        if started_at_monotonic is not None:
            is_steady = self._loop.now() - started_at_monotonic >= STEADY_SECONDS
            made.early_deaths = 0 if is_steady else made.early_deaths + 1
            self.lives.record(made)
        delay = min(REVIVE_FIRST_SECONDS * 2 ** max(0, made.early_deaths - 1), REVIVE_MAX_SECONDS)
        if made.is_broken:
            delay = BROKEN_RETRY_SECONDS
        made.timers.append(self._loop.call_later(delay, lambda: self._revive(made)))

    def _revive(self, made: instance.Instance) -> None:
        if not made.is_kept or made.is_parked or made.has_process or made.is_ending:
            return
        made.restarts += 1
        try:
            self._launch_again(made)
        except errors.RequestError:
            self._revive_later(made, self._loop.now())
        else:
            self._listening.on_event(made, instance.EXITED)

    def _launch_again(self, made: instance.Instance) -> None:
        for binding in made.bindings:  # no-op, unless it was adopted and has never handed its listeners over
            self._held.reopen(binding)
        made.is_reviving = True
        self.lives.launch(made, self._on_launched)

    def _launch_parked(self, made: instance.Instance, on_launched: words.OnLaunched) -> None:
        def on_done(result: instance.Instance | errors.RequestError) -> None:
            on_launched(result if isinstance(result, errors.RequestError) else None)

        if made.launching is not None:
            made.launching.append(on_done)
            return
        try:
            self._launch_again(made)
        except errors.RequestError as refusal:
            on_launched(refusal)
        else:
            made.launching = [on_done]

    def _forget(self, made: instance.Instance) -> None:
        made.cancel_timers()
        made.is_kept = False
        del self._by_id[made.id]
        self._where.forget(made.id)
        self._listening.on_forgotten(made)

    def _bound_exited(self) -> None:
        exited = [each for each in self._by_id.values() if not (each.is_alive or each.is_kept or each.is_ending)]
        for each in exited[:-EXITED_MAX]:
            self._forget(each)


def _join(known: instance.Instance, wanted: specification.Specification, on_done: OnStarted) -> None:
    if known.specification != wanted:
        raise errors.RequestError("instance_conflict", f"cannot start {wanted.id}: another instance has this id")
    if known.launching is not None:
        known.launching.append(on_done)
    else:
        on_done(known)
