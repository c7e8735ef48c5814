"""Starts programs: fork, check, exec.

Rules kept here: a program leads its own session and process group, so that nothing which ends the keeper ends it; it
gets exactly the descriptors meant for it, from 3 on; what must be checked before it runs is checked in the child, so
that reading a large release holds nothing up, and nothing can change between the check and the exec but by its owner.
The outcome of check and exec comes through a pipe: nothing means success. Left out: who waits for the exit.
"""

import contextlib
import fcntl
import os
import resource
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.keeper import errors

FIRST_DESCRIPTOR = 3  # of sd_listen_fds(3)
PARK_FROM = 256  # descriptors are parked above the targets before they are put in place
EXEC_FAILED = 127  # as shells say it
REPORT_MAX_BYTES = 4096  # of the pipe through which the child reports; one atomic write


@dataclass(frozen=True, slots=True)
class Program:
    """What to start.

    Args:
        output: Descriptor for standard output; None inherits the keeper's.
        errors: Descriptor for standard error; None inherits the keeper's.
        descriptors: They become 3, 4, 5 and so on.
        limits: Pairs of a resource of `resource` and its limit.
        check: Called in the child before the exec; what it raises is reported and nothing runs.
    """

    argv: Sequence[str]
    environment: Mapping[str, str]
    directory: Path
    output: int | None = None
    errors: int | None = None
    descriptors: Sequence[int] = ()
    limits: Sequence[tuple[int, int]] = ()
    check: Callable[[], None] | None = None


@dataclass(frozen=True, slots=True)
class Spawned:
    """A started child; the caller owns both descriptors."""

    pid: int
    pidfd: int
    report: int


def spawn(program: Program) -> Spawned:
    """Fork; the child checks and executes.

    Raises:
        OSError: The keeper is out of descriptors or processes.
    """
    report, report_writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        pid = os.fork()
    except OSError:
        os.close(report)
        os.close(report_writer)
        raise
    if pid == 0:
        _become(program, report_writer)
    os.close(report_writer)
    return Spawned(pid, os.pidfd_open(pid), report)


def read_report(report: int) -> errors.RequestError | None:
    """Read how check and exec went, when the pipe is readable; None means that the program runs."""
    text = os.read(report, REPORT_MAX_BYTES).decode(errors="replace")
    if not text:
        return None
    code, _, message = text.partition("\n")
    return errors.RequestError(code, message)


def _become(program: Program, report: int) -> None:
    """Run in the child; never returns."""
    try:
        _detach()
        report = fcntl.fcntl(report, fcntl.F_DUPFD_CLOEXEC, PARK_FROM)
        _place_descriptors(program)
        for number, limit in program.limits:
            resource.setrlimit(number, (limit, limit))
        if program.check is not None:
            program.check()
        os.chdir(program.directory)
        own = {"LISTEN_PID": str(os.getpid())} if program.descriptors else {}
        os.execvpe(program.argv[0], list(program.argv), {**program.environment, **own})
    except errors.RequestError as error:
        _report(report, error.code, error.message)
    except BaseException as error:  # noqa: BLE001  # the child must end here whatever happens
        _report(report, "start_failed", f"cannot start {program.argv[0]}: {error}")
    finally:
        os._exit(EXEC_FAILED)


def _detach() -> None:
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    os.setsid()


def _place_descriptors(program: Program) -> None:
    parked = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, PARK_FROM) for descriptor in program.descriptors]
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    if program.output is not None:
        os.dup2(program.output, 1)
    if program.errors is not None:
        os.dup2(program.errors, 2)
    for index, descriptor in enumerate(parked):
        os.dup2(descriptor, FIRST_DESCRIPTOR + index)


def _report(report: int, code: str, message: str) -> None:
    with contextlib.suppress(OSError):
        os.write(report, f"{code}\n{message}".encode(errors="replace")[:REPORT_MAX_BYTES])
