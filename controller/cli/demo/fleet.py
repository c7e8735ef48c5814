"""The processes of the demo: a controller, agents with their keepers and services, and the load client.

Rules kept: each is started by the command that an operator would use, on loopback, with a state directory of its own;
each is stopped by its process id, a node's services first by its keeper. Left out: what is rolled out (`scenario`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from controller import clock
from controller.cli import connection, credentials, failures
from controller.cli.demo import api, bundles, keeper_socket, ports, process
from controller.config import settings
from controller.core import secret
from controller.trust import authorities, clients
from instar.v1 import fleet_service_pb2

READY_SECONDS = 60.0  # for a controller or an agent to come up on a busy machine
_IN_A_FILE = secret.Secret("")
DOMAIN = "demo.instar"  # of the throw-away authorities


class Controller:
    """A controller of its own, with its state under a folder, and throw-away keys that its releases are signed with.

    Args:
        folder: Where its state and its log lie.
        otlp_port: Port of the loopback where it sends its spans; None for nowhere.
        heartbeat_period: Time between two heartbeats of an agent, such as "1s".
        has_tls: It has throw-away authorities, and everybody shows a certificate; else bearer tokens.
        store_url: The database of its store; empty for a file.
    """

    def __init__(
        self,
        folder: Path,
        otlp_port: int | None,
        heartbeat_period: str,
        *,
        has_tls: bool = False,
        store_url: secret.Secret[str] = _IN_A_FILE,
    ) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self._heartbeat_period = heartbeat_period
        self._port, self._enrol_port = ports.free(2)
        self._otlp_port = otlp_port
        self.has_tls = has_tls
        self._store_url = store_url
        self._process: process.Process | None = None

    @property
    def address(self) -> str:
        """Where its gRPC listener is."""
        return f"{ports.HOST}:{self._port}"

    @property
    def enrol_address(self) -> str:
        """Where nodes come in that have no certificate yet."""
        return f"{ports.HOST}:{self._enrol_port}"

    @property
    def state_dir(self) -> Path:
        """Where everything durable of it is."""
        return self._folder / "state"

    @property
    def running(self) -> process.Process:
        """Its process."""
        if self._process is None:
            raise process.ProcessError("cannot use the controller: it was not started")
        return self._process

    async def start(self) -> None:
        """Start it, or start it again on the same state; return when it answers."""
        await self._make_trust()
        self._process = await process.start(
            "the controller", self._argv(), log=self._folder / "controller.log", environment=self._environment()
        )
        try:
            await process.until("the controller answers", self._answers, seconds=READY_SECONDS)
        except process.ProcessError as error:
            raise self.running.failure("start the controller") from error

    async def stop(self) -> None:
        """Stop it, if it runs."""
        if self._process is not None:
            await self._process.stop()

    async def kill(self) -> None:
        """Kill it as if the machine had, and start it again; return when it answers."""
        await self.running.kill()
        await self.start()

    def connect(self) -> connection.Connection:
        """A connection to its API."""
        return connection.Connection(self.address, self._credentials())

    async def join_token(self, node_id: str) -> str:
        """A token by which a node comes in."""
        asked = fleet_service_pb2.MakeJoinTokenRequest(node_id=node_id)
        async with self.connect() as link:
            return (await link.call(link.fleet.MakeJoinToken, asked, seconds=api.CALL_SECONDS)).token

    async def instar(self, *arguments: str) -> str:
        """Run a command of the operators' command line against it.

        Returns:
            What the command wrote on standard output.
        """
        what = "run instar " + " ".join(arguments)
        return await process.run(what, [process.script("instar"), *arguments], environment=self._environment())

    async def publish(self, source: bundles.Publishable) -> None:
        """Write, build, sign and publish a version of a component."""
        tree = self._folder / f"{source.component}-{source.version}"
        bundle = tree.with_name(f"{tree.name}.tar")
        source.write(tree)
        await self.instar("release", "build", str(tree), "-o", str(bundle))
        await self.publish_bundle(bundle)

    async def publish_bundle(self, bundle: Path) -> None:
        """Sign a bundle, and publish it with the metadata that name it."""
        await self.instar("release", "sign", str(bundle))
        await self.instar("release", "publish", str(bundle))

    @property
    def root_file(self) -> Path:
        """The root of its releases, for nodes to pin."""
        return self._trust / "root.json"

    @property
    def _trust(self) -> Path:
        return self._folder / "publisher"

    async def _answers(self) -> bool:
        if not self.running.is_running:
            raise self.running.failure("start the controller")
        if not self._has_credentials:
            return False
        async with self.connect() as link:
            try:
                await api.nodes(link)
            except failures.CommandError as error:
                if error.exit_code is not failures.Exit.UNREACHABLE:
                    raise
                return False
        return True

    @property
    def _has_credentials(self) -> bool:
        last = self._operator_dir / clients.KEY_NAME if self.has_tls else self._token_file
        return last.exists()

    def _credentials(self) -> credentials.Token | credentials.Certificates:
        if self.has_tls:
            return credentials.of_folder(self._operator_dir).read()
        return credentials.find(self.address, self._token_file)

    async def _make_trust(self) -> None:
        """Make the keys of the releases, and with TLS the authorities, where they are not there yet."""
        if not self._trust.exists():
            await self.instar("trust", "init", str(self._trust))
        if self.has_tls and not (self.state_dir / "ca").exists():
            authorities.create(self.state_dir / "ca", DOMAIN, clock.SystemClock().now())

    def _argv(self) -> Sequence[str]:
        """The command that serves, with the configuration that it is given."""
        argv = [process.script("instar"), "controller", "serve"]
        if wanted := self._settings():
            file = self._folder / "controller.toml"
            file.write_text(wanted, encoding="utf-8")
            argv += ["--config", str(file)]
        return argv

    def _settings(self) -> str:
        """What its configuration says; nothing where there is none."""
        return f'[tls]\nenrol_listen = "{self.enrol_address}"\n' if self.has_tls else ""

    @property
    def _token_file(self) -> Path:
        return settings.operator_token_file(self.state_dir)

    @property
    def _operator_dir(self) -> Path:
        return settings.operator_certificate_dir(self.state_dir)

    @property
    def client_environment(self) -> dict[str, str]:
        """What tells the operators' command line where it is."""
        return {"INSTAR_CONTROLLER": self.address, "INSTAR_TRUST": str(self._trust), **self._shown}

    @property
    def _shown(self) -> dict[str, str]:
        """What tells the command line what to show."""
        if not self.has_tls:
            return {"INSTAR_TOKEN_FILE": str(self._token_file)}
        files = credentials.of_folder(self._operator_dir)
        return {
            credentials.CA_FILE: str(files.roots),
            credentials.CERTIFICATE_FILE: str(files.certificate),
            credentials.KEY_FILE: str(files.key),
        }

    def _environment(self) -> Mapping[str, str]:
        return (
            _inherited()
            | {
                "INSTAR_STATE_DIR": str(self.state_dir),
                "INSTAR_LISTEN": self.address,
                "INSTAR_HEARTBEAT_PERIOD": self._heartbeat_period,
                "INSTAR_TRUST_DIR": str(self._trust / "online"),
            }
            | {settings.STORE_URL: self._store_url.reveal()}
            | self.client_environment
            | ({} if self._otlp_port is None else _otlp_environment(self._otlp_port))
        )


class Node:
    """A node of its own: keeper, agent and services, with their state under a folder.

    Args:
        folder: Where its state, its configuration and its log lie; a short path, for the sockets in it.
    """

    def __init__(self, node_id: str, folder: Path, controller: Controller) -> None:
        self.id = node_id
        self._folder = folder
        self._controller = controller
        self.port = ports.free(1)[0]
        self._process: process.Process | None = None

    @property
    def run_dir(self) -> Path:
        """Where the keeper's and the instances' sockets lie."""
        return self._folder / "run"

    @property
    def state_dir(self) -> Path:
        """Where the journal, the pointers and the releases lie."""
        return self._folder / "state"

    @property
    def config_file(self) -> Path:
        """What the agent is told."""
        return self._folder / "agent.toml"

    @property
    def keeper(self) -> process.Process:
        """The keeper's process, the first of the node's tree."""
        if self._process is None:
            raise process.ProcessError(f"cannot use node {self.id}: it was not started")
        return self._process

    async def enrol(self) -> None:
        """Pin the root of the releases, write the configuration, and get a certificate; without TLS a token."""
        self._folder.mkdir(parents=True)
        shutil.copy(self._controller.root_file, self._folder / "root.json")
        (self._folder / "trust.toml").write_text('root = "root.json"\n', encoding="utf-8")
        self.config_file.write_text(self._configuration(), encoding="utf-8")
        if not self._controller.has_tls:
            await self._controller.instar("node", "token", self.id, "--out", str(self._folder / "token"))
            return
        words = ("enroll", "-", "--controller", self._controller.enrol_address, "--config", str(self.config_file))
        argv, token = [process.script("instar-agent"), *words], await self._controller.join_token(self.id)
        await process.run(f"enrol node {self.id}", argv, environment=_inherited(), said=token)

    async def start(self) -> None:
        """Start the keeper, and with it the agent; or start them again on the same state."""
        argv = [process.script("instar-agent"), "run", "--config", str(self.config_file)]
        self._process = await process.start(
            f"node {self.id}", argv, log=self._folder / "agent.log", environment=_inherited()
        )

    async def stop(self) -> None:
        """Stop its services, its agent and its keeper."""
        if self._process is None:
            return
        if self._process.is_running:
            await self._shutdown()
        await self._process.stop()
        self._kill_instances()

    async def look(self) -> keeper_socket.Seen:
        """What runs on it, by its keeper's word.

        Raises:
            process.ProcessError: The keeper does not answer.
        """
        try:
            return await keeper_socket.look(self._socket)
        except OSError as error:
            raise self.keeper.failure(f"ask the keeper of {self.id}: {error}") from error

    async def _shutdown(self) -> None:
        """Ask the keeper to stop what it keeps and to end."""
        with contextlib.suppress(OSError):
            async with asyncio.timeout(process.STOP_SECONDS):
                await keeper_socket.shut_down(self._socket)
                await self.keeper.ended()

    @property
    def _socket(self) -> Path:
        return self.run_dir / "keeper.sock"

    def _kill_instances(self) -> None:
        """End what a keeper that was killed has left behind; its notes say what that is."""
        for note in self.run_dir.glob("*.json"):
            with contextlib.suppress(OSError, ValueError, KeyError):
                os.killpg(int(json.loads(note.read_text(encoding="utf-8"))["pid"]), signal.SIGKILL)

    def _configuration(self) -> str:
        shown = "" if self._controller.has_tls else f'token_file = "{self._folder / "token"}"\n'
        return f"""\
{shown}node_id = "{self.id}"
controller = "{self._controller.address}"
trust_file = "{self._folder / "trust.toml"}"
state_dir = "{self.state_dir}"
run_dir = "{self.run_dir}"

[sockets.{bundles.COMPONENT}]
{bundles.SOCKET} = "{ports.HOST}:{self.port}"
"""


async def start_load(nodes: Sequence[Node], folder: Path, *, requests_per_second: float) -> process.Process:
    """Start the load client on all nodes.

    Args:
        nodes: Whose services to ask.
        folder: Where it writes ``requests.tsv``.
        requests_per_second: Over all nodes together.
    """
    argv = [sys.executable, "-m", "controller.cli.demo.load", "--out", str(folder / "requests.tsv")]
    argv += ["--rate", str(requests_per_second / len(nodes))]
    for node in nodes:
        argv += ["--node", f"{node.id}={ports.HOST}:{node.port}"]
    return await process.start("the load client", argv, log=folder / "load.log", environment=_inherited())


def _inherited() -> dict[str, str]:
    """Our own environment without settings that would send our processes elsewhere."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("INSTAR_", "OTEL_"))}


def _otlp_environment(port: int) -> dict[str, str]:
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{ports.HOST}:{port}",
        "OTEL_EXPORTER_OTLP_INSECURE": "true",
    }
