"""TLS on the listeners: rotation without a restart, the web side, the commands, and where plaintext ends."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import ssl
from datetime import datetime
from pathlib import Path

import httpx
import pytest
from grpc import aio

from controller.cli import credentials, failures
from controller.cli.demo import ports
from controller.config import settings
from controller.core import errors, secret
from controller.rpc import callers, issuers, register
from controller.trust import authorities, certificates, clients, listening, peers
from controller.web import encryption
from instar.v1 import fleet_service_pb2, fleet_service_pb2_grpc
from tests.controller.cli import house as programs
from tests.security import house

K = house.K


async def test_an_authority_of_clients_is_replaced_while_the_controller_runs(tmp_path: Path) -> None:
    home = house.House(tmp_path)
    folder = home.state_dir / "ca"
    old = home.client()
    async with home.serving(), home.channel(old) as channel:
        stub = fleet_service_pb2_grpc.FleetServiceStub(channel)
        await stub.ListNodes(fleet_service_pb2.ListNodesRequest(), timeout=house.DEADLINE_SECONDS)
        authorities.begin_rotation(folder, K.CLIENTS, house.now())
        authorities.sign_with_new(folder, K.CLIENTS, house.now())
        new = home.client()
        for pair in (old, new):
            assert await home.call(pair) is None
        authorities.drop_old(folder, K.CLIENTS, house.now(), is_forced=True)
        assert await home.call(new) is None
        assert await home.call(old) is not None
        with pytest.raises(aio.AioRpcError, match="authority"):  # nor on the connection that was there before
            await stub.ListNodes(fleet_service_pb2.ListNodesRequest(), timeout=house.DEADLINE_SECONDS)


async def test_an_authority_of_the_listeners_is_replaced_and_whoever_trusts_both_sees_nothing_of_it(
    tmp_path: Path,
) -> None:
    home = house.House(tmp_path)
    folder, pair, old_roots = home.state_dir / "ca", home.client(), home.roots
    async with home.serving():
        authorities.begin_rotation(folder, K.SERVERS, house.now())
        both_roots = home.roots
        async with home.channel(pair, old_roots) as channel:
            stub = fleet_service_pb2_grpc.FleetServiceStub(channel)
            await stub.ListNodes(fleet_service_pb2.ListNodesRequest(), timeout=house.DEADLINE_SECONDS)
        authorities.sign_with_new(folder, K.SERVERS, house.now(), is_forced=True)
        authorities.drop_old(folder, K.SERVERS, house.now(), is_forced=True)
        for roots, is_let_in in ((both_roots, True), (home.roots, True), (old_roots, False)):
            async with home.channel(pair, roots) as channel:
                stub = fleet_service_pb2_grpc.FleetServiceStub(channel)
                try:
                    await stub.ListNodes(fleet_service_pb2.ListNodesRequest(), timeout=house.DEADLINE_SECONDS)
                except aio.AioRpcError:
                    assert not is_let_in
                else:
                    assert is_let_in


async def test_files_that_cannot_be_read_leave_the_certificate_before_in_use(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home = house.House(tmp_path)
    pair = home.client()
    async with home.serving():
        (home.state_dir / "ca" / "agents.json").write_text("{", encoding="utf-8")
        with pytest.raises(errors.InvalidRequestError):
            authorities.load(home.state_dir / "ca")
        async with home.channel(pair, home.known.bundle(K.SERVERS).encode()) as channel:
            stub = fleet_service_pb2_grpc.FleetServiceStub(channel)
            await stub.ListNodes(fleet_service_pb2.ListNodesRequest(), timeout=house.DEADLINE_SECONDS)
    assert "the one before goes on" in caplog.text


async def test_the_web_side_shows_the_same_certificate_and_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encryption, "LOOK_SECONDS", 0.05)
    home = house.House(tmp_path, '[web]\nlisten = "127.0.0.1:0"\ntls = true\n')
    assert home.settings.web is not None
    (port,) = ports.free(1)
    home.settings = dataclasses.replace(
        home.settings, web=dataclasses.replace(home.settings.web, listen=f"127.0.0.1:{port}")
    )
    async with home.serving():
        context = ssl.create_default_context(cadata=home.roots.decode())
        async with httpx.AsyncClient(verify=context) as client:
            answer = await client.get(f"https://127.0.0.1:{port}/healthz")
        assert answer.json() == {"status": "serving"}
        with pytest.raises(httpx.TransportError):
            async with httpx.AsyncClient() as client:
                await client.get(f"http://127.0.0.1:{port}/healthz")
        authorities.begin_rotation(home.state_dir / "ca", K.SERVERS, house.now())
        known = authorities.sign_with_new(home.state_dir / "ca", K.SERVERS, house.now(), is_forced=True)
        only_new = ssl.create_default_context(cadata=certificates.pem(known.signing(K.SERVERS).certificate))
        async with asyncio.timeout(house.DEADLINE_SECONDS):
            while not await _is_answered(f"https://127.0.0.1:{port}/healthz", only_new):
                continue


async def _is_answered(url: str, trusting: ssl.SSLContext) -> bool:
    with contextlib.suppress(httpx.TransportError):
        async with httpx.AsyncClient(verify=trusting) as client:
            return (await client.get(url)).status_code == httpx.codes.OK
    return False


async def test_the_commands_show_the_operators_certificate_or_one_that_is_named(tmp_path: Path) -> None:
    home = programs.House(tmp_path)
    config = tmp_path / "controller.toml"
    config.write_text("[tls]\n", encoding="utf-8")
    authorities.create(home.state_dir / "ca", house.DOMAIN, house.now())
    async with home.serving("127.0.0.1:0", "--config", str(config)):
        assert (await home.instar("node", "list", "-o", "json")).document == {"nodes": []}
        given = tmp_path / "ci"
        assert (await home.instar("ca", "client", "ci", "--out", given)).code == 0
        named = ("--ca-file", given / "ca.pem", "--certificate-file", given / "client.pem", "--key-file")
        assert (await home.instar(*named, given / "client.key", "node", "list")).code == 0
        some = await home.instar(*named[:4], "node", "list")
        assert (some.code, "--key-file" in some.err) == (2, True)
        stranger = tmp_path / "stranger"
        other = authorities.create(tmp_path / "other", "fleet", house.now())
        clients.issue(other, "ci", 1, house.now()).write(stranger)
        files = (stranger / "client.pem", "--key-file", stranger / "client.key")
        refused = await home.instar("--ca-file", given / "ca.pem", "--certificate-file", *files, "node", "list")
        assert refused.code == 7
        assert refused.err.startswith("cannot")
        looked = await home.instar("--ca-file", given / "ca.pem", "--certificate-file", *files, "doctor")
        assert looked.code == 1
        assert "ok   certificate: that of spiffe://fleet/client/ci is good until" in looked.out
        assert "FAIL controller: " in looked.out
        assert "FAIL call: cannot" in looked.out
        assert (await home.instar("doctor", "-o", "json")).document["is_well"] is True


def test_a_token_is_shown_on_loopback_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (credentials.CA_FILE, credentials.CERTIFICATE_FILE, credentials.KEY_FILE):
        monkeypatch.delenv(name, raising=False)
    file = tmp_path / "token"
    file.write_text("secret\n", encoding="utf-8")
    for address in ("127.0.0.1:1", "[::1]:1", "localhost:1"):
        assert credentials.find(address, file) == credentials.Token(secret.Secret("secret"))
    for address in ("192.0.2.1:1", "[2001:db8::1]:1", "controller.example:1"):
        with pytest.raises(failures.CommandError, match="in the clear"):
            credentials.find(address, file)


def test_without_tls_a_controller_listens_on_loopback_alone(tmp_path: Path) -> None:
    file = tmp_path / "controller.toml"
    for text, field in (
        ('listen = "0.0.0.0:7443"\n', "listen"),
        ('[web]\nlisten = "0.0.0.0:7480"\n', "web.listen"),
        ('[web]\nlisten = "127.0.0.1:7480"\ntls = true\n', "web.tls"),
        ('[tls]\nenrol_listen = "controller.example:7444"\n', "tls.enrol_listen"),
        ('[tls]\nnames = ["a b"]\n', "tls.names"),
        ('[tls]\nnames = "a"\n', "tls.names"),
        ('[tls]\nagent_lifetime = "25h"\n', "tls.agent_lifetime"),
        ("[tls]\nrecoveries = -1\n", "tls.recoveries"),
        ('[tls]\nkey = "x"\n', "tls.key"),
        ('[tls]\n[web]\nlisten = "127.0.0.1:1"\ntls = "yes"\n', "web.tls"),
    ):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(errors.InvalidRequestError) as caught:
            settings.load({}, {}, file)
        assert caught.value.field == field, text
    file.write_text('listen = "0.0.0.0:7443"\n[tls]\nnames = ["c.example"]\n[web]\nlisten = "[::]:7480"\ntls = true\n')
    loaded = settings.load({}, {}, file)
    assert (loaded.listen, loaded.web and loaded.web.listen) == ("0.0.0.0:7443", "[::]:7480")
    assert loaded.tls is not None
    names = loaded.tls.all_names(loaded.listen)
    assert names[0] == "c.example"
    assert names.count("127.0.0.1") == 1
    assert not any(each.startswith("0") for each in names)


def test_streams_are_looked_at_again_when_other_certificates_may_be_believed_and_only_then(tmp_path: Path) -> None:
    home, clock = house.House(tmp_path), _Clock(house.now())
    folder = home.state_dir / "ca"
    own = listening.Listening(folder, ["localhost"], clock)
    enrolled = register.Register(home.settings.principals_file)
    known = callers.Callers(enrolled, issuers.Issuers((), clock), clock, peers.Peers(lambda: own.known, clock.now))
    first = known.revision()
    clock.at += certificates.SERVER_LIFETIME / 2  # then the listeners' own certificate is another one
    assert known.revision() == first
    authorities.begin_rotation(folder, K.AGENTS, house.now())
    second = known.revision()
    authorities.sign_with_new(folder, K.AGENTS, house.now(), is_forced=True)
    authorities.drop_old(folder, K.AGENTS, house.now(), is_forced=True)
    assert len({first, second, known.revision()}) == 3


@dataclasses.dataclass
class _Clock:
    """Stands where the test puts it."""

    at: datetime

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return 0.0
