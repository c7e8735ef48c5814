"""The verbs about listening sockets: opened, closed, and held while nothing serves.

Rules kept here: as for all verbs. Left out: the doing.
"""

from collections.abc import Mapping

from agent.keeper import clients, fields, rooms

BACKLOG_MAX = 65535  # of listen(2)


class SocketVerbs:
    """What clients can ask about listening sockets."""

    def __init__(self, known: rooms.Rooms) -> None:
        self._held = known.held
        self._holds = known.holds

    @property
    def table(self) -> Mapping[str, clients.Handler]:
        """The verbs by name."""
        return {"listen": self._listen, "unlisten": self._unlisten, "hold": self._hold}

    def _listen(self, _client: clients.Client, body: fields.Body, reply: clients.Reply) -> None:
        name, address = fields.socket(body, "name"), fields.text(body, "address")
        binding = self._held.open(name, address, fields.whole(body, "backlog", 1, BACKLOG_MAX))
        reply.ok({"address": binding.reachable})

    def _unlisten(self, _client: clients.Client, body: fields.Body, reply: clients.Reply) -> None:
        self._held.close(fields.socket(body, "name"))
        reply.ok({})

    def _hold(self, _client: clients.Client, body: fields.Body, reply: clients.Reply) -> None:
        component = fields.identifier(body, "component")
        names = tuple(fields.socket({"listeners": name}, "listeners") for name in fields.texts(body, "listeners"))
        self._holds.put(component, names, fields.seconds(body, "shed_after_seconds"))
        reply.ok({})
