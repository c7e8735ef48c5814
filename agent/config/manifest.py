"""The manifest edge: `instar.toml` or its JSON into `agent.core.model.Manifest`, by way of `instar.v1.Manifest`.

Rules kept here: the message is the schema, so an unknown key or a wrong type is refused by name; defaults are filled
here and nowhere else; what comes out can be run as it stands. Left out: whether this node has the driver, an address
for each socket, and a file for each secret (`agent.preflight`).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path

from google.protobuf import json_format

from agent.config import checks, layout, options, settings, state_schema, values
from agent.config.errors import ConfigError
from agent.core import model
from instar.v1 import manifest_pb2

MANIFEST_NAME = "instar.toml"
MANIFEST_BYTES_MAX = 65536  # a hundred times a long manifest

DEFAULT_PREPARE_TIMEOUT = timedelta(seconds=30)
DEFAULT_DRAIN_TIMEOUT = timedelta(seconds=30)
DEFAULT_STOP_TIMEOUT = timedelta(seconds=5)
DEFAULT_BACKLOG = 1024
BACKLOG_MAX = 65535

DRIVER_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?")
VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
UNKNOWN_KEY = re.compile(r'no field named "(?P<key>[^"]+)"(?: at "(?P<parent>[^"]*)")?')
WRONG_TYPE = re.compile(r"Failed to parse (\w+) field")
RESERVED_VARIABLE = re.compile(r"INSTAR_.*|LISTEN_.*|TRACEPARENT|STATE_DIRECTORY|CREDENTIALS_DIRECTORY")
DRIVERS_WITHOUT_COMMAND = frozenset({"module", "exec"})  # nothing is started by the manifest's own command
ON_AGENT_STOP = {
    manifest_pb2.ON_AGENT_STOP_UNSPECIFIED: model.OnAgentStop.KEEP,
    manifest_pb2.ON_AGENT_STOP_KEEP: model.OnAgentStop.KEEP,
    manifest_pb2.ON_AGENT_STOP_STOP: model.OnAgentStop.STOP,
}


def parse_toml(text: str) -> model.Manifest:
    """Read a manifest from the text of `instar.toml`.

    Raises:
        ConfigError: A key is unknown, or a value breaks its rule.
    """
    return convert(_message(_toml(text)))


def read(release_dir: Path) -> model.Manifest:
    """Read the manifest of an unpacked release; see `parse_toml`."""
    path = release_dir / MANIFEST_NAME
    try:
        return parse_toml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the manifest {path}: {error}", field="manifest", value=str(path)) from error


def json_of_toml(text: str) -> Mapping[str, object]:
    """Turn the text of a valid `instar.toml` into proto JSON, in snake_case; see `parse_toml`."""
    message = _message(_toml(text))
    convert(message)
    document: Mapping[str, object] = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return document


def convert(message: manifest_pb2.Manifest) -> model.Manifest:
    """Check a manifest and fill its defaults.

    Raises:
        ConfigError: A value breaks its rule.
    """
    name = _name(message)
    driver = values.matching("driver", message.driver, DRIVER_NAME, "lower-case letters, digits, dots and dashes")
    chosen = options.convert(message)
    sockets = _sockets(message.sockets)
    asked = checks.Sockets([socket.name for socket in sockets], has_private=_has_private_socket(driver, chosen))
    return model.Manifest(
        name=name,
        version=values.version("version", message.version),
        driver=driver,
        command=() if driver in DRIVERS_WITHOUT_COMMAND else values.words("command", message.command),
        environment=_environment(message.environment),
        sockets=sockets,
        readiness=checks.probe("readiness", message.readiness, asked) if message.HasField("readiness") else None,
        health=checks.probe("health", message.health, asked) if message.HasField("health") else None,
        metrics=checks.metrics(message.metrics, asked) if message.HasField("metrics") else None,
        prepare_timeout=values.duration("prepare_timeout", message, DEFAULT_PREPARE_TIMEOUT),
        drain_timeout=values.duration("drain_timeout", message, DEFAULT_DRAIN_TIMEOUT),
        stop_timeout=values.duration("stop_timeout", message, DEFAULT_STOP_TIMEOUT),
        minimum_agent_version=_minimum(message.minimum_agent_version),
        options=chosen,
        on_agent_stop=_on_agent_stop(message.on_agent_stop),
        secrets=_secrets(message.secrets),
        state=state_schema.convert(message.state) if message.HasField("state") else None,
        resources=_resources(message.resources),
        requirements=_requirements(name, message.requirements),
        python=_python(message.python) if message.HasField("python") else None,
        check_command=values.optional_words("check_command", message.check_command),
        hot_swap_from=values.comparators("hot_swap_from", message.hot_swap_from),
    )


def _toml(text: str) -> Mapping[str, object]:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"cannot read the manifest: {error}", field="manifest", rule="TOML 1.0") from error


def _message(document: Mapping[str, object]) -> manifest_pb2.Manifest:
    try:
        return json_format.ParseDict(dict(document), manifest_pb2.Manifest())
    except (json_format.ParseError, RecursionError) as error:
        why = str(error).partition("\n")[0]  # what follows lists every key there is
        rule = "the keys and types of instar.v1.Manifest"
        raise ConfigError(f"cannot read the manifest: {why}", field=_key_in(why), value=why, rule=rule) from error


def _key_in(why: str) -> str:
    """The key that protobuf's own message names, in dotted form; "manifest" where it names none."""
    unknown = UNKNOWN_KEY.search(why)
    if unknown is not None:
        return f"{unknown['parent'] or ''}.{unknown['key']}".removeprefix("Manifest.").removeprefix(".")
    return ".".join(WRONG_TYPE.findall(why)) or "manifest"


def _name(message: manifest_pb2.Manifest) -> str:
    name = layout.component_name(message.name, field="name")
    if name == options.AGENT_COMPONENT and message.driver != options.AGENT_DRIVER:
        raise values.broken("name", name, f"it belongs to the agent itself, whose driver is {options.AGENT_DRIVER}")
    return name


def _has_private_socket(driver: str, chosen: model.Options) -> bool:
    """Say whether each instance serves the private probe socket: programs of the hand-over protocol do."""
    match chosen:
        case model.HandoverOptions(is_listen_fds_only=is_plain):
            return not is_plain
        case _:
            return driver not in options.BUILT_IN  # a driver of somebody else may start such programs


def _environment(variables: Mapping[str, str]) -> Mapping[str, str]:
    values.few("environment", variables)
    for name, value in sorted(variables.items()):
        if not VARIABLE_NAME.fullmatch(name) or RESERVED_VARIABLE.fullmatch(name):
            rule = (
                "letters, digits and underscores; INSTAR_*, LISTEN_*, TRACEPARENT, STATE_DIRECTORY and "
                "CREDENTIALS_DIRECTORY belong to the keeper"
            )
            raise values.broken("environment", name, rule)
        if "\0" in value:
            raise values.broken(f"environment.{name}", value, "it holds no NUL")
    return dict(sorted(variables.items()))


def _sockets(messages: Iterable[manifest_pb2.Socket]) -> tuple[model.Socket, ...]:
    sockets = tuple(_socket(index, message) for index, message in enumerate(messages))
    values.few("sockets", sockets)
    values.once("sockets.name", [socket.name for socket in sockets], "each socket has a name of its own")
    return sockets


def _socket(index: int, message: manifest_pb2.Socket) -> model.Socket:
    rule = "lower-case letters, digits, dots and dashes, at most 63; not instar-probe"
    name = values.matching(f"sockets[{index}].name", message.name, settings.SOCKET_NAME, rule)
    if name == "instar-probe":
        raise values.broken(f"sockets[{index}].name", name, rule)
    if message.backlog > BACKLOG_MAX:
        raise values.broken(f"sockets[{index}].backlog", message.backlog, f"it is at most {BACKLOG_MAX}")
    return model.Socket(name, message.backlog or DEFAULT_BACKLOG)


def _on_agent_stop(chosen: int) -> model.OnAgentStop:
    found = ON_AGENT_STOP.get(manifest_pb2.OnAgentStop.ValueType(chosen))
    if found is None:
        raise values.broken("on_agent_stop", chosen, "it is ON_AGENT_STOP_KEEP or ON_AGENT_STOP_STOP")
    return found


def _secrets(names: Iterable[str]) -> tuple[str, ...]:
    found = tuple(names)
    values.few("secrets", found)
    for name in found:
        values.matching("secrets", name, settings.CREDENTIAL_NAME, settings.CREDENTIAL_RULE)
    values.once("secrets", found, "each secret stands there once")
    return found


def _resources(message: manifest_pb2.Resources) -> model.Resources:
    return model.Resources(message.memory_bytes, message.disk_bytes, message.descriptors)


def _requirements(owner: str, messages: Iterable[manifest_pb2.Requirement]) -> tuple[model.Requirement, ...]:
    found = tuple(_requirement(index, message) for index, message in enumerate(messages))
    values.few("requirements", found)
    names = [each.component for each in found]
    values.once("requirements.component", names, "each component stands there once")
    if owner in names:
        raise values.broken("requirements.component", owner, "a component does not require itself")
    return found


def _requirement(index: int, message: manifest_pb2.Requirement) -> model.Requirement:
    name = f"requirements[{index}]"
    component = layout.component_name(message.component, field=f"{name}.component")
    return model.Requirement(component, values.comparators(f"{name}.versions", message.versions))


def _python(message: manifest_pb2.PythonEnvironment) -> model.PythonEnvironment:
    wheelhouse = values.bundled("python.wheelhouse", message.wheelhouse) if message.wheelhouse else ""
    return model.PythonEnvironment(values.bundled("python.requirements", message.requirements), wheelhouse)


def _minimum(text: str) -> str:
    return values.version("minimum_agent_version", text) if text else ""
