"""The table of a manifest that belongs to its driver.

Rules kept here: only the table of the named driver may stand there, and the plain map `options` only for a driver that
is not built in. Left out: what the options do (`agent.drivers`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta

from agent.config import layout, values
from agent.core import model
from instar.v1 import manifest_pb2

DEFAULT_HOLD_TIMEOUT = timedelta(seconds=30)
DEFAULT_SETTLE_DURATION = timedelta(seconds=1)
DEFAULT_SUSPEND_TIMEOUT = timedelta(milliseconds=50)
DEFAULT_EXEC_TIMEOUT = timedelta(seconds=60)

AGENT_DRIVER = "agent"
AGENT_COMPONENT = "instar-agent"
TABLES = ("handover", "held", "process", "reload", "module", "systemd", "exec")
BUILT_IN = frozenset({*TABLES, AGENT_DRIVER})
EXEC_VERBS = ("prepare", "activate", "pause_old", "resume_old", "drain", "abort", "inspect")
PROGRAMS = {
    manifest_pb2.RELOAD_PROGRAM_NGINX: model.ReloadProgram.NGINX,
    manifest_pb2.RELOAD_PROGRAM_GUNICORN: model.ReloadProgram.GUNICORN,
    manifest_pb2.RELOAD_PROGRAM_UVICORN: model.ReloadProgram.UVICORN,
}
KEYS_WITHOUT_USE: Mapping[str, tuple[tuple[str, ...], str]] = {
    "module": (("command", "sockets", "secrets", "environment", "python"), "a module runs inside its host's process"),
    "exec": (("command",), "the driver exec runs the commands of its own table"),
}


def convert(message: manifest_pb2.Manifest) -> model.Options:
    """Check the options of the driver and fill their defaults."""
    driver = message.driver
    for table in TABLES:
        if table != driver and message.HasField(table):  # type: ignore[arg-type]  # one of its fields, by name
            raise values.broken(table, driver, f"the table {table} belongs to the driver {table}")
    if driver in BUILT_IN and message.options:
        rule = f"the driver {driver} has the table {driver}; options are for drivers that are not built in"
        raise values.broken("options", sorted(message.options), rule)
    _refuse_useless(message)
    return READERS.get(driver, _other)(message)


def _refuse_useless(message: manifest_pb2.Manifest) -> None:
    keys, rule = KEYS_WITHOUT_USE.get(message.driver, ((), ""))
    given = {field.name for field, _value in message.ListFields()}
    for key in keys:
        if key in given:
            raise values.broken(key, getattr(message, key), rule)


def _handover(message: manifest_pb2.Manifest) -> model.Options:
    return model.HandoverOptions(is_listen_fds_only=message.handover.listen_fds_only)


def _held(message: manifest_pb2.Manifest) -> model.Options:
    return model.HeldOptions(values.duration("held.hold_timeout", message.held, DEFAULT_HOLD_TIMEOUT))


def _process(message: manifest_pb2.Manifest) -> model.Options:
    options = message.process
    settle = values.duration("process.settle_duration", options, DEFAULT_SETTLE_DURATION)
    return model.ProcessOptions(has_overlap=options.overlap, settle_duration=settle)


def _reload(message: manifest_pb2.Manifest) -> model.Options:
    program = PROGRAMS.get(message.reload.program)
    if program is None:
        known = ", ".join(f"RELOAD_PROGRAM_{each.value}" for each in model.ReloadProgram)
        raise values.broken("reload.program", message.reload.program, f"it is one of {known}")
    return model.ReloadOptions(program)


def _module(message: manifest_pb2.Manifest) -> model.Options:
    options = message.module
    host = layout.component_name(options.host, field="module.host")
    if host == message.name:
        raise values.broken("module.host", host, "a module has another component as its host")
    return model.ModuleOptions(
        host=host,
        file=values.bundled("module.file", options.file),
        suspend_timeout=values.duration("module.suspend_timeout", options, DEFAULT_SUSPEND_TIMEOUT),
    )


def _systemd(message: manifest_pb2.Manifest) -> model.Options:
    return model.SystemdOptions(is_notifying=message.systemd.notify)


def _exec(message: manifest_pb2.Manifest) -> model.Options:
    options = message.exec
    found = {verb: values.optional_words(f"exec.{verb}", getattr(options, verb)) for verb in EXEC_VERBS}
    return model.ExecOptions(
        commands={verb: command for verb, command in found.items() if command},
        timeout=values.duration("exec.timeout", options, DEFAULT_EXEC_TIMEOUT),
        is_hot_swap=options.hot_swap,
    )


def _agent(message: manifest_pb2.Manifest) -> model.Options:
    if message.name != AGENT_COMPONENT:
        raise values.broken("driver", AGENT_DRIVER, f"it belongs to the component {AGENT_COMPONENT} alone")
    return model.HandoverOptions()


def _other(message: manifest_pb2.Manifest) -> model.Options:
    values.few("options", message.options)
    for key, value in sorted(message.options.items()):
        values.plain(f"options.{key}", value)
    return model.OtherOptions(dict(sorted(message.options.items())))


READERS: Mapping[str, Callable[[manifest_pb2.Manifest], model.Options]] = {
    "handover": _handover,
    "held": _held,
    "process": _process,
    "reload": _reload,
    "module": _module,
    "systemd": _systemd,
    "exec": _exec,
    AGENT_DRIVER: _agent,
}
