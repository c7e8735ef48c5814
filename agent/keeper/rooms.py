"""All rooms of one keeper, as its verbs need them."""

from dataclasses import dataclass

from agent.keeper import disposable, holds, instances, listeners, logs, loop, marks, places, tasks


@dataclass(frozen=True, slots=True)
class Rooms:
    """What a verb may use."""

    loop: loop.Loop
    where: places.Places
    held: listeners.Listeners
    live: instances.Instances
    marked: marks.Marks
    holds: holds.Holds
    logs: logs.Logs
    children: disposable.Disposables
    tasks: tasks.Tasks
