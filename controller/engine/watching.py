"""Wakes who waits for something to change; a sleeper that is woken twice has still only to look once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class Bell(Generic[Key]):
    """Callbacks by key.

    A callback must be quick and must not raise; it says that something may have changed, never what.
    """

    def __init__(self) -> None:
        self._wakes: dict[Key, list[Callable[[], None]]] = {}

    def subscribe(self, key: Key, wake: Callable[[], None]) -> Callable[[], None]:
        """Call ``wake`` whenever the key is rung; return what ends that, which may be called again."""
        self._wakes.setdefault(key, []).append(wake)

        def unsubscribe() -> None:
            wakes = self._wakes.get(key, [])
            if wake in wakes:
                wakes.remove(wake)
            if not wakes:
                self._wakes.pop(key, None)

        return unsubscribe

    def ring(self, key: Key) -> None:
        """Wake everybody who subscribed to the key."""
        for wake in tuple(self._wakes.get(key, ())):
            wake()
