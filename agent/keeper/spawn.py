"""Starts programs: fork, check, exec.

Rules kept here: a program leads its own session and process group, so that nothing which ends the keeper ends it; it
gets exactly the descriptors meant for it, from 3 on, and the child lets go of all others before anything else, so that
the sockets of a keeper that is killed close with it; what must be checked before it runs is checked in the child, so
that reading a large release holds nothing up, and nothing can change between the check and the exec but by its owner.
The outcome of check and exec comes through a pipe, which the exec closes. Left out: who waits for the exit.
"""

import contextlib
import fcntl
import os
import resource
import signal
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.keeper import errors

FIRST_DESCRIPTOR = 3  # of sd_listen_fds(3)
PARK_FROM = 256  # descriptors are parked above the targets before they are put in place
EXEC_FAILED = 127  # as shells say it
REPORT_MAX_BYTES = 4096  # of the pipe through which the child reports; each of its writes is atomic
PASSED = b"passed\n"  # in a report: the check is over; what ended without it was killed before


@dataclass(frozen=True, slots=True)
class Program:
    """What to start.

    Args:
        argv: Empty where the check alone is what the child is for.
        output: Descriptor for standard output; None inherits the keeper's.
        errors: Descriptor for standard error; None inherits the keeper's.
        descriptors: They become 3, 4, 5 and so on.
        limits: Pairs of a resource of `resource` and its limit.
        check: Called in the child before the exec; what it returns is added to the environment, what it raises is
            reported and nothing runs.
    """

    argv: Sequence[str]
    environment: Mapping[str, str]
    directory: Path
    output: int | None = None
    errors: int | None = None
    descriptors: Sequence[int] = ()
    limits: Sequence[tuple[int, int]] = ()
    check: Callable[[], Mapping[str, str]] | None = None


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


@dataclass(frozen=True, slots=True)
class Report:
    """How check and exec went, once the pipe is closed.

    Args:
        has_passed: The check has; False for a child that was killed before.
        refusal: Why nothing runs; None where the program runs, or the child was killed.
    """

    has_passed: bool
    refusal: errors.RequestError | None


def read_report(told: bytes) -> Report:
    """Read all that came through the pipe."""
    code, _, message = told.removeprefix(PASSED).decode(errors="replace").partition("\n")
    return Report(told.startswith(PASSED), errors.RequestError(code, message) if code else None)


def take_report(report: int) -> Report:
    """Read the pipe of a child that has ended, and close it."""
    with os.fdopen(report, "rb", buffering=0) as pipe:
        return read_report(pipe.read(REPORT_MAX_BYTES) or b"")


def _become(program: Program, report: int) -> None:
    """Run in the child; never returns."""
    try:
        signal.set_wakeup_fd(-1)
        close_others({report, *program.descriptors, *filter(None, (program.output, program.errors))})
        _detach()
        report = fcntl.fcntl(report, fcntl.F_DUPFD_CLOEXEC, PARK_FROM)
        _place_descriptors(program)
        for number, limit in program.limits:
            resource.setrlimit(number, (limit, limit))
        os.chdir(program.directory)
        found = {} if program.check is None else program.check()
        os.write(report, PASSED)
        if not program.argv:
            os._exit(0)
        own = {"LISTEN_PID": str(os.getpid())} if program.descriptors else {}
        os.execvpe(program.argv[0], list(program.argv), {**program.environment, **found, **own})
    except errors.RequestError as error:
        _report(report, error.code, error.message)
    except BaseException as error:  # noqa: BLE001  # the child must end here whatever happens
        _report(report, "start_failed", f"cannot start {' '.join(program.argv[:1])}: {error}")
    finally:
        os._exit(EXEC_FAILED)


def close_others(kept: Collection[int]) -> None:
    """Close every descriptor but these and the standard ones; for a child that has just been forked."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208  # numbers
        if int(name) >= FIRST_DESCRIPTOR and int(name) not in kept:
            with contextlib.suppress(OSError):  # the one by which they were listed is closed already
                os.close(int(name))


def _detach() -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ):
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
