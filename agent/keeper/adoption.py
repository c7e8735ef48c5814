"""Takes over what an earlier keeper left: living instances, and the listeners that they have.

Rules kept here: an instance is the one of its record only if boot id, pid and start time say so; its control socket
must answer as that process; records of another boot are removed, for their processes are gone; whatever a component
does, the adoption ends within a bound. Left out: marks, which are restored after this.
"""

import functools
import socket
from collections.abc import Callable
from dataclasses import dataclass

from agent.keeper import (
    control,
    errors,
    fields,
    instance,
    instances,
    listeners,
    places,
    processes,
    specification,
)

ANSWER_SECONDS = 1.0  # a component answers within a turn of its event loop; a hung one holds the agent up this long
PID_MAX = 1 << 22  # PID_MAX_LIMIT of Linux
TICKS_MAX = 1 << 63  # of /proc/PID/stat
RESTARTS_MAX = 1 << 31  # one each 0.2 s for 13 years
BACKLOG_MAX = 65535  # of listen(2)


@dataclass(slots=True)
class _Count:
    """Answers that are still to come."""

    left: int


def adopt(
    where: places.Places, live: instances.Instances, held: listeners.Listeners, on_done: Callable[[], None]
) -> None:
    """Adopt what lives; `on_done` is called once when every component has answered or had its time."""
    found = [_take(where, live, path.stem) for path in sorted(where.run.glob("*.json"))]
    adopted = [each for each in found if each is not None]
    count = _Count(len(adopted))

    def on_answer(each: instance.Instance, answer: control.Answer) -> None:
        _take_listeners(each, answer, held)
        count.left -= 1
        if count.left == 0:
            on_done()

    for each in adopted:
        try:
            live.say(each.id, "listeners", ANSWER_SECONDS, functools.partial(on_answer, each))
        except errors.RequestError as refusal:  # it ended just now
            on_answer(each, control.Answer(None, refusal))
    if not adopted:
        on_done()


def _take(where: places.Places, live: instances.Instances, instance_id: str) -> instance.Instance | None:
    """Adopt the instance of a record; None when there is nobody to ask for listeners."""
    try:
        record = fields.parse(where.record(instance_id).read_bytes())
        if fields.text(record, "boot_id") != processes.boot_id():
            where.forget(instance_id)
            return None
        found = _read(record)
    except (OSError, errors.RequestError):  # not a record of ours
        where.forget(instance_id)
        return None
    pidfd = processes.open_pidfd(found.pid, found.start_time)
    if pidfd is None:
        found.state, found.is_kept = instance.EXITED, False  # the agent, which comes soon, decides what runs
        live.adopt(found)
        return None
    found.pidfd = pidfd
    live.adopt(found)
    return found


def _read(record: fields.Body) -> instance.Instance:
    return instance.Instance(
        specification.read(fields.nested(record, "instance")),
        bindings=tuple(_read_binding(body) for body in fields.bodies(record, "bindings")),
        pid=fields.whole(record, "pid", 2, PID_MAX),
        start_time=fields.whole(record, "start_time", 1, TICKS_MAX),
        started_at_monotonic=fields.number(record, "started_at_monotonic"),
        is_kept=record.get("is_kept") is True,
        restarts=fields.whole(record, "restarts", 0, RESTARTS_MAX),
    )


def _read_binding(body: fields.Body) -> listeners.Binding:
    address = fields.text(body, "address")
    return listeners.Binding(fields.identifier(body, "name"), address, fields.whole(body, "backlog", 1, BACKLOG_MAX))


def _take_listeners(found: instance.Instance, answer: control.Answer, held: listeners.Listeners) -> None:
    prefix = f"{found.specification.component}."
    bindings = {binding.name.removeprefix(prefix): binding for binding in found.bindings}
    for name, descriptor in zip(answer.names, answer.descriptors, strict=False):
        taken = socket.socket(fileno=descriptor)
        binding = bindings.get(name)
        if binding is None or not taken.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            taken.close()
        else:
            held.adopt(listeners.Listener(binding, taken))
