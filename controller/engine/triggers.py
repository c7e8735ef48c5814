"""What people do with triggers: apply, enable, disable, remove and look at them.

Rules kept: a definition is checked whole before anything of it is stored, also what it reads and whom it means; one
that is applied twice changes nothing the second time; a new condition is looked at on every node at once, for what does
not change is not told again. Left out: what a trigger is and does (`controller.core.triggers`).
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import itertools
from collections.abc import Iterable, Iterator
from datetime import datetime

from controller import conditions
from controller.core import errors, model, selector, wording
from controller.core.triggers import checks, degrading, explaining, machine, rehearsing
from controller.core.triggers import draft as decisions
from controller.engine import actions, firing, occasions, office
from controller.engine import draft as drafts
from controller.engine import world as worlds
from controller.metrics import recalling

NAME_CHARS_SHOWN = 63
TRIGGERS_MAX = 10_000  # of one kind
COMPARING_MAX = 32  # of kind DEGRADATION: each is a look at all nodes, all ten seconds
NODES_EXPLAINED_MAX = 500
AGAINST_PAST = "against its past"  # how many times what the past leads one to expect
NODES_AT_ONCE = 200  # looked at in one piece of work: some ten milliseconds of the loop


class Triggers(actions.Actions, occasions.Occasions):
    """The triggers, as people see them."""

    def triggers(self) -> tuple[model.Trigger, ...]:
        """Return all triggers, by name."""
        known = self._desk.world.triggers
        return tuple(known[name] for name in sorted(known))

    def trigger(self, name: str) -> tuple[model.Trigger, model.TriggerStatus]:
        """Find a trigger, and what it remembers.

        Raises:
            NotFoundError: Code ``trigger_not_found``.
        """
        world = self._desk.world
        return _found(world, name), world.statuses[name]

    def explain_trigger(self, name: str) -> explaining.Explanation:
        """Say how a trigger stands: each guard, the last values, and when it may fire next.

        Raises:
            NotFoundError: Code ``trigger_not_found``.
        """
        trigger, status = self.trigger(name)
        now, world = self._clock.now(), self._desk.world
        around = firing.surroundings(world, trigger, now)
        return explaining.explain(trigger, status, around, now, self._measured(trigger, status))

    def _measured(self, trigger: model.Trigger, status: model.TriggerStatus) -> Iterator[explaining.ValueLine]:
        """Say what was measured last of what a trigger reads: where it holds first, and on some nodes."""
        world = self._desk.world
        match trigger.when:
            case model.Threshold():
                signalled = (each for each in status.signals if each is not None)
                wanted = itertools.islice(dict.fromkeys((*signalled, *sorted(self._present))), NODES_EXPLAINED_MAX)
                present = {each: self._present[each].metrics for each in wanted if each in self._present}
                yield from self._heeding.values(world, trigger.name, present)
            case model.Degradation() if world.board is not None:
                rule = degrading.rule(trigger).name
                for (name, node_id), watch in sorted(world.board.watches.items(), key=str):
                    if name == rule:
                        is_met = (
                            None if watch.state is model.RuleState.UNKNOWN else watch.state is model.RuleState.FIRING
                        )
                        yield explaining.ValueLine(node_id, is_met, ((AGAINST_PAST, watch.value),))
            case _:
                return

    async def rehearse_trigger(self, wanted: model.Trigger, since: datetime, until: datetime) -> rehearsing.Rehearsal:
        """Say what a trigger would have done, by what is recorded; nothing is stored.

        Args:
            wanted: The definition.
            since: As if it had been created then; what was not recorded is said in the notes.
            until: Last instant.

        Raises:
            InvalidFieldsError: What is wrong with it, field by field.
        """
        world = self._desk.world
        self._check(world, wanted)
        nodes = {each.id: each for each in world.nodes.values()}
        recalled = await recalling.recall(wanted, nodes, self.collector, since, until)
        run = functools.partial(rehearsing.rehearse, wanted, recalled.events, since, recalled.until)
        found = await asyncio.to_thread(run)
        notes = (*found.notes, *_on_record(wanted, recalled.recorded_since, since))
        return dataclasses.replace(found, notes=notes)

    async def apply_trigger(self, wanted: model.Trigger, *, actor: str) -> model.Trigger:
        """Put a trigger in, new or in the place of the one of its name.

        Args:
            wanted: The definition; its identity, revision and who changed it are found out here.
            actor: Who applies it.

        Raises:
            InvalidFieldsError: What is wrong with it, field by field.
            UnavailableError: What it did before is just being begun, code ``firing_acting``.
        """

        def work(draft: drafts.Draft) -> model.Trigger:
            self._check(draft.world, wanted)
            before = draft.world.triggers.get(wanted.name)
            return self._new(draft, wanted, actor) if before is None else _change(draft, before, wanted, actor, "apply")

        applied = await self._asked(office.Asked(actor, "apply_trigger", wanted, wanted.component, wanted.name), work)
        await self._look_everywhere((applied.name,))
        return applied

    async def enable_trigger(self, name: str, *, reason: str, actor: str) -> model.Trigger:
        """Let a trigger fire.

        Raises:
            NotFoundError: Code ``trigger_not_found``.
        """
        enabled = await self._switch(name, actor, reason, is_enabled=True)
        await self._look_everywhere((name,))
        return enabled

    async def disable_trigger(self, name: str, *, reason: str, actor: str) -> model.Trigger:
        """Let a trigger fire no more; what it has begun goes on.

        Raises:
            NotFoundError: Code ``trigger_not_found``.
        """
        return await self._switch(name, actor, reason, is_enabled=False)

    async def _switch(self, name: str, actor: str, reason: str, *, is_enabled: bool) -> model.Trigger:
        verb = "enable" if is_enabled else "disable"

        def work(draft: drafts.Draft) -> model.Trigger:
            before = _found(draft.world, name)
            wanted = dataclasses.replace(before, is_enabled=is_enabled)
            return _change(draft, before, wanted, actor, verb, reason)

        return await self._asked(office.Asked(actor, f"{verb}_trigger", (name, reason), subject=name), work)

    async def remove_trigger(self, name: str, *, reason: str, actor: str) -> None:
        """Take a trigger away; its firings are kept.

        Raises:
            NotFoundError: Code ``trigger_not_found``.
            RefusedError: Something that it has begun is not at its end, code ``firing_open``.
        """

        def work(draft: drafts.Draft) -> None:
            trigger = _found(draft.world, name)
            decision = machine.remove(trigger, draft.world.statuses[name], draft.at)
            firing.audit(draft, decision)
            draft.remove_trigger(trigger, decision)
            draft.put_audit(actor, "trigger.remove", name, reason)

        await self._asked(office.Asked(actor, "remove_trigger", (name, reason), subject=name), work)

    def _new(self, draft: drafts.Draft, wanted: model.Trigger, actor: str) -> model.Trigger:
        made = dataclasses.replace(
            wanted, id=self._ids.trigger_id(draft.at), revision=1, changed_at=draft.at, changed_by=actor
        )
        _check_room(draft.world, made)
        status = machine.begin(made, firing.available(draft.world, made.when), draft.at)
        draft.put_trigger(made, decisions.Decision(status))
        draft.put_audit(actor, "trigger.apply", made.name, f"new, {made.kind.value}")
        return made

    def _check(self, world: worlds.World, wanted: model.Trigger) -> None:
        """See that a definition is right in itself, and means what there is.

        Raises:
            InvalidFieldsError: What is wrong, field by field.
        """
        found = (*checks.problems(wanted), *_conditions(wanted), *self._unknown(world, wanted))
        if found:
            rest = f", and {len(found) - 1} more" if len(found) > 1 else ""
            message = f"cannot accept trigger {wanted.name[:NAME_CHARS_SHOWN]!r}: {found[0]}{rest}"
            raise errors.InvalidFieldsError(message, found)

    def _unknown(self, world: worlds.World, wanted: model.Trigger) -> Iterator[errors.InvalidRequestError]:
        """Find what a definition names and nobody has; of an empty fleet nothing is asked."""
        if not world.nodes:
            return
        yield from _unknown_components(world, wanted)
        if isinstance(wanted.when, model.Threshold):
            yield from self._unread(world, wanted.when)
        yield from _without_nodes(world, wanted)

    def _unread(self, world: worlds.World, when: model.Threshold) -> Iterator[errors.InvalidRequestError]:
        """Find metrics and labels that a condition reads and no node has."""
        metrics = {
            name
            for present in self._present.values()
            for component, name in present.metrics
            if component in ("", when.component)
        }
        labels = {label for node in world.nodes.values() for label in node.labels}
        for field in ("condition", "clear"):
            try:
                read = conditions.names(getattr(when, field))
            except errors.InvalidRequestError:  # it is refused for that
                continue
            path = f"when.threshold.{field}"
            for name in sorted(read.metrics - metrics) if self._present else ():
                yield _wrong(path, name, "a metric that a node has", "unknown_metric")
            for name in sorted(read.labels - labels):
                yield _wrong(path, name, "a label that a node has", "unknown_label")

    async def _look_everywhere(self, names: Iterable[str]) -> None:
        """Look at conditions on every node that is present, some nodes at a time."""
        known = ((name, self._desk.world.triggers.get(name)) for name in names)
        wanted = [name for name, each in known if each is not None and isinstance(each.when, model.Threshold)]
        present = iter(tuple(self._present)) if wanted else iter(())
        while some := tuple(itertools.islice(present, NODES_AT_ONCE)):
            await self._desk.submit(functools.partial(self._sweep, names=wanted, node_ids=some))

    def _sweep(self, draft: drafts.Draft, names: Iterable[str], node_ids: Iterable[model.NodeId]) -> None:
        for node_id in node_ids:
            present = self._present.get(node_id)
            if present is not None:
                self._heeding.sweep(draft, names, node_id, present.metrics)

    async def start_triggers(self) -> bool:
        """Begin to fire triggers; say whether that is new."""
        if not await self._triggering.start(self._act):
            return False
        self._heeding.is_active = True
        await self._look_everywhere(sorted(self._desk.world.triggers))
        return True

    async def stop_triggers(self) -> bool:
        """Fire no trigger any more; say whether any could before. What was begun goes on."""
        self._heeding.is_active = False
        return await self._triggering.stop()


def _change(
    draft: drafts.Draft, before: model.Trigger, wanted: model.Trigger, actor: str, verb: str, reason: str = ""
) -> model.Trigger:
    """Draft another definition of a trigger; the same one changes nothing."""
    same = dataclasses.replace(
        wanted,
        id=before.id,
        revision=before.revision,
        changed_at=before.changed_at,
        changed_by=before.changed_by,
    )
    if same == before:
        return before
    after = dataclasses.replace(same, revision=before.revision + 1, changed_at=draft.at, changed_by=actor)
    seen_version = firing.available(draft.world, after.when)
    decision = machine.edit(before, after, draft.world.statuses[before.name], seen_version, draft.at)
    draft.put_trigger(after, decision)
    firing.audit(draft, decision)
    draft.put_audit(actor, f"trigger.{verb}", after.name, reason or f"revision {after.revision}")
    return after


def _check_room(world: worlds.World, made: model.Trigger) -> None:
    """Refuse more triggers than are looked at without harm to anything else.

    Raises:
        RefusedError: Code ``too_many_triggers``.
    """
    alike = sum(1 for each in world.triggers.values() if each.kind is made.kind)
    most = COMPARING_MAX if isinstance(made.when, model.Degradation) else TRIGGERS_MAX
    if alike >= most:
        raise errors.RefusedError(
            f"cannot accept trigger {made.name}: there are {alike} of kind {made.kind.value}",
            code="too_many_triggers",
            field="name",
            value=made.name,
            rule=f"at most {most} of this kind",
        )


def _on_record(wanted: model.Trigger, recorded_since: datetime | None, since: datetime) -> Iterator[str]:
    """Say how far what was recorded reaches."""
    match wanted.when:
        case model.Threshold() | model.Degradation() if recorded_since is None:
            yield "nothing is recorded of what it reads"
        case model.Threshold() | model.Degradation() if recorded_since is not None and recorded_since > since:
            yield f"what it reads is recorded since {wording.instant(recorded_since)} only"
        case model.EventMatch() | model.VersionAvailable():
            yield f"nothing that makes a trigger of kind {wanted.kind.value} fire is recorded"
        case _:
            return


def _found(world: worlds.World, name: str) -> model.Trigger:
    found = world.triggers.get(name)
    if found is None:
        raise office.not_found("trigger", "name", name)
    return found


def _conditions(wanted: model.Trigger) -> Iterator[errors.InvalidRequestError]:
    """Find what is wrong with the texts in CEL."""
    match wanted.when:
        case model.Threshold(condition=condition, clear=clear):
            yield from _compiled("when.threshold.condition", condition)
            if clear:
                yield from _compiled("when.threshold.clear", clear)
        case model.EventMatch(filter=text) if text:
            try:
                conditions.compile_filter(text, "when.event.filter")
            except errors.InvalidRequestError as error:
                yield error
        case _:
            return


def _compiled(field: str, text: str) -> Iterator[errors.InvalidRequestError]:
    try:
        conditions.compile(text, field)
    except errors.InvalidRequestError as error:
        yield error


def _unknown_components(world: worlds.World, wanted: model.Trigger) -> Iterator[errors.InvalidRequestError]:
    """Find components that no node has, and of which nothing was published."""
    named = {
        f"{_action(wanted)}.component": wanted.component,
        f"{_when(wanted)}.component": getattr(wanted.when, "component", ""),
    }
    for field, name in named.items():
        is_known = any(component == name for component, _ in world.releases) or any(
            name in node.components for node in world.nodes.values()
        )
        if name and not is_known:
            yield _wrong(field, name, "a component that a node has, or a release is of", "unknown_component")


def _without_nodes(world: worlds.World, wanted: model.Trigger) -> Iterator[errors.InvalidRequestError]:
    """Find selectors that take no node."""
    selectors = {
        f"{_action(wanted)}.selector": wanted.selector,
        f"{_when(wanted)}.selector": getattr(wanted.when, "selector", ""),
    }
    for field, text in selectors.items():
        try:
            taken = selector.parse(text)
        except errors.InvalidRequestError:  # it is refused for that
            continue
        if not any(taken.matches(node.labels) for node in world.nodes.values()):
            yield _wrong(field, text, "it takes at least one node", "no_targets")


def _action(wanted: model.Trigger) -> str:
    return f"action.{wanted.does.value.lower()}"


def _when(wanted: model.Trigger) -> str:
    return f"when.{wanted.kind.value.lower()}"


def _wrong(field: str, value: str, rule: str, code: str) -> errors.InvalidRequestError:
    message = f"cannot use {value!r} in {field}"
    return errors.InvalidRequestError(message, code=code, field=field, value=value, rule=rule)
