"""Tokens of issuers, shown to a real controller that has the issuer's keys over https from loopback."""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from controller import clock
from controller.config import issuers as configured
from controller.config import settings
from controller.core import errors, secret
from controller.rpc import errors as rpc_errors
from controller.rpc import issuers, keys, principals
from instar.v1 import fleet_service_pb2
from tests.security import oidc, posts

LIST = fleet_service_pb2.ListNodesRequest()
CORDON = fleet_service_pb2.CordonNodeRequest(node_id="n-1", reason="disk")


def read(tmp_path: Path, text: str) -> tuple[configured.Issuer, ...]:
    file = tmp_path / "controller.toml"
    file.write_text(text)
    return settings.load({}, {}, file).issuers


@dataclass
class House:
    """A controller and the issuer whose tokens it takes."""

    issuer: oidc.Issuer
    post: posts.Post

    async def refused(self, token: str) -> errors.InstarError:
        return await self.post.refused("ListNodes", LIST, posts.bearer(token))


@pytest.fixture(scope="module")
def issuer() -> oidc.Issuer:
    return oidc.Issuer()


@pytest.fixture
async def house(tmp_path: Path, issuer: oidc.Issuer) -> AsyncIterator[House]:
    issuer.asked = 0
    with oidc.publishing(issuer, tmp_path) as (url, ca_file):
        known = read(tmp_path, oidc.settings_text(f'jwks_url = "{url}"\nca_file = "{ca_file}"'))
        async with posts.serving(tmp_path, issuers=known) as post:
            yield House(issuer, post)


async def test_a_token_of_an_issuer_is_worth_what_its_claims_are_granted(house: House) -> None:
    issuer, post = house.issuer, house.post
    async with post.nodes({"n-1": {"team": "web"}, "n-2": {"team": "db"}}):
        operator = posts.bearer(issuer.token())
        found = await post.ask("CordonNode", CORDON, operator)
        assert found.node.cordon_reason == "disk"
        viewer = posts.bearer(issuer.token(realm={"groups": "web"}, sub="vic"))
        assert posts.names((await post.ask("ListNodes", LIST, viewer)).nodes) == ["n-1"]
        nobody = posts.bearer(issuer.token(realm={"groups": ["cooks"]}))
        for shown in (viewer, nobody):
            assert (await post.refused("CordonNode", CORDON, shown)).code == rpc_errors.PERMISSION_DENIED
    assert issuer.asked == 1


def unsigned(issuer: oidc.Issuer) -> str:
    return jwt.encode(oidc.claims(), "", "none", headers={"kid": "ec"}) or str(issuer)


def signed_with_the_public_key(issuer: oidc.Issuer) -> str:
    """What a library takes that lets the token choose: the public key, used as the secret of an HMAC."""
    pem = issuer.rsa_public_pem()
    header = _part({"alg": "HS256", "typ": "JWT", "kid": "rsa"})
    body = f"{header}.{_part(oidc.claims())}"
    signature = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(body.encode(), pem)
    return f"{body}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def _part(told: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(told).encode()).rstrip(b"=").decode()


def of_a_strangers_key(_: oidc.Issuer) -> str:
    return jwt.encode(oidc.claims(), ec.generate_private_key(ec.SECP256R1()), "ES256", headers={"kid": "ec"})


def changed_afterwards(issuer: oidc.Issuer) -> str:
    header, _, signature = issuer.token().split(".")
    return f"{header}.{_part(oidc.claims() | {'sub': 'root'})}.{signature}"


def at(seconds: float) -> float:
    return time.time() + seconds  # noqa: TID251  # an issuer has its own clock


BAD: Mapping[str, Callable[[oidc.Issuer], str]] = {
    "alg none": unsigned,
    "HS256 with the public key": signed_with_the_public_key,
    "ES256 by a key of RSA": lambda issuer: issuer.token({"kid": "rsa"}),
    "PS256, which is not pinned": lambda issuer: jwt.encode(
        oidc.claims(), issuer.rsa_key, "PS256", headers={"kid": "rsa"}
    ),
    "another's key": of_a_strangers_key,
    "changed afterwards": changed_afterwards,
    "an unknown key": lambda issuer: issuer.token({"kid": "gone"}),
    "no key named, where there are two": lambda issuer: jwt.encode(oidc.claims(), issuer.ec_key, "ES256"),
    "another audience": lambda issuer: issuer.token(aud="else"),
    "no audience": lambda issuer: issuer.token(aud=None),
    "audiences without ours": lambda issuer: issuer.token(aud=["a", "b"]),
    "another issuer": lambda issuer: issuer.token(iss="https://id.example/"),
    "no issuer": lambda issuer: issuer.token(iss=None),
    "expired": lambda issuer: issuer.token(exp=at(-40)),
    "no end": lambda issuer: issuer.token(exp=None),
    "an end that is no number": lambda issuer: issuer.token(exp="tomorrow"),
    "an end that is true": lambda issuer: issuer.token(exp=True),
    "an end beyond all calendars": lambda issuer: issuer.token(exp=1e30),
    "issued at no time": lambda issuer: issuer.token(iat=None),
    "issued in the future": lambda issuer: issuer.token(iat=at(100), nbf=None),
    "not valid yet": lambda issuer: issuer.token(nbf=at(100)),
    "too old, though it ends later": lambda issuer: issuer.token(iat=at(-1000), nbf=None, exp=at(3000)),
    "an unknown critical extension": lambda issuer: issuer.token({"crit": ["x"], "x": 1}),
    "a known critical extension": lambda issuer: issuer.token({"crit": ["b64"], "b64": True}),
    "no name": lambda issuer: issuer.token(sub=None),
    "a name with blanks": lambda issuer: issuer.token(sub="ann bob"),
    "huge": lambda issuer: issuer.token(more="x" * issuers.TOKEN_CHARS_MAX),
    "no token": lambda _: "a.b.c",
    "dots": lambda _: "...",
    "nested very deeply": lambda issuer: ".".join(
        [issuer.token().partition(".")[0], base64.urlsafe_b64encode(b"[" * 3000).decode().rstrip("="), "AAAA"]
    ),
    "a list of claims": lambda issuer: jwt.api_jws.encode(b"[]", issuer.ec_key, "ES256", headers={"kid": "ec"}),
}


async def test_42_a_token_that_is_not_good_in_every_respect_opens_nothing(house: House) -> None:
    for name, make in BAD.items():
        error = await house.refused(make(house.issuer))
        assert (type(error), error.code) == (errors.UnauthenticatedError, "token_invalid"), (name, error)
    await house.post.ask("ListNodes", LIST, posts.bearer(house.issuer.token()))
    assert house.issuer.asked <= 2, "a stranger made the controller ask for keys again and again"


async def test_a_denied_name_of_an_issuer_is_let_in_no_longer(house: House) -> None:
    shown = posts.bearer(house.issuer.token())
    await house.post.ask("ListNodes", LIST, shown)
    house.post.register.deny(principals.Kind.API, "corp:ann", "she left")
    error = await house.post.refused("ListNodes", LIST, shown)
    assert (error.code, error.value) == ("principal_denied", "corp:ann")
    house.post.register.allow(principals.Kind.API, "corp:ann")
    await house.post.ask("ListNodes", LIST, shown)


class Time:
    """A clock that stands where it is put."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._system = clock.SystemClock()

    def now(self) -> datetime:
        return self._system.now()

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
def kept(tmp_path: Path, issuer: oidc.Issuer) -> Iterator[tuple[keys.Keys, Time]]:
    issuer.asked = 0
    with oidc.publishing(issuer, tmp_path) as (url, ca_file):
        text = oidc.settings_text(f'jwks_url = "{url}"\nca_file = "{ca_file}"\ntime_out = "2s"')
        time_of_test = Time()
        yield keys.Keys(read(tmp_path, text)[0], time_of_test), time_of_test


@pytest.fixture
def restored(issuer: oidc.Issuer) -> Iterator[oidc.Issuer]:
    yield issuer
    issuer.body, issuer.status, issuer.published = None, 200, ["ec", "rsa"]


async def test_keys_are_asked_for_when_due_and_not_for_each_token(
    restored: oidc.Issuer, kept: tuple[keys.Keys, Time]
) -> None:
    found, at_test = kept
    restored.published = ["ec"]
    await found.ready("ec")
    assert found.key("ec", "ES256") is not None
    assert found.key("", "ES256") is not None, "the only one needs no name"
    assert found.key("ec", "RS256") is None
    restored.published = ["ec", "rsa"]
    for _ in range(20):
        await found.ready("rsa")  # unknown, and asked for a moment ago
    assert (restored.asked, found.key("rsa", "RS256")) == (1, None)
    at_test.seconds += keys.ASK_EACH_SECONDS + 1
    await found.ready("rsa")
    assert (restored.asked, found.key("rsa", "RS256") is None) == (2, False)
    restored.published = ["rsa"]
    at_test.seconds += keys.FRESH_SECONDS + 1
    await found.ready("rsa")
    assert (restored.asked, found.key("ec", "ES256")) == (3, None), "a key that was withdrawn counts no longer"
    await found.close()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b"{}"),
        (302, b"{}"),
        (200, b"no json"),
        (200, b"[]"),
        (200, b'{"keys": 1}'),
        (200, b'{"keys": [' + b"{}," * keys.KEYS_MAX + b"{}]}"),
        (200, b" " * (keys.KEYS_BYTES_MAX + 1)),
        (200, b"[" * 100_000),
    ],
    ids=["500", "redirect", "no json", "a list", "keys a number", "many keys", "long", "deep"],
)
async def test_an_answer_that_is_no_set_of_keys_changes_nothing_for_an_hour_and_then_closes(
    restored: oidc.Issuer, kept: tuple[keys.Keys, Time], status: int, body: bytes
) -> None:
    found, at_test = kept
    await found.ready("ec")
    restored.status, restored.body = status, body
    at_test.seconds += keys.FRESH_SECONDS + 1
    await found.ready("ec")
    assert found.key("ec", "ES256") is not None
    at_test.seconds += keys.STALE_SECONDS
    with pytest.raises(errors.UnavailableError) as caught:
        await found.ready("ec")
    assert caught.value.code == "issuer_keys_unavailable"
    assert found.key("ec", "ES256") is None
    await found.close()


async def test_keys_of_a_file_are_read_again_when_it_changes(tmp_path: Path, restored: oidc.Issuer) -> None:
    file = tmp_path / "keys.json"
    restored.published = ["ec"]
    file.write_bytes(restored.jwks())
    found = keys.Keys(read(tmp_path, oidc.settings_text(f'jwks_file = "{file}"'))[0], Time())
    await found.ready("ec")
    assert (found.key("ec", "ES256") is None, found.key("rsa", "RS256")) == (False, None)
    restored.published = ["rsa"]
    file.write_bytes(restored.jwks())
    os.utime(file, (1, 1))
    await found.ready("rsa")
    assert (found.key("ec", "ES256"), found.key("rsa", "RS256") is None) == (None, False)
    file.unlink()
    with pytest.raises(errors.UnavailableError):
        await found.ready("rsa")


async def test_a_key_that_is_too_short_is_worth_nothing(tmp_path: Path) -> None:
    weak = rsa.generate_private_key(65537, 1024)  # noqa: S505  # that is the point
    told = jwt.algorithms.RSAAlgorithm.to_jwk(weak.public_key(), as_dict=True) | {"kid": "weak"}
    file = tmp_path / "keys.json"
    file.write_text(json.dumps({"keys": [told]}))
    known = issuers.Issuers(read(tmp_path, oidc.settings_text(f'jwks_file = "{file}"')), Time())
    with pytest.warns(jwt.warnings.InsecureKeyLengthWarning):
        token = secret.Secret(jwt.encode(oidc.claims(), weak, "RS256", headers={"kid": "weak"}))
    await known.ready(token)
    with pytest.raises(errors.UnauthenticatedError):
        known.find(token)


ISSUER = oidc.settings_text('jwks_file = "/keys.json"')


@pytest.mark.parametrize(
    ("before", "after", "field"),
    [
        ('"ES256, RS256"', '"HS256"', "issuer[0].algorithms"),
        ('"ES256, RS256"', '"none"', "issuer[0].algorithms"),
        ('"ES256, RS256"', '""', "issuer[0].algorithms"),
        ('jwks_file = "/keys.json"', "", "issuer[0].jwks_file"),
        ('jwks_file = "/keys.json"', 'jwks_file = "keys.json"', "issuer[0].jwks_file"),
        ('jwks_file = "/keys.json"', 'jwks_url = "http://id.example/"', "issuer[0].jwks_url"),
        ('jwks_file = "/keys.json"', 'jwks_url = "https://a:b@id.example/"', "issuer[0].jwks_url"),
        ('jwks_file = "/keys.json"', 'jwks_url = "https://["', "issuer[0].jwks_url"),
        ('role = "operator"', 'role = "root"', "issuer[0].grant[0].role"),
        ('scope = "team=web"', 'scope = "a b c"', "issuer[0].grant[1].scope"),
        ('scope = "team=web"', 'color = "x"', "issuer[0].grant[1].color"),
        ('roles_claim = "realm.groups"', 'max_age = "16m"', "issuer[0].max_age"),
        ('roles_claim = "realm.groups"', 'leeway = "2m"', "issuer[0].leeway"),
        ('roles_claim = "realm.groups"', 'roles_claim = "a b"', "issuer[0].roles_claim"),
        ('audience = "instar"', 'audience = ""', "issuer[0].audience"),
    ],
)
def test_what_an_issuer_cannot_be_is_refused_by_its_key(tmp_path: Path, before: str, after: str, field: str) -> None:
    assert before in ISSUER
    with pytest.raises(errors.InvalidRequestError) as caught:
        read(tmp_path, ISSUER.replace(before, after, 1))
    assert caught.value.field == field


def test_two_issuers_of_one_name_and_one_without_grants_are_refused(tmp_path: Path) -> None:
    for text, field in ((ISSUER + ISSUER, "issuer.name"), (ISSUER.partition("[[issuer.grant]]")[0], "issuer[0].grant")):
        with pytest.raises(errors.InvalidRequestError) as caught:
            read(tmp_path, text)
        assert caught.value.field == field
