"""`instar-agent rollback` and `start`: changes of a component that the agent of this node makes, with no controller.

Rules kept here: what is asked is an ordinary operation of the agent; it is followed to its end, and how it ended is the
exit code.
"""

from __future__ import annotations

import argparse
import time

from agent import depot
from agent.cli import answers, asking, status
from agent.config import layout, settings
from agent.state import points

LOOK_SECONDS = 0.2  # between two looks at an operation
WAIT_SECONDS = 900.0  # over the deadline, the soak and the bake of an operation

DONE = frozenset({"PERMANENT", "REFUSED", "ABORTED", "EXPIRED", "UNKNOWN"})
BEGUN = frozenset({"COMMITTED", "PERMANENT"})
EXIT_CODES = {"REFUSED": answers.EXIT_REFUSED, "EXPIRED": answers.EXIT_REFUSED, "ABORTED": answers.EXIT_ROLLED_BACK}

Document = answers.Document


def main(config: settings.Config, chosen: argparse.Namespace) -> int:
    """Ask for the change and follow it."""
    component = layout.component_name(chosen.component)
    if chosen.command == "start":
        return carry_out(config, {"component": component, "kind": "START"}, chosen, ends=BEGUN)
    request = {
        "component": component,
        "kind": "UPGRADE",
        "to_digest": _target(config, component, chosen.to),
        "discard_writes": chosen.discard_writes,
        **({"method": chosen.method} if chosen.method else {}),
    }
    return carry_out(config, request, chosen, ends=BEGUN if chosen.is_waiting else frozenset({"ACCEPTED", "RUNNING"}))


def carry_out(config: settings.Config, request: Document, chosen: argparse.Namespace, *, ends: frozenset[str]) -> int:
    """Ask for a change and follow it to one of these states, or to its end."""
    seen = asking.ask_agent(config, {"verb": "change", **request})
    until = time.monotonic() + WAIT_SECONDS
    while seen["state"] not in DONE | ends:
        if time.monotonic() > until:
            message = f"cannot wait any longer for operation {seen['operation_id']}: it is {seen['state']}"
            raise answers.Refusal(message, code="timed_out", exit_code=answers.EXIT_TIMED_OUT)
        time.sleep(LOOK_SECONDS)
        seen = _look(config, seen)
    answers.say(seen, _text(seen), chosen.output)
    state = str(seen["state"])
    return answers.EXIT_OK if state in ends | {"PERMANENT"} else EXIT_CODES.get(state, answers.EXIT_FAILED)


def _look(config: settings.Config, seen: Document) -> dict[str, object]:
    """Ask again; an agent that is just being replaced answers a moment later."""
    try:
        return asking.ask_agent(config, {"verb": "operation", "operation_id": seen["operation_id"]})
    except answers.Refusal as error:
        if error.exit_code != answers.EXIT_UNREACHABLE:
            raise
        return dict(seen)


def _target(config: settings.Config, component: str, wanted: str) -> str:
    """Digest to go to: as it was said, or of a version, or of the last rollback point, or what is permanent."""
    disk = depot.Depot(config.layout)
    pointers = disk.components().get(component)
    if pointers is None:
        message = f"cannot change {component}: it is not installed"
        raise answers.Refusal(message, code="not_installed", exit_code=answers.EXIT_REFUSED)
    if wanted.startswith(layout.DIGEST_PREFIX):
        layout.hex_of(wanted)
        return wanted
    found = points.Points(config.layout, config.rollback_points).of(component)
    usable = [point.digest for point in found if point.digest and disk.has_release(point.digest)]
    known = [*usable, pointers.permanent, *disk.releases()]
    fitting = [digest for digest in known if digest != pointers.current and _fits(disk, component, digest, wanted)]
    if not fitting:
        what = f"version {wanted}" if wanted else "an earlier version"
        message = (
            f"cannot go back with {component}: {what} is not on this node; see `instar-agent versions {component}`"
        )
        raise answers.Refusal(message, code="release_missing", exit_code=answers.EXIT_REFUSED)
    return fitting[0]


def _fits(disk: depot.Depot, component: str, digest: str, wanted: str) -> bool:
    """Say whether a release is one of this component, and of the version that was asked for."""
    name, version = status.name_and_version(disk, digest)
    return name == component and wanted in {"", version}


def _text(seen: Document) -> str:
    return f"operation {seen['operation_id']}: {seen['state']} {seen['message']}".rstrip()
