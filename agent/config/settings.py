"""The agent's own configuration: a TOML file, with INSTAR_* variables of the environment above it.

Rules kept here: an unknown key is refused and named; the environment outranks the file, the file outranks defaults;
what a token file holds is read only where nobody else can read it. Left out: flags (`agent.cli`), manifests; what a
file of a secret holds, which the keeper reads for the component alone.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import agent
from agent.config import bounds, layout
from agent.config.errors import ConfigError
from agent.core import secret

ENVIRONMENT_PREFIX = "INSTAR_"
DEFAULT_CONTROLLER = "127.0.0.1:7443"
RUN_DIR_BYTES_MAX = 72  # a Unix socket path has at most 107 bytes; this leaves 35 for "/", instance id and ".probe"
TEXT_KEYS = (
    "node_id",
    "state_dir",
    "run_dir",
    "controller",
    "token_file",
    "uv",
    "python_index",
    "agent_user",
    "trust_file",
)
TABLE_KEYS = ("labels", "sockets", "secrets", "users", "rollback_points")
OTHER_KEYS = ("drivers", "disk_quota")
DRIVERS_MAX = 16  # each is code that a node trusts; more is a mistake
PORT_MAX = 65535
FORBIDDEN_TOKEN_MODE = stat.S_IRWXG | stat.S_IRWXO

NODE_ID = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?")
LABEL_KEY = re.compile(r"(?:[a-z0-9.-]{1,253}/)?[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
LABEL_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
CREDENTIAL_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
CREDENTIAL_RULE = "letters, digits, dots, dashes and underscores, at most 63"
USER_NAME = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
DRIVER_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?")
INDEX_URL = re.compile(r"https://[!-~]+|http://(?:127\.0\.0\.1|localhost|\[::1\])(?::\d+)?/[!-~]*")
SOCKET_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?")
HOST_AND_PORT = re.compile(r"(?P<host>[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):(?P<port>\d{1,5})")


@dataclass(frozen=True, slots=True)
class Config:
    """What a node was told of itself.

    Args:
        controller: Host and port of the controller; asked only where there is a token_file.
        token_file: File with the bearer token of this node; None where there is no controller.
        sockets: For each component, the address of each of its sockets: "127.0.0.1:8080" or "unix:/path".
        secrets: For each component, the file of each of its secrets.
        users: The user that a component runs as, where it is not the keeper's own.
        agent_user: The user that the agent runs as; empty for the keeper's own.
        drivers: Names of the drivers of others that this node trusts.
        uv: The program that makes Python environments; None where it is to be found.
        python_index: Index that wheels come from where a bundle has no wheelhouse; empty for none.
        trust_file: File that names the keys that releases must be signed with; None where none need be.
        disk_quota_bytes: What all releases and environments may take; None where only the disk bounds them.
    """

    node_id: str
    state_dir: Path
    run_dir: Path
    controller: str
    token_file: Path | None
    labels: Mapping[str, str] = field(default_factory=dict)
    sockets: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    secrets: Mapping[str, Mapping[str, Path]] = field(default_factory=dict)
    users: Mapping[str, str] = field(default_factory=dict)
    agent_user: str = ""
    drivers: tuple[str, ...] = ()
    uv: Path | None = None
    python_index: str = ""
    trust_file: Path | None = None
    disk_quota_bytes: int | None = None
    rollback_points: bounds.RollbackPoints = field(default_factory=bounds.RollbackPoints)

    @property
    def layout(self) -> layout.Layout:
        """Where everything of this node lies."""
        return layout.Layout(self.state_dir, self.run_dir)

    @property
    def agent_socket(self) -> Path:
        """Where the agent listens for this node's own people: in a directory where its user may make it."""
        return (self.state_dir if self.agent_user else self.run_dir) / "agent.sock"

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
    _refuse_unknown(document, (*TEXT_KEYS, *TABLE_KEYS, *OTHER_KEYS))
    texts = {key: _text(document, environment, key) for key in TEXT_KEYS}
    state_dir = _directory("state_dir", texts["state_dir"] or str(default_state_dir(environment)))
    token_file, uv, quota = texts["token_file"], texts["uv"], document.get("disk_quota")
    trust_file = texts["trust_file"]
    return Config(
        node_id=_matching("node_id", texts["node_id"], NODE_ID, "lower-case letters, digits, dots and dashes"),
        state_dir=state_dir,
        run_dir=_run_dir(texts["run_dir"] or str(state_dir / "run")),
        controller=_host_and_port("controller", texts["controller"] or DEFAULT_CONTROLLER),
        token_file=_directory("token_file", token_file) if token_file else None,
        labels=_labels(_table(document, "labels")),
        sockets=_sockets(_table(document, "sockets")),
        secrets=_secrets(_table(document, "secrets")),
        users=_users(_table(document, "users")),
        agent_user=_user("agent_user", texts["agent_user"]) if texts["agent_user"] else "",
        drivers=_drivers(document.get("drivers", [])),
        uv=_directory("uv", uv) if uv else None,
        python_index=_index(texts["python_index"]),
        trust_file=_directory("trust_file", trust_file) if trust_file else None,
        disk_quota_bytes=bounds.size_bytes("disk_quota", quota) if quota is not None else None,
        rollback_points=bounds.rollback_points(_table(document, "rollback_points")),
    )


def default_state_dir(environment: Mapping[str, str]) -> Path:
    """State directory of an agent that was told none: of the system for root, else of the user."""
    if os.geteuid() == 0:
        return Path("/var/lib/instar/agent")
    home = environment.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(home) / "instar" / "agent"


def read_token(path: Path) -> secret.Secret[str]:
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
    return secret.Secret(token)


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
    for component, addresses in _tables("sockets", table, "it is a table of socket names and addresses"):
        name = f"sockets.{component}"
        sockets[component] = {key: socket_address(f"{name}.{key}", value) for key, value in addresses.items()}
    return sockets


def _secrets(table: Mapping[str, object]) -> Mapping[str, Mapping[str, Path]]:
    secrets: dict[str, Mapping[str, Path]] = {}
    for component, files in _tables("secrets", table, "it is a table of names and files"):
        for key in files:
            _matching(f"secrets.{component}", key, CREDENTIAL_NAME, CREDENTIAL_RULE)
        secrets[component] = {key: _file(f"secrets.{component}.{key}", value) for key, value in files.items()}
    return secrets


def _tables(name: str, table: Mapping[str, object], rule: str) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Give the table of each component."""
    for component, inner in table.items():
        layout.component_name(component, field=name)
        if not isinstance(inner, dict):
            raise _unusable(f"{name}.{component}", inner, rule)
        yield component, cast("Mapping[str, object]", inner)


def _users(table: Mapping[str, object]) -> Mapping[str, str]:
    names = {layout.component_name(component, field="users"): user for component, user in table.items()}
    return {component: _user(f"users.{component}", user) for component, user in names.items()}


def _user(name: str, value: object) -> str:
    return _matching(name, value, USER_NAME, "the name of a user of this host")


def _drivers(names: object) -> tuple[str, ...]:
    rule = f"it is a list of at most {DRIVERS_MAX} names of drivers, each once"
    if not isinstance(names, list) or len(names) > DRIVERS_MAX or len(set(map(str, names))) < len(names):
        raise _unusable("drivers", names, rule)
    return tuple(
        _matching("drivers", name, DRIVER_NAME, "lower-case letters, digits, dots and dashes") for name in names
    )


def _index(value: str) -> str:
    rule = "an index is reached by https, or by http on this host alone"
    return _matching("python_index", value, INDEX_URL, rule) if value else ""


def _file(name: str, value: object) -> Path:
    if not isinstance(value, str):
        raise _unusable(name, value, "it is an absolute path")
    return _directory(name, value)


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
