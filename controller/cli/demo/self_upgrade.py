"""The agents' own upgrade under load, and what of each node must not have moved meanwhile.

Rules kept: what runs is told by each node's keeper, the versions by the controller, as `instar node list` shows them;
the keepers have become those of the new release, too, before anybody looks. Left out: the load, which goes on outside.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta

from controller.cli.demo import agent_bundles, api, keeper_socket, process, report, stage
from instar.v1 import node_pb2, rollout_pb2

SOAK = timedelta(seconds=1)  # an agent that is connected and acknowledged has nothing more to show
KEEPERS_SECONDS = 60.0  # for the keepers to follow their agents: these look every few seconds


def steps(strategy: rollout_pb2.Strategy.ValueType) -> Sequence[stage.Step]:
    """The rollouts: the version that runs anyway, as a release, and then the next one."""
    first = agent_bundles.installed()
    return (
        stage.Step(first, strategy, SOAK, SOAK, is_install=True),
        stage.Step(agent_bundles.after(first), strategy, SOAK, SOAK),
    )


async def trees(made: stage.Stage) -> Mapping[str, keeper_socket.Tree]:
    """The processes of each node."""
    return {node.id: (await node.look()).tree for node in made.nodes}


async def outcome(made: stage.Stage, version: str, before: Mapping[str, keeper_socket.Tree]) -> report.Agents:
    """What has become of agents, keepers and services.

    Args:
        made: What runs.
        version: What every agent should be.
        before: The processes of each node before the first step.
    """
    with contextlib.suppress(process.ProcessError):
        await process.until("the keepers follow", lambda: _have_followed(made), seconds=KEEPERS_SECONDS)
    nodes = await api.nodes(made.link)
    after = await trees(made)
    return report.Agents(
        expected_version=version,
        versions=Counter(node.agent_version for node in nodes),
        component_versions=Counter(own.version for node in nodes for own in _own(node)),
        late_keepers=await _late_keepers(made),
        moved_keepers=[node for node, tree in before.items() if after[node].keeper_pid != tree.keeper_pid],
        moved_services=[node for node, tree in before.items() if after[node].services != tree.services],
    )


async def _have_followed(made: stage.Stage) -> bool:
    return not await _late_keepers(made)


async def _late_keepers(made: stage.Stage) -> Sequence[str]:
    """The nodes whose keeper is not of the release that their agent is permanently of."""
    permanent = {node.node_id: own.permanent_digest for node in await api.nodes(made.link) for own in _own(node)}
    return [node.id for node in made.nodes if (await node.look()).keeper_digest != permanent.get(node.id)]


def _own(node: node_pb2.Node) -> Sequence[node_pb2.ComponentStatus]:
    return [component for component in node.components if component.name == agent_bundles.COMPONENT]
