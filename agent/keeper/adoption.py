"""Takes over what an earlier keeper left: living instances, and the listeners that they have.

Rules kept here: an instance is the one of its record only if boot id, pid and start time say so; its control socket
must answer as that process, and a plain one is asked for nothing: its listeners are taken; records of another boot are
removed, for their processes are gone; what belongs to no record is ended; whatever a component does, the adoption ends
within a bound. Left out: marks, which are restored after this.
"""

import functools
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agent.keeper import (
    control,
    errors,
    fields,
    groups,
    instance,
    instances,
    listeners,
    loop,
    places,
    processes,
    retrieval,
    specification,
)

ANSWER_SECONDS = 1.0  # a component answers within a turn of its event loop; a hung one holds the agent up this long
TICKS_MAX = 1 << 63  # of /proc/PID/stat
RESTARTS_MAX = 1 << 31  # one each 0.2 s for 13 years
EARLY_DEATHS_MAX = 1 << 31  # as above
BACKLOG_MAX = 65535  # of listen(2)
DEFAULTS: fields.Body = {  # what records of version 1 did not say
    "owner": "",
    "cgroup": "",
    "state": "",
    "is_parked": False,
    "early_deaths": 0,
}


@dataclass(slots=True)
class _Count:
    """Answers that are still to come."""

    left: int


def adopt(
    on: loop.Loop,
    where: places.Places,
    live: instances.Instances,
    held: listeners.Listeners,
    on_done: Callable[[], None],
) -> None:
    """Adopt what lives; `on_done` is called once when every component has answered or had its time."""
    found = [_take(where, live, path.stem) for path in sorted(where.run.glob("*.json"))]
    adopted = [each for each in found if each is not None]
    _sweep(where, live)
    count = _Count(len(adopted))

    def on_taken(listening: Sequence[listeners.Listener]) -> None:
        for listener in listening:
            held.adopt(listener)
        count.left -= 1
        if count.left == 0:
            on_done()

    for each in adopted:
        if each.conversation is None:
            retrieval.retrieve(on, each.pid, each.bindings, on_taken)
        else:
            each.conversation.ask("listeners", ANSWER_SECONDS, functools.partial(_on_answer, each, on_taken))
    if not adopted:
        on_done()


def _on_answer(
    found: instance.Instance, on_taken: Callable[[Sequence[listeners.Listener]], None], answer: control.Answer
) -> None:
    on_taken(_listening(found, answer))


def _take(where: places.Places, live: instances.Instances, instance_id: str) -> instance.Instance | None:
    """Adopt the instance of a record; None when there is nobody to take listeners from."""
    try:
        record = fields.parse(where.record(instance_id).read_bytes())
        if fields.text(record, "boot_id") != processes.boot_id():
            where.forget(instance_id)
            return None
        found = read_record(record)
    except (OSError, errors.RequestError):  # not a record of ours
        where.forget(instance_id)
        return None
    pidfd = processes.open_pidfd(found.pid, found.start_time) if found.pid else None
    if pidfd is not None:
        found.pidfd = pidfd
    elif found.is_parked:
        found.pid, found.state = 0, instance.PAUSED
    else:
        # The agent, which comes soon, decides what runs; but a loop of early deaths goes on being counted.
        found.state, found.is_kept = instance.EXITED, found.is_kept and found.early_deaths > 0
    live.adopt(found)
    return found if pidfd is not None else None


def read_record(record: fields.Body) -> instance.Instance:
    """Read an instance from its record.

    Raises:
        errors.RequestError: invalid_request.
    """
    record = {**DEFAULTS, **record}
    return instance.Instance(
        specification.read(fields.nested(record, "instance")),
        bindings=tuple(read_binding(body) for body in fields.bodies(record, "bindings")),
        pid=fields.whole(record, "pid", 0, processes.PID_MAX),
        start_time=fields.whole(record, "start_time", 0, TICKS_MAX),
        owner=fields.text(record, "owner") or groups.new_owner(),  # records of version 1 had none: it fits nobody
        cgroup=fields.text(record, "cgroup"),
        started_at_monotonic=fields.number(record, "started_at_monotonic"),
        state=fields.text(record, "state") or instance.STARTING,
        is_kept=record.get("is_kept") is True,
        is_parked=record.get("is_parked") is True,
        restarts=fields.whole(record, "restarts", 0, RESTARTS_MAX),
        early_deaths=fields.whole(record, "early_deaths", 0, EARLY_DEATHS_MAX),
    )


def read_binding(body: fields.Body) -> listeners.Binding:
    """Read a binding from a record.

    Raises:
        errors.RequestError: invalid_request.
    """
    body = {"bound": "", **body}
    backlog = fields.whole(body, "backlog", 1, BACKLOG_MAX)
    return listeners.Binding(
        fields.socket(body, "name"), fields.text(body, "address"), backlog, fields.text(body, "bound")
    )


def _sweep(where: places.Places, live: instances.Instances) -> None:
    """End and remove what belongs to no instance: tasks of the keeper before, and what dead instances left."""
    living = {each.id for each in live.all() if each.has_process}
    live.lives.cgroups.sweep(living)
    for folder in where.run.glob("*.cred"):
        if folder.stem not in living:
            places.remove_tree(folder)


def _listening(found: instance.Instance, answer: control.Answer) -> list[listeners.Listener]:
    component = found.specification.component
    bindings = {specification.descriptor_name(each.name, component): each for each in found.bindings}
    taken = []
    for name, descriptor in zip(answer.names, answer.descriptors, strict=False):
        listening = socket.socket(fileno=descriptor)
        binding = bindings.get(name)
        if binding is None or not listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            listening.close()
        else:
            taken.append(listeners.Listener(binding, listening))
    return taken
