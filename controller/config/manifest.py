"""The controller's edge for manifests: TOML into `instar.v1.Manifest`, checked, into what a release keeps of it.

Rules kept here: an unknown key is refused by its whole path; every name, version, path and time is checked before a
release exists, so that no node meets a manifest that cannot run; the rules are those of the agent. Left out: whether a
node has the driver, the sockets or the secrets (it says so itself).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass

from google.protobuf import descriptor, duration_pb2, json_format

from controller.config import driver_options, values
from controller.core import methods, model, versions
from instar.v1 import manifest_pb2

BACKLOG_MAX = 65_535
PROBE_SOCKET = "instar-probe"  # the name that the hand-over protocol keeps for itself
_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_RESERVED = re.compile(r"INSTAR_.*|LISTEN_.*|TRACEPARENT|STATE_DIRECTORY|CREDENTIALS_DIRECTORY")
CREDENTIAL_RULE = "1 to 63 letters, digits, dots, dashes and underscores, beginning and ending with a letter or digit"
_CREDENTIAL_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_PARSE_FIELD = re.compile(r"Failed to parse (\w+) field: ")
_WITHOUT_COMMAND = frozenset({"module", "exec"})  # nothing is started by the manifest's own command


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a release keeps of its manifest; see `model.Release`.

    Args:
        json: The whole of it as proto JSON.
    """

    name: model.ComponentName
    version: str
    driver: str
    json: str
    methods: frozenset[model.Method]
    state: model.StateSchema | None
    hot_swap_from: str
    requirements: tuple[model.Requirement, ...]


def parse(text: str) -> Manifest:
    """Read and check a manifest.

    Raises:
        InvalidRequestError: It is not TOML, a key is unknown, or a value breaks its rule; the field is the dotted key.
    """
    try:
        message = _message(text)
    except RecursionError:
        values.refuse("instar.toml", "", "nested less deeply")
    _check(message)
    is_breaking = message.driver == "exec" and not message.exec.hot_swap
    return Manifest(
        name=model.ComponentName(message.name),
        version=message.version,
        driver=message.driver,
        json=json_format.MessageToJson(message, preserving_proto_field_name=True, indent=None),
        methods=methods.RESTART_ONLY if is_breaking else methods.BOTH,
        state=_state_schema(message.state) if message.HasField("state") else None,
        hot_swap_from=message.hot_swap_from,
        requirements=_requirements(message),
    )


def _message(text: str) -> manifest_pb2.Manifest:
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as fault:
        values.refuse("instar.toml", "", f"TOML 1.0 ({fault})")
    _check_keys(tree, manifest_pb2.Manifest.DESCRIPTOR, "")
    try:
        return json_format.ParseDict(tree, manifest_pb2.Manifest())
    except json_format.ParseError as fault:
        path = ".".join(_PARSE_FIELD.findall(str(fault)))
        values.refuse(path or "instar.toml", "", _PARSE_FIELD.sub("", str(fault)).rstrip("."))


def _state_schema(state: manifest_pb2.State) -> model.StateSchema:
    ways = (model.Migration(each.from_schema, each.to_schema) for each in state.migrations)
    return model.StateSchema(state.schema, tuple(state.reads), state.snapshot, tuple(ways))


def _requirements(message: manifest_pb2.Manifest) -> tuple[model.Requirement, ...]:
    """What must be on the node: what it says, and the component inside of which a module runs."""
    found = tuple(
        model.Requirement(model.ComponentName(each.component), each.versions) for each in message.requirements
    )
    host = model.ComponentName(message.module.host)
    is_told = any(each.component == host for each in found)
    return found if not host or is_told else (*found, model.Requirement(host))


def _check_keys(tree: Mapping[str, object], message: descriptor.Descriptor, path: str) -> None:
    for key, value in tree.items():
        field = message.fields_by_name.get(key)
        if field is None:
            known = ", ".join(sorted(message.fields_by_name))
            values.refuse(path + key, str(value), f"one of the known keys, here {known}", code="manifest_key_unknown")
        if field.message_type is not None and not _is_opaque(field.message_type):
            for one in value if isinstance(value, list) else [value]:
                if isinstance(one, dict):
                    _check_keys(one, field.message_type, f"{path}{key}.")


def _is_opaque(message: descriptor.Descriptor) -> bool:
    """True for what is no table in TOML, or one whose keys are the user's."""
    return message is duration_pb2.Duration.DESCRIPTOR or message.GetOptions().map_entry


def _check(manifest: manifest_pb2.Manifest) -> None:
    _check_identity(manifest)
    driver_options.check(manifest)
    if manifest.driver not in _WITHOUT_COMMAND:
        values.check_words("command", manifest.command)
    values.check_optional_words("check_command", manifest.check_command)
    _check_sockets(manifest)
    _check_environment(manifest)
    _check_secrets(manifest)
    for field in ("readiness", "health"):
        if manifest.HasField(field):
            _check_probe(field, getattr(manifest, field), manifest)
    if manifest.HasField("metrics"):
        _check_metrics(manifest)
    if manifest.HasField("state"):
        _check_state(manifest.state)
    _check_requirements(manifest)
    if manifest.HasField("python"):
        _check_python(manifest.python)
    values.check_durations(manifest)


def _check_identity(manifest: manifest_pb2.Manifest) -> None:
    values.check_component("name", manifest.name)
    versions.parse(manifest.version)
    if manifest.minimum_agent_version:
        versions.parse(manifest.minimum_agent_version, "minimum_agent_version")
    versions.parse_comparators(manifest.hot_swap_from, "hot_swap_from")
    values.check_name("driver", manifest.driver)
    if manifest.name == driver_options.AGENT_COMPONENT and manifest.driver != driver_options.AGENT_DRIVER:
        values.refuse("name", manifest.name, f"another: the agent's own driver is {driver_options.AGENT_DRIVER}")
    if manifest.on_agent_stop not in manifest_pb2.OnAgentStop.values():
        values.refuse("on_agent_stop", str(manifest.on_agent_stop), "ON_AGENT_STOP_KEEP or ON_AGENT_STOP_STOP")


def _check_sockets(manifest: manifest_pb2.Manifest) -> None:
    values.check_count("sockets", len(manifest.sockets))
    names = [socket.name for socket in manifest.sockets]
    for index, name in enumerate(names):
        values.check_name("sockets.name", name)
        if name in (*names[:index], PROBE_SOCKET):
            values.refuse("sockets.name", name, f"a name that no other socket has, and not {PROBE_SOCKET}")
    for socket in manifest.sockets:
        if socket.backlog > BACKLOG_MAX:
            values.refuse("sockets.backlog", str(socket.backlog), f"at most {BACKLOG_MAX}")


def _check_environment(manifest: manifest_pb2.Manifest) -> None:
    values.check_count("environment", len(manifest.environment))
    for name, value in manifest.environment.items():
        if not _ENVIRONMENT_NAME.fullmatch(name) or "\0" in value:
            rule = "a name of letters, digits and underscores, and a value without NUL"
            values.refuse(f"environment.{name}", value, rule)
        if _RESERVED.fullmatch(name):
            values.refuse(f"environment.{name}", value, "another name: this one belongs to the keeper")


def _check_secrets(manifest: manifest_pb2.Manifest) -> None:
    values.check_count("secrets", len(manifest.secrets))
    values.check_once("secrets", list(manifest.secrets))
    for name in manifest.secrets:
        if not _CREDENTIAL_NAME.fullmatch(name):
            values.refuse("secrets", name, CREDENTIAL_RULE)


def _check_probe(field: str, probe: manifest_pb2.Probe, manifest: manifest_pb2.Manifest) -> None:
    match probe.WhichOneof("check"):
        case "http":
            values.check_target(f"{field}.http.path", probe.http.path)
        case "tcp":
            pass
        case "grpc":
            values.check_text(f"{field}.grpc.service", probe.grpc.service)
        case "exec":
            values.check_words(f"{field}.exec.command", probe.exec.command)
            if probe.socket:
                values.refuse(f"{field}.socket", probe.socket, "left out: a command asks no socket")
            return
        case None:
            values.refuse(field, "", "a probe that has http, tcp, grpc or exec")
    _check_asked(f"{field}.socket", probe.socket, manifest)


def _check_metrics(manifest: manifest_pb2.Manifest) -> None:
    values.check_target("metrics.path", manifest.metrics.path)
    values.check_count("metrics.series", len(manifest.metrics.series))
    _check_asked("metrics.socket", manifest.metrics.socket, manifest)


def _check_asked(field: str, chosen: str, manifest: manifest_pb2.Manifest) -> None:
    """Refuse a socket that cannot be asked."""
    names = [socket.name for socket in manifest.sockets]
    if chosen and chosen not in names:
        values.refuse(field, chosen, "the name of one of the manifest's sockets")
    if not chosen and not names and not driver_options.serves_probe_socket(manifest):
        values.refuse(field, "", "one of the manifest's sockets, and it has none")


def _check_state(state: manifest_pb2.State) -> None:
    _check_schema("state.schema", state.schema)
    values.check_count("state.reads", len(state.reads))
    values.check_once("state.reads", list(state.reads))
    for number in state.reads:
        _check_schema("state.reads", number)
        if number >= state.schema:
            values.refuse("state.reads", str(number), f"older than the version's own schema, {state.schema}")
    values.check_count("state.migrations", len(state.migrations))
    values.check_once("state.migrations", [f"{each.from_schema} to {each.to_schema}" for each in state.migrations])
    for each in state.migrations:
        _check_schema("state.migrations.from_schema", each.from_schema)
        _check_schema("state.migrations.to_schema", each.to_schema)
        if each.from_schema == each.to_schema:
            values.refuse("state.migrations.to_schema", str(each.to_schema), "another schema than from_schema")
        values.check_words("state.migrations.command", each.command)


def _check_schema(field: str, number: int) -> None:
    if number < 1:
        values.refuse(field, str(number), "at least 1")


def _check_requirements(manifest: manifest_pb2.Manifest) -> None:
    values.check_count("requirements", len(manifest.requirements))
    values.check_once("requirements.component", [each.component for each in manifest.requirements])
    for each in manifest.requirements:
        values.check_component("requirements.component", each.component)
        versions.parse_comparators(each.versions, "requirements.versions")
        if each.component == manifest.name:
            values.refuse("requirements.component", each.component, "another component")


def _check_python(python: manifest_pb2.PythonEnvironment) -> None:
    values.check_bundled("python.requirements", python.requirements)
    if python.wheelhouse:
        values.check_bundled("python.wheelhouse", python.wheelhouse)
