"""A cell: the one reference through which a host calls a module, so that it can be flipped to another version.

    with rules.enter() as module:            # or: async with
        module.price(order)
    rules.call("price", order)               # the same in one

Rules kept here: a call sees one version from its beginning to its end, calls that it makes into the same cell included;
while the cell is suspended new calls wait and none is refused, and a watchdog opens it again when the time is over,
whatever the swap is doing; a swap that is late changes nothing. Threads and tasks alike. Left out: loading
(`module_source`), what is carried over (`module_state`), and who asks for it (`module_host`).
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Coroutine, Generator
from contextvars import ContextVar
from types import AsyncGeneratorType, CoroutineType, GeneratorType, ModuleType, TracebackType
from typing import Any, Protocol

from instar_handover import module_hurry, module_machine, module_source

NAMED_MAX = 8  # calls in the way that are named; the rest is counted
ESCAPING = frozenset({CoroutineType, GeneratorType, AsyncGeneratorType})  # they would run on after the call is over


class ModuleMissingError(Exception):
    """No version of the module is loaded."""


class Generation:
    """One version in a cell, and the calls inside it.

    Args:
        instance: Its name for ever; empty for what stands in a cell before the first version and after the last.
    """

    __slots__ = ("inside", "instance", "loaded", "served")

    def __init__(self, instance: str, loaded: module_source.Loaded | None) -> None:
        self.instance = instance
        self.loaded = loaded
        self.inside: set[Stay] = set()
        self.served = 0


class Attempt:
    """One try to flip a cell.

    Args:
        within_seconds: The time that it has.
        part: What it is at: calls, export, code_change or import; goes into the code of a fault.
        version: Whose part that is.
    """

    def __init__(self, within_seconds: float) -> None:
        self.within_seconds = within_seconds
        self.part = "calls"
        self.version = ""
        self.is_over = False
        self.shut_at_ns = 0
        self.open_at_ns = 0

    @property
    def doing(self) -> str:
        """What it is at, in words."""
        return f"{self.part} of {self.version}" if self.version else "waiting for the calls inside to end"

    def begin(self, part: str, version: str) -> None:
        """Note what it is at, unless its time is over.

        Raises:
            module_source.ModuleFaultError: Too late.
        """
        if self.is_over:
            raise self.late()
        self.part, self.version = part, version

    def late(self) -> module_source.ModuleFaultError:
        """Why it came to nothing."""
        message = f"cannot swap within {self.within_seconds:g} s: still {self.doing}"
        return module_source.ModuleFaultError(f"{self.part}_timed_out", message)


class Carry(Protocol):
    """Carries the state over."""

    def rehearse(self) -> None:
        """Get ready for it; called before anything is suspended."""
        ...

    def carry(self, attempt: Attempt) -> None:
        """Do it; what it raises leaves everything as it was."""
        ...


class Stay:
    """One call: from the moment it is let in until it leaves. Used once."""

    __slots__ = ("_cell", "_outer", "generation", "name")

    def __init__(self, cell: "Cell", name: str) -> None:
        self._cell = cell
        self._outer: Stay | None = None
        self.name = name
        self.generation: Generation | None = None

    def __enter__(self) -> ModuleType:
        """Wait until the cell is open, and stay on the version that serves then."""
        self._outer = self._cell.here.get()
        module = self._cell.admit(self, self._outer)
        self._cell.here.set(self)
        return module

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave."""
        self._cell.here.set(self._outer)
        self._outer = None
        self._cell.leave(self)

    async def __aenter__(self) -> ModuleType:
        """Wait without holding the event loop up."""
        self._outer = self._cell.here.get()
        task = asyncio.current_task()
        self.name = f"{self.name} in {task.get_name()}" if task else self.name
        module = await self._cell.admit_task(self, self._outer)
        self._cell.here.set(self)
        return module

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave."""
        self.__exit__(kind, error, trace)


class Cell:
    """The place of one module in its host."""

    def __init__(self, name: str, hurry: module_hurry.Hurry) -> None:
        self.name = name
        self._hurry = hurry
        self.here: ContextVar[Stay | None] = ContextVar(f"instar cell {name}", default=None)
        self._lock = threading.Lock()
        self._opened = threading.Condition(self._lock)
        self._emptied = threading.Condition(self._lock)
        self._waiting: set[asyncio.Future[None]] = set()
        self._state = module_machine.State.SERVING
        self._is_shut = False  # by its state; asked by every call
        self._serving = Generation("", None)
        self._beside: Generation | None = None
        self._attempt: Attempt | None = None

    @property
    def state(self) -> module_machine.State:
        """Where it stands."""
        return self._state

    @property
    def serving(self) -> Generation:
        """The generation that calls are let into."""
        return self._serving

    @property
    def beside(self) -> Generation | None:
        """The other one: staged, or kept so that it can be gone back to."""
        return self._beside

    @property
    def attempt(self) -> Attempt | None:
        """The swap that is going on."""
        return self._attempt

    def enter(self) -> Stay:
        """Return what `with` and `async with` take: it gives the module, and holds its version until the block ends."""
        return Stay(self, f"{self.name} in {threading.current_thread().name}")

    def call(self, function: str, *args: object, **options: object) -> Any:  # noqa: ANN401  # whatever the module gives
        """Call a function of the module.

        Raises:
            ModuleMissingError: There is no module.
            TypeError: The function gives a coroutine or a generator, which would outlive the call; use `enter`.
        """
        with Stay(self, function) as module:
            result = getattr(module, function)(*args, **options)
        if type(result) in ESCAPING:
            _close(result)
            raise TypeError(f"cannot call {self.name}.{function}: what it gives runs on after the call; use enter()")
        return result

    def blockers(self) -> tuple[str, ...]:
        """Name the calls that are inside what serves."""
        with self._lock:
            return self._named()

    def stage(self, generation: Generation) -> Generation | None:
        """Put a generation beside what serves; returns the one that stood there.

        Raises:
            module_machine.IllegalEventError: An old one is still kept, or a swap is going on.
        """
        with self._lock:
            self._state = module_machine.step(self._state, module_machine.Event.STAGE)
            self._beside, replaced = generation, self._beside
            return replaced

    def drop(self) -> Generation | None:
        """Forget the generation beside what serves, and return it.

        Raises:
            module_machine.IllegalEventError: A swap is going on.
        """
        with self._lock:
            self._state = module_machine.step(self._state, module_machine.Event.DROP)
            self._beside, dropped = None, self._beside
            return dropped

    def flip(self, attempt: Attempt, carry: Carry) -> float:
        """Suspend, wait until no call is inside, carry the state over, and serve the generation beside.

        Args:
            attempt: A fresh one; its time is for all of it, and the longest that a call waits.
            carry: Carries the state over.

        Returns:
            Seconds for which new calls waited.

        Raises:
            module_source.ModuleFaultError: calls_in_the_way, state_timed_out, or whatever `carry` raised.
            module_machine.IllegalEventError: There is nothing to flip to.
        """
        watchdog = threading.Timer(attempt.within_seconds, self._give_up, (attempt,))
        watchdog.daemon = True
        watchdog.start()  # before anything is shut: where no thread can be started, nothing has happened
        self._hurry.begin(attempt)
        try:
            carry.rehearse()
            self._shut(attempt)
            carry.carry(attempt)
            return self._switch(attempt)
        finally:
            watchdog.cancel()
            self._give_up(attempt)

    def admit(self, stay: Stay, outer: Stay | None) -> ModuleType:
        """Let a call of a thread in."""
        with self._lock:
            while self._is_shut and (outer is None or outer.generation is None):
                self._opened.wait()
            return self._let_in(stay)

    async def admit_task(self, stay: Stay, outer: Stay | None) -> ModuleType:
        """Let a call of a task in."""
        while True:
            with self._lock:
                is_nested = outer is not None and outer.generation is not None
                if is_nested or not self._is_shut:
                    return self._let_in(stay)
                waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._waiting.add(waiter)
            try:
                await waiter
            finally:
                with self._lock:
                    self._waiting.discard(waiter)

    def leave(self, stay: Stay) -> None:
        """Let a call go."""
        with self._lock:
            generation, stay.generation = stay.generation, None
            if generation is None:
                return
            generation.inside.discard(stay)
            generation.served += 1
            if self._is_shut and not generation.inside:
                self._emptied.notify_all()

    def _let_in(self, stay: Stay) -> ModuleType:
        """Count a call in; for one made from inside, what serves is what the outer one is in, for it holds that up."""
        generation = self._serving
        if generation.loaded is None:
            raise ModuleMissingError(f"cannot enter {self.name}: no version of it is loaded")
        generation.inside.add(stay)
        stay.generation = generation
        return generation.loaded.module

    def _shut(self, attempt: Attempt) -> None:
        with self._lock:
            state = module_machine.step(self._state, module_machine.Event.SUSPEND)
            if self._beside is None:
                raise module_machine.IllegalEventError(f"cannot flip {self.name}: nothing stands beside what serves")
            self._state, self._attempt = state, attempt
            attempt.shut_at_ns = time.perf_counter_ns()
            self._is_shut = True
            serving = self._serving
            while serving.inside and not attempt.is_over:
                self._emptied.wait()
            if attempt.is_over:
                names = ", ".join(self._named())
                message = f"cannot swap within {attempt.within_seconds:g} s: calls do not end: {names}"
                raise module_source.ModuleFaultError("calls_in_the_way", message)

    def _named(self) -> tuple[str, ...]:
        names = [stay.name for stay in self._serving.inside]
        more = (f"{len(names) - NAMED_MAX} more",) if len(names) > NAMED_MAX else ()
        return (*sorted(names[:NAMED_MAX]), *more)

    def _switch(self, attempt: Attempt) -> float:
        with self._lock:
            if attempt.is_over or self._beside is None:
                raise attempt.late()
            self._serving, self._beside = self._beside, self._serving
            self._open(attempt, module_machine.Event.FLIP)
            return (attempt.open_at_ns - attempt.shut_at_ns) / 1e9

    def _give_up(self, attempt: Attempt) -> None:
        """Open the cell again, with what served; nothing where the attempt is over."""
        with self._lock:
            if self._attempt is attempt:
                self._open(attempt, module_machine.Event.GIVE_UP)
            attempt.is_over = True
            self._emptied.notify_all()
        self._hurry.end(attempt)

    def _open(self, attempt: Attempt, event: module_machine.Event) -> None:
        self._state = module_machine.step(self._state, event)
        self._is_shut = False
        attempt.open_at_ns = time.perf_counter_ns()
        self._attempt = None
        attempt.is_over = True
        self._opened.notify_all()
        for waiter in self._waiting:
            with contextlib.suppress(RuntimeError):  # its loop has been closed
                waiter.get_loop().call_soon_threadsafe(_wake, waiter)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _close(result: Coroutine[Any, Any, Any] | Generator[Any, Any, Any] | object) -> None:
    close = getattr(result, "close", None)
    if close is not None:
        close()
