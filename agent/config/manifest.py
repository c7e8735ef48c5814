"""The manifest edge: `instar.toml` or its JSON into `agent.core.model.Manifest`, by way of `instar.v1.Manifest`.

Rules kept here: the message is the schema, so an unknown key or a wrong type is refused by name; defaults are filled
here and nowhere else; what comes out can be run as it stands. Left out: whether this node has the driver or an address
for each socket (`agent.runner`).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path

from google.protobuf import duration_pb2, json_format

from agent.config import layout, semver, settings
from agent.config.errors import ConfigError
from agent.core import model
from instar.v1 import manifest_pb2

MANIFEST_NAME = "instar.toml"
MANIFEST_BYTES_MAX = 65536  # a hundred times a long manifest
ENTRIES_MAX = 64  # sockets, arguments, variables, series: more is a mistake
DURATION_MAX = timedelta(hours=24)  # nothing that a node waits for takes longer

DEFAULT_PREPARE_TIMEOUT = timedelta(seconds=30)
DEFAULT_DRAIN_TIMEOUT = timedelta(seconds=30)
DEFAULT_STOP_TIMEOUT = timedelta(seconds=5)
DEFAULT_PROBE_PERIOD = timedelta(seconds=1)
DEFAULT_PROBE_TIMEOUT = timedelta(seconds=1)
DEFAULT_FAILURE_THRESHOLD = 3
DEFAULT_SCRAPE_PERIOD = timedelta(seconds=5)
DEFAULT_BACKLOG = 1024
BACKLOG_MAX = 65535

DRIVER_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?")
VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
REQUEST_TARGET = re.compile(r"/[!-~]*")
UNKNOWN_KEY = re.compile(r'no field named "(?P<key>[^"]+)"(?: at "(?P<parent>[^"]*)")?')
WRONG_TYPE = re.compile(r"Failed to parse (\w+) field")
RESERVED_VARIABLE = re.compile(r"INSTAR_.*|LISTEN_.*|TRACEPARENT")


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
    prepare = message.prepare_timeout if message.HasField("prepare_timeout") else None
    drain = message.drain_timeout if message.HasField("drain_timeout") else None
    stop = message.stop_timeout if message.HasField("stop_timeout") else None
    return model.Manifest(
        name=layout.component_name(message.name, field="name"),
        version=_version("version", message.version),
        driver=_matching("driver", message.driver, DRIVER_NAME, "lower-case letters, digits, dots and dashes"),
        command=_command(message.command),
        environment=_environment(message.environment),
        sockets=_sockets(message.sockets),
        readiness=_probe("readiness", message.readiness) if message.HasField("readiness") else None,
        health=_probe("health", message.health) if message.HasField("health") else None,
        metrics=_metrics(message.metrics) if message.HasField("metrics") else None,
        prepare_timeout=_duration("prepare_timeout", prepare, DEFAULT_PREPARE_TIMEOUT),
        drain_timeout=_duration("drain_timeout", drain, DEFAULT_DRAIN_TIMEOUT),
        stop_timeout=_duration("stop_timeout", stop, DEFAULT_STOP_TIMEOUT),
        minimum_agent_version=_minimum(message.minimum_agent_version),
    )


def _toml(text: str) -> Mapping[str, object]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"cannot read the manifest: {error}", field="manifest", rule="TOML 1.0") from error


def _message(document: Mapping[str, object]) -> manifest_pb2.Manifest:
    try:
        return json_format.ParseDict(dict(document), manifest_pb2.Manifest())
    except json_format.ParseError as error:
        why = str(error).partition("\n")[0]  # what follows lists every key there is
        rule = "the keys and types of instar.v1.Manifest"
        raise ConfigError(f"cannot read the manifest: {why}", field=_key_in(why), value=why, rule=rule) from error


def _key_in(why: str) -> str:
    """The key that protobuf's own message names, in dotted form; "manifest" where it names none."""
    unknown = UNKNOWN_KEY.search(why)
    if unknown is not None:
        return f"{unknown['parent'] or ''}.{unknown['key']}".removeprefix("Manifest.").removeprefix(".")
    return ".".join(WRONG_TYPE.findall(why)) or "manifest"


def _command(command: Iterable[str]) -> tuple[str, ...]:
    words = tuple(command)
    if not words or not words[0]:
        raise _broken("command", list(words), "it has at least a program")
    _few("command", words)
    for word in words:
        if "\0" in word:
            raise _broken("command", word, "no word holds a NUL")
    return words


def _environment(variables: Mapping[str, str]) -> Mapping[str, str]:
    _few("environment", variables)
    for name, value in sorted(variables.items()):
        if not VARIABLE_NAME.fullmatch(name) or RESERVED_VARIABLE.fullmatch(name):
            rule = "letters, digits and underscores; INSTAR_*, LISTEN_* and TRACEPARENT belong to the keeper"
            raise _broken("environment", name, rule)
        if "\0" in value:
            raise _broken(f"environment.{name}", value, "it holds no NUL")
    return dict(sorted(variables.items()))


def _sockets(messages: Iterable[manifest_pb2.Socket]) -> tuple[model.Socket, ...]:
    sockets = tuple(_socket(index, message) for index, message in enumerate(messages))
    _few("sockets", sockets)
    names = [socket.name for socket in sockets]
    for name in names:
        if names.count(name) > 1:
            raise _broken("sockets.name", name, "each socket has a name of its own")
    return sockets


def _socket(index: int, message: manifest_pb2.Socket) -> model.Socket:
    rule = "lower-case letters, digits, dots and dashes, at most 63; not instar-probe"
    name = _matching(f"sockets[{index}].name", message.name, settings.SOCKET_NAME, rule)
    if name == "instar-probe":
        raise _broken(f"sockets[{index}].name", name, rule)
    if message.backlog > BACKLOG_MAX:
        raise _broken(f"sockets[{index}].backlog", message.backlog, f"it is at most {BACKLOG_MAX}")
    return model.Socket(name, message.backlog or DEFAULT_BACKLOG)


def _probe(name: str, message: manifest_pb2.Probe) -> model.Probe:
    period = message.period if message.HasField("period") else None
    timeout = message.timeout if message.HasField("timeout") else None
    return model.Probe(
        check=_check(name, message),
        period=_duration(f"{name}.period", period, DEFAULT_PROBE_PERIOD),
        timeout=_duration(f"{name}.timeout", timeout, DEFAULT_PROBE_TIMEOUT),
        failure_threshold=message.failure_threshold or DEFAULT_FAILURE_THRESHOLD,
    )


def _check(name: str, message: manifest_pb2.Probe) -> model.HttpCheck | model.TcpCheck:
    match message.WhichOneof("check"):
        case "http":
            return model.HttpCheck(_target(f"{name}.http.path", message.http.path))
        case "tcp":
            return model.TcpCheck()
        case None:
            raise _broken(name, "", "it says what is asked: http or tcp")


def _metrics(message: manifest_pb2.Metrics) -> model.MetricsSource:
    _few("metrics.series", message.series)
    period = message.period if message.HasField("period") else None
    return model.MetricsSource(
        path=_target("metrics.path", message.path),
        series=tuple(message.series),
        period=_duration("metrics.period", period, DEFAULT_SCRAPE_PERIOD),
    )


def _target(name: str, path: str) -> str:
    return _matching(name, path, REQUEST_TARGET, "it begins with / and holds visible ASCII only")


def _duration(name: str, message: duration_pb2.Duration | None, default: timedelta) -> timedelta:
    if message is None:
        return default
    value = message.ToTimedelta()
    if not timedelta() < value <= DURATION_MAX:
        raise _broken(name, f"{value.total_seconds():g}s", "it is more than 0s and at most 24h")
    return value


def _version(name: str, text: str) -> str:
    if semver.parse(text) is None:
        raise _broken(name, text, "it has the form of SemVer 2.0, for example 1.0.0")
    return text


def _minimum(text: str) -> str:
    return _version("minimum_agent_version", text) if text else ""


def _matching(name: str, value: str, form: re.Pattern[str], rule: str) -> str:
    if not form.fullmatch(value):
        raise _broken(name, value, rule)
    return value


def _few(name: str, entries: Iterable[object]) -> None:
    count = len(tuple(entries))
    if count > ENTRIES_MAX:
        raise _broken(name, count, f"it has at most {ENTRIES_MAX} entries")


def _broken(name: str, value: object, rule: str) -> ConfigError:
    return ConfigError(f"cannot use {name} = {value!r}: {rule}", field=name, value=str(value), rule=rule)
