"""Documents in files of the user: read as JSON or TOML by the ending of their name, written as JSON.

Rules kept here: what cannot be read or written is an error of usage that names the file. Left out: what they say.
"""

from __future__ import annotations

import contextlib
import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

from controller.cli import document, failures
from instar.v1 import analysis_pb2, release_pb2, rollout_pb2

FACTS_BYTES_MAX = 1 << 20  # of a saved plan, sent along: a controller takes messages of 2 MiB


@contextlib.contextmanager
def local(field: str, place: Path) -> Iterator[None]:
    """Turn what the operating system says of a place into an error of usage.

    Raises:
        CommandError: It said something.
    """
    try:
        yield
    except OSError as fault:
        raise failures.usage(field, str(place), f"a place that can be written ({fault.strerror})") from fault


def read(file: Path) -> object:
    """What a file says; TOML where its name ends so, else JSON.

    Raises:
        CommandError: It cannot be read.
    """
    try:
        text = file.read_text("utf-8")
        return tomllib.loads(text) if file.suffix == ".toml" else json.loads(text)
    except (OSError, ValueError) as fault:  # neither format, or not UTF-8: all of these are ValueErrors
        why = fault.strerror if isinstance(fault, OSError) else fault
        raise failures.usage("FILE", str(file), f"a file that can be read as JSON or TOML ({why})") from fault


def read_graph(file: Path) -> release_pb2.VersionGraph:
    """A version graph.

    Raises:
        CommandError: The file cannot be read, or is none.
    """
    graph = release_pb2.VersionGraph()
    document.read(read(file), graph, "graph")
    return graph


def read_analysis(file: Path) -> analysis_pb2.Analysis:
    """How a canary is judged.

    Raises:
        CommandError: The file cannot be read, or is none.
    """
    analysis = analysis_pb2.Analysis()
    document.read(read(file), analysis, "analysis")
    return analysis


def write_plan(file: Path, request: rollout_pb2.UpgradeRequest, plan: rollout_pb2.Plan) -> None:
    """Save a plan, and what was asked for, so that `upgrade start --plan` can apply it.

    Raises:
        CommandError: The file cannot be written.
    """
    saved = {"request": document.of(request), "plan": document.of(plan)}
    try:
        file.write_text(json.dumps(saved, indent=2) + "\n", "utf-8")
    except OSError as fault:
        raise failures.usage("--out", str(file), f"a file that can be written ({fault.strerror})") from fault


def read_plan(file: Path) -> tuple[rollout_pb2.UpgradeRequest, rollout_pb2.Plan]:
    """A saved plan with what was asked for; of the plan, what tells it apart from another one.

    Raises:
        CommandError: The file cannot be read, or holds no saved plan.
    """
    found = read(file)
    if not isinstance(found, Mapping) or set(found) != {"request", "plan"}:
        raise failures.usage("--plan", str(file), "a file that `instar upgrade plan --out` has made")
    request, plan = rollout_pb2.UpgradeRequest(), rollout_pb2.Plan()
    document.read(found["request"], request, "request")
    document.read(found["plan"], plan, "plan")
    return request, _told_apart(plan)


def _told_apart(plan: rollout_pb2.Plan) -> rollout_pb2.Plan:
    """The fingerprint, and what it is over; of the largest fleets the fingerprint alone, which decides."""
    short = rollout_pb2.Plan(fingerprint=plan.fingerprint, facts=plan.facts)
    return short if short.ByteSize() <= FACTS_BYTES_MAX else rollout_pb2.Plan(fingerprint=plan.fingerprint)
