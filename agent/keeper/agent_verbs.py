"""The verbs of the agent's own upgrade, and of the keeper's.

Rules kept here: as for all verbs; `agent_park` and `agent_abort` answer when the trial is over. Left out: the doing.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict

from agent.keeper import agent_release, agents, clients, errors, fields, keeper_code, rooms, self_check

CHECK_SECONDS = 60.0  # for reading a release of some megabytes, and importing it on a slow host


OnReplace = Callable[[agent_release.Release, clients.Client, object], None]


class AgentVerbs:
    """What clients can ask about the agent and the keeper themselves.

    Args:
        on_replace: Lets the keeper become a release, for a client's request of this id.
    """

    def __init__(self, known: rooms.Rooms, own: agents.Agents, code: keeper_code.Code, on_replace: OnReplace) -> None:
        self._known = known
        self._where = known.where
        self._agents = own
        self._code = code
        self._on_replace = on_replace

    @property
    def table(self) -> Mapping[str, clients.Handler]:
        """The verbs by name."""
        return {
            "agents": self._show,
            "agent_check": self._check,
            "agent_trial": self._trial,
            "agent_park": self._park,
            "agent_commit": self._commit,
            "agent_abort": self._abort,
            "agent_restart": self._restart,
            "replace": self._replace,
        }

    def inspected(self) -> fields.Body:
        """Show what belongs into every inspection."""
        return {
            "trial_operation_id": self._agents.trial_operation_id,
            "bad_agent_digests": list(self._agents.memory.bad),
            "keeper_digest": self._code.release.digest,
            "pinned_digests": self._code.pinned(self._known.live.all()),
        }

    def outcomes(self) -> list[fields.Body]:
        """Show how trials ended."""
        return [asdict(outcome) for outcome in self._agents.memory.outcomes]

    def _show(self, _client: clients.Client, _body: fields.Body, reply: clients.Reply) -> None:
        reply.ok({"agents": self._agents.bodies()})

    def _check(self, _client: clients.Client, body: fields.Body, reply: clients.Reply) -> None:
        release = agent_release.read(body, self._where)
        self._agents.refuse_bad(release)
        if not self._agents.argv:
            raise errors.RequestError("check_failed", "cannot check a release: this keeper watches no agent")

        def on_done(exit_code: int | None, output: str) -> None:
            reply.ok({"exit_code": exit_code, "output": output})

        program = agent_release.program(release, [*self._agents.argv, "--check"], self._where)
        self_check.run(self._known.children, program, CHECK_SECONDS, on_done)

    def _trial(self, _client: clients.Client, body: fields.Body, reply: clients.Reply) -> None:
        operation_id, release = fields.text(body, "operation_id"), agent_release.read(body, self._where)
        instance_id = fields.identifier(body, "instance_id")
        self._agents.begin(operation_id, release, instance_id, fields.seconds(body, "deadline_seconds"))
        reply.ok({})

    def _park(self, client: clients.Client, body: fields.Body, reply: clients.Reply) -> None:
        operation_id = fields.text(body, "operation_id")
        client.is_agent = False  # until it attaches again
        self._agents.park(operation_id, lambda: reply.ok({}))

    def _commit(self, _client: clients.Client, body: fields.Body, reply: clients.Reply) -> None:
        outcome = self._agents.commit(fields.text(body, "operation_id"))
        reply.ok(asdict(outcome))

    def _abort(self, _client: clients.Client, body: fields.Body, reply: clients.Reply) -> None:
        self._agents.abort(fields.text(body, "operation_id"), lambda: reply.ok({}))

    def _restart(self, _client: clients.Client, _body: fields.Body, reply: clients.Reply) -> None:
        reply.ok({"digest": self._agents.restart()})

    def _replace(self, client: clients.Client, body: fields.Body, _reply: clients.Reply) -> None:
        release = agent_release.read(body, self._where)
        self._agents.refuse_bad(release)
        self._on_replace(release, client, body.get("id"))
