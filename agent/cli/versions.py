"""`instar-agent versions`: the releases on this node's disk, what points at each, and what it takes."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from agent import depot
from agent.cli import answers, status
from agent.config import layout, settings
from agent.state import points

Document = answers.Document


def main(config: settings.Config, chosen: argparse.Namespace) -> int:
    """Say what the node has; an unknown component is refused."""
    if chosen.component:
        layout.component_name(chosen.component)
    document = read(config, chosen.component)
    if chosen.component and not document["releases"] and not document["rollback_points"]:
        message = f"cannot show versions of {chosen.component}: nothing of it is on this node"
        raise answers.Refusal(message, code="not_installed", exit_code=answers.EXIT_REFUSED)
    answers.say(document, _text(document), chosen.output)
    return answers.EXIT_OK


def read(config: settings.Config, component: str) -> Document:
    """List releases, the oldest first, and rollback points, the newest first; of one component, or of all."""
    disk = depot.Depot(config.layout)
    rows = [_row(disk, digest, size_bytes, disk.components()) for digest, size_bytes in disk.releases().items()]
    found = points.Points(config.layout, config.rollback_points)
    shown = found.of(component) if component else found.all()
    return {
        "releases": [row for row in rows if component in {"", row["component"]}],
        "rollback_points": [status.point_row(point) for point in shown],
        "disk_quota_bytes": config.disk_quota_bytes,
        "free_bytes": disk.free_bytes() if config.state_dir.is_dir() else 0,
    }


def _row(disk: depot.Depot, digest: str, size_bytes: int, installed: Mapping[str, depot.Pointers]) -> Document:
    name, version = status.name_and_version(disk, digest)
    return {
        "component": name,
        "version": version,
        "digest": digest,
        "size_bytes": size_bytes,
        "current_of": sorted(name for name, both in installed.items() if both.current == digest),
        "permanent_of": sorted(name for name, both in installed.items() if both.permanent == digest),
    }


def _text(document: Document) -> str:
    lines = []
    rows, found = document["releases"], document["rollback_points"]
    assert isinstance(rows, list)  # noqa: S101  # made above
    assert isinstance(found, list)  # noqa: S101  # made above
    for row in rows:
        words = [word for word in ("current", "permanent") if row[f"{word}_of"]]
        size = f"{row['size_bytes'] / 1024**2:.1f} MiB"
        lines.append(f"{row['component']} {row['version']}  {row['digest']}  {size}  {' '.join(words)}".rstrip())
    for point in found:
        what = f"back to {point['version']}" if point["version"] else "set aside"
        size = f"{point['size_bytes'] / 1024**2:.1f} MiB"
        lines.append(f"{point['component']} rollback point {point['id']}: {what} of {point['created_at']}  {size}")
    return "\n".join(lines)
