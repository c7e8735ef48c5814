"""Tokens of issuers, shown to a real controller that has the issuer's keys over https from loopback."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import jwt
import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from controller import clock
from controller.config import issuers as configured
from controller.config import settings
from controller.core import errors, secret
from controller.rpc import attempts, issuers, keys, principals
from controller.rpc import errors as rpc_errors
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
        nobodies = ({"groups": ["cooks"]}, {"groups": [["sre"], None]}, {"groups": {"sre": 1}}, "sre", ["groups"], None)
        for shown in (viewer, *(posts.bearer(issuer.token(realm=realm)) for realm in nobodies)):
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
    "issued in the future, though valid before": lambda issuer: issuer.token(iat=at(100)),
    "issued before all calendars": lambda issuer: issuer.token(iat=-1e30),
    "valid from what is true": lambda issuer: issuer.token(nbf=True),
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


async def test_42_a_token_that_is_not_good_in_every_respect_opens_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "PAUSE_SECONDS", 0.0)
    for name, make in BAD.items():
        error = await house.refused(make(house.issuer))
        assert (type(error), error.code) == (errors.UnauthenticatedError, "token_invalid"), (name, error)
    await house.post.ask("ListNodes", LIST, posts.bearer(house.issuer.token()))
    assert house.issuer.asked <= 2, "a stranger made the controller ask for keys again and again"


async def test_clocks_that_differ_a_little_do_not_matter(house: House) -> None:
    for changes in ({"nbf": at(20)}, {"iat": at(20), "nbf": None}, {"exp": at(-20)}, {"iat": at(-920), "nbf": None}):
        await house.post.ask("ListNodes", LIST, posts.bearer(house.issuer.token(**changes)))


async def test_a_token_that_was_found_good_passes_at_once_whatever_else_comes_from_its_address(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "PAUSE_SECONDS", 3600.0)
    monkeypatch.setattr(attempts, "FORGIVEN_PER_SECOND", 0.0)
    shown = posts.bearer(house.issuer.token())
    await house.post.ask("ListNodes", LIST, shown)
    for _ in range(attempts.FREE_ATTEMPTS):
        assert (await house.refused("a.b.c")).code == "token_invalid"
    await house.post.ask("ListNodes", LIST, shown)


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
        self.at: datetime | None = None
        self._system = clock.SystemClock()

    def now(self) -> datetime:
        return self.at or self._system.now()

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
    for each in dataclasses.fields(oidc.Issuer):
        if each.name not in ("ec_key", "rsa_key"):
            made = each.default if each.default_factory is dataclasses.MISSING else each.default_factory()
            setattr(issuer, each.name, made)


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
        (500, b'{"keys": []}'),
        (302, b'{"keys": []}'),
        (200, b"no json"),
        (200, b"[]"),
        (200, b'{"keys": 1}'),
        (200, b'{"keys": [' + b"{}," * keys.KEYS_MAX + b"{}]}"),
        (200, b'{"keys": []}' + b" " * keys.KEYS_BYTES_MAX),
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


async def test_who_wait_for_keys_at_once_ask_once_and_all_have_them(
    restored: oidc.Issuer, kept: tuple[keys.Keys, Time]
) -> None:
    found, at_test = kept
    restored.published = ["ec"]

    async def had(key_id: str) -> bool:
        await found.ready(key_id)
        return found.key(key_id, "ES256") is not None

    for number in (1, 2):  # before there were any, and when those of before count no longer
        assert all(await asyncio.gather(*(had(key_id) for key_id in ("ec", "", "ec", ""))))
        assert restored.asked == number
        at_test.seconds += keys.STALE_SECONDS + 1
    at_test.seconds -= keys.STALE_SECONDS + 1 - keys.ASK_EACH_SECONDS - 1
    assert await had("")
    assert restored.asked == 2, "who names no key means the only one, which is there"
    await found.close()


async def test_while_keys_cannot_be_had_everybody_is_told_to_come_back_and_nobody_that_its_key_is_unknown(
    restored: oidc.Issuer, kept: tuple[keys.Keys, Time]
) -> None:
    found, at_test = kept
    restored.status = 500
    failed = await asyncio.gather(*(found.ready("ec") for _ in range(5)), return_exceptions=True)
    failed += await asyncio.gather(found.ready("ec"), return_exceptions=True)
    assert {(type(each), "it answers 500" in str(each)) for each in failed} == {(errors.UnavailableError, True)}
    assert restored.asked == 1
    restored.status = 200
    at_test.seconds += keys.ASK_EACH_SECONDS + 1
    await found.ready("ec")
    restored.goes_on, restored.pause_seconds = b" ", 0.1
    at_test.seconds += keys.FRESH_SECONDS + 1
    asking = asyncio.ensure_future(found.ready("ec"))
    await asyncio.sleep(0)  # it asks now
    await found.ready("ec")  # who needs nothing new does not wait for it
    assert not asking.done()
    restored.goes_on = b""
    await asking
    await found.close()


async def test_a_key_of_the_same_name_takes_the_place_of_the_one_before(
    restored: oidc.Issuer, kept: tuple[keys.Keys, Time]
) -> None:
    found, at_test = kept
    await found.ready("ec")
    before = found.key("ec", "ES256")
    assert found.key("ec", "ES256") is before
    old, restored.ec_key = restored.ec_key, ec.generate_private_key(ec.SECP256R1())
    at_test.seconds += keys.FRESH_SECONDS + 1
    await found.ready("ec")
    after, restored.ec_key = found.key("ec", "ES256"), old
    assert before is not None
    assert after is not None
    assert after.key.public_numbers() != before.key.public_numbers()
    await found.close()


@pytest.mark.parametrize(
    "more",
    [{"use": "enc"}, {"alg": "PS256"}, {"n": 5}, {"n": ""}, {"e": "!!"}, {"kty": "EC"}, {"kty": None}, {"n": None}],
    ids=str,
)
async def test_a_key_that_is_for_something_else_or_none_signs_no_token(
    restored: oidc.Issuer, kept: tuple[keys.Keys, Time], more: dict[str, object]
) -> None:
    restored.more = more
    await kept[0].ready("rsa")
    assert kept[0].key("rsa", "RS256") is None
    await kept[0].close()


@pytest.mark.parametrize(
    ("pause_seconds", "part", "fault"),
    [(0.0, b" " * 65536, f"longer than {keys.KEYS_BYTES_MAX}"), (0.1, b" ", "TimeoutError")],
    ids=["much", "slowly"],
)
async def test_an_answer_without_end_is_given_up(
    restored: oidc.Issuer, kept: tuple[keys.Keys, Time], pause_seconds: float, part: bytes, fault: str
) -> None:
    restored.goes_on, restored.pause_seconds = part, pause_seconds
    with pytest.raises(errors.UnavailableError, match=fault):
        await kept[0].ready("ec")
    await kept[0].close()


async def test_keys_come_from_where_they_are_said_to_be_and_from_no_one_else(
    restored: oidc.Issuer, kept: tuple[keys.Keys, Time], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, at_test = kept
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    restored.has_moved = True
    with pytest.raises(errors.UnavailableError, match="it answers 302"):
        await found.ready("ec")
    restored.has_moved = False
    at_test.seconds += keys.ASK_EACH_SECONDS + 1
    await found.ready("ec")  # and not from the proxy
    await found.close()
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    stranger = keys.Keys(dataclasses.replace(found._issuer, ca_file=other), at_test)
    with pytest.raises(errors.UnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
        await stranger.ready("ec")
    await stranger.close()


async def test_a_token_that_was_found_good_is_looked_at_again_after_a_minute_and_when_it_ends(
    tmp_path: Path, restored: oidc.Issuer
) -> None:
    file, at_test = tmp_path / "keys.json", Time()
    file.write_bytes(restored.jwks())
    known = issuers.Issuers(read(tmp_path, oidc.settings_text(f'jwks_file = "{file}"')), at_test)
    token = secret.Secret(restored.token())
    await known.ready(token)
    assert not known.knows(token)
    assert known.find(token) is known.find(token)
    for each in (token, secret.Secret(restored.token(exp=at(3000)))):  # the second one is too old before that
        at_test.at = known.find(each).until
        with pytest.raises(errors.UnauthenticatedError):
            known.find(each)
        at_test.at = None
    known.find(token)
    restored.published = ["rsa"]
    file.write_bytes(restored.jwks())
    at_test.seconds = issuers.KEPT_SECONDS - 1
    await known.ready(token)
    assert known.knows(token)
    known.find(token)
    at_test.seconds = issuers.KEPT_SECONDS
    assert not known.knows(token)
    with pytest.raises(errors.UnauthenticatedError, match="a key that its issuer does not have"):
        known.find(token)


async def test_of_too_many_good_tokens_the_first_is_forgotten(
    tmp_path: Path, restored: oidc.Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuers, "KEPT_MAX", 2)
    file = tmp_path / "keys.json"
    file.write_bytes(restored.jwks())
    known = issuers.Issuers(read(tmp_path, oidc.settings_text(f'jwks_file = "{file}"')), Time())
    tokens = [secret.Secret(restored.token(sub=name)) for name in ("ann", "bob", "cid")]
    for token in tokens:
        await known.ready(token)
        known.find(token)
    assert [known.knows(token) for token in tokens] == [False, True, True]


async def test_keys_of_a_file_are_read_again_when_it_changes(tmp_path: Path, restored: oidc.Issuer) -> None:
    file = tmp_path / "keys.json"
    restored.published = ["ec"]
    file.write_bytes(restored.jwks())
    found = keys.Keys(read(tmp_path, oidc.settings_text(f'jwks_file = "{file}"'))[0], Time())
    await found.ready("ec")
    before = found.key("ec", "ES256")
    assert (before is None, found.key("rsa", "RS256")) == (False, None)
    await found.ready("ec")
    assert found.key("ec", "ES256") is before, "nothing was read, for nothing had changed"
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
