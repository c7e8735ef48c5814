"""Listeners that are kept open while nothing of their component serves, but not for ever.

Rules kept here: what connects waits in the backlog until something serves again; once nothing has served for the hold's
bound, what waits and what comes is accepted and closed, so that a client is told instead of hanging; the next keeper
holds on. Left out: opening and closing listeners.
"""

import contextlib
import functools
import json
from collections.abc import Callable
from dataclasses import dataclass, field

from agent.keeper import errors, fields, listeners, loop, places, processes

ACCEPTS_PER_WAKE_MAX = 64  # so that a crowd cannot hold up the keeper


@dataclass(slots=True)
class Hold:
    """What is held for one component.

    Args:
        timer: Runs while nothing serves.
        shed: Descriptors on which connections are closed now.
    """

    names: tuple[str, ...]
    shed_after_seconds: float
    timer: loop.Timer | None = None
    shed: list[int] = field(default_factory=list)


class Holds:
    """All holds, by component.

    Args:
        is_served: Whether an instance of the component has a process that is past its start.
    """

    def __init__(
        self, on: loop.Loop, where: places.Places, held: listeners.Listeners, is_served: Callable[[str], bool]
    ) -> None:
        self._loop = on
        self._where = where
        self._held = held
        self._is_served = is_served
        self._by_component: dict[str, Hold] = {}

    def put(self, component: str, names: tuple[str, ...], shed_after_seconds: float) -> None:
        """Hold from now on; again, it replaces what was held.

        Raises:
            errors.RequestError: unknown_socket.
        """
        for name in names:
            self._held.get(name)
        self._put(component, names, shed_after_seconds)
        self._save()

    def restore(self, has_component: Callable[[str], bool]) -> None:
        """Take up the holds of the keeper before this one, for components that are still there; after the adoption."""
        with contextlib.suppress(OSError, errors.RequestError):  # unreadable holds are those of no boot
            saved = fields.parse(self._where.holds.read_bytes())
            if saved.get("boot_id") == processes.boot_id():
                for body in fields.bodies(saved, "holds"):
                    component, seconds = (
                        fields.identifier(body, "component"),
                        fields.seconds(body, "shed_after_seconds"),
                    )
                    if has_component(component):
                        self._put(component, fields.texts(body, "listeners"), seconds)

    def images(self) -> list[fields.Body]:
        """Describe all holds to the next image of this keeper, in the words of the verb."""
        return [
            {"component": component, "listeners": list(hold.names), "shed_after_seconds": hold.shed_after_seconds}
            for component, hold in self._by_component.items()
        ]

    def look(self, component: str) -> None:
        """Something about the component's instances has changed."""
        hold = self._by_component.get(component)
        if hold is None:
            return
        if self._is_served(component):
            self._stop_shedding(hold)
        elif hold.timer is None and not hold.shed:
            hold.timer = self._loop.call_later(hold.shed_after_seconds, lambda: self._shed(hold))

    def forget(self, component: str) -> None:
        """Hold no more."""
        hold = self._by_component.pop(component, None)
        if hold is not None:
            self._stop_shedding(hold)
            self._save()

    def release(self, name: str) -> None:
        """Take the hands off a listener that is about to be closed; what is held is shed again in its time."""
        for component, hold in self._by_component.items():
            if name in hold.names:
                self._stop_shedding(hold)
                self.look(component)

    def _put(self, component: str, names: tuple[str, ...], shed_after_seconds: float) -> None:
        known = self._by_component.get(component)
        if known is not None:
            self._stop_shedding(known)
        self._by_component[component] = Hold(names, shed_after_seconds)
        self.look(component)

    def _save(self) -> None:
        saved = {"boot_id": processes.boot_id(), "holds": self.images()}
        with contextlib.suppress(OSError):  # a full disk must not keep a component from serving
            places.replace(self._where.holds, json.dumps(saved).encode())

    def _shed(self, hold: Hold) -> None:
        hold.timer = None
        for name in hold.names:
            try:
                listener = self._held.get(name)
            except errors.RequestError:  # closed since
                continue
            hold.shed.append(listener.socket.fileno())
            self._loop.watch(listener.socket.fileno(), loop.READ, functools.partial(_turn_away, listener))

    def _stop_shedding(self, hold: Hold) -> None:
        if hold.timer is not None:
            hold.timer.cancel()
            hold.timer = None
        for descriptor in hold.shed:
            self._loop.unwatch(descriptor)
        hold.shed.clear()


def _turn_away(listener: listeners.Listener, _events: int) -> None:
    for _ in range(ACCEPTS_PER_WAKE_MAX):
        try:
            connected, _ = listener.socket.accept()
        except OSError:
            return
        connected.close()
