"""Tokens of issuers over TLS: a listener that asks nobody for a certificate, against the real server over real gRPC."""

from __future__ import annotations

import asyncio
import dataclasses
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import message
from grpc import aio

from controller.cli import credentials, doctor_command, failures
from controller.cli.demo import ports
from controller.config import settings
from controller.core import errors, roles, secret
from controller.rpc import errors as rpc_errors
from controller.rpc import listener, principals, register
from controller.trust import authorities, spiffe
from instar.v1 import (
    agent_service_pb2,
    audit_service_pb2,
    enrolment_service_pb2,
    enrolment_service_pb2_grpc,
    fleet_service_pb2,
    rollout_service_pb2,
    rollout_service_pb2_grpc,
)
from tests.controller.cli import house as programs
from tests.security import house, nodes, oidc, posts, test_authorisation, test_identity, test_tokens

LIST = fleet_service_pb2.ListNodesRequest()
NOBODY: posts.Metadata = ()


@dataclasses.dataclass(frozen=True)
class _Post(posts.Post):
    """Where the operator shows a certificate, which the channel has."""

    @property
    def operator(self) -> posts.Metadata:
        return NOBODY


@dataclasses.dataclass
class Home:
    """A controller with both listeners of the API, and the issuer whose tokens it takes."""

    controller: house.House
    issuer: oidc.Issuer

    def for_tokens(self, pair: house.Pair | None = None) -> aio.Channel:
        return self.controller.channel(pair, address=self.controller.token_address)

    async def refused(
        self, channel: aio.Channel, shown: posts.Metadata, name: str = "ListNodes", request: message.Message = LIST
    ) -> aio.AioRpcError:
        with pytest.raises(aio.AioRpcError) as caught:
            await posts.METHODS[name].call(channel, request, shown)
        return caught.value

    def agent(self, node_id: str) -> house.Pair:
        uri = house.uri(spiffe.Kind.AGENT, node_id)
        return house.forged(self.controller.known.signing(house.K.AGENTS), [uri], [house.CLIENT])


@pytest.fixture(scope="module")
def issuer() -> oidc.Issuer:
    return oidc.Issuer()


@pytest.fixture
def keys_file(tmp_path: Path, issuer: oidc.Issuer) -> Path:
    file = tmp_path / "keys.json"
    file.write_bytes(issuer.jwks())
    return file


@pytest.fixture
async def home(tmp_path: Path, issuer: oidc.Issuer, keys_file: Path) -> AsyncIterator[Home]:
    for_tokens, enrolling = ports.free(2)
    more = f'token_listen = "127.0.0.1:{for_tokens}"\n' + oidc.settings_text(f'jwks_file = "{keys_file}"')
    found = house.House(tmp_path, more, enrol_listen=f"127.0.0.1:{enrolling}")
    async with found.serving():
        yield Home(found, issuer)


def error_of(failure: aio.AioRpcError) -> errors.InstarError:
    return rpc_errors.from_rpc(failure)


async def test_a_token_of_an_issuer_is_worth_its_grants_over_tls_and_acts_under_its_name(home: Home) -> None:
    operator = posts.bearer(home.issuer.token())
    freeze = fleet_service_pb2.AddFreezeRequest()
    freeze.freeze.reason = "stock taking"
    freeze.freeze.end_time.FromSeconds(4_000_000_000)
    async with home.for_tokens() as channel:
        await posts.METHODS["ListNodes"].call(channel, LIST, operator)
        await posts.METHODS["AddFreeze"].call(channel, freeze, operator)
        seen = await posts.METHODS["ListAudit"].call(channel, audit_service_pb2.ListAuditRequest(), operator)
        assert ("corp:ann", "freeze.add") in {(row.actor, row.action) for row in seen.rows}
        viewer = posts.bearer(home.issuer.token(realm={"groups": "web"}, sub="vic"))
        refused = await home.refused(channel, viewer, "AddFreeze", freeze)
        assert refused.code() is grpc.StatusCode.PERMISSION_DENIED


WRONG = (
    "another issuer",
    "another audience",
    "alg none",
    "HS256 with the public key",
    "PS256, which is not pinned",
    "another's key",
    "changed afterwards",
    "expired",
)


async def test_42_a_token_that_is_not_good_in_every_respect_opens_nothing_over_tls(home: Home) -> None:
    async with home.for_tokens() as channel:
        for name in WRONG:
            refused = await home.refused(channel, posts.bearer(test_tokens.BAD[name](home.issuer)))
            assert refused.code() is grpc.StatusCode.UNAUTHENTICATED, name
            assert error_of(refused).code == "token_invalid", name


async def test_who_shows_neither_a_certificate_nor_a_token_is_told_what_counts(home: Home) -> None:
    async with home.for_tokens() as channel:
        refused = await home.refused(channel, NOBODY)
        assert refused.code() is grpc.StatusCode.UNAUTHENTICATED
        error = error_of(refused)
        assert str(error).startswith("cannot let the caller in: it shows neither a certificate nor a token")
        assert error.code == "token_missing"
        assert "one of an issuer" in error.rule


async def test_a_token_of_the_controllers_own_counts_nothing_over_tls(home: Home) -> None:
    known = register.Register(home.controller.settings.principals_file)
    own = known.make_token(principals.Principal(principals.Kind.API, "bob", roles.WHOLE_FLEET_ADMIN))
    async with home.for_tokens() as channel:
        refused = await home.refused(channel, posts.bearer(own.reveal()))
        assert (refused.code(), error_of(refused).code) == (grpc.StatusCode.UNAUTHENTICATED, "token_unknown")


async def test_the_listener_for_tokens_asks_for_no_certificate_so_none_counts_there(home: Home) -> None:
    for pair in (home.controller.client(), home.agent("n-1")):
        async with home.for_tokens(pair) as channel:
            assert error_of(await home.refused(channel, NOBODY)).code == "token_missing"
            await posts.METHODS["ListNodes"].call(channel, LIST, posts.bearer(home.issuer.token()))


async def test_a_certificate_wins_over_a_token_beside_it(home: Home) -> None:
    good, bad = posts.bearer(home.issuer.token()), posts.bearer(home.issuer.token(aud="else"))
    async with home.controller.channel(home.controller.client()) as channel:
        await posts.METHODS["ListNodes"].call(channel, LIST, bad)
    async with home.controller.channel(home.agent("n-1")) as channel:  # an agent's, and somebody's good token
        refused = await home.refused(channel, good)
        assert refused.code() is grpc.StatusCode.PERMISSION_DENIED
        assert "agent 'n-1'" in str(refused.details())


async def test_the_listener_for_certificates_lets_nobody_in_by_a_token(home: Home) -> None:
    async with home.controller.channel(None) as channel:
        refused = await home.refused(channel, posts.bearer(home.issuer.token()))
        assert refused.code() is grpc.StatusCode.UNAVAILABLE  # the handshake ends


async def test_the_methods_of_agents_are_for_certificates_of_agents_alone(home: Home) -> None:
    token = posts.bearer(home.issuer.token())
    asked = {
        "Connect": posts.hello("n-1"),
        "ReadBlob": agent_service_pb2.ReadBlobRequest(),
        "ReadTrust": agent_service_pb2.ReadTrustRequest(),
    }.items()
    async with home.controller.channel(home.controller.client()) as channel:
        for name, request in asked:
            refused = await home.refused(channel, token, name, request)
            assert refused.code() is grpc.StatusCode.PERMISSION_DENIED, name
    async with home.for_tokens() as channel:  # nothing is there to be called
        for name, request in asked:
            refused = await home.refused(channel, token, name, request)
            assert refused.code() is grpc.StatusCode.UNIMPLEMENTED, name
        assert await _renew(channel, token) is grpc.StatusCode.UNIMPLEMENTED
    async with home.controller.channel(None, address=home.controller.enrol_address) as channel:
        assert await _renew(channel, token) is grpc.StatusCode.PERMISSION_DENIED
        assert await _renew(channel, NOBODY) is grpc.StatusCode.UNAUTHENTICATED


async def _renew(channel: aio.Channel, shown: posts.Metadata) -> grpc.StatusCode:
    stub = enrolment_service_pb2_grpc.EnrolmentServiceStub(channel)
    with pytest.raises(aio.AioRpcError) as caught:
        await stub.Renew(enrolment_service_pb2.RenewRequest(), metadata=shown, timeout=house.DEADLINE_SECONDS)
    return caught.value.code()


async def test_38_a_watch_that_a_token_has_opened_is_cut_when_its_name_is_denied_or_its_time_is_over(
    home: Home,
) -> None:
    host = nodes.Host(home.controller, "n-0")
    await host.enrol(await nodes.token(home.controller, "n-0"))
    async with (
        home.controller.channel(home.controller.client()) as channel,
        home.controller.channel(host.pair) as of_agent,
    ):
        post = _Post(home.controller.settings, home.controller.address, channel)
        await test_authorisation.publish(post)
        wanted = test_authorisation.upgrade("", "still")
        wanted.approval_deadline.FromSeconds(3600)
        async with posts.session(of_agent, "n-0", NOBODY):
            await test_authorisation.start(post, wanted, NOBODY)
    async with home.for_tokens() as channel:
        denied = await _watching(channel, home.issuer.token())
        ending = await _watching(channel, home.issuer.token(sub="eve", exp=test_tokens.at(-25)))  # within the leeway
        known = register.Register(home.controller.settings.principals_file)
        known.deny(principals.Kind.API, "corp:ann", "she left")
        error = await posts.ended(denied)
        assert (error.code, error.value) == ("principal_denied", "corp:ann")
        assert (await posts.ended(ending)).code == "token_invalid"


async def _watching(channel: aio.Channel, token: str) -> Any:  # noqa: ANN401  # a raw call
    request = rollout_service_pb2.WatchRolloutRequest(rollout="still")
    call: Any = rollout_service_pb2_grpc.RolloutServiceStub(channel).WatchRollout(request, metadata=posts.bearer(token))
    assert (await call.read()).rollout.name == "still"
    return call


async def test_nothing_but_tls_1_3_is_spoken_where_tokens_come(home: Home) -> None:
    async with aio.insecure_channel(home.controller.token_address) as channel:
        refused = await home.refused(channel, posts.bearer(home.issuer.token()))
        assert refused.code() is grpc.StatusCode.UNAVAILABLE
    shake, told = test_identity.handshake, (home.controller.token_address, home.controller.roots)
    assert await asyncio.to_thread(shake, *told, ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.to_thread(shake, *told, ssl.TLSVersion.TLSv1_2)


async def test_the_listener_for_tokens_has_the_bounds_and_the_health_of_the_other_and_ends_with_it(
    tmp_path: Path, issuer: oidc.Issuer, keys_file: Path
) -> None:
    (port,) = ports.free(1)
    more = f'token_listen = "127.0.0.1:{port}"\n' + oidc.settings_text(f'jwks_file = "{keys_file}"')
    found = house.House(tmp_path, more)
    long = fleet_service_pb2.ListNodesRequest(selector="x" * (listener.RECEIVED_BYTES_MAX + 1))
    async with found.serving():
        for pair, address in ((found.client(), found.address), (None, found.token_address)):
            async with found.channel(pair, address=address) as channel:
                health: Any = channel.unary_unary("/grpc.health.v1.Health/Check")
                assert await health(b"", timeout=house.DEADLINE_SECONDS) == b"\x08\x01"  # serving
                shown = NOBODY if pair else posts.bearer(issuer.token())
                with pytest.raises(aio.AioRpcError) as caught:
                    await posts.METHODS["ListNodes"].call(channel, long, shown)
                assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, address
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_the_listeners_certificate_has_the_names_of_all_listeners(tmp_path: Path, keys_file: Path) -> None:
    more = 'token_listen = "192.0.2.3:1"\n' + oidc.settings_text(f'jwks_file = "{keys_file}"')
    found = house.House(tmp_path, more, enrol_listen="192.0.2.2:1").settings
    assert found.tls is not None
    assert set(found.tls.all_names("192.0.2.1:1", "192.0.2.4:1")) >= {f"192.0.2.{number}" for number in range(1, 5)}


def test_an_issuer_that_could_never_be_used_is_refused_at_start(tmp_path: Path) -> None:
    file = tmp_path / "controller.toml"
    issued, listen = oidc.settings_text('jwks_file = "/keys"'), 'token_listen = "127.0.0.1:7445"\n'
    for text, rule in (
        (f"[tls]\n{issued}", "given where there are both"),
        (f"[tls]\n{listen}", "left out where there is no"),
        ('[tls]\ntoken_listen = "id.example:7445"\n', "an address and port"),
    ):
        file.write_text(text)
        with pytest.raises(errors.InvalidRequestError, match="cannot use") as caught:
            settings.load({}, {}, file)
        assert caught.value.field == "tls.token_listen", text
        assert rule in str(caught.value), text
    for text in (issued, f"[tls]\n{listen}{issued}", "[tls]\n"):
        file.write_text(text)
        settings.load({}, {}, file)


async def test_the_commands_show_a_token_over_tls_to_who_the_named_authority_vouches_for(
    tmp_path: Path, issuer: oidc.Issuer, keys_file: Path
) -> None:
    home, config, token = programs.House(tmp_path), tmp_path / "controller.toml", tmp_path / "token"
    (port,) = ports.free(1)
    text = f'[tls]\ntoken_listen = "127.0.0.1:{port}"\n' + oidc.settings_text(f'jwks_file = "{keys_file}"')
    config.write_text(text, encoding="utf-8")
    token.write_text(issuer.token())
    own, other = tmp_path / "own.pem", tmp_path / "other.pem"
    authorities.create(home.state_dir / "ca", house.DOMAIN, house.now())
    assert (await home.instar("ca", "bundle", "--out", own)).code == 0
    other.write_text(authorities.create(tmp_path / "other", house.DOMAIN, house.now()).bundle(house.K.SERVERS))
    there = ("--controller", f"127.0.0.1:{port}", "--token-file", token)
    async with home.serving("127.0.0.1:0", "--config", str(config)):
        listed = await home.instar("--ca-file", own, "node", "list", *there, "-o", "json")
        assert (listed.code, listed.document) == (0, {"nodes": []}), listed
        looked = await home.instar("--ca-file", own, "doctor", *there)
        assert (looked.code, "and asks for none" in looked.out) == (0, True), looked
        misled = await home.instar("--ca-file", other, "node", "list", *there)
        assert (misled.code, "\ncannot" in f"\n{misled.err}") == (7, True), misled  # gRPC says something too
        token.write_text(issuer.token(aud="else"))
        refused = await home.instar("--ca-file", own, "node", "list", *there)
        assert (refused.code, "is for another audience" in refused.err) == (8, True), refused


async def test_the_doctor_says_that_tokens_are_taken_elsewhere(home: Home, tmp_path: Path) -> None:
    roots = tmp_path / "ca.pem"
    roots.write_bytes(home.controller.roots)
    for address, told in (
        (home.controller.token_address, "shows a certificate that can be believed, and asks for none"),
        (home.controller.address, "asks for ours: tokens are taken elsewhere"),
    ):
        check = await asyncio.to_thread(doctor_command._theirs, address, roots, None)
        assert told in check.message
        assert check.is_well is (address == home.controller.token_address)


def test_a_token_goes_to_another_machine_over_tls_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token, roots = tmp_path / "token", tmp_path / "ca.pem"
    token.write_text("secret\n")
    roots.write_bytes(b"PEM")
    for name in (credentials.CA_FILE, credentials.CERTIFICATE_FILE, credentials.KEY_FILE):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(failures.CommandError, match="in the clear"):
        credentials.find("192.0.2.1:7445", token)
    monkeypatch.setenv(credentials.CA_FILE, str(roots))
    assert credentials.find("192.0.2.1:7445", token) == credentials.Token(secret.Secret("secret"), b"PEM")
    with pytest.raises(failures.CommandError, match="--token-file, with --ca-file and nothing else"):
        credentials.find("192.0.2.1:7445", None)
    monkeypatch.setenv(credentials.KEY_FILE, str(roots))
    with pytest.raises(failures.CommandError, match="--certificate-file"):
        credentials.find("192.0.2.1:7445", token)
