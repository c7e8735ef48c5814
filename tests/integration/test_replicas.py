"""Controllers that share a database, with a pooler before it: whoever dies or stands still, the rollout goes on."""

from __future__ import annotations

import contextlib
import functools
import signal

import pytest

from controller.cli.demo import api, bundles, process
from instar.v1 import operation_pb2, rollout_pb2
from tests import pooling, postgresql
from tests.integration import replicas
from tests.integration import stage as stages


def is_in_wave(rollout: rollout_pb2.Rollout, wave: int) -> bool:
    return any(
        change.wave == wave
        and change.step == operation_pb2.STEP_SOAK
        and change.state == operation_pb2.OPERATION_STATE_RUNNING
        for change in rollout.changes
    )


@pooling.needed
@pytest.mark.slow
async def test_a_rollout_outlives_who_leads_it_whether_killed_or_standing_still_and_a_restart_of_the_database() -> None:
    with contextlib.ExitStack() as opened:
        cluster = opened.enter_context(contextlib.closing(postgresql.Cluster()))
        where = cluster.make()
        between = opened.enter_context(pooling.before(cluster))
        pooled = cluster.at(where.shown.rpartition("/")[2], port=between)
        async with stages.up(nodes=3, made=functools.partial(replicas.Replicas, where=pooled)) as stage:
            both = stage.controller
            assert isinstance(both, replicas.Replicas)
            rollout = await stage.start_upgrade(bundles.NEXT, rollout_pb2.STRATEGY_CANARY)

            await stage.seen(rollout, functools.partial(is_in_wave, wave=1))
            term = both.term()
            await both.leader.kill()
            await both.until_led_after(term)
            await both.start_missing()

            await stage.seen(rollout, functools.partial(is_in_wave, wave=2))
            term, halted = both.term(), both.leader
            halted.send(signal.SIGSTOP)
            await both.until_led_after(term)
            halted.send(signal.SIGCONT)

            async def has_noticed() -> bool:
                return "stands by again" in both.said(halted)

            await process.until("who stood still stands by", has_noticed, seconds=stages.WAIT_SECONDS)
            assert both.leader is not halted
            cluster.stop(signal.SIGQUIT)
            cluster.start()

            ended = await stage.end_of(rollout)
            await both.until_answered()
            nodes = await api.nodes(stage.link)
            requests = await stage.requests()
            given = postgresql.execute(where, "SELECT node_id, count(*) FROM assignments GROUP BY 1 ORDER BY 1")

    assert ended.state == rollout_pb2.ROLLOUT_STATE_SUCCEEDED
    assert [change.attempt for change in ended.changes] == [1, 1, 1]
    assert given == [("n0", 2), ("n1", 2), ("n2", 2)]  # one for the install, one for the upgrade
    assert [node.fence for node in nodes] == [2, 2, 2]
    assert {component.version for node in nodes for component in node.components} == {"1.1.0"}
    assert not stages.lost(requests)
