"""What one image of the keeper hands to the next over an execve, and the form that it has in a memfd.

Rules kept here: the form is versioned, and the one before is still read, so that a keeper may be replaced by its
successor or by the one before; whatever does not fit is refused as a whole. Left out: clocks, timers and everything
else that the next image makes anew.
"""

import json
import os
from dataclasses import dataclass

from agent.keeper import adoption, agent_child, agent_release, errors, fields, instance, listeners, processes

SCHEMA = 2
SCHEMA_MIN = 1  # had neither holds nor connections of clients: those were dropped
IMAGE_MAX_BYTES = 4 << 20  # 64 instances of some KiB each, and what clients have not read
DESCRIPTOR_MAX = 1 << 20  # more than any limit on descriptors that we meet
PID_MAX = 1 << 22  # PID_MAX_LIMIT of Linux


@dataclass(frozen=True, slots=True)
class Connections:
    """The keeper's own socket and its clients.

    Args:
        owed: Descriptor of the client that asked for the succession, and the id of its request.
    """

    listener: int
    clients: tuple[fields.Body, ...]
    owed: tuple[int, object] | None


@dataclass(frozen=True, slots=True)
class State:
    """All that must not be lost.

    Args:
        lock: Descriptor of the run directory's lock.
        release: That the next image is run from.
        sockets: Listening sockets with their descriptors.
        holds: As `holds.Holds.images` has described them.
        marks: As `marks.Marks.image` has written them.
    """

    instance_token: str
    lock: int
    release: agent_release.Release
    sockets: tuple[tuple[listeners.Binding, int], ...]
    instances: tuple[instance.Instance, ...]
    holds: tuple[fields.Body, ...]
    marks: str
    agent: agent_child.Inherited | None
    connections: Connections | None

    @property
    def descriptors(self) -> list[int]:
        """Every descriptor that must outlive the execve."""
        found = [self.lock, *(descriptor for _, descriptor in self.sockets)]
        found += [each.pidfd for each in self.instances if each.has_process]
        if self.agent is not None:
            found.append(self.agent.pidfd)
        if self.connections is not None:
            found.append(self.connections.listener)
            found += [descriptor_of(client) for client in self.connections.clients]
        return found


def write(state: State) -> int:
    """Write a state into a memfd of its own; the caller owns the descriptor."""
    body = {
        "schema": SCHEMA,
        "boot_id": processes.boot_id(),
        "instance_token": state.instance_token,
        "lock": state.lock,
        "release": _release_body(state.release),
        "sockets": [{**_binding_body(binding), "descriptor": number} for binding, number in state.sockets],
        "instances": [_instance_body(each) for each in state.instances],
        "holds": list(state.holds),
        "marks": state.marks,
        "agent": None if state.agent is None else _agent_body(state.agent),
        "connections": None if state.connections is None else _connections_body(state.connections),
    }
    memory = os.memfd_create("keeper", os.MFD_CLOEXEC)
    with os.fdopen(memory, "wb", closefd=False) as file:
        file.write(json.dumps(body).encode())
    return memory


def read(memory: int) -> State:
    """Read a state from a memfd, from its beginning.

    Raises:
        errors.RequestError: invalid_request; it is not of a form that this version reads.
    """
    body = fields.parse(os.pread(memory, IMAGE_MAX_BYTES, 0))
    schema = fields.whole(body, "schema", SCHEMA_MIN, SCHEMA)
    if fields.text(body, "boot_id") != processes.boot_id():
        raise errors.RequestError("invalid_request", "cannot take over: the state is of another boot")
    marks = body.get("marks")
    if not isinstance(marks, str):
        raise fields.refuse("marks", marks, "it must be text")
    has_connections = schema > SCHEMA_MIN and body.get("connections") is not None
    return State(
        instance_token=fields.text(body, "instance_token"),
        lock=_descriptor(body, "lock"),
        release=_release(fields.nested(body, "release")),
        sockets=tuple(
            (adoption.read_binding(each), _descriptor(each, "descriptor")) for each in fields.bodies(body, "sockets")
        ),
        instances=tuple(_instance(each) for each in fields.bodies(body, "instances")),
        holds=fields.bodies({"holds": [], **body}, "holds"),
        marks=marks,
        agent=None if body.get("agent") is None else _agent(fields.nested(body, "agent")),
        connections=_connections(fields.nested(body, "connections")) if has_connections else None,
    )


def descriptor_of(client: fields.Body) -> int:
    """Return the descriptor of a client's connection."""
    return _descriptor(client, "descriptor")


def hold_of(hold: fields.Body) -> tuple[str, tuple[str, ...], float]:
    """Return component, listeners and bound of a hold."""
    names = fields.texts(hold, "listeners")
    return fields.identifier(hold, "component"), names, fields.seconds(hold, "shed_after_seconds")


def _release_body(release: agent_release.Release) -> fields.Body:
    return {"digest": release.digest, "directory": release.directory}


def _release(body: fields.Body) -> agent_release.Release:
    return agent_release.Release(fields.text(body, "digest"), fields.text(body, "directory"))


def _binding_body(binding: listeners.Binding) -> fields.Body:
    return {
        "name": binding.name,
        "address": binding.address,
        "backlog": binding.backlog,
        "bound": binding.bound,
    }


def _instance_body(each: instance.Instance) -> fields.Body:
    return {
        "record": each.record(),
        "pidfd": each.pidfd,
        "state": each.state,
        "exit_code": each.exit.code,
        "signal": each.exit.signal,
        "is_reviving": each.is_reviving,
    }


def _instance(body: fields.Body) -> instance.Instance:
    found = adoption.read_record(fields.nested(body, "record"))
    found.pidfd = fields.whole(body, "pidfd", -1, DESCRIPTOR_MAX)
    found.state = fields.text(body, "state")
    found.exit = processes.Exit(_number(body, "exit_code"), _number(body, "signal"))
    found.is_reviving = body.get("is_reviving") is True
    return found


def _agent_body(agent: agent_child.Inherited) -> fields.Body:
    return {
        "release": _release_body(agent.release),
        "instance_id": agent.instance_id,
        "pid": agent.pid,
        "pidfd": agent.pidfd,
        "started_at": agent.started_at,
    }


def _agent(body: fields.Body) -> agent_child.Inherited:
    return agent_child.Inherited(
        release=_release(fields.nested(body, "release")),
        instance_id=fields.identifier(body, "instance_id"),
        pid=fields.whole(body, "pid", 2, PID_MAX),
        pidfd=_descriptor(body, "pidfd"),
        started_at=fields.number(body, "started_at"),
    )


def _connections_body(connections: Connections) -> fields.Body:
    client, request_id = connections.owed or (-1, None)
    return {
        "listener": connections.listener,
        "clients": list(connections.clients),
        "owed_descriptor": client,
        "owed_request_id": request_id,
    }


def _connections(body: fields.Body) -> Connections:
    owed = fields.whole(body, "owed_descriptor", -1, DESCRIPTOR_MAX)
    return Connections(
        listener=_descriptor(body, "listener"),
        clients=fields.bodies(body, "clients"),
        owed=None if owed < 0 else (owed, body.get("owed_request_id")),
    )


def _descriptor(body: fields.Body, name: str) -> int:
    return fields.whole(body, name, 3, DESCRIPTOR_MAX)


def _number(body: fields.Body, name: str) -> int | None:
    value = body.get(name)
    return None if value is None else fields.whole(body, name, -DESCRIPTOR_MAX, DESCRIPTOR_MAX)
