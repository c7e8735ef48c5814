"""Item 68: secrets of every kind pass through a real controller and real nodes, and are found nowhere afterwards."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from grpc import aio
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from controller.cli.demo import bundles, fleet, ports, process, receiver
from controller.core import secret
from controller.web import secrets
from instar.v1 import agent_service_pb2, agent_service_pb2_grpc, fleet_service_pb2, fleet_service_pb2_grpc
from tests.controller.metrics import real_prometheus
from tests.integration import zones
from tests.security import canaries

NODES = 2
WAIT_SECONDS = 120.0
HEARTBEAT_PERIOD = "0.5s"
EVENTS, ALERTS, PROMETHEUS, COMPONENT = "events", "alerts", "prometheus", "component"  # kinds that are planted
PLANTED = {
    EVENTS: "Kanarienvogel-of-events-7f3k/+x",
    ALERTS: "Kanarienvogel-of-alerts-9d2m/+y",
    PROMETHEUS: "Kanarienvogel-of-prometheus-1q8z/+w",
    COMPONENT: "Kanarienvogel-of-component-5t6r/+v",
}
WRONG = "Kanarienvogel-that-nobody-knows-3b4n"  # shown by a caller that errs: it may be the token of another place
CONFIGURATION = """\
[web]
listen = "{web}"
events_secret_file = "{folder}/events"
alertmanager_token_file = "{folder}/alerts"

[[prometheus]]
name = "main"
url = "http://{prometheus}"
step = "1s"
node_label = "node"
token_file = "{folder}/prometheus"
"""
ANALYSIS = {
    "source": "main",
    "metrics": [
        {
            "name": "errors",
            "measure": {"kind": "RATIO", "series": "web_errors_total", "per": "web_requests_total"},
            "harm_percent": 400,
        }
    ],
    "duration": "10s",
    "past": "20s",
    "warm_up": "1s",
    "first_look": "2s",
    "inconclusive_after": "60s",
    "unknown_after": "60s",
}


class Receiver(receiver.Receiver):
    """Keeps everything that is exported, as it came."""

    def __init__(self) -> None:
        super().__init__()
        self.exported: list[bytes] = []

    async def Export(  # noqa: N802  # the method's name on the wire
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: object
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        self.exported.append(request.SerializeToString())
        return await super().Export(request, context)


class Controller(fleet.Controller):
    """A controller that is told where its secrets lie."""

    def __init__(self, folder: Path, otlp_port: int, planted: Path, prometheus: str) -> None:
        super().__init__(folder, otlp_port, HEARTBEAT_PERIOD)
        self.web = f"{ports.HOST}:{ports.free(1)[0]}"
        self._file = folder / "controller.toml"
        self._file.write_text(CONFIGURATION.format(web=self.web, folder=planted, prometheus=prometheus))

    def _environment(self) -> Mapping[str, str]:
        return {**super()._environment(), "INSTAR_CONFIG": str(self._file)}


class Node(fleet.Node):
    """A node that is told where the secret of the component lies."""

    secret_file: Path

    def _configuration(self) -> str:
        return f'{super()._configuration()}\n[secrets.{bundles.COMPONENT}]\nkey = "{self.secret_file}"\n'


@dataclass(frozen=True)
class Version:
    """A version that has a secret; `wanted` is what it calls it, and a bad one ends at once with an error."""

    version: str
    wanted: str = "key"
    is_bad: bool = False
    component: str = bundles.COMPONENT

    def write(self, folder: Path) -> None:
        bundles.Source(self.version).write(folder)
        manifest = (folder / "instar.toml").read_text()
        (folder / "instar.toml").write_text(manifest.replace("\n[", f'\nsecrets = ["{self.wanted}"]\n[', 1))
        if self.is_bad:
            (folder / "service.py").write_text("raise SystemExit('it cannot start')\n")


@dataclass
class Stage:
    """What runs, and what was said."""

    house: zones.Zones
    controller: Controller
    spans: Receiver
    asked: list[str]
    said: list[str] = field(default_factory=list)

    async def say(self, *arguments: str) -> zones.Said:
        found = await self.house.say(*arguments)
        self.said += [found.out, found.err]
        return found

    async def post(self, path: str, found: object, headers: Mapping[str, str]) -> int:
        async with httpx.AsyncClient(trust_env=False, timeout=WAIT_SECONDS) as client:
            answer = await client.post(
                f"http://{self.controller.web}{path}", content=json.dumps(found), headers=headers
            )
        self.said += [answer.text, str(answer.headers)]
        return answer.status_code


@asynccontextmanager
async def up() -> AsyncIterator[tuple[Path, Stage]]:
    root = Path(tempfile.mkdtemp(prefix="is-"))  # short: sockets live in it
    async with AsyncExitStack() as started:
        started.callback(shutil.rmtree, root, ignore_errors=True)
        planted = root / "planted"
        planted.mkdir(mode=0o700)
        for name, text in PLANTED.items():
            (planted / name).write_text(f"{text}\n")
        spans = Receiver()
        collector, port = await receiver.serve(spans)
        started.push_async_callback(collector.stop, None)
        asked: list[str] = []
        prometheus = started.enter_context(real_prometheus.serving(lambda request: repeat(request, asked)))
        controller = Controller(root / "controller", port, planted, prometheus)
        started.push_async_callback(controller.stop)
        await controller.start()
        nodes = [Node(f"n{number}", root / f"n{number}", controller) for number in range(NODES)]
        house = zones.Zones(root, controller, nodes)
        for node in nodes:
            node.secret_file = planted / COMPONENT
            started.push_async_callback(node.stop)
            await node.enrol()
            await node.start()
        try:
            yield root, Stage(house, controller, spans, asked)
        except BaseException as error:
            add_logs(error, root)
            raise


def add_logs(error: BaseException, root: Path) -> None:
    for log in sorted(root.rglob("*.log")):
        error.add_note(f"--- {log.relative_to(root)}\n{process.tail(log)}")


def repeat(request: real_prometheus.Request, asked: list[str]) -> None:
    """A proxy before the server that lets nobody in, and repeats what it was shown."""
    shown = str(request.headers["authorization"])
    asked.append(shown)
    real_prometheus.reply(request, json.dumps({"status": "error", "error": f"who is {shown}?"}), 400)


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_68_no_secret_is_found_in_logs_errors_database_spans_journal_or_audit() -> None:
    async with up() as (root, stage):
        await use_the_component(stage)
        await call_with_wrong_tokens(stage)
        await send(stage)
        await ask_prometheus(stage)
        exported = await stage.say("audit", "export")
        assert exported.code == 0, exported
        assert (await stage.say("audit", "verify")).code == 0
        await stage.say("component", "logs", "web", "--node", "n0")
        await stage.say("node", "explain", "n1")
        await process.until("spans have come", spans_came(stage), seconds=WAIT_SECONDS)
        planted = secrets_of(root)
        holders = [root / "planted", root / "controller" / "state" / "tokens" / "operator.token"]
        holders += [root / node.id / "token" for node in stage.house.nodes]
        credentials = [each for node in stage.house.nodes for each in node.run_dir.glob("*.cred")]
        assert any(
            canaries.found(planted[COMPONENT], each.read_bytes()) for one in credentials for each in one.iterdir()
        )
        leaks = [
            f"{kind} in {path.relative_to(root)}"
            for path in canaries.files(root, [*holders, *credentials])
            for kind, each in planted.items()
            if canaries.found(each, readable(path))
        ]
        told = "\n".join(stage.said).encode()
        leaks += [f"{kind} in what was said" for kind, each in planted.items() if canaries.found(each, told)]
        sent = b"".join(stage.spans.exported)
        leaks += [f"{kind} in spans" for kind, each in planted.items() if canaries.found(each, sent)]
        assert leaks == []
        searched = {path.name for path in canaries.files(root, [*holders, *credentials])}
        assert {"controller.db", "controller.log", "agent.log", "principals", "journal"} <= searched, searched
        assert sent


def secrets_of(root: Path) -> dict[str, bytes]:
    """All that is a secret: what was planted, and what the controller has made."""
    found = {kind: text.encode() for kind, text in PLANTED.items()}
    found["wrong"] = WRONG.encode()
    found["operator"] = (root / "controller" / "state" / "tokens" / "operator.token").read_bytes().strip()
    return found | {f"n{number}": (root / f"n{number}" / "token").read_bytes().strip() for number in range(NODES)}


def readable(path: Path) -> bytes:
    with contextlib.suppress(FileNotFoundError):  # it may go while others are looked at
        return path.read_bytes()
    return b""


def spans_came(stage: Stage):  # type: ignore[no-untyped-def]  # noqa: ANN201  # a condition
    async def is_so() -> bool:
        return len(stage.spans.exported) > 0

    return is_so


async def use_the_component(stage: Stage) -> None:
    """A version that starts with its secret, one that does not start, and one whose secret the node has not."""
    house = stage.house

    async def are_connected() -> bool:
        found = json.loads((await stage.say("node", "list", "-o", "json")).out)
        return [node["connected"] for node in found["nodes"]].count(True) == NODES

    await process.until("the nodes are connected", are_connected, seconds=WAIT_SECONDS)
    versions = (Version("1.0.0"), Version("1.1.0"), Version("1.2.0", is_bad=True), Version("1.3.0", wanted="absent"))
    for each in versions:
        await stage.controller.publish(each)
    for version, state in (("1.0.0", "SUCCEEDED"), ("1.2.0", "REVERTED"), ("1.3.0", None)):
        words = ("--install", "--strategy", "immediate", "--name", f"to-{version}", *zones.QUICK)
        started = await stage.say("upgrade", "start", "web", version, *words)
        assert started.code == 0, started
        ended = await house.ended(f"to-{version}")
        assert ended["state"] != "SUCCEEDED" if state is None else ended["state"] in (state, "FAILED"), ended
    await stage.say("rollout", "explain", "to-1.2.0")
    await stage.say("rollout", "show", "to-1.3.0")


async def call_with_wrong_tokens(stage: Stage) -> None:
    """Callers that nobody knows, agents that call as people, and people that name what is not there."""
    node_token = (stage.house.nodes[0].config_file.parent / "token").read_text().strip()
    async with aio.insecure_channel(stage.controller.address) as channel:
        people = fleet_service_pb2_grpc.FleetServiceStub(channel)
        agents = agent_service_pb2_grpc.AgentServiceStub(channel)
        for token in (WRONG, node_token):
            metadata = (("authorization", f"Bearer {token}"),)
            for call in (
                people.CordonNode(fleet_service_pb2.CordonNodeRequest(node_id="n0", reason="x"), metadata=metadata),
                people.ListNodes(fleet_service_pb2.ListNodesRequest(), metadata=metadata),
            ):
                with pytest.raises(aio.AioRpcError) as caught:
                    await call
                stage.said.append(f"{caught.value!r} {caught.value.trailing_metadata()}")
            hello = agent_service_pb2.Hello(node_id="n1", instance_token="x", protocol_versions=[1])  # noqa: S106  # none
            stream = agents.Connect(iter_of(hello), metadata=metadata)
            with pytest.raises(aio.AioRpcError) as caught:
                async for _ in stream:
                    pass
            stage.said.append(f"{caught.value!r}")
    assert (await stage.say("rollout", "pause", "nothing", "--reason", "x")).code == 8
    wrong = stage.house.root / "planted" / "wrong"
    wrong.write_text(WRONG)
    assert (await stage.say("node", "list", "--token-file", str(wrong))).code == 8


async def iter_of(hello: agent_service_pb2.Hello) -> AsyncIterator[agent_service_pb2.ConnectRequest]:
    yield agent_service_pb2.ConnectRequest(sequence=1, hello=hello)


async def send(stage: Stage) -> None:
    """Events and alerts: of senders that know the secret, that do not, and that show the wrong one."""
    event = {"specversion": "1.0", "id": "1", "source": "ci", "type": "build.done"}
    body = json.dumps(event).encode()
    for text, status in ((PLANTED[EVENTS], 200), (WRONG, 401)):
        timestamp = str(int(time.time()))  # noqa: TID251  # as a sender would
        signature = secrets.sign(secret.Secret(text.encode()), timestamp, {}, body)
        headers = {"content-type": "application/cloudevents+json", secrets.TIMESTAMP: timestamp}
        assert await stage.post("/v1/events", event, {**headers, secrets.SIGNATURE: signature}) == status
    assert await stage.post("/v1/events", event, {"authorization": f"Bearer {PLANTED[EVENTS]}"}) == 401
    alert = {"status": "firing", "labels": {"alertname": "a"}, "startsAt": "2026-01-01T00:00:00Z", "fingerprint": "f"}
    told = {"version": "4", "receiver": "instar", "alerts": [alert]}
    for text, status in ((PLANTED[ALERTS], 200), (PLANTED[EVENTS], 401), (WRONG, 401)):
        assert await stage.post("/v1/alertmanager", told, {"authorization": f"Bearer {text}"}) == status
    assert await stage.post("/v1/alertmanager", [], {"authorization": f"Bearer {PLANTED[ALERTS]}"}) == 400


async def ask_prometheus(stage: Stage) -> None:
    """A canary that is judged by a server that lets nobody in."""
    file = stage.house.root / "analysis.json"
    file.write_text(json.dumps(ANALYSIS))
    options = ("--canary-nodes", "1", "--analysis", str(file), "--name", "judged", *zones.QUICK)
    started = await stage.say("upgrade", "start", "web", "1.1.0", *options)
    assert started.code == 0, started

    async def is_told() -> bool:
        shown = await stage.say("rollout", "show", "judged", "-o", "json")
        return "who is" in shown.out or json.loads(shown.out)["state"] not in ("PENDING", "RUNNING")

    await process.until("the judge has been refused", is_told, seconds=WAIT_SECONDS)
    assert f"Bearer {PLANTED[PROMETHEUS]}" in stage.asked
    await stage.say("rollout", "explain", "judged")
    await stage.say("rollout", "cancel", "judged", "--reason", "enough was seen")
    await stage.house.ended("judged")


@pytest.mark.parametrize("kind", ["plain", "hex", "base64", "urlsafe"])
@pytest.mark.parametrize("before", [b"", b"a", b"ab", b"abc"])
def test_a_secret_that_was_written_down_is_found_in_whatever_form(kind: str, before: bytes) -> None:
    """The search itself: what it cannot find, it does not show to be away."""
    text = before + PLANTED[EVENTS].encode() + b"behind it"
    ways = {
        "plain": text,
        "hex": text.hex().encode(),
        "base64": base64.standard_b64encode(text),
        "urlsafe": base64.urlsafe_b64encode(text),
    }
    assert canaries.found(PLANTED[EVENTS].encode(), b"some " + ways[kind] + b" log")
    assert not canaries.found(WRONG.encode(), b"some " + ways[kind] + b" log")
