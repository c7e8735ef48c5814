"""The verbs of the keeper's socket: one table, one method each.

Rules kept here: a verb reads all its fields before it does anything; every verb is idempotent; a verb that takes time
answers later and holds up nothing. Left out: the doing, which is in the rooms of the nouns.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict

from agent.keeper import (
    agent_verbs,
    clients,
    control,
    errors,
    fields,
    instance,
    logs,
    processes,
    release_verbs,
    rooms,
    socket_verbs,
    specification,
    words,
)

KEEPER_VERSION = "2"  # of this protocol and the record files; raised when either changes its meaning
WORDS = frozenset({"hello", "activate", "pause", words.PARK, "resume", "drain", "status"})
MODULE_PREFIX = "module."  # of words that the keeper passes on without knowing them
SAID_MAX_BYTES = 12 << 10  # of a body; a datagram has 16 KiB
DECLARED = "declared"
ON_SHUTDOWN = (specification.KEEP, specification.STOP, DECLARED)


class Verbs:
    """What clients can ask.

    Args:
        instance_token: Random text of this keeper's life.
        on_shutdown: Ends the keeper, and what it is told of the components: keep, stop or declared. Called back when
            it is as good as done.
    """

    def __init__(
        self,
        known: rooms.Rooms,
        own: agent_verbs.AgentVerbs,
        instance_token: str,
        on_shutdown: Callable[[str, Callable[[], None]], None],
    ) -> None:
        self._live = known.live
        self._held = known.held
        self._logs = known.logs
        self._marked = known.marked
        self._own = own
        self._instance_token = instance_token
        self._on_shutdown = on_shutdown
        self._table: Mapping[str, clients.Handler] = {
            "hello": self._hello,
            "attach": self._attach,
            "watch": self._watch,
            "ping": self._ping,
            "start": self._start,
            "revive": self._revive,
            "say": self._say,
            "log": self._log,
            "mark": self._mark,
            "commit": self._commit,
            "unmark": self._unmark,
            "keep": self._keep,
            "stop": self._stop,
            "inspect": self._inspect,
            "shutdown": self._shutdown,
            **socket_verbs.SocketVerbs(known).table,
            **release_verbs.ReleaseVerbs(known).table,
            **own.table,
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

    def _ping(self, _client: clients.Client, _body: fields.Body, reply: clients.Reply) -> None:
        reply.ok({})

    def _start(self, _client: clients.Client, body: fields.Body, reply: clients.Reply) -> None:
        wanted = specification.read(fields.nested(body, "instance"))
        self._marked.refuse_start(wanted.id, wanted.operation_id)
        self._live.start(wanted, _showing(reply))

    def _revive(self, _client: clients.Client, body: fields.Body, reply: clients.Reply) -> None:
        self._live.revive(fields.identifier(body, "instance_id"), _showing(reply))

    def _say(self, _client: clients.Client, body: fields.Body, reply: clients.Reply) -> None:
        word = fields.text(body, "word")
        if word not in WORDS and not word.startswith(MODULE_PREFIX):
            raise fields.refuse("word", word, f"it must be one of {', '.join(sorted(WORDS))}, or begin with module.")
        said = fields.nested(body, "body") if "body" in body else None
        if said is not None and len(json.dumps(said)) > SAID_MAX_BYTES:
            raise fields.refuse("body", said, f"it must have at most {SAID_MAX_BYTES} bytes as JSON")

        def on_answer(answer: control.Answer) -> None:
            if answer.refusal is not None or answer.status is None:
                reply.error(answer.refusal or errors.RequestError("instance_refused", f"cannot say {word}: no status"))
            else:
                reply.ok({**asdict(answer.status), "body": answer.body})

        instance_id = fields.identifier(body, "instance_id")
        self._live.say(instance_id, word, fields.seconds(body, "timeout_seconds"), on_answer, said)

    def _log(self, _client: clients.Client, body: fields.Body, reply: clients.Reply) -> None:
        max_bytes = fields.whole(body, "max_bytes", 1, logs.TAIL_MAX_BYTES)
        found = self._live.get(fields.identifier(body, "instance_id"))
        reply.ok({"text": self._logs.tail(found.id, max_bytes)})

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
        shown = [each.body() for each in self._live.all()]
        decided = [*outcomes, *self._own.outcomes()]
        opened = [each.binding.name for each in self._held.all()]
        told = {"instances": shown, "marks": standing, "outcomes": decided, "listeners": opened}
        reply.ok({**told, **self._own.inspected()})

    def _shutdown(self, _client: clients.Client, body: fields.Body, reply: clients.Reply) -> None:
        self._on_shutdown(fields.choice(body, "components", ON_SHUTDOWN), lambda: reply.ok({}))


def _showing(reply: clients.Reply) -> Callable[[instance.Instance | errors.RequestError], None]:
    def on_done(result: instance.Instance | errors.RequestError) -> None:
        if isinstance(result, errors.RequestError):
            reply.error(result)
        else:
            reply.ok({"instance": result.body()})

    return on_done
