"""Lets the keeper become the one of the agent's release, once that is permanent.

Rules kept here: only what has passed its bake becomes the keeper; a release that the keeper has refused is not tried
again in this life of the agent; a keeper that is busy is asked again. Components notice nothing of it. Left out: how it
is done (`agent.keeper.succession`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Never

from agent import depot, journal, processes
from agent.drivers import agent as agent_driver
from agent.processes import agents

LOOK_SECONDS = 5.0  # between two looks; the keeper changes about once a year

_logger = logging.getLogger(__name__)


async def keep_up(keeper: processes.Keeper, disk: depot.Depot, is_settled: Callable[[], bool]) -> Never:
    """Replace the keeper whenever it is not the one of the permanent release, and that is what this agent runs.

    Args:
        keeper: Who is replaced.
        disk: Knows the pointers.
        is_settled: Whether no operation on the agent itself owes anything.
    """
    refused = ""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        pointers = disk.pointers(agent_driver.COMPONENT)
        if pointers is not None and pointers.current == pointers.permanent != refused and is_settled():
            refused = await _replace(keeper, disk, pointers.permanent)


async def _replace(keeper: processes.Keeper, disk: depot.Depot, digest: str) -> str:
    """Replace the keeper; returns the digest if it is not to be tried again."""
    try:
        is_run = any(seen.digest == digest and seen.role is agents.Role.MAIN for seen in await keeper.agents())
        if not is_run or (await keeper.inspect()).keeper_digest == digest:
            return ""
        await keeper.replace(digest, disk.release_dir(digest))
    except processes.KeeperError as error:
        _logger.warning("the keeper was not replaced: %s", error, extra={"digest": digest})
        return "" if error.code in {"busy", "keeper_gone"} else digest
    _logger.info("the keeper was replaced", extra={"digest": digest})
    return ""


def has_settled(records: journal.Journal) -> bool:
    """Whether no operation on the agent itself owes anything."""
    histories = (history for history in records.operations if not history.is_terminal)
    return all(h.latest.operation.assignment.component != agent_driver.COMPONENT for h in histories)
