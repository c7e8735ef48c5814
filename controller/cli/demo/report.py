"""What the demo found, as one JSON document or as a few lines, and whether all of it held."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from controller.cli.demo import figures, receiver
from instar.v1 import operation_pb2, rollout_pb2


@dataclass(frozen=True, slots=True)
class Ended:
    """A rollout that has ended, and the state that it should have ended in."""

    rollout: rollout_pb2.Rollout
    expected: rollout_pb2.RolloutState.ValueType

    @property
    def is_as_expected(self) -> bool:
        """Whether it is as it should be."""
        return self.rollout.state == self.expected


@dataclass(frozen=True, slots=True)
class Agents:
    """What became of agents, keepers and services when the agents were upgraded.

    Args:
        versions: Number of nodes by the version that their agent tells of itself.
        component_versions: Number of nodes by the version of the agent as a component.
        late_keepers: Nodes whose keeper has not become the one of the agent's release.
        moved_keepers: Nodes whose keeper has another process id than before.
        moved_services: Nodes whose services have other process ids than before.
    """

    expected_version: str
    versions: Mapping[str, int]
    component_versions: Mapping[str, int]
    late_keepers: Sequence[str]
    moved_keepers: Sequence[str]
    moved_services: Sequence[str]

    def claims(self, nodes: int) -> Mapping[str, bool]:
        """What should have held of so many nodes, each as the sentence to say where it did not."""
        expected = {self.expected_version: nodes}
        return {
            f"agents are {dict(self.versions)}, not {self.expected_version} alone": self.versions == expected,
            f"the agent as a component is {dict(self.component_versions)}, not {self.expected_version} alone": (
                self.component_versions == expected
            ),
            f"services have other process ids on {self.moved_services}": not self.moved_services,
            f"keepers have other process ids on {self.moved_keepers}": not self.moved_keepers,
            f"keepers have not followed their agents on {self.late_keepers}": not self.late_keepers,
        }


@dataclass(frozen=True, slots=True)
class Outage:
    """A kill of the controller in the middle of an upgrade.

    Args:
        seconds: From the kill to the first answer; None where there was nothing to kill it in.
    """

    seconds: float | None

    @property
    def claims(self) -> Mapping[str, bool]:
        """What should have held."""
        return {"the controller was not killed: no node was on its way": self.seconds is not None}


@dataclass(frozen=True, slots=True)
class Report:
    """What one run found.

    Args:
        rollouts: In the order in which they were asked for; the install is the first.
        expected_version: The version of the service that every node should run at the end.
        versions: Number of nodes by the version that they run, by their own word.
        trace: Spans of the last upgrade that should succeed.
        agents: None where they were not upgraded.
        outage: None where the controller was left alone.
    """

    rollouts: Sequence[Ended]
    node_ids: frozenset[str]
    expected_version: str
    versions: Mapping[str, int]
    requests: figures.Figures
    trace: receiver.Trace
    agents: Agents | None
    outage: Outage | None
    seconds: float

    @property
    def faults(self) -> tuple[str, ...]:
        """Each thing that should have held and did not, as a sentence."""
        wrong_states = [
            f"rollout {ended.rollout.name} ended {_state(ended.rollout.state)}, not {_state(ended.expected)}"
            for ended in self.rollouts
            if not ended.is_as_expected
        ]
        claims = {
            f"nodes run {dict(self.versions)}, not {self.expected_version} alone": (
                self.versions == {self.expected_version: len(self.node_ids)}
            ),
            f"{self.requests.failed} requests failed: {dict(self.requests.failures)}": self.requests.failed == 0,
            "no request fell between activate and drained": self.requests.during_swap > 0,
            f"the trace has {len(self.trace.roots)} roots, not one": len(self.trace.roots) == 1,
            f"the trace has {len(self.trace.orphans)} orphans": not self.trace.orphans,
            f"the trace lacks nodes {sorted(self.node_ids - self.trace.node_ids)}": (
                self.node_ids <= self.trace.node_ids
            ),
            **(self.agents.claims(len(self.node_ids)) if self.agents else {}),
            **(self.outage.claims if self.outage else {}),
        }
        return (*wrong_states, *(text for text, held in claims.items() if not held))

    def as_json(self) -> str:
        """One JSON document."""
        return json.dumps(
            {
                "rollouts": [_rollout(ended.rollout) for ended in self.rollouts],
                "rollout": _rollout(self.rollouts[-1].rollout),
                "nodes": len(self.node_ids),
                "versions": dict(self.versions),
                **(_agents(self.agents) if self.agents else {}),
                **({"controller_away_seconds": _rounded(self.outage)} if self.outage else {}),
                "requests": {
                    "total": self.requests.total,
                    "failed": self.requests.failed,
                    "failures": dict(self.requests.failures),
                    "by_version": dict(self.requests.by_version),
                    "during_swap": self.requests.during_swap,
                    "p50_ms": self.requests.p50_ms,
                    "p99_ms": self.requests.p99_ms,
                    "p99_ms_during_swap": self.requests.p99_ms_during_swap,
                },
                "trace": {
                    "trace_id": self.trace.trace_id,
                    "spans": len(self.trace.spans),
                    "roots": len(self.trace.roots),
                    "orphans": len(self.trace.orphans),
                    "nodes": sorted(self.trace.node_ids),
                },
                "seconds": round(self.seconds, 1),
            }
        )

    def as_text(self) -> str:
        """A few lines for people."""
        requests, trace = self.requests, self.trace
        answers = ", ".join(f"{version}: {number}" for version, number in requests.by_version.items())
        lines = [
            *(f"rollout      {ended.rollout.name} {_state(ended.rollout.state)}" for ended in self.rollouts),
            f"nodes        {_numbers(self.versions)}",
            *(_agent_lines(self.agents) if self.agents else ()),
            *([f"controller   killed, away for {_rounded(self.outage)} s"] if self.outage else ()),
            f"requests     {requests.total}, {requests.failed} failed",
            f"in the swap  {requests.during_swap} requests between activate and drained",
            f"answered by  {answers}",
            f"latency      p50 {requests.p50_ms} ms, p99 {requests.p99_ms} ms",
            f"             p99 in the swap {requests.p99_ms_during_swap} ms",
            f"trace        {trace.trace_id}",
            f"spans        {len(trace.spans)}: {len(trace.roots)} root, {len(trace.orphans)} orphans",
            f"took         {self.seconds:.1f} s",
        ]
        return "\n".join(lines)


def progress(rollout: rollout_pb2.Rollout) -> str:
    """One line on how far a rollout is."""
    done = sum(change.state == operation_pb2.OPERATION_STATE_PERMANENT for change in rollout.changes)
    line = (
        f"{rollout.name}: {_state(rollout.state)}, wave {rollout.wave} of {len(rollout.plan.waves)}, "
        f"{done} of {len(rollout.changes)} nodes done"
    )
    return f"{line}: {rollout.message}" if rollout.message else line


def _agents(agents: Agents) -> Mapping[str, Mapping[str, int] | bool]:
    return {
        "agents": dict(agents.versions),
        "components_kept_pids": not agents.moved_services,
        "keepers_kept_pids": not agents.moved_keepers,
    }


def _agent_lines(agents: Agents) -> Sequence[str]:
    return (
        f"agents       {_numbers(agents.versions)}",
        f"process ids  services {_kept(agents.moved_services)}, keepers {_kept(agents.moved_keepers)}",
    )


def _rounded(outage: Outage) -> float | None:
    return None if outage.seconds is None else round(outage.seconds, 1)


def _kept(moved: Sequence[str]) -> str:
    return f"moved on {', '.join(moved)}" if moved else "kept theirs"


def _numbers(versions: Mapping[str, int]) -> str:
    return ", ".join(f"{number} on {version}" for version, number in versions.items())


def _rollout(rollout: rollout_pb2.Rollout) -> Mapping[str, str | int]:
    return {
        "name": rollout.name,
        "state": _state(rollout.state),
        "strategy": rollout_pb2.Strategy.Name(rollout.request.strategy).removeprefix("STRATEGY_"),
        "waves": len(rollout.plan.waves),
    }


def _state(state: rollout_pb2.RolloutState.ValueType) -> str:
    return rollout_pb2.RolloutState.Name(state).removeprefix("ROLLOUT_STATE_")
