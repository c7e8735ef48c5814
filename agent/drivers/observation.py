"""One look at a new instance by what it, or the keeper, says of it."""

from __future__ import annotations

from dataclasses import replace

from agent import drivers, processes
from agent.drivers import instances


async def observe(on: instances.Instances, change: drivers.Change) -> drivers.Observation:
    """Ask the new instance where it stands and what it served; one that is too busy to answer is still there."""
    instance_id = instances.new_of(change).instance_id
    seen = await on.find(instance_id)
    if seen is None or seen.pid == 0 or seen.state is processes.InstanceState.EXITED:
        return drivers.Observation(None, instances.death(instance_id, seen))
    try:
        answer = await on.keeper.say(instance_id, processes.Word.STATUS, instances.WORD_TIMEOUT)
    except processes.KeeperError as error:
        if error.code in instances.GONE:
            return drivers.Observation(None, error.message)
        return drivers.Observation(instances.instance_of(seen))  # its health probe will tell
    state = instances.STATES[answer.state]
    return drivers.Observation(replace(instances.instance_of(seen), state=state, served=answer.served))
