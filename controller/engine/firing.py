"""Feeds triggers: one event to one trigger, and what follows for triggers from what else was drafted.

Rules kept: whatever becomes of a firing is in the audit with its reason; freezes hold upgrades, and nothing that goes
back; of the releases that are there, blocked ones are not available. Left out: where occasions come from (`heeding`,
`triggers`), and the actions (`triggering`).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from controller.core import model, selector, versions
from controller.core.triggers import draft as decisions
from controller.core.triggers import events, guards, machine
from controller.engine import draft as drafts
from controller.engine import freezing
from controller.engine import world as worlds

ANY_VERSION = "*"


def actor_of(trigger: str) -> str:
    """Name a trigger as who does something."""
    return f"trigger:{trigger}"


def feed(draft: drafts.Draft, name: str, event: events.Event) -> decisions.Decision | None:
    """Feed an event to a trigger; None where that is no more.

    Raises:
        IllegalEventError: It cannot be.
        RefusedError: Somebody asks for what the trigger does not allow.
    """
    trigger = draft.world.triggers.get(name)
    if trigger is None:
        return None
    around = surroundings(draft.world, trigger, draft.at)
    decision = machine.step(trigger, draft.world.statuses[name], event, around)
    draft.put_decision(trigger, decision)
    audit(draft, decision)
    return decision


def audit(draft: drafts.Draft, decision: decisions.Decision) -> None:
    """Keep what has become of firings."""
    for each in decision.firings:
        action = f"firing.{each.state.value.lower()}"
        draft.put_audit(actor_of(each.trigger), action, each.id, each.reason.message)


def surroundings(world: worlds.World, trigger: model.Trigger, at: datetime) -> guards.Around:
    """Say what freezes hold a trigger."""
    if not isinstance(trigger.action, model.Upgrade):
        return machine.NOTHING_AROUND
    found = [each for each in world.freezes.values() if freezing.is_in_force(each, at)]
    holding = [each for each in found if _touches(world, trigger, each)]
    if not holding:
        return machine.NOTHING_AROUND
    longest = max(holding, key=lambda each: (each.until is None, each.until or each.since, each.id))
    return guards.Around(f"freeze {longest.id} holds it: {longest.reason}", longest.until)


def _touches(world: worlds.World, trigger: model.Trigger, freeze: model.Freeze) -> bool:
    """Tell whether a freeze covers a node that a trigger would change."""
    if not freeze.selector:
        return True
    frozen, meant = selector.parse(freeze.selector), selector.parse(trigger.selector)
    return any(frozen.matches(each.labels) and meant.matches(each.labels) for each in world.nodes.values())


def follow(draft: drafts.Draft) -> None:
    """Draft what follows for triggers from what was drafted so far."""
    if not draft.world.triggers:
        return
    if draft.channels or draft.releases or draft.blocks:
        _tell_versions(draft)
    for rollout_id in draft.turned:
        rollout = draft.rollouts[rollout_id].rollout
        if rollout.state.is_terminal:
            tell_end(draft, rollout)
    for node_id in draft.removed:
        for name in sorted(draft.world.signalled.get(node_id, ())):
            feed(draft, name, events.Gone(draft.at, node_id))


def tell_end(draft: drafts.Draft, rollout: model.Rollout) -> None:
    """Tell the firing that a rollout came of that it is at its end."""
    for firing in _running(draft.world):
        if firing.rollout_id == rollout.id:
            ended = events.RolloutEnded(draft.at, firing.id, rollout.state, rollout.message)
            feed(draft, firing.trigger, ended)


def _running(world: worlds.World) -> Iterator[model.Firing]:
    for status in world.statuses.values():
        yield from (each for each in status.open if each.state is model.FiringState.RUNNING)


def _tell_versions(draft: drafts.Draft) -> None:
    for name in sorted(draft.world.triggers):
        when = draft.world.triggers[name].when
        if isinstance(when, model.VersionAvailable):
            version = available(draft.world, when)
            if version != draft.world.statuses[name].seen_version:
                feed(draft, name, events.Moved(draft.at, version))


def available(world: worlds.World, when: model.When) -> str:
    """Name the version that is available; empty for none, and for other kinds."""
    if not isinstance(when, model.VersionAvailable):
        return ""
    if when.channel:
        pointed = (each for each in world.declared.channels if each.name == when.channel)
        return next((each.version for each in pointed if each.component == when.component), "")
    return max(_within(world, when), key=versions.order, default="")


def _within(world: worlds.World, when: model.VersionAvailable) -> Iterator[str]:
    comparators = "" if when.versions == ANY_VERSION else when.versions
    for key in world.releases:
        component, version = key
        is_meant = component == when.component and key not in world.blocks
        is_admitted = when.prereleases or not versions.is_prerelease(version)
        if is_meant and is_admitted and versions.matches(version, comparators):
            yield version
