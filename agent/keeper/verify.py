"""Runs the verifier of bundles and the stager of releases as disposable children with bounds.

Rules kept here: the commands are fixed, only the release is chosen by the caller; whom a node trusts the keeper's own
configuration says; both run as the agent's user, for they read what nobody has checked yet. Left out: what a good
bundle is (`agent.verifier`), what is staged (`agent.stager`).
"""

import functools
import os
import re
import resource
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agent.keeper import disposable, entry, errors, fields, places, spawn

OUTPUT_MAX_BYTES = 64 << 10  # a manifest as JSON is a few KiB
VERIFY_BOUNDS = disposable.Bounds(130.0, OUTPUT_MAX_BYTES, is_tail=False)  # over the processor time, for a slow disk
VERIFY_LIMITS = (
    (resource.RLIMIT_AS, 512 << 20),  # address space; the guarantee on resident memory is the verifier's own
    (resource.RLIMIT_CPU, 120),
    (resource.RLIMIT_NOFILE, 256),
    (resource.RLIMIT_FSIZE, 1 << 30),  # no file of a release is larger than a bundle may be
    (resource.RLIMIT_CORE, 0),
)
STAGE_BOUNDS = disposable.Bounds(900.0, OUTPUT_MAX_BYTES, is_tail=True)  # large wheels come through slow lines
STAGE_LIMITS = (
    (resource.RLIMIT_CPU, 600),
    (resource.RLIMIT_NOFILE, 4096),  # it unpacks many wheels at once
    (resource.RLIMIT_CORE, 0),
)

VOUCH = "vouch"  # word of the verifier for what is judged before it is fetched
NAME = re.compile(r"|[a-z0-9][a-z0-9.-]{0,59}")  # of a component
VERSION = re.compile(r"[0-9A-Za-z.+-]{0,255}")

OnDone = Callable[["fields.Body | errors.RequestError"], None]


@dataclass(frozen=True, slots=True)
class Release:
    """A release that is to be verified.

    Args:
        component: What it must be a release of; empty, as version is, from agents that do not say.
    """

    digest: str
    component: str
    version: str


def read(body: fields.Body) -> Release:
    """Read which release a request means.

    Raises:
        errors.RequestError: invalid_request.
    """
    component, version = fields.text(body, "component"), fields.text(body, "version")
    for name, value, form in (("component", component, NAME), ("version", version, VERSION)):
        if not form.fullmatch(value):
            raise fields.refuse(name, value, f"it must match {form.pattern}")
    return Release(fields.digest(body, "digest"), component, version)


def verify(children: disposable.Disposables, where: places.Places, asked: Release, on_done: OnDone) -> None:
    """Verify the fetched bundle of a release; answers {exit_code, output}.

    Raises:
        errors.RequestError: verify_failed, when the child cannot be started.
    """
    _ask_verifier(children, where, (), asked, on_done)


def vouch(children: disposable.Disposables, where: places.Places, asked: Release, on_done: OnDone) -> None:
    """Judge a release by signed metadata alone, before its bundle is fetched; answers and raises as `verify` does."""
    _ask_verifier(children, where, (VOUCH,), asked, on_done)


def _ask_verifier(
    children: disposable.Disposables, where: places.Places, words: Sequence[str], asked: Release, on_done: OnDone
) -> None:
    told = [] if where.config is None else [str(where.config), asked.component, asked.version]
    argv = ["-m", "agent.verifier", *words, str(where.state), asked.digest.removeprefix("sha256:"), *told]
    program = _program(where, argv, VERIFY_LIMITS)
    _run(children, program, VERIFY_BOUNDS, functools.partial(_answer, "verify_failed", on_done), "verify_failed")


def stage(children: disposable.Disposables, where: places.Places, digest: str, on_done: OnDone) -> None:
    """Stage the unpacked release of this digest; answers {exit_code, output}.

    Raises:
        errors.RequestError: stage_failed, when the child cannot be started.
    """
    config = [] if where.config is None else [str(where.config)]
    argv = ["-m", "agent.stager", str(where.state), digest.removeprefix("sha256:"), *config]
    program = _program(where, argv, STAGE_LIMITS)
    _run(children, program, STAGE_BOUNDS, functools.partial(_answer, "stage_failed", on_done), "stage_failed")


def _program(where: places.Places, argv: Sequence[str], limits: Sequence[tuple[int, int]]) -> spawn.Program:
    return spawn.Program(
        argv=[sys.executable, *argv],
        environment={**os.environ, "PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        directory=where.state,
        limits=limits,
        check=functools.partial(entry.become_agent, where.config),
    )


def _run(
    children: disposable.Disposables,
    program: spawn.Program,
    bounds: disposable.Bounds,
    on_end: Callable[[disposable.End], None],
    code: str,
) -> None:
    module = program.argv[2]
    try:
        children.run(program, bounds, on_end)
    except OSError as error:
        raise errors.RequestError(code, f"cannot start {module}: {error}") from error


def _answer(code: str, on_done: OnDone, end: disposable.End) -> None:
    if end.report.refusal is not None:
        on_done(errors.RequestError(code, end.report.refusal.message))
    elif end.is_too_long:
        rule = f"it printed more than {OUTPUT_MAX_BYTES} bytes"
        on_done(errors.RequestError(code, f"cannot take the child's answer: {rule}"))
    else:
        on_done({"exit_code": end.exit.code, "output": end.output})
