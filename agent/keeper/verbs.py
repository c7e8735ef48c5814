"""The verbs of the keeper's socket: one table, one method each.

Rules kept here: a verb reads all its fields before it does anything; every verb is idempotent; a verb that takes time
answers later and holds up nothing. Left out: the doing, which is in the rooms of the nouns.
"""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict

from agent.keeper import (
    clients,
    control,
    errors,
    fields,
    instance,
    instances,
    listeners,
    loop,
    marks,
    places,
    processes,
    specification,
    verify,
)

KEEPER_VERSION = "1"  # of this protocol and the record files; raised when either changes its meaning
BACKLOG_MAX = 65535  # of listen(2)
WORDS = frozenset({"hello", "activate", "pause", "resume", "drain", "status"})


class Verbs:
    """What clients can ask.

    Args:
        instance_token: Random text of this keeper's life.
        on_shutdown: Ends the keeper; true stops the components first. Called back when it is as good as done.
    """

    def __init__(  # noqa: PLR0913  # the one place where all rooms meet
        self,
        on: loop.Loop,
        where: places.Places,
        *,
        held: listeners.Listeners,
        live: instances.Instances,
        marked: marks.Marks,
        instance_token: str,
        on_shutdown: Callable[[bool, Callable[[], None]], None],
    ) -> None:
        self._loop = on
        self._where = where
        self._held = held
        self._live = live
        self._marked = marked
        self._instance_token = instance_token
        self._on_shutdown = on_shutdown
        self._table: Mapping[str, clients.Handler] = {
            "hello": self._hello,
            "attach": self._attach,
            "watch": self._watch,
            "listen": self._listen,
            "start": self._start,
            "say": self._say,
            "mark": self._mark,
            "commit": self._commit,
            "unmark": self._unmark,
            "keep": self._keep,
            "stop": self._stop,
            "inspect": self._inspect,
            "verify": self._verify,
            "shutdown": self._shutdown,
        }

    def do(self, client: clients.Client, body: fields.Body, reply: clients.Reply) -> None:
        """Do what a request asks.

        Raises:
            errors.RequestError: It cannot be done.
        """
        verb = fields.text(body, "do")
        handler = self._table.get(verb)
        if handler is None:
            raise errors.RequestError("unknown_verb", f"cannot do {verb!r}: it is none of {', '.join(self._table)}")
        handler(client, body, reply)

    def _hello(self, _client: clients.Client, _body: fields.Body, reply: clients.Reply) -> None:
        reply.ok(
            {
                "keeper_version": KEEPER_VERSION,
                "pid": os.getpid(),
                "boot_id": processes.boot_id(),
                "instance_token": self._instance_token,
                "interpreter": sys.executable,
            }
        )

    def _attach(self, client: clients.Client, _body: fields.Body, reply: clients.Reply) -> None:
        client.is_agent = True
        reply.ok({})

    def _watch(self, client: clients.Client, _body: fields.Body, reply: clients.Reply) -> None:
        client.is_watching = True
        reply.ok({})

    def _listen(self, _client: clients.Client, body: fields.Body, reply: clients.Reply) -> None:
        name, address = fields.identifier(body, "name"), fields.text(body, "address")
        self._held.open(name, address, fields.whole(body, "backlog", 1, BACKLOG_MAX))
        reply.ok({})

    def _start(self, _client: clients.Client, body: fields.Body, reply: clients.Reply) -> None:
        def on_done(result: instance.Instance | errors.RequestError) -> None:
            if isinstance(result, errors.RequestError):
                reply.error(result)
            else:
                reply.ok({"instance": result.body()})

        self._live.start(specification.read(fields.nested(body, "instance")), on_done)

    def _say(self, _client: clients.Client, body: fields.Body, reply: clients.Reply) -> None:
        word = fields.text(body, "word")
        if word not in WORDS:
            raise fields.refuse("word", word, f"it must be one of {', '.join(sorted(WORDS))}")

        def on_answer(answer: control.Answer) -> None:
            if answer.refusal is not None or answer.status is None:
                reply.error(answer.refusal or errors.RequestError("instance_refused", f"cannot say {word}: no status"))
            else:
                reply.ok(asdict(answer.status))

        instance_id = fields.identifier(body, "instance_id")
        self._live.say(instance_id, word, fields.seconds(body, "timeout_seconds"), on_answer)

    def _mark(self, _client: clients.Client, body: fields.Body, reply: clients.Reply) -> None:
        old = None if body.get("old_instance_id") is None else fields.identifier(body, "old_instance_id")
        self._marked.put(
            fields.text(body, "operation_id"),
            fields.identifier(body, "new_instance_id"),
            old,
            fields.seconds(body, "deadline_seconds"),
        )
        reply.ok({})

    def _commit(self, _client: clients.Client, body: fields.Body, reply: clients.Reply) -> None:
        operation_id = fields.text(body, "operation_id")
        reply.ok(asdict(self._marked.commit(operation_id, fields.identifier(body, "current_instance_id"))))

    def _unmark(self, _client: clients.Client, body: fields.Body, reply: clients.Reply) -> None:
        self._marked.unmark(fields.text(body, "operation_id"))
        reply.ok({})

    def _keep(self, _client: clients.Client, body: fields.Body, reply: clients.Reply) -> None:
        self._live.keep(fields.identifier(body, "component"), fields.identifier(body, "instance_id"))
        reply.ok({})

    def _stop(self, _client: clients.Client, body: fields.Body, reply: clients.Reply) -> None:
        timeout_seconds = fields.seconds(body, "timeout_seconds")
        self._live.stop(fields.identifier(body, "instance_id"), timeout_seconds, lambda: reply.ok({}))

    def _inspect(self, _client: clients.Client, _body: fields.Body, reply: clients.Reply) -> None:
        for each in list(self._live.all()):
            self._live.find(each.id)  # notices an end that the loop has not come to yet
        standing, outcomes = self._marked.bodies()
        reply.ok({"instances": [each.body() for each in self._live.all()], "marks": standing, "outcomes": outcomes})

    def _verify(self, _client: clients.Client, body: fields.Body, reply: clients.Reply) -> None:
        def on_done(result: fields.Body | errors.RequestError) -> None:
            if isinstance(result, errors.RequestError):
                reply.error(result)
            else:
                reply.ok(result)

        verify.verify(self._loop, self._where, fields.digest(body, "digest"), on_done)

    def _shutdown(self, _client: clients.Client, body: fields.Body, reply: clients.Reply) -> None:
        components = fields.text(body, "components")
        if components not in ("keep", "stop"):
            raise fields.refuse("components", components, 'it must be "keep" or "stop"')
        self._on_shutdown(components == "stop", lambda: reply.ok({}))
