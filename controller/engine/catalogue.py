"""What people do with releases: publish them, declare the ways between them, close ways, move channels.

Rules kept: a version names the same bytes for ever; what is declared is checked whole before any of it counts, its
conditions compiled among it; a block is nothing that a declaration lifts. Left out: which way a node takes (`planner`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta

from controller import conditions
from controller.core import errors, model, versions
from controller.engine import draft as drafts
from controller.engine import office, ways, whereabouts
from controller.engine import world as worlds
from controller.store import rows

WAYS_MAX = 1_000  # edges, or barriers, of one component: more than anybody can read
TRUST_CHARS_MAX = 4096  # of the names of metadata files, on record
CHANNEL_RULE = "1 to 63 lower-case letters, digits and dashes, beginning with a letter"
_CHANNEL = re.compile(r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?")


class Catalogue(office.Office):
    """The releases, as people see them."""

    async def publish(self, release: model.Release) -> bool:
        """Make a release known; False where it is known already.

        Raises:
            RefusedError: Other bytes are published under the same version.
        """
        asked = office.Asked(
            release.publisher, "publish_release", release, release.component, f"{release.component} {release.version}"
        )
        return await self._asked(asked, lambda draft: _publish(draft, release))

    def release(self, component: model.ComponentName, version: str) -> model.Release:
        """Find a release.

        Raises:
            NotFoundError: Code ``release_not_found``.
        """
        return _published(self._desk.world, component, version, "version")

    def whereabouts(self, component: model.ComponentName, version: str) -> whereabouts.Whereabouts:
        """Say where a release stands.

        Raises:
            NotFoundError: Code ``release_not_found``.
        """
        return whereabouts.of(self._desk.world, self.release(component, version))

    def releases(self, component: str = "") -> tuple[model.Release, ...]:
        """Return the releases of a component, or all, by component and version text."""
        known = self._desk.world.releases
        return tuple(known[key] for key in sorted(known) if component in ("", key[0]))

    def graph(self, component: model.ComponentName) -> model.VersionGraph:
        """Return what is declared of the ways between the releases of a component, with what closes them."""
        return _of(self._desk.world, component)

    async def put_graph(
        self,
        component: model.ComponentName,
        edges: tuple[model.Edge, ...],
        barriers: tuple[model.Barrier, ...],
        *,
        actor: str,
    ) -> model.VersionGraph:
        """Declare the edges and barriers of a component, in the place of those before; return what is declared now.

        Raises:
            InvalidRequestError: An edge or a barrier is wrong in itself.
            NotFoundError: A version that is named was never published.
        """

        def work(draft: drafts.Draft) -> None:
            _check(draft.world, component, edges, barriers)
            declared = ways.declared_only(edges, draft.world.blocks.values())
            draft.put_declaration(rows.Declaration(component, declared, barriers))
            told = f"{len(declared)} edges, {len(barriers)} barriers"
            draft.put_audit(actor, "release.graph", component, told)

        asked = office.Asked(actor, "put_graph", (component, edges, barriers), component)
        await self._asked(asked, work, lambda draft, _: _of(draft.world, component))
        return self.graph(component)

    async def block_release(
        self, component: model.ComponentName, version: str, *, reason: str, actor: str
    ) -> model.VersionGraph:
        """Close every way to a version, or open all again where the reason is empty; return what is declared now.

        Raises:
            NotFoundError: The version was never published.
        """

        def work(draft: drafts.Draft) -> None:
            _published(draft.world, component, version, "version")
            verb = "release.block" if reason else "release.unblock"
            if reason:
                draft.put_block(rows.Block(component, version, reason, actor, draft.at))
            else:
                _open(draft, component, version)
            draft.put_audit(actor, verb, f"{component} {version}", reason)

        asked = office.Asked(actor, "block_release", (component, version, reason), component, f"{component} {version}")
        await self._asked(asked, work, lambda draft, _: _of(draft.world, component))
        return self.graph(component)

    async def promote_release(
        self, component: model.ComponentName, version: str, channel: str, *, actor: str
    ) -> model.Channel:
        """Let a channel point to a release.

        Raises:
            InvalidRequestError: The channel's name cannot be one.
            NotFoundError: The version was never published.
        """

        def work(draft: drafts.Draft) -> model.Channel:
            _published(draft.world, component, version, "version")
            if not _CHANNEL.fullmatch(channel):
                raise _refusal("channel", channel, CHANNEL_RULE)
            moved = model.Channel(component, channel, version, draft.at, actor)
            draft.put_channel(moved)
            draft.put_audit(actor, "release.promote", f"{component} {version}", f"channel {channel}")
            return moved

        return await self._asked(
            office.Asked(actor, "promote_release", (component, version, channel), component, f"{component} {version}"),
            work,
        )

    async def note_trust(self, stored: Sequence[str], *, actor: str) -> None:
        """Keep on record which signed metadata somebody has put; none where they were there."""

        def work(draft: drafts.Draft) -> None:
            if stored:
                draft.put_audit(actor, "trust.put", stored[-1], " ".join(stored)[:TRUST_CHARS_MAX])

        await self._asked(office.Asked(actor, "put_trust", tuple(stored)), work)


def _of(world: worlds.World, component: model.ComponentName) -> model.VersionGraph:
    known = world.graph
    return model.VersionGraph(
        edges=tuple(each for each in known.edges if each.component == component),
        barriers=tuple(each for each in known.barriers if each.component == component),
        channels=tuple(each for each in known.channels if each.component == component),
    )


def _publish(draft: drafts.Draft, release: model.Release) -> bool:
    known = draft.world.releases.get((release.component, release.version))
    if known is None:
        draft.put_release(release)
        draft.put_audit(release.publisher, "release.publish", f"{release.component} {release.version}", release.digest)
        return True
    if known.digest != release.digest:
        raise errors.RefusedError(
            f"cannot publish {release.component} {release.version}: it is published with digest {known.digest}",
            code="release_exists",
            field="digest",
            value=release.digest,
            rule="a version names the same bytes for ever",
        )
    return False


def _open(draft: drafts.Draft, component: model.ComponentName, version: str) -> None:
    known = draft.world.declared
    if (component, version) in draft.world.blocks:
        draft.lift_block((component, version))
    edges = tuple(each for each in known.edges if each.component == component)
    opened = ways.opened(edges, component, version)
    if opened != edges:
        barriers = tuple(each for each in known.barriers if each.component == component)
        draft.put_declaration(rows.Declaration(component, opened, barriers))


def _published(world: worlds.World, component: model.ComponentName, version: str, field: str) -> model.Release:
    found = world.releases.get((component, version))
    if found is None:
        raise office.not_found("release", field, f"{component} {version}")
    return found


def _check(
    world: worlds.World,
    component: model.ComponentName,
    edges: tuple[model.Edge, ...],
    barriers: tuple[model.Barrier, ...],
) -> None:
    for field, count in (("edges", len(edges)), ("barriers", len(barriers))):
        if count > WAYS_MAX:
            raise _refusal(field, str(count), f"at most {WAYS_MAX}")
    for number, edge in enumerate(edges):
        _check_edge(world, component, edge, f"edges[{number}]")
    for number, barrier in enumerate(barriers):
        field = f"barriers[{number}]"
        _check_component(component, barrier.component, field)
        _published(world, component, barrier.version, f"{field}.version")
        if barrier.bake_duration < timedelta():
            raise _refusal(f"{field}.bake_duration", str(barrier.bake_duration), "not negative")
    named = [each.version for each in barriers]
    if len(set(named)) != len(named):
        raise _refusal("barriers", ", ".join(named), "one barrier for a version")


def _check_edge(world: worlds.World, component: model.ComponentName, edge: model.Edge, field: str) -> None:
    _check_component(component, edge.component, field)
    _published(world, component, edge.to_version, f"{field}.to_version")
    versions.parse_comparators(edge.from_versions, f"{field}.from_versions")
    if not edge.methods:
        raise _refusal(f"{field}.methods", "", "one method at least")
    if edge.cost < 1:
        raise _refusal(f"{field}.cost", str(edge.cost), "1 or more")
    if edge.condition:
        conditions.compile(edge.condition, f"{field}.condition")


def _check_component(wanted: str, found: str, field: str) -> None:
    if found != wanted:
        raise _refusal(f"{field}.component", found, f"{wanted}, as the whole graph")


def _refusal(field: str, value: str, rule: str) -> errors.InvalidRequestError:
    return errors.InvalidRequestError(
        f"cannot take {field} {value!r}: it must be {rule}",
        code="graph_invalid",
        field=field,
        value=value,
        rule=rule,
    )
