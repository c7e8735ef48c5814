"""Whether what goes back after its end would take from other components of its nodes what these require.

Rules kept: at no time may a component lack what it requires; while a rollout is under way nobody else has its nodes, so
that only one which has ended can find others there that came to rely on it. Left out: what a plan leads to (`moves`).
"""

from __future__ import annotations

from collections.abc import Mapping

from controller.core import errors, model, progress, refusals
from controller.engine import world as worlds

_CODE = "requirement_broken"


def check(world: worlds.World, rollout: model.Rollout) -> None:
    """Refuse to take a rollout back where others rely on it by now.

    Raises:
        RefusedError: Code ``requirement_broken``.
    """
    releases = {each.digest: each for each in world.releases.values()}
    broken: dict[str, list[model.NodeId]] = {}
    for node_id, gone in _undone(world, rollout).items():
        why = _broken(world.nodes[node_id], gone, releases)
        if why:
            broken.setdefault(why, []).append(node_id)
    for why, ids in broken.items():
        raise errors.RefusedError(
            f"cannot revert rollout {rollout.id}: it would break {why}, on {refusals.names(ids)}",
            code=_CODE,
            field="rollout",
            value=rollout.id,
            rule=refusals.RULES[_CODE],
        )


def _undone(world: worlds.World, rollout: model.Rollout) -> dict[model.NodeId, dict[model.ComponentName, str]]:
    """Give the versions that nodes would go back to, by component; empty for none."""
    found: dict[model.NodeId, dict[model.ComponentName, str]] = {}
    for each in sorted(rollout.changes.values(), key=lambda each: (each.change.node_id, -each.wave)):
        change = each.change
        node = world.nodes.get(change.node_id)
        installed = None if node is None else node.components.get(change.component)
        if installed is None or each.is_skipped or not (each.is_touched and progress.can_go_back(each)):
            continue
        if installed.digest == change.to_digest or change.component in found.get(change.node_id, {}):
            found.setdefault(change.node_id, {})[change.component] = change.from_version
    return found


def _broken(
    node: model.Node, gone: Mapping[model.ComponentName, str], releases: Mapping[model.Digest, model.Release]
) -> str:
    """Name what would lack what it has now; what goes back itself is as sound as it was."""
    had = {name: each.version for name, each in node.components.items()}
    after = {name: version for name, version in (had | dict(gone)).items() if version}
    for name, installed in node.components.items():
        release = None if name in gone else releases.get(installed.digest)
        for each in () if release is None else release.requirements:
            if refusals.is_met(each, had) and not refusals.is_met(each, after):
                return f"{name} {installed.version}, which requires {each.component} {each.versions}".rstrip()
    return ""
