"""`instar-agent status`: what this node runs, what is wrong with it, and what it could go back to."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import cast

from agent import depot, journal, processes
from agent.cli import answers, asking
from agent.config import manifest, settings
from agent.config.errors import ConfigError
from agent.core import model, operation
from agent.journal import records
from agent.state import points

Document = answers.Document


def main(config: settings.Config, chosen: argparse.Namespace) -> int:
    """Say what the node runs; unreachable where the keeper is down."""
    inspection = asking.inspect(config)
    try:
        document = read(config, inspection, asking.agent_status(config))
    except journal.JournalError as error:
        raise answers.Refusal(str(error), code="journal_unreadable") from error
    answers.say(document, _text(document), chosen.output)
    return answers.EXIT_OK if inspection is not None else answers.EXIT_UNREACHABLE


def read(
    config: settings.Config, inspection: processes.Inspection | None, told: Mapping[str, object] | None
) -> Document:
    """Put together what keeper, disk, journal and agent say.

    Raises:
        journal.JournalError: It is of another version.
    """
    disk = depot.Depot(config.layout)
    contents = journal.read(config.state_dir)
    known = {str(each["name"]): each for each in _rows(told or {}, "components")}
    return {
        "node_id": config.node_id,
        "agent_version": told["agent_version"] if told else settings.agent_version(),
        "is_keeper_up": inspection is not None,
        "is_agent_up": told is not None,
        "highest_fence": contents.highest_fence,
        "conditions": list(_rows(told, "conditions")) if told else _conditions(inspection),
        "components": [
            _component(name, both, Sight(config, disk, inspection), known.get(name, {}))
            for name, both in disk.components().items()
        ],
        "operations": [_operation(operation.status(each.latest.operation)) for each in contents.operations],
    }


class Sight:
    """What is looked at for one component."""

    def __init__(self, config: settings.Config, disk: depot.Depot, inspection: processes.Inspection | None) -> None:
        self.disk = disk
        self.points = points.Points(config.layout, config.rollback_points)
        self.instances = inspection.instances if inspection else ()


def _component(name: str, pointers: depot.Pointers, sight: Sight, told: Mapping[str, object]) -> Document:
    return {
        "name": name,
        "version": name_and_version(sight.disk, pointers.current)[1],
        "digest": pointers.current,
        "permanent_digest": pointers.permanent,
        "is_stopped": sight.disk.is_stopped(name),
        "health": told.get("health", model.Health.UNKNOWN.value),
        "healthy_for_seconds": _seconds(told.get("healthy_for", 0)),
        "instances": [_instance(each) for each in sight.instances if each.component == name],
        "rollback_points": [point_row(point) for point in sight.points.of(name)],
    }


def _instance(each: processes.Instance) -> Document:
    return {
        "id": each.id,
        "version": each.version,
        "pid": each.pid,
        "state": each.state.value,
        "served": each.served,
        "restarts": each.restarts,
        "worker_deaths": each.worker_deaths,
        "is_kept": each.is_kept,
        "is_broken": each.is_broken,
    }


def name_and_version(disk: depot.Depot, digest: str) -> tuple[str, str]:
    """Component and version of a release on this node; empty where its manifest cannot be read."""
    try:
        read_manifest = manifest.read(disk.release_dir(digest))
    except ConfigError:
        return "", ""
    return read_manifest.name, read_manifest.version


def point_row(point: points.Point) -> Document:
    """A rollback point as it is shown."""
    plain = records.to_plain(point)
    assert isinstance(plain, dict)  # noqa: S101  # of a dataclass
    return plain


def _conditions(inspection: processes.Inspection | None) -> list[Document]:
    """What is wrong as far as the keeper alone shows it."""
    broken = [each for each in inspection.instances if each.is_broken] if inspection else []
    return [
        {"code": "crash_loop", "component": each.component, "message": f"{each.id} ended too often in a row"}
        for each in broken
    ]


def _operation(status: model.OperationStatus) -> Document:
    return {
        **asdict(status),
        "state": status.state.value,
        "step": status.step.value if status.step else None,
        "fault": status.fault.value if status.fault else None,
        "changed_at": status.changed_at.isoformat(),
    }


def _seconds(microseconds: object) -> float:
    return timedelta(microseconds=cast("int", microseconds)).total_seconds()


def _text(document: Document) -> str:
    words = {True: "up", False: "not reachable"}
    keeper, agent = words[bool(document["is_keeper_up"])], words[bool(document["is_agent_up"])]
    lines = [f"node {document['node_id']}, keeper {keeper}, agent {document['agent_version']} {agent}"]
    lines += [f"  ! {row['code']} {row['component']} {row['message']}" for row in _rows(document, "conditions")]
    for component in _rows(document, "components"):
        lines += _component_lines(component)
    for row in _rows(document, "operations"):
        lines.append(f"  operation {row['operation_id']}: {row['state']} {row['message']}".rstrip())
    return "\n".join(lines)


def _component_lines(component: Document) -> list[str]:
    words = "stopped" if component["is_stopped"] else str(component["health"]).lower()
    lines = [f"  {component['name']} {component['version']} {words}  {component['digest']}"]
    for each in _rows(component, "instances"):
        more = f", {each['restarts']} restarts" if each["restarts"] else ""
        more += f", {each['worker_deaths']} dead workers" if each["worker_deaths"] else ""
        lines.append(f"    {each['id']} pid {each['pid']} {each['state']}{more}")
    found = _rows(component, "rollback_points")
    lines += [f"    can go back to {each['version'] or 'a state set aside'} of {each['created_at']}" for each in found]
    return lines


def _rows(document: Mapping[str, object], key: str) -> Sequence[Document]:
    rows = document.get(key, [])
    assert isinstance(rows, list)  # noqa: S101  # made above
    return rows
