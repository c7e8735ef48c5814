"""The controller's edge for manifests: TOML into `instar.v1.Manifest`, checked, into what a release keeps of it.

Rules kept here: an unknown key is refused by its whole path; every name, version, path and time is checked before a
release exists, so that no node meets a manifest that cannot run. Left out: whether a node has the driver or the sockets
(it says so itself), and how the agent reads the same file.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Never

from google.protobuf import descriptor, duration_pb2, json_format

from controller.core import errors, model, versions
from instar.v1 import manifest_pb2

NAME_RULE = "1 to 63 lower-case letters, digits, dots and dashes, beginning and ending with a letter or digit"
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")
# As the node has it: an instance's id and socket paths are made of the name.
COMPONENT_NAME_CHARS_MAX = 40
ITEMS_MAX = 64  # of arguments, variables, sockets or series
BACKLOG_MAX = 65_535
PROBE_SOCKET = "instar-probe"  # the name that the hand-over protocol keeps for itself
_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_RESERVED = re.compile(r"INSTAR_.*|LISTEN_.*|TRACEPARENT")
_PATH = re.compile(r"/[!-~]*")
_PARSE_FIELD = re.compile(r"Failed to parse (\w+) field: ")
SECONDS_MAX = 86_400  # one day: whatever a component waits for, it is not longer


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a release keeps of its manifest.

    Args:
        json: The whole of it as proto JSON.
    """

    name: model.ComponentName
    version: str
    driver: str
    json: str


def parse(text: str) -> Manifest:
    """Read and check a manifest.

    Raises:
        InvalidRequestError: It is not TOML, a key is unknown, or a value breaks its rule; the field is the dotted key.
    """
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as fault:
        _refuse("instar.toml", "", f"TOML 1.0 ({fault})")
    _check_keys(tree, manifest_pb2.Manifest.DESCRIPTOR, "")
    message = manifest_pb2.Manifest()
    try:
        json_format.ParseDict(tree, message)
    except json_format.ParseError as fault:
        path = ".".join(_PARSE_FIELD.findall(str(fault)))
        _refuse(path or "instar.toml", "", _PARSE_FIELD.sub("", str(fault)).rstrip("."))
    _check(message)
    return Manifest(
        name=model.ComponentName(message.name),
        version=message.version,
        driver=message.driver,
        json=json_format.MessageToJson(message, preserving_proto_field_name=True, indent=None),
    )


def _check_keys(tree: Mapping[str, object], message: descriptor.Descriptor, path: str) -> None:
    for key, value in tree.items():
        field = message.fields_by_name.get(key)
        if field is None:
            known = ", ".join(sorted(message.fields_by_name))
            _refuse(path + key, str(value), f"one of the known keys, here {known}", code="manifest_key_unknown")
        if field.message_type is not None and not _is_opaque(field.message_type):
            for one in value if isinstance(value, list) else [value]:
                if isinstance(one, dict):
                    _check_keys(one, field.message_type, f"{path}{key}.")


def _is_opaque(message: descriptor.Descriptor) -> bool:
    """True for what is no table in TOML, or one whose keys are the user's."""
    return message is duration_pb2.Duration.DESCRIPTOR or message.GetOptions().map_entry


def _check(manifest: manifest_pb2.Manifest) -> None:
    _check_name("name", manifest.name)
    if len(manifest.name) > COMPONENT_NAME_CHARS_MAX:
        _refuse("name", manifest.name, f"at most {COMPONENT_NAME_CHARS_MAX} characters long")
    versions.parse(manifest.version)
    if manifest.minimum_agent_version:
        versions.parse(manifest.minimum_agent_version, "minimum_agent_version")
    _check_name("driver", manifest.driver)
    _check_command(manifest)
    _check_sockets(manifest)
    _check_environment(manifest)
    for field in ("readiness", "health"):
        if manifest.HasField(field):
            _check_probe(field, getattr(manifest, field))
    if manifest.HasField("metrics"):
        _check_path("metrics.path", manifest.metrics.path)
    for field, seconds in _durations(manifest, ""):
        if not 0 < seconds <= SECONDS_MAX:
            _refuse(field, f"{seconds}s", f"a time above 0 s and up to {SECONDS_MAX} s")


def _check_name(field: str, value: str) -> None:
    if not _NAME.fullmatch(value):
        _refuse(field, value, NAME_RULE)


def _check_command(manifest: manifest_pb2.Manifest) -> None:
    if not manifest.command or not manifest.command[0]:
        _refuse("command", "", "a program and its arguments")
    if any("\0" in word for word in manifest.command):
        _refuse("command", "", "without NUL")
    for field in ("command", "environment", "sockets"):
        _check_count(field, len(getattr(manifest, field)))
    _check_count("metrics.series", len(manifest.metrics.series))


def _check_count(field: str, count: int) -> None:
    if count > ITEMS_MAX:
        _refuse(field, str(count), f"at most {ITEMS_MAX} items long")


def _check_sockets(manifest: manifest_pb2.Manifest) -> None:
    names = [socket.name for socket in manifest.sockets]
    for index, name in enumerate(names):
        _check_name("sockets.name", name)
        if name in (*names[:index], PROBE_SOCKET):
            _refuse("sockets.name", name, f"a name that no other socket has, and not {PROBE_SOCKET}")
    for socket in manifest.sockets:
        if socket.backlog > BACKLOG_MAX:
            _refuse("sockets.backlog", str(socket.backlog), f"at most {BACKLOG_MAX}")


def _check_environment(manifest: manifest_pb2.Manifest) -> None:
    for name, value in manifest.environment.items():
        if not _ENVIRONMENT_NAME.fullmatch(name) or "\0" in value:
            _refuse(f"environment.{name}", value, "a name of letters, digits and underscores, and a value without NUL")
        if _RESERVED.fullmatch(name):
            _refuse(f"environment.{name}", value, "another name: this one is the hand-over protocol's")


def _check_probe(field: str, probe: manifest_pb2.Probe) -> None:
    if probe.WhichOneof("check") is None:
        _refuse(field, "", "a probe that has http or tcp")
    if probe.HasField("http"):
        _check_path(f"{field}.http.path", probe.http.path)


def _check_path(field: str, path: str) -> None:
    if not _PATH.fullmatch(path):
        _refuse(field, path, "a path that begins with '/' and holds visible ASCII only")


def _durations(message: object, path: str) -> Iterator[tuple[str, float]]:
    """Each duration that is set in the manifest, in seconds."""
    for field, value in message.ListFields():  # type: ignore[attr-defined]  # any message has it
        if isinstance(value, duration_pb2.Duration):
            yield path + field.name, value.seconds + value.nanos / 1e9
        elif field.message_type is not None and not field.is_repeated:
            yield from _durations(value, f"{path}{field.name}.")


def _refuse(field: str, value: str, rule: str, *, code: str = "manifest_invalid") -> Never:
    shown = f" {value!r}" if value else ""
    raise errors.InvalidRequestError(
        f"cannot use the manifest: {field}{shown} must be {rule}", code=code, field=field, value=value, rule=rule
    )
