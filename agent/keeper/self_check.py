"""Runs a new release of our own code for a moment, to see whether it is fit to be tried.

Rules kept here: the child ends within a bound, and everything that it started with it. Left out: what it checks, which
is its own business.
"""

import functools
import resource
from collections.abc import Callable
from dataclasses import replace

from agent.keeper import disposable, errors, spawn

OUTPUT_MAX_BYTES = 16 << 10  # the end of a traceback
LIMITS = ((resource.RLIMIT_CORE, 0),)

OnDone = Callable[[int | None, str], None]


def run(children: disposable.Disposables, program: spawn.Program, timeout_seconds: float, on_done: OnDone) -> None:
    """Run a program; called back with its exit code, None where a signal ended it, and the end of its output.

    Raises:
        errors.RequestError: check_failed, when it cannot be started.
    """
    bounds = disposable.Bounds(timeout_seconds, OUTPUT_MAX_BYTES, is_tail=True)
    bounded = replace(program, errors=0, limits=LIMITS)  # errors: any but none, to be taken
    try:
        children.run(bounded, bounds, functools.partial(_on_end, on_done))
    except OSError as error:
        raise errors.RequestError("check_failed", f"cannot start a check: {error}") from error


def _on_end(on_done: OnDone, end: disposable.End) -> None:
    refusal = end.report.refusal
    said = refusal.message if refusal is not None else end.output
    on_done(end.exit.code, f"{said}\nit took too long" if end.is_timeout else said)
