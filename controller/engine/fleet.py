"""What people do with nodes: look at them, label, cordon, quarantine and remove them, and freeze many at once.

Rules kept: what is decided of a node is told in the same transaction to every rollout that counts it; a node that was
removed owes nobody anything. Left out: what agents say of themselves (`agents`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime

from controller.core import errors, events, explain, model, selector
from controller.core.monitoring import board as boards
from controller.engine import draft as drafts
from controller.engine import freezing, labelling, lookout, office, presence, standing, stepping, timing
from controller.store import reading


class Fleet(office.Office):
    """The nodes, as people see them."""

    def nodes(self, selector_text: str = "") -> tuple[model.Node, ...]:
        """Return the nodes that a label selector takes, by identity, with what their live sessions add.

        Raises:
            InvalidRequestError: The selector cannot be read.
        """
        taken = selector.parse(selector_text)
        known = self._desk.world.nodes
        return tuple(self.node(node_id) for node_id in sorted(known) if taken.matches(known[node_id].labels))

    def node(self, node_id: model.NodeId) -> model.Node:
        """Find a node.

        Raises:
            NotFoundError: Code ``node_not_found``.
        """
        found = self._desk.world.nodes.get(node_id)
        if found is None:
            raise office.not_found("node", "node_id", node_id)
        return self._shown(found)

    def _shown(self, found: model.Node) -> model.Node:
        """Add to a node what its live session does."""
        shown = presence.shown(found, self._present.get(found.id))
        capped = self.collector.conditions(found.id)
        return replace(shown, conditions=(*shown.conditions, *capped)) if capped else shown

    def labels(self, node_id: model.NodeId) -> Mapping[str, str] | None:
        """Return the labels of a node; None where there is none."""
        found = self._desk.world.nodes.get(node_id)
        return None if found is None else found.labels

    def metrics(self, node_id: model.NodeId) -> tuple[model.Metric, ...]:
        """Return the latest metrics of a node's live session; none where it has none."""
        present = self._present.get(node_id)
        return () if present is None else tuple(present.metrics[key] for key in sorted(present.metrics))

    def rules(self) -> tuple[model.Rule, ...]:
        """Return the rules of the monitor."""
        return self.monitoring.all

    def rules_looked_at(self) -> datetime | None:
        """Tell when it was looked by them; None where nobody has since the controller is up."""
        board = self._desk.world.board
        return None if board is None else board.looked_at

    def rules_watched(self, rule: str = "", node_id: model.NodeId | None = None) -> tuple[model.Watched, ...]:
        """Say where rules of the monitor are anything but INACTIVE, by rule and node; the fleet comes first.

        Args:
            rule: Of this rule alone; empty for all.
            node_id: On this node alone; None for everywhere.

        Raises:
            NotFoundError: There is no such rule, code ``rule_not_found``.
        """
        if rule and rule not in self.monitoring.names:
            raise office.not_found("rule", "rule", rule)
        board = self._desk.world.board
        found = () if board is None else board.watches.items()
        wanted = ((key, each) for key, each in found if key[0] == (rule or key[0]) and node_id in (None, key[1]))
        return tuple(
            model.Watched(*key, each) for key, each in sorted(wanted, key=lambda one: (one[0][0], one[0][1] or ""))
        )

    def explain_node(self, node_id: model.NodeId) -> tuple[model.Reason, ...]:
        """Say what becomes of a node, and why.

        Raises:
            NotFoundError: Code ``node_not_found``.
        """
        node, world = self.node(node_id), self._desk.world
        known = {each: world.rollouts[each] for each in world.concerned.get(node_id, ()) if each in world.rollouts}
        latest = self._store.read(lambda connection: reading.latest_rollout_of(connection, node_id))
        if latest is not None and latest.id not in known:
            known[latest.id] = latest
        reasons = explain.node(node, known.values(), world.freezes.values(), self._clock.now())
        return (
            *reasons,
            *(boards.reason(each) for each in self.rules_watched(node_id=node_id) if boards.is_held(each)),
        )

    async def label_node(
        self, node_id: model.NodeId, labels: Mapping[str, str], removed_keys: Iterable[str], *, actor: str
    ) -> model.Node:
        """Set and take away labels of a node, over those of its agent.

        Raises:
            InvalidRequestError: A label cannot be one, code ``label_invalid``.
            NotFoundError: Code ``node_not_found``.
        """
        gone = tuple(removed_keys)

        def change(node: model.Node) -> model.Node:
            set_labels = labelling.changed(node.own_labels, node.set_labels, labels, gone)
            return replace(node, set_labels=set_labels, labels=labelling.merged(node.own_labels, set_labels))

        told = " ".join([*(f"{key}={labels[key]}" for key in sorted(labels)), *(f"{key}-" for key in gone)])
        return await self._change(node_id, "label", change, told, actor)

    async def cordon_node(self, node_id: model.NodeId, *, reason: str, actor: str) -> model.Node:
        """Keep operations from a node; it counts as unavailable.

        Raises:
            NotFoundError: Code ``node_not_found``.
        """
        return await self._change(node_id, "cordon", lambda node: replace(node, cordoned_because=reason), reason, actor)

    async def uncordon_node(self, node_id: model.NodeId, *, actor: str) -> model.Node:
        """Let operations start on a node again; its quarantine ends as well.

        Raises:
            NotFoundError: Code ``node_not_found``.
        """
        return await self._change(
            node_id,
            "uncordon",
            lambda node: replace(node, cordoned_because="", quarantined_because=""),
            "",
            actor,
        )

    async def quarantine_node(self, node_id: model.NodeId, *, reason: str, actor: str) -> model.Node:
        """Leave a node out of everything that is planned; it counts as unavailable where it is planned already.

        Raises:
            NotFoundError: Code ``node_not_found``.
        """
        return await self._change(
            node_id, "quarantine", lambda node: replace(node, quarantined_because=reason), reason, actor
        )

    async def remove_node(self, node_id: model.NodeId, *, reason: str, actor: str) -> model.Node:
        """Forget a node: nothing is waited for from it, and its session is stale; return it as it was.

        Raises:
            NotFoundError: Code ``node_not_found``.
        """
        shown = self.node(node_id)

        def work(draft: drafts.Draft) -> None:
            self._node(draft, node_id)
            for assignment in draft.world.of_node(node_id):
                stepping.settle(draft, assignment)
            for rollout_id in draft.world.concerned.get(node_id, ()):
                timing.feed_running(draft, rollout_id, events.NodeRemoved(draft.at, node_id))
            for assignment in draft.world.of_node(node_id):
                stepping.settle(draft, assignment)
            draft.remove_node(node_id)
            draft.put_audit(actor, "node.remove", node_id, reason)

        await self._asked(office.Asked(actor, "remove_node", node_id, subject=node_id), work)
        self._present.pop(node_id, None)
        await self.collector.forget(node_id)
        return shown

    async def _change(
        self, node_id: model.NodeId, verb: str, change: Callable[[model.Node], model.Node], reason: str, actor: str
    ) -> model.Node:
        def work(draft: drafts.Draft) -> None:
            before = self._node(draft, node_id)
            after = change(before)
            draft.put_audit(actor, f"node.{verb}", node_id, reason)
            draft.put_node(after)
            draft.woken.add(node_id)
            if after.labels != before.labels:
                draft.appeared[node_id] = None
            standing.refresh(draft, (node_id,))

        def shown(draft: drafts.Draft, _: None) -> model.Node:
            return self._shown(draft.world.nodes[node_id])

        await self._asked(office.Asked(actor, f"{verb}_node", (node_id, reason), subject=node_id), work, shown)
        return self.node(node_id)

    # Freezes.

    def freezes(self) -> tuple[model.Freeze, ...]:
        """Return the freezes that are in force or to come, by their begin."""
        now = self._clock.now()
        found = (each for each in self._desk.world.freezes.values() if not freezing.is_over(each, now))
        return tuple(sorted(found, key=lambda each: (each.since, each.id)))

    async def add_freeze(
        self, selector_text: str, since: datetime, until: datetime | None, *, reason: str, actor: str
    ) -> model.Freeze:
        """Keep operations from starting on nodes for a time.

        Args:
            selector_text: Label selector of the nodes; empty for all.
            since: When it begins.
            until: When it ends; None until somebody lifts it.
            reason: Why.
            actor: Who wants it.

        Raises:
            InvalidRequestError: The selector cannot be read, or the freeze ends before it begins or before now.
        """
        freeze_id = self._ids.freeze_id(self._clock.now())

        def work(draft: drafts.Draft) -> model.Freeze:
            freeze = model.Freeze(freeze_id, selector_text, since, until, reason, actor)
            _check(freeze, draft.at)
            draft.put_freeze(freeze)
            draft.put_audit(actor, "freeze.add", freeze_id, reason)
            standing.refresh(draft, self._few(draft))
            return freeze

        freeze = await self._asked(office.Asked(actor, "add_freeze", (selector_text, since, until, reason)), work)
        await self._tell_all()
        return freeze

    async def remove_freeze(self, freeze_id: model.FreezeId, *, reason: str, actor: str) -> None:
        """Lift a freeze.

        Raises:
            NotFoundError: Code ``freeze_not_found``.
        """

        def work(draft: drafts.Draft) -> None:
            if freeze_id not in draft.world.freezes:
                raise office.not_found("freeze", "freeze_id", freeze_id)
            draft.lift_freeze(freeze_id)
            draft.put_audit(actor, "freeze.remove", freeze_id, reason)
            standing.refresh(draft, self._few(draft))

        await self._asked(office.Asked(actor, "remove_freeze", (freeze_id, reason), subject=freeze_id), work)
        await self._tell_all()

    def _few(self, draft: drafts.Draft) -> tuple[model.NodeId, ...]:
        """Return all nodes that rollouts count, where they are few enough to be told in the same transaction."""
        concerned = draft.world.concerned
        return tuple(sorted(concerned)) if len(concerned) <= lookout.NODES_AT_ONCE else ()

    async def _tell_all(self) -> None:
        """Tell the others: what starts on them meanwhile travels with the freeze as its last start, and is refused."""
        concerned = self._desk.world.concerned
        if len(concerned) > lookout.NODES_AT_ONCE:
            await self._lookout.tell(sorted(concerned), self._clock.now())


def _check(freeze: model.Freeze, at: datetime) -> None:
    selector.parse(freeze.selector)
    if freeze.until is not None and (freeze.until <= freeze.since or freeze.until <= at):
        raise errors.InvalidRequestError(
            f"cannot freeze until {freeze.until}: until must be later than since {freeze.since}, and than now",
            code="freeze_invalid",
            field="until",
            value=str(freeze.until),
            rule="a freeze ends after it has begun, and not before now",
        )
