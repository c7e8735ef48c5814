"""A controller with every online key in its hands has a node install what nobody signed: the node does not."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import psutil
from tuf.api.metadata import Metadata

from instar.v1 import operation_pb2
from tests.agent.keeper import load
from tests.security import controller, repository

GOOD = controller.web("1.1.0")
AGENT_KIB_MAX = 45 * 1024  # G12
NEVER_THERE = re.compile(r"cryptography|_rust\.abi3|/tuf/|securesystemslib|libcrypto")


@dataclass(frozen=True)
class Siege:
    """A node that serves 1.1.0 under load, who leads it, and all keys."""

    leader: controller.Controller
    node: controller.Node
    signed: repository.Repository
    seen: load.Load
    digest: str

    async def refused(self, version: str, data: bytes, component: str = "web") -> tuple[str, int]:
        """Order an installation; returns code and fault of the refusal."""
        old = self.digest if component == "web" else ""
        ordered = self.leader.order(version, self.leader.publish(data), old, component)
        ended = await self.leader.ended(ordered)
        assert ended.state in (operation_pb2.OPERATION_STATE_ABORTED, operation_pb2.OPERATION_STATE_REFUSED)
        assert ended.message.startswith("cannot ")
        assert f'"reason": "{ended.reason}"' in self.node.log.read_text()
        return ended.reason, ended.fault

    def serve(self, component: str = "web") -> None:
        self.leader.metadata = self.signed.served(component)


@asynccontextmanager
async def siege() -> AsyncIterator[Siege]:
    """What serves serves on: each request is answered by 1.1.0, whatever was tried."""
    signed = repository.Repository("web", "db")
    signed.release("web", "1.1.0", GOOD, floor="1.0.0")
    async with controller.leading(signed.root) as (leader, node):
        digest = leader.publish(GOOD)
        leader.metadata = signed.served("web")
        ended = await leader.ended(leader.order("1.1.0", digest))
        assert ended.state == operation_pb2.OPERATION_STATE_PERMANENT, ended
        async with load.on(node.keeper.address) as seen:
            await seen.until_served("1.1.0", 20)
            yield Siege(leader, node, signed, seen, digest)
            await seen.until_served("1.1.0", 20)
        assert seen.failures == []
        assert set(seen.by_version) == {"1.1.0"}
        assert await node.versions() == ["1.1.0"]
        assert leader.components["web"].digest == digest
        assert leader.conditions == set()


COMMAND, INFRASTRUCTURE = operation_pb2.FAULT_COMMAND, operation_pb2.FAULT_INFRASTRUCTURE


async def test_what_nobody_signed_is_refused() -> None:
    async with siege() as at:
        evil = controller.web("1.2.0")
        assert await at.refused("1.2.0", evil) == ("release_unsigned", COMMAND)
        assert await at.refused("1.1.0", controller.web("1.1.0", environment='EVIL = "1"')) == (
            "digest_mismatch",
            COMMAND,
        )
        online = [signer for role in repository.ONLINE for signer in at.signed.signers[role]]
        at.signed.add("web", "1.2.0", evil)
        at.signed.commit("web", by=online)
        at.signed.refresh()
        at.serve()
        assert await at.refused("1.2.0", evil) == ("metadata_unsigned", INFRASTRUCTURE)
        at.leader.metadata = {}
        assert await at.refused("1.2.0", evil) == ("metadata_missing", INFRASTRUCTURE)


async def test_nothing_is_asked_of_a_bundle_that_signed_metadata_does_not_name() -> None:
    async with siege() as at:
        asked, served = list(at.leader.offsets), at.leader.bytes_served
        assert served == len(GOOD)
        old, evil = controller.web("0.9.0"), controller.web("1.2.0")
        assert await at.refused("1.2.0", evil) == ("release_unsigned", COMMAND)
        assert await at.refused("1.1.0", evil) == ("digest_mismatch", COMMAND)
        at.signed.release("web", "0.9.0", old)
        at.serve()
        assert await at.refused("0.9.0", old) == ("release_below_floor", COMMAND)
        at.signed.refresh(lifetime=-repository.LIFETIMES["timestamp"])
        at.serve()
        assert await at.refused("1.2.0", evil) == ("metadata_expired", INFRASTRUCTURE)
        at.leader.metadata = {}
        assert await at.refused("1.2.0", evil) == ("metadata_missing", INFRASTRUCTURE)
        assert (at.leader.offsets, at.leader.bytes_served) == (asked, served)


async def test_what_is_signed_below_the_threshold_is_refused() -> None:
    async with siege() as at:
        next_one = controller.web("1.2.0")
        at.signed.add("web", "1.2.0", next_one)
        at.signed.commit("web", by=at.signed.signers["web"][:1])
        at.signed.refresh()
        at.serve()
        assert await at.refused("1.2.0", next_one) == ("metadata_unsigned", INFRASTRUCTURE)
        at.signed.rotate("targets", by=at.signed.signers["root"][:1])
        at.signed.sign("web")
        at.signed.commit("targets")
        at.signed.refresh()
        at.serve()
        assert await at.refused("1.2.0", next_one) == ("metadata_unsigned", INFRASTRUCTURE)


async def test_what_is_older_than_it_may_be_is_refused() -> None:
    async with siege() as at:
        old, withdrawn = controller.web("0.9.0"), controller.web("1.2.0")
        at.signed.add("web", "0.9.0", old)
        at.signed.release("web", "1.2.0", withdrawn)
        replayed = at.signed.served("web")
        at.serve()
        assert await at.refused("0.9.0", old) == ("release_below_floor", COMMAND)
        at.signed.withdraw("web", "1.2.0")
        at.serve()
        assert await at.refused("1.2.0", withdrawn) == ("release_unsigned", COMMAND)
        at.leader.metadata = replayed
        assert await at.refused("1.2.0", withdrawn) == ("metadata_rolled_back", INFRASTRUCTURE)
        at.signed.metadata["web"] = Metadata.from_bytes(replayed[f"{at.signed.version('web') - 1}.web.json"])
        at.signed.refresh()  # the controller vouches for the freshness of the older list
        at.serve()
        assert await at.refused("1.2.0", withdrawn) == ("metadata_rolled_back", INFRASTRUCTURE)


async def test_what_is_signed_as_something_else_is_refused() -> None:
    async with siege() as at:
        database = controller.web("1.2.0", name="db")
        at.signed.add("web", "1.2.0", database, role="db")  # the keys of db say that it is web
        at.signed.release("db", "1.2.0", database)
        at.serve()
        assert await at.refused("1.2.0", database) == ("release_unsigned", COMMAND)
        assert await at.refused("1.1.0", database) == ("digest_mismatch", COMMAND)
        at.signed.release("web", "1.3.0", database)
        at.serve()
        assert await at.refused("1.3.0", database) == ("component_mismatch", COMMAND)


async def test_metadata_of_several_states_and_what_has_expired_is_refused() -> None:
    async with siege() as at:
        next_one = controller.web("1.2.0")
        before = at.signed.served("web")
        at.signed.release("web", "1.2.0", next_one)
        served = at.signed.served("web")
        (old_list,) = [data for name, data in before.items() if name.endswith(".web.json")]
        at.leader.metadata = {**served, f"{at.signed.version('web')}.web.json": old_list}
        assert await at.refused("1.2.0", next_one) == ("metadata_mixed", INFRASTRUCTURE)
        at.leader.metadata = {**served, "../../../agent.toml.json": b""}
        assert await at.refused("1.2.0", next_one) == ("metadata_unusable", INFRASTRUCTURE)
        at.signed.refresh(lifetime=-repository.LIFETIMES["timestamp"])
        at.serve()
        assert await at.refused("1.2.0", next_one) == ("metadata_expired", INFRASTRUCTURE)


async def test_the_agent_has_neither_tuf_nor_cryptography_in_its_process() -> None:
    async with siege() as at:
        assert at.node.keeper.process is not None
        keeper = psutil.Process(at.node.keeper.process.pid)
        (agent,) = [child for child in keeper.children() if "agent.toml" in child.cmdline()[-1]]
        mapped = {each.path for each in agent.memory_maps()}
        assert not [path for path in mapped if NEVER_THERE.search(path)]
        assert agent.memory_info().rss < AGENT_KIB_MAX * 1024


async def test_a_node_that_was_told_nobody_to_trust_installs_and_says_so() -> None:
    async with controller.leading(None) as (leader, node):
        data = controller.web("1.0.0")
        ended = await leader.ended(leader.order("1.0.0", leader.publish(data)))
        assert ended.state == operation_pb2.OPERATION_STATE_PERMANENT
        await controller.until(lambda: leader.conditions == {"trust_not_configured"})
        assert leader.roots_asked == []
        assert await node.versions() == ["1.0.0"]


async def test_a_keeper_from_before_there_were_signatures_lets_nothing_pass() -> None:
    signed, data = repository.Repository("web"), controller.web("1.0.0")
    signed.release("web", "1.0.0", data)
    async with controller.leading(signed.root, is_keeper_told=False) as (leader, node):
        leader.metadata = signed.served("web")
        ended = await leader.ended(leader.order("1.0.0", leader.publish(data)))
        assert (ended.reason, ended.fault) == ("trust_not_checked", INFRASTRUCTURE)
        assert await node.versions() == []


WITHOUT_VOUCH = """
import runpy, sys
from agent.keeper import release_verbs
table = release_verbs.ReleaseVerbs.table.fget
known = lambda verbs: {verb: do for verb, do in table(verbs).items() if verb != "vouch"}
release_verbs.ReleaseVerbs.table = property(known)
sys.argv = sys.argv[sys.argv.index("agent.keeper") :]
runpy.run_module("agent.keeper", run_name="__main__", alter_sys=True)
"""


async def test_under_a_keeper_that_judges_no_bundle_before_it_is_here_it_is_judged_afterwards() -> None:
    signed, data, evil = repository.Repository("web"), controller.web("1.0.0"), controller.web("1.1.0")
    signed.release("web", "1.0.0", data)
    async with controller.leading(signed.root, within=(sys.executable, "-c", WITHOUT_VOUCH)) as (leader, node):
        leader.metadata = signed.served("web")
        ended = await leader.ended(leader.order("1.1.0", leader.publish(evil)))
        assert (ended.reason, ended.fault) == ("release_unsigned", COMMAND)
        assert leader.bytes_served == len(evil)
        ended = await leader.ended(leader.order("1.0.0", leader.publish(data)))
        assert ended.state == operation_pb2.OPERATION_STATE_PERMANENT
        assert await node.versions() == ["1.0.0"]


async def test_a_node_that_cannot_use_its_trust_file_installs_nothing_and_says_so() -> None:
    signed, data = repository.Repository("web"), controller.web("1.0.0")
    signed.release("web", "1.0.0", data)
    async with controller.leading(b"{}") as (leader, node):
        leader.metadata = signed.served("web")
        ended = await leader.ended(leader.order("1.0.0", leader.publish(data)))
        assert (ended.reason, ended.fault) == ("trust_unusable", INFRASTRUCTURE)
        await controller.until(lambda: leader.conditions == {"trust_unusable"})
        assert await node.versions() == []
