"""The logs of instances: bounded, and read from their end.

Rules kept here: a log that has grown too long is copied to an old part and begun anew, so that the program goes on
writing where it was and the end of what it said is always there; a program that floods its log is looked at more often.
What a program can write between two looks comes on top of the bound. Left out: who writes.
"""

import contextlib
import os
from collections.abc import Callable, Iterable

from agent.keeper import loop, places

LOG_MAX_BYTES = 8 << 20
TAIL_MAX_BYTES = 128 << 10  # as JSON at most six times that, which fits the unsent bytes of a client
LOOK_MAX_SECONDS = 0.25  # a flood of 120 MB/s that has just begun is seen before 30 MB of it are there
LOOK_MIN_SECONDS = 0.1  # a program that floods at that rate adds 12 MB between two looks
LOOKS_BEFORE_FULL = 2  # a log is looked at again before it can have grown by the bound


class Logs:
    """Bounds the logs of all instances.

    Args:
        ids: Shows the ids of all instances.
    """

    def __init__(self, on: loop.Loop, where: places.Places, ids: Callable[[], Iterable[str]]) -> None:
        self._loop = on
        self._where = where
        self._ids = ids
        self._sizes: dict[str, int] = {}
        self._looked_at = on.now()
        on.call_later(LOOK_MAX_SECONDS, self._look)

    def tail(self, instance_id: str, max_bytes: int) -> str:
        """Return the end of a log, from a line's beginning where there is one."""
        content = b""
        for path in (self._where.log(instance_id), self._where.old_log(instance_id)):
            with contextlib.suppress(OSError), path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                wanted = max_bytes + 1 - len(content)  # one more, to see whether a line begins there
                file.seek(max(0, size - wanted))
                content = file.read(wanted) + content
        if len(content) > max_bytes:
            before, newline, after = content.partition(b"\n")
            content = after if newline else before[-max_bytes:]
        return content.decode(errors="replace")

    def _look(self) -> None:
        now = self._loop.now()
        sizes: dict[str, int] = {}
        fastest = 0.0  # bytes a second
        for instance_id in list(self._ids()):
            with contextlib.suppress(OSError):
                size = os.stat(self._where.log(instance_id)).st_size  # noqa: PTH116  # four times a second
                fastest = max(fastest, (size - self._sizes.get(instance_id, 0)) / (now - self._looked_at))
                sizes[instance_id] = self._rotate(instance_id) if size > LOG_MAX_BYTES else size
        self._sizes, self._looked_at = sizes, now
        self._loop.call_later(period_seconds(fastest), self._look)

    def _rotate(self, instance_id: str) -> int:
        """Begin a log anew; returns its size then."""
        old = self._where.old_log(instance_id)
        log = os.open(self._where.log(instance_id), os.O_RDWR | os.O_CLOEXEC)
        try:
            with contextlib.suppress(OSError), old.open("wb") as copy:  # on a full disk only the bound counts
                offset = os.fstat(log).st_size - LOG_MAX_BYTES
                end = offset + LOG_MAX_BYTES  # and not what is written meanwhile
                while offset < end and (sent := os.sendfile(copy.fileno(), log, offset, end - offset)):
                    offset += sent
            os.ftruncate(log, 0)  # the program appends, so it goes on at the new end
        finally:
            os.close(log)
        return 0


def period_seconds(bytes_a_second: float) -> float:
    """Return the time until the next look, where the log that grows fastest grows like this."""
    if bytes_a_second <= 0:
        return LOOK_MAX_SECONDS
    full_seconds = LOG_MAX_BYTES / bytes_a_second
    return min(LOOK_MAX_SECONDS, max(LOOK_MIN_SECONDS, full_seconds / LOOKS_BEFORE_FULL))
