"""Runs a command of a release once, to its end: a probe, a check, a migration.

Rules kept here: what a task starts ends with it; it gets what an instance of its component gets, save sockets; its
secrets go when it has ended; one that is repeated is content with a check of its release in the last minute. Left out:
what the commands are for.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

from agent.keeper import (
    cgroups,
    disposable,
    entry,
    errors,
    fields,
    lives,
    loop,
    places,
    sources,
    spawn,
    specification,
)

TASKS_MAX = 16  # at once; a node has a probe or two for each component
OUTPUT_MAX_BYTES = 16 << 10

OnDone = Callable[["fields.Body | errors.RequestError"], None]


@dataclass(frozen=True, slots=True)
class Task:
    """A command, and the time that it has.

    Args:
        is_repeated: It is run again and again, as a probe is.
    """

    source: sources.Source
    timeout_seconds: float
    is_repeated: bool


def read(body: fields.Body) -> Task:
    """Read what the agent asks to be run.

    Raises:
        errors.RequestError: invalid_request.
    """
    is_repeated = fields.truth({"is_repeated": False, **body}, "is_repeated")
    return Task(sources.read(body), fields.seconds(body, "timeout_seconds"), is_repeated)


class Tasks:
    """All tasks that run."""

    def __init__(
        self, on: loop.Loop, where: places.Places, children: disposable.Disposables, living: lives.Lives
    ) -> None:
        self._loop = on
        self._where = where
        self._children = children
        self._lives = living
        self._numbers = itertools.count(1)
        self._running: set[str] = set()

    def run(self, task: Task, on_done: OnDone) -> None:
        """Run it; answers {exit_code, signal, is_timeout, output}.

        Raises:
            errors.RequestError: It cannot be started.
        """
        if len(self._running) >= TASKS_MAX:
            raise errors.RequestError("too_many", f"cannot run a task: {TASKS_MAX} run already")
        task_id, now = f"task-{next(self._numbers)}", self._loop.now()
        is_checked = task.is_repeated and self._lives.checked.is_fresh(task.source, now)
        cgroup = self._lives.cgroups.make(task_id)
        bounds = disposable.Bounds(task.timeout_seconds, OUTPUT_MAX_BYTES, is_tail=True)

        def on_end(end: disposable.End) -> None:
            if not is_checked and (end.report.has_passed or end.report.refusal is not None):
                self._lives.checked.note(task.source, now, end.report.refusal)
            self._on_end(task_id, end, on_done)

        try:
            entered = entry.Entry(self._where, task_id, task.source, cgroup, is_checked)
            self._children.run(self._program(task, task_id, entered), bounds, on_end, cgroup)
        except OSError as error:
            cgroups.remove(cgroup)
            raise errors.RequestError("run_failed", f"cannot run a task: {error}") from error
        except errors.RequestError:
            cgroups.remove(cgroup)
            raise
        self._running.add(task_id)

    def _program(self, task: Task, task_id: str, entered: entry.Entry) -> spawn.Program:
        return spawn.Program(
            argv=sources.argv(task.source, self._where),
            environment=specification.environment(task.source, self._where, task_id),
            directory=sources.release(task.source.release_dir, self._where),
            errors=0,  # to be taken too
            check=entered.enter,
        )

    def _on_end(self, task_id: str, end: disposable.End, on_done: OnDone) -> None:
        self._running.discard(task_id)
        places.remove_tree(self._where.credentials(task_id))
        if end.report.refusal is not None:
            on_done(end.report.refusal)
        else:
            on_done(
                {
                    "exit_code": end.exit.code,
                    "signal": end.exit.signal,
                    "is_timeout": end.is_timeout,
                    "output": end.output,
                }
            )
