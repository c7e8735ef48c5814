"""Runs the verifier of bundles as a disposable child with bounds on memory, time, descriptors and output.

Rules kept here: the command is fixed, only the digest is chosen by the caller; the answer comes when the child has
ended, or has been ended. Left out: what a good bundle is (`agent.verifier`).
"""

import os
import resource
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from agent.keeper import errors, fields, loop, places, processes, spawn

MEMORY_MAX_BYTES = 512 << 20  # of address space; the guarantee on resident memory is the verifier's own
PROCESSOR_MAX_SECONDS = 120
WALL_MAX_SECONDS = 130.0  # over the processor time, for a slow disk
DESCRIPTORS_MAX = 256
OUTPUT_MAX_BYTES = 64 << 10  # a manifest as JSON is a few KiB
READ_BYTES = 16 << 10
LIMITS = (
    (resource.RLIMIT_AS, MEMORY_MAX_BYTES),
    (resource.RLIMIT_CPU, PROCESSOR_MAX_SECONDS),
    (resource.RLIMIT_NOFILE, DESCRIPTORS_MAX),
    (resource.RLIMIT_CORE, 0),
)

OnDone = Callable[["fields.Body | errors.RequestError"], None]


@dataclass(slots=True)
class _Run:
    spawned: spawn.Spawned
    output: int
    limit: loop.Timer
    on_done: OnDone
    text: bytearray = field(default_factory=bytearray)


def verify(on: loop.Loop, where: places.Places, digest: str, on_done: OnDone) -> None:
    """Verify the fetched bundle of this digest; answers {exit_code, output}.

    Raises:
        errors.RequestError: verify_failed, when the child cannot be started.
    """
    output, writer = os.pipe2(os.O_CLOEXEC)
    try:
        os.set_blocking(output, False)
        spawned = spawn.spawn(_program(where, digest, writer))
    except OSError as error:
        os.close(output)
        raise errors.RequestError("verify_failed", f"cannot start the verifier: {error}") from error
    finally:
        os.close(writer)
    limit = on.call_later(WALL_MAX_SECONDS, lambda: processes.signal_group(spawned.pid, signal.SIGKILL))
    run = _Run(spawned, output, limit, on_done)
    on.watch(output, loop.READ, lambda _: _on_output(on, run))
    on.watch(spawned.pidfd, loop.READ, lambda _: _on_exit(on, run))


def _program(where: places.Places, digest: str, writer: int) -> spawn.Program:
    return spawn.Program(
        argv=[sys.executable, "-m", "agent.verifier", str(where.state), digest.removeprefix("sha256:")],
        environment={**os.environ, "PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        directory=where.state,
        output=writer,
        limits=LIMITS,
    )


def _on_output(on: loop.Loop, run: _Run) -> None:
    if not _read(run):
        on.unwatch(run.output)
    elif len(run.text) > OUTPUT_MAX_BYTES:
        on.unwatch(run.output)
        processes.signal_group(run.spawned.pid, signal.SIGKILL)


def _read(run: _Run) -> bool:
    """Read what is there; False at the end, or when there is nothing."""
    try:
        chunk = os.read(run.output, READ_BYTES)
    except BlockingIOError:
        return False
    run.text += chunk
    return bool(chunk)


def _on_exit(on: loop.Loop, run: _Run) -> None:
    on.unwatch(run.spawned.pidfd)
    on.unwatch(run.output)
    run.limit.cancel()
    while len(run.text) <= OUTPUT_MAX_BYTES and _read(run):
        pass
    refusal = spawn.read_report(run.spawned.report)
    ended = processes.reap(run.spawned.pidfd)
    processes.signal_group(run.spawned.pid, signal.SIGKILL)
    for descriptor in (run.output, run.spawned.report, run.spawned.pidfd):
        os.close(descriptor)
    if refusal is not None:
        run.on_done(errors.RequestError("verify_failed", refusal.message))
    elif len(run.text) > OUTPUT_MAX_BYTES:
        rule = f"it printed more than {OUTPUT_MAX_BYTES} bytes"
        run.on_done(errors.RequestError("verify_failed", f"cannot take the verifier's answer: {rule}"))
    else:
        run.on_done({"exit_code": ended.code, "output": run.text.decode(errors="replace")})
