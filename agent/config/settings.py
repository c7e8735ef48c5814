"""The agent's own configuration: a TOML file, with INSTAR_* variables of the environment above it.

Rules kept here: an unknown key is refused and named; the environment outranks the file, the file outranks defaults;
what a token file holds is read only where nobody else can read it. Left out: flags (`agent.cli`), manifests.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import agent
from agent.config import layout
from agent.config.errors import ConfigError

ENVIRONMENT_PREFIX = "INSTAR_"
DEFAULT_CONTROLLER = "127.0.0.1:7443"
RUN_DIR_BYTES_MAX = 72  # a Unix socket path has at most 107 bytes; this leaves 35 for "/", instance id and ".probe"
TEXT_KEYS = ("node_id", "state_dir", "run_dir", "controller", "token_file")
TABLE_KEYS = ("labels", "sockets")
PORT_MAX = 65535
FORBIDDEN_TOKEN_MODE = stat.S_IRWXG | stat.S_IRWXO

NODE_ID = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?")
LABEL_KEY = re.compile(r"(?:[a-z0-9.-]{1,253}/)?[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
LABEL_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
SOCKET_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?")
HOST_AND_PORT = re.compile(r"(?P<host>[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):(?P<port>\d{1,5})")


@dataclass(frozen=True, slots=True)
class Config:
    """What a node was told of itself.

    Args:
        controller: Host and port of the controller; empty where the node is led by hand alone.
        token_file: File with the bearer token of this node; None where there is no controller.
        sockets: For each component, the address of each of its sockets: "127.0.0.1:8080" or "unix:/path".
    """

    node_id: str
    state_dir: Path
    run_dir: Path
    controller: str
    token_file: Path | None
    labels: Mapping[str, str] = field(default_factory=dict)
    sockets: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def layout(self) -> layout.Layout:
        """Where everything of this node lies."""
        return layout.Layout(self.state_dir, self.run_dir)

    def address(self, component: str, socket_name: str) -> str:
        """Address that this node gives to a socket of a component.

        Raises:
            ConfigError: The configuration names none.
        """
        try:
            return self.sockets[component][socket_name]
        except KeyError as error:
            name = f"sockets.{component}.{socket_name}"
            rule = "each socket of a manifest needs an address in the configuration of the node"
            raise ConfigError(f"cannot listen: {name} is missing; {rule}", field=name, rule=rule) from error


def load(path: Path, environment: Mapping[str, str]) -> Config:
    """Read the configuration from a file and the environment.

    Raises:
        ConfigError: The file cannot be read, or a key or value of it, or of the environment, cannot be used.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the configuration {path}: {error}", field="config", value=str(path)) from error
    return parse(text, environment)


def parse(text: str, environment: Mapping[str, str]) -> Config:
    """Read the configuration from the text of a file and the environment; see `load`."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"cannot read the configuration: {error}", field="config", rule="TOML 1.0") from error
    _refuse_unknown(document, (*TEXT_KEYS, *TABLE_KEYS))
    texts = {key: _text(document, environment, key) for key in TEXT_KEYS}
    state_dir = _directory("state_dir", texts["state_dir"] or str(default_state_dir(environment)))
    token_file = texts["token_file"]
    return Config(
        node_id=_matching("node_id", texts["node_id"], NODE_ID, "lower-case letters, digits, dots and dashes"),
        state_dir=state_dir,
        run_dir=_run_dir(texts["run_dir"] or str(state_dir / "run")),
        controller=_host_and_port("controller", texts["controller"] or DEFAULT_CONTROLLER),
        token_file=_directory("token_file", token_file) if token_file else None,
        labels=_labels(_table(document, "labels")),
        sockets=_sockets(_table(document, "sockets")),
    )


def default_state_dir(environment: Mapping[str, str]) -> Path:
    """State directory of an agent that was told none: of the system for root, else of the user."""
    if os.geteuid() == 0:
        return Path("/var/lib/instar/agent")
    home = environment.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(home) / "instar" / "agent"


def read_token(path: Path) -> str:
    """Read the bearer token of this node.

    Raises:
        ConfigError: The file cannot be read, is empty, or can be read by others.
    """
    try:
        with path.open(encoding="utf-8") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            token = file.read().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read token_file {path}: {error}", field="token_file", value=str(path)) from error
    if mode & FORBIDDEN_TOKEN_MODE:
        raise _unusable("token_file", str(path), f"nobody but its owner may read it (mode 0600, not {mode:04o})")
    if not token:
        raise _unusable("token_file", str(path), "it holds a token")
    return token


def agent_version() -> str:
    """Version of the agent that runs."""
    return agent.__version__


def _text(document: Mapping[str, object], environment: Mapping[str, str], key: str) -> str:
    value = environment.get(ENVIRONMENT_PREFIX + key.upper()) or document.get(key, "")
    if not isinstance(value, str):
        raise _unusable(key, value, "it is a text")
    return value


def _table(document: Mapping[str, object], key: str) -> Mapping[str, object]:
    value = document.get(key, {})
    if not isinstance(value, dict):
        raise _unusable(key, value, "it is a table")
    return cast("Mapping[str, object]", value)


def _labels(table: Mapping[str, object]) -> Mapping[str, str]:
    labels: dict[str, str] = {}
    for key, value in table.items():
        _matching("labels", key, LABEL_KEY, "keys of labels have the form of Kubernetes")
        labels[key] = _matching(f"labels.{key}", value, LABEL_VALUE, "a label has the form of Kubernetes")
    return labels


def _sockets(table: Mapping[str, object]) -> Mapping[str, Mapping[str, str]]:
    sockets: dict[str, Mapping[str, str]] = {}
    for component in table:
        name = f"sockets.{layout.component_name(component, field='sockets')}"
        addresses = _table(table, component) if isinstance(table[component], dict) else None
        if addresses is None:
            raise _unusable(name, table[component], "it is a table of socket names and addresses")
        sockets[component] = {key: socket_address(f"{name}.{key}", value) for key, value in addresses.items()}
    return sockets


def socket_address(name: str, value: object) -> str:
    """Check the form of a listening address and give it back.

    Raises:
        ConfigError: It is neither "host:port" nor "unix:/absolute/path".
    """
    rule = 'an address is "127.0.0.1:8080", "[::1]:8080" or "unix:/path"'
    if not isinstance(value, str):
        raise _unusable(name, value, rule)
    if value.startswith("unix:/"):
        return value
    return _host_and_port(name, value, rule)


def _host_and_port(name: str, value: str, rule: str = 'it is "host:port"') -> str:
    match = HOST_AND_PORT.fullmatch(value)
    if match is None or int(match["port"]) > PORT_MAX:
        raise _unusable(name, value, rule)
    return value


def _directory(name: str, value: str) -> Path:
    path = Path(value)
    if not path.is_absolute():
        raise _unusable(name, value, "it is an absolute path")
    return path


def _run_dir(value: str) -> Path:
    if len(os.fsencode(value)) > RUN_DIR_BYTES_MAX:
        raise _unusable("run_dir", value, f"it has at most {RUN_DIR_BYTES_MAX} bytes, since sockets live in it")
    return _directory("run_dir", value)


def _matching(name: str, value: object, form: re.Pattern[str], rule: str) -> str:
    if not isinstance(value, str) or not form.fullmatch(value):
        raise _unusable(name, value, rule)
    return value


def _refuse_unknown(document: Mapping[str, object], known: tuple[str, ...]) -> None:
    for key, value in document.items():
        if key not in known:
            raise _unusable(key, value, f"known keys are {', '.join(sorted(known))}")


def _unusable(name: str, value: object, rule: str) -> ConfigError:
    return ConfigError(f"cannot use {name} = {value!r}: {rule}", field=name, value=str(value), rule=rule)
