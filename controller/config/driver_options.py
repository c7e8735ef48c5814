"""The table of a manifest that belongs to its driver.

Rules kept here: only the table of the named driver may stand there, and the plain map `options` only for a driver that
is not built in. Left out: what the options do, which is the agent's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from controller.config import values
from controller.core import methods
from instar.v1 import manifest_pb2

AGENT_DRIVER = "agent"
AGENT_COMPONENT = "instar-agent"
TABLES = ("handover", "held", "process", "reload", "module", "systemd", "exec")
_EXEC_VERBS = ("prepare", "activate", "pause_old", "resume_old", "drain", "abort", "inspect")
_USELESS: Mapping[str, tuple[str, ...]] = {
    # A module runs inside its host's process; the driver exec runs the commands of its own table.
    "module": ("command", "sockets", "secrets", "environment", "python"),
    "exec": ("command",),
}


def check(manifest: manifest_pb2.Manifest) -> None:
    """Refuse options that are not the driver's own, or that mean nothing to it."""
    driver = manifest.driver
    given = {field.name for field, _ in manifest.ListFields()}
    for table in TABLES:
        if table in given and table != driver:
            values.refuse(table, "", f"left out: it belongs to the driver {table}, and this one is {driver}")
    if manifest.options and driver in methods.DRIVER_METHODS:
        values.refuse("options", "", f"left out: they are for drivers that are not built in, and {driver} is")
    for key in _USELESS.get(driver, ()):
        if key in given:
            values.refuse(key, "", f"left out: the driver {driver} has no use for it")
    _CHECKS.get(driver, _check_nothing)(manifest)


def serves_probe_socket(manifest: manifest_pb2.Manifest) -> bool:
    """Tell whether each instance serves the private probe socket.

    Programs of the hand-over protocol do, and a driver of somebody else may start such programs.
    """
    if manifest.driver == "handover":
        return not manifest.handover.listen_fds_only
    return manifest.driver == AGENT_DRIVER or manifest.driver not in methods.DRIVER_METHODS


def _check_nothing(manifest: manifest_pb2.Manifest) -> None:
    values.check_count("options", len(manifest.options))
    for key, value in sorted(manifest.options.items()):
        values.check_text(f"options.{key}", value)


def _check_reload(manifest: manifest_pb2.Manifest) -> None:
    known = [name for name, number in manifest_pb2.ReloadProgram.items() if number]
    if manifest.reload.program not in manifest_pb2.ReloadProgram.values() or not manifest.reload.program:
        values.refuse("reload.program", str(manifest.reload.program), f"one of {', '.join(known)}")


def _check_module(manifest: manifest_pb2.Manifest) -> None:
    values.check_component("module.host", manifest.module.host)
    if manifest.module.host == manifest.name:
        values.refuse("module.host", manifest.name, "another component")
    values.check_bundled("module.file", manifest.module.file)


def _check_exec(manifest: manifest_pb2.Manifest) -> None:
    for verb in _EXEC_VERBS:
        values.check_optional_words(f"exec.{verb}", getattr(manifest.exec, verb))


def _check_agent(manifest: manifest_pb2.Manifest) -> None:
    if manifest.name != AGENT_COMPONENT:
        values.refuse("driver", AGENT_DRIVER, f"another: this one belongs to the component {AGENT_COMPONENT} alone")


_CHECKS: Mapping[str, Callable[[manifest_pb2.Manifest], None]] = {
    "reload": _check_reload,
    "module": _check_module,
    "exec": _check_exec,
    AGENT_DRIVER: _check_agent,
}
