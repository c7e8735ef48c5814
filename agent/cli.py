"""`instar-agent`: runs a node, and says what it is doing.

Rules kept here: with ``-o json`` standard output has one JSON document and nothing else; `status` reads the keeper, the
disk and the journal, so it works without a controller and while the agent is down; exit codes are those of the page on
commands. Left out: leading the fleet, which is the work of `instar`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from agent import depot, journal, processes
from agent.config import manifest, settings
from agent.config.errors import ConfigError
from agent.core import model, operation

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_UNREACHABLE = 7
KEEPER_TIMEOUT_SECONDS = 2.0  # a keeper that lives answers within milliseconds

Document = Mapping[str, object]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    chosen = _parser().parse_args(arguments)
    try:
        config = settings.load(chosen.config, os.environ)
        return _run(config, chosen.config) if chosen.command == "run" else _status(config, chosen.output)
    except ConfigError as error:
        print(error, file=sys.stderr)  # noqa: T201  # a command's answer
        return EXIT_USAGE
    except (OSError, journal.JournalError) as error:
        print(f"cannot read the state of the node: {error}", file=sys.stderr)  # noqa: T201  # a command's answer
        return EXIT_FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="instar-agent", description="Runs one node of an instar fleet.")
    parser.add_argument("--version", action="version", version=settings.agent_version())
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run", parents=[_config()], help="hold the sockets and processes of this node, and its agent")
    status = commands.add_parser("status", parents=[_config()], help="say what this node runs")
    status.add_argument("-o", dest="output", choices=("text", "json"), default="text", help="form of the answer")
    return parser


def _config() -> argparse.ArgumentParser:
    parent = argparse.ArgumentParser(add_help=False)
    parent.add_argument("--config", type=Path, required=True, help="the agent's configuration file")
    return parent


def _run(config: settings.Config, path: Path) -> int:
    """Become the keeper; it starts the agent."""
    agent = [sys.executable, "-m", "agent", "--config", str(path.resolve())]
    places = ["--state", str(config.state_dir), "--run", str(config.run_dir)]
    command = [sys.executable, "-S", "-P", "-m", "agent.keeper", *places, "--", *agent]
    root = str(Path(__file__).resolve().parent.parent)  # where this very agent was found: -S finds nothing by itself
    found = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(found)}
    os.execve(sys.executable, command, environment)  # noqa: S606  # to become it is the command


def _status(config: settings.Config, output: str) -> int:
    inspection = asyncio.run(_inspect(config))
    document = _document(config, inspection)
    text = json.dumps(document) if output == "json" else _text(document)
    print(text)  # noqa: T201  # a command's answer
    return EXIT_OK if inspection is not None else EXIT_UNREACHABLE


async def _inspect(config: settings.Config) -> processes.Inspection | None:
    try:
        async with asyncio.timeout(KEEPER_TIMEOUT_SECONDS):
            keeper = await processes.Keeper.connect(config.layout.keeper_socket)
            try:
                return await keeper.inspect()
            finally:
                await keeper.close()
    except (processes.KeeperError, TimeoutError):
        return None


def _document(config: settings.Config, inspection: processes.Inspection | None) -> Document:
    disk = depot.Depot(config.layout)
    contents = journal.read(config.state_dir)
    installed = disk.components() if config.layout.components_dir.is_dir() else {}
    return {
        "node_id": config.node_id,
        "is_keeper_up": inspection is not None,
        "highest_fence": contents.highest_fence,
        "components": [_component(name, both, disk, inspection) for name, both in installed.items()],
        "operations": [_operation(operation.status(each.latest.operation)) for each in contents.operations],
    }


def _component(
    name: str, pointers: depot.Pointers, disk: depot.Depot, inspection: processes.Inspection | None
) -> Document:
    seen = inspection.instances if inspection else ()
    return {
        "name": name,
        "version": manifest.read(disk.release_dir(pointers.current)).version,
        "digest": pointers.current,
        "permanent_digest": pointers.permanent,
        "instances": [
            {"id": each.id, "version": each.version, "pid": each.pid, "state": each.state.value, "served": each.served}
            for each in seen
            if each.component == name
        ],
    }


def _operation(status: model.OperationStatus) -> Document:
    plain = asdict(status)
    return {
        **plain,
        "state": status.state.value,
        "step": status.step.value if status.step else None,
        "fault": status.fault.value if status.fault else None,
        "changed_at": status.changed_at.isoformat(),
    }


def _text(document: Document) -> str:
    lines = [f"node {document['node_id']}, keeper {'up' if document['is_keeper_up'] else 'not reachable'}"]
    for component in _rows(document, "components"):
        lines.append(f"  {component['name']} {component['version']}  {component['digest']}")
        lines += [f"    {each['id']} pid {each['pid']} {each['state']}" for each in _rows(component, "instances")]
    for row in _rows(document, "operations"):
        lines.append(f"  operation {row['operation_id']}: {row['state']} {row['message']}".rstrip())
    return "\n".join(lines)


def _rows(document: Document, key: str) -> Sequence[Document]:
    rows = document[key]
    assert isinstance(rows, list)  # noqa: S101  # made above
    return rows
