"""The verbs about releases: verified, staged, and run once.

Rules kept here: as for all verbs; each is done by a disposable child and answered when that has ended. Left out: the
doing.
"""

from collections.abc import Callable, Mapping

from agent.keeper import clients, errors, fields, rooms, tasks, verify

Result = fields.Body | errors.RequestError


class ReleaseVerbs:
    """What clients can ask about releases."""

    def __init__(self, known: rooms.Rooms) -> None:
        self._rooms = known

    @property
    def table(self) -> Mapping[str, clients.Handler]:
        """The verbs by name."""
        return {"verify": self._verify, "vouch": self._vouch, "stage": self._stage, "run": self._run}

    def _verify(self, _client: clients.Client, body: fields.Body, reply: clients.Reply) -> None:
        asked = verify.read({"component": "", "version": "", **body})
        verify.verify(self._rooms.children, self._rooms.where, asked, _answering(reply))

    def _vouch(self, _client: clients.Client, body: fields.Body, reply: clients.Reply) -> None:
        verify.vouch(self._rooms.children, self._rooms.where, verify.read(body), _answering(reply))

    def _stage(self, _client: clients.Client, body: fields.Body, reply: clients.Reply) -> None:
        verify.stage(self._rooms.children, self._rooms.where, fields.digest(body, "digest"), _answering(reply))

    def _run(self, _client: clients.Client, body: fields.Body, reply: clients.Reply) -> None:
        self._rooms.tasks.run(tasks.read(fields.nested(body, "task")), _answering(reply))


def _answering(reply: clients.Reply) -> Callable[[Result], None]:
    def on_done(result: Result) -> None:
        if isinstance(result, errors.RequestError):
            reply.error(result)
        else:
            reply.ok(result)

    return on_done
