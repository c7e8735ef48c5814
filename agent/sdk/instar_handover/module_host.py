"""What a host keeps of its modules: cells by name, the list that it starts with, and the words that change them.

    host = module_host.ModuleHost()
    rules = host.cell("billing.rules")
    asyncio.run(asyncio_server.serve(on_connection, words={"module": host.answer}))

Rules kept here: a host that is started anew loads what INSTAR_MODULES lists, and ends where it cannot; each word is
idempotent by the instance that it names; a refusal is an answer with a code and changes nothing; what a module does
runs in a thread that is left behind when its time is over, so it can hold up neither the host nor its end. Left out:
whether a change is kept, which the driver writes into the list.
"""

import asyncio
import contextlib
import functools
import json
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from instar_handover import module_cell, module_hurry, module_machine, module_source, module_state

LIST_VARIABLE = "INSTAR_MODULES"
LIST_BYTES_MAX = 1 << 20  # two hundred bytes for each module
SECONDS_MAX = 3600.0  # no load takes longer
GRACE_SECONDS = 0.25  # over the time of a swap, in which a thread that has been late says so itself
BESIDE: Mapping[module_machine.State, str] = {
    module_machine.State.SWITCHED: "paused",
    module_machine.State.REVERTING: "paused",
}

Body = Mapping[str, Any]
T = TypeVar("T")


class ModuleHost:
    """The cells of one process.

    Args:
        listed: File with what it starts with; by default the one that INSTAR_MODULES names, where there is one.

    Raises:
        module_source.ModuleFaultError: Something of that list cannot be loaded.
    """

    def __init__(self, listed: Path | None = None) -> None:
        self._hurry = module_hurry.Hurry()
        self._cells: dict[str, module_cell.Cell] = {}
        self._loads = 0
        self._turn = asyncio.Lock()
        named = os.environ.get(LIST_VARIABLE, "")
        path = listed or (Path(named) if named else None)
        if path is not None and path.exists():
            for component, release in read_list(path).items():
                self._install(component, release)

    def cell(self, component: str) -> module_cell.Cell:
        """Return the cell of a component; the same one for the same name."""
        return self._cells.setdefault(component, module_cell.Cell(component, self._hurry))

    async def answer(self, word: str, body: Body) -> Body:
        """Do what a word of the driver asks; a refusal is told under "refused" and "message".

        Args:
            word: module.stage, module.swap, module.back, module.drop or module.status.
            body: Names the component, and what belongs to the word.
        """
        try:
            return await self._obey(word, self.cell(_text(body, "component")), body)
        except module_source.ModuleFaultError as error:
            return {"refused": error.code, "message": str(error)}
        except module_machine.IllegalEventError as error:
            return {"refused": "not_now", "message": str(error)}

    async def _obey(self, word: str, cell: module_cell.Cell, body: Body) -> Body:
        if word == "module.status":
            return _status(cell)
        async with self._turn:
            match word:
                case "module.stage":
                    return await self._stage(cell, body)
                case "module.swap":
                    return await self._swap(cell, body)
                case "module.back":
                    return await self._back(cell, body)
                case "module.drop":
                    return await self._drop(cell, body)
                case _:
                    raise module_source.ModuleFaultError("unknown_word", f"cannot obey {word!r}: it is no such word")

    async def _stage(self, cell: module_cell.Cell, body: Body) -> Body:
        """Load a version beside what serves; an empty file stands for none, with which a component leaves."""
        release, within_seconds = _release(body), _seconds(body)
        if release.instance in _instances(cell):
            return _status(cell)
        loaded = None
        if body["file"]:
            load = functools.partial(self._load, cell.name, release)
            try:
                loaded = await _in_thread(load, within_seconds, f"load {release.instance}", module_source.unload)
            except TimeoutError as error:
                message = f"cannot load {release.instance} within {within_seconds:g} s"
                raise module_source.ModuleFaultError("load_timed_out", message) from error
            try:
                module_state.check_ways(cell.serving.loaded, loaded)
            except module_source.ModuleFaultError:
                module_source.unload(loaded)
                raise
        _forget(cell.stage(module_cell.Generation(release.instance, loaded)))
        return _status(cell)

    async def _swap(self, cell: module_cell.Cell, body: Body) -> Body:
        if cell.serving.instance == _text(body, "instance"):
            return {**_status(cell), "paused_seconds": 0.0}
        _check_beside(cell, _text(body, "instance"))
        paused_seconds = await self._flip(cell, _seconds(body), _carry(cell))
        return {**_status(cell), "paused_seconds": paused_seconds}

    async def _back(self, cell: module_cell.Cell, body: Body) -> Body:
        """Serve the old version again, with the state of now; where that cannot be had, with its own of the swap."""
        if cell.serving.instance == _text(body, "instance"):
            return {**_status(cell), "state_of": "now"}
        _check_beside(cell, _text(body, "instance"))
        try:
            await self._flip(cell, _seconds(body), _carry(cell))
        except module_source.ModuleFaultError as error:
            if error.code == "calls_in_the_way":
                raise
            await self._flip(cell, _seconds(body), module_state.Nothing())
            return {**_status(cell), "state_of": "the swap", "why": str(error)}
        return {**_status(cell), "state_of": "now"}

    async def _drop(self, cell: module_cell.Cell, body: Body) -> Body:
        """Forget every generation beside the one named; where none is named, nothing serves any more."""
        keep = _text(body, "keep")
        if cell.beside is not None and cell.beside.instance != keep:
            _forget(cell.drop())
        if not keep and cell.serving.instance:
            cell.stage(module_cell.Generation("", None))
            try:
                await self._flip(cell, _seconds(body), module_state.Nothing())
            finally:
                _forget(cell.drop())
        return _status(cell)

    async def _flip(self, cell: module_cell.Cell, within_seconds: float, carry: module_cell.Carry) -> float:
        patience_seconds = within_seconds + GRACE_SECONDS
        attempt = module_cell.Attempt(within_seconds)
        try:
            flip = functools.partial(cell.flip, attempt, carry)
            return await _in_thread(flip, patience_seconds, "flip", lambda _: None)
        except TimeoutError as error:
            raise attempt.late() from error

    def _load(self, component: str, release: module_source.Release) -> module_source.Loaded:
        self._loads += 1
        return module_source.load(component, release, self._loads)

    def _install(self, component: str, release: module_source.Release) -> None:
        """Let a version serve from the beginning on; nobody calls yet."""
        cell = self.cell(component)
        cell.stage(module_cell.Generation(release.instance, self._load(component, release)))
        cell.flip(module_cell.Attempt(SECONDS_MAX), module_state.Nothing())
        cell.drop()


def read_list(path: Path) -> Mapping[str, module_source.Release]:
    """Read what a host starts with; a component without a version is left out.

    Raises:
        module_source.ModuleFaultError: It is no such list.
    """
    try:
        with path.open("rb") as source:
            modules = json.loads(source.read(LIST_BYTES_MAX))["modules"]
        return {name: _release(entry) for name, entry in modules.items() if entry is not None}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise module_source.ModuleFaultError("list_unreadable", f"cannot read {path}: {error!r}") from error


async def _in_thread(work: Callable[[], T], within_seconds: float, name: str, on_late: Callable[[T], None]) -> T:
    """Do something that may never end; past its time it is left alone, and its result goes to `on_late`."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            if error is None:
                on_late(cast("T", result))
        elif error is not None:
            future.set_exception(error)
        else:
            future.set_result(cast("T", result))

    def run() -> None:
        try:
            ended: tuple[T | None, BaseException | None] = work(), None
        except Exception as error:  # noqa: BLE001  # whatever it is, it is told to who waits
            ended = None, error
        with contextlib.suppress(RuntimeError):  # the loop has been closed: nobody waits
            loop.call_soon_threadsafe(settle, *ended)

    threading.Thread(target=run, name=name, daemon=True).start()
    async with asyncio.timeout(within_seconds):
        return await future


def _status(cell: module_cell.Cell) -> Body:
    serving, beside, attempt = cell.serving, cell.beside, cell.attempt
    shown = [_shown(serving, "active")]
    if beside is not None:
        shown.append(_shown(beside, BESIDE.get(cell.state, "prepared")))
    return {
        "state": cell.state.value,
        "generations": [each for each in shown if each["instance"]],
        "blockers": list(cell.blockers()),
        "doing": attempt.doing if attempt else "",
    }


def _shown(generation: module_cell.Generation, state: str) -> Body:
    loaded = generation.loaded
    return {
        "instance": generation.instance,
        "version": loaded.release.version if loaded else "",
        "digest": loaded.release.digest if loaded else "",
        "state": state,
        "served": generation.served,
    }


def _carry(cell: module_cell.Cell) -> module_cell.Carry:
    return module_state.Carrier(cell.serving.loaded, cell.beside.loaded if cell.beside else None)


def _instances(cell: module_cell.Cell) -> set[str]:
    return {cell.serving.instance, *([cell.beside.instance] if cell.beside else [])}


def _check_beside(cell: module_cell.Cell, instance: str) -> None:
    if cell.beside is None or cell.beside.instance != instance:
        message = f"cannot flip {cell.name}: {instance or 'nothing'} does not stand beside what serves"
        raise module_source.ModuleFaultError("instance_missing", message)


def _forget(generation: module_cell.Generation | None) -> None:
    if generation is not None and generation.loaded is not None:
        module_source.unload(generation.loaded)


def _release(body: Body) -> module_source.Release:
    texts = {name: _text(body, name) for name in ("instance", "sha256", "version", "digest")}
    return module_source.Release(file=Path(_text(body, "file")), **texts)


def _text(body: Body, name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str):
        raise module_source.ModuleFaultError("invalid_request", f"cannot use {name} {value!r}: it must be text")
    return value


def _seconds(body: Body) -> float:
    value = body.get("within_seconds")
    if not isinstance(value, int | float) or not 0 < value <= SECONDS_MAX:
        rule = f"it must be a number up to {SECONDS_MAX:g}"
        raise module_source.ModuleFaultError("invalid_request", f"cannot use within_seconds {value!r}: {rule}")
    return float(value)
