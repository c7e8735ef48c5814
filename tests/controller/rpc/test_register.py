"""Tokens: whose they are, and what of them is stored."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from controller.core import errors, roles, secret
from controller.rpc import principals, register

OPERATOR = principals.Principal(principals.Kind.API, "operator")
NODE = principals.Principal(principals.Kind.AGENT, "n-1")
GRANTS = (roles.Grant(roles.Role.OPERATOR, "team in (a, b)"), roles.Grant(roles.Role.VIEWER))


def test_a_token_leads_to_its_principal_and_is_nowhere_stored(tmp_path: Path) -> None:
    known = register.Register(tmp_path / "tokens" / "principals")
    tokens = {one: known.make_token(one) for one in (OPERATOR, NODE)}
    assert all(known.find(token) == one for one, token in tokens.items())
    stored = (tmp_path / "tokens" / "principals").read_text()
    assert not any(token.reveal() in stored for token in tokens.values())
    assert stat.S_IMODE((tmp_path / "tokens" / "principals").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "tokens").stat().st_mode) == 0o700


def test_a_token_that_another_process_made_counts_from_the_next_call_on(tmp_path: Path) -> None:
    served = register.Register(tmp_path / "principals")
    for one in (OPERATOR, NODE):
        with pytest.raises(errors.UnauthenticatedError):
            served.find(secret.Secret("unknown"))
        token = register.Register(tmp_path / "principals").make_token(one)
        assert served.find(token) == one


def test_a_new_token_ends_the_one_before(tmp_path: Path) -> None:
    known = register.Register(tmp_path / "principals")
    first = known.make_token(NODE)
    second = known.make_token(NODE)
    assert known.find(second) == NODE
    with pytest.raises(errors.UnauthenticatedError) as caught:
        known.find(first)
    assert caught.value.field == "token"


@pytest.mark.parametrize("name", ["", "a b", "a\nb", "../x", "-x", "x" * 254, "é"])
def test_a_name_that_breaks_the_rule_gets_no_token(tmp_path: Path, name: str) -> None:
    known = register.Register(tmp_path / "principals")
    with pytest.raises(errors.InvalidRequestError) as caught:
        known.make_token(principals.Principal(principals.Kind.AGENT, name))
    assert caught.value.field == "name"
    assert not (tmp_path / "principals").exists()


def test_a_register_of_an_earlier_version_is_read_and_its_people_are_admins(tmp_path: Path) -> None:
    path = tmp_path / "principals"
    path.write_text(
        f"{register.hash_of(secret.Secret('one'))} api operator\n{register.hash_of(secret.Secret('two'))} agent n-1\n"
    )
    known = register.Register(path)
    assert known.find(secret.Secret("one")) == principals.Principal(
        principals.Kind.API, "operator", roles.WHOLE_FLEET_ADMIN
    )
    assert known.find(secret.Secret("two")) == NODE
    known.make_token(principals.Principal(principals.Kind.API, "ann", GRANTS))
    assert register.Register(path).find(secret.Secret("one")).grants == roles.WHOLE_FLEET_ADMIN


def test_what_was_granted_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "principals"
    ann = principals.Principal(principals.Kind.API, "ann", GRANTS)
    token = register.Register(path).make_token(ann)
    assert register.Register(path).find(token) == ann
    assert register.Register(path).entry(principals.Kind.API, "ann").principal == ann


def test_who_shows_something_else_than_a_token_has_the_grants_of_the_register(tmp_path: Path) -> None:
    known = register.Register(tmp_path / "principals")
    known.put(principals.Principal(principals.Kind.API, "ann", GRANTS))
    assert known.checked(principals.Principal(principals.Kind.API, "ann")).grants == GRANTS
    stranger = principals.Principal(principals.Kind.API, "bob")
    assert known.checked(stranger) == stranger


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "a b c d",
        "{}",
        '{"kind": "api", "name": "x", "grants": [{"role": "root"}]}',
        '{"kind": "x", "name": "x"}',
        "{",
        '{"kind": "api", "name": "x", "grants": [{"role": "viewer", "scope": "a b c"}]}',
    ],
)
def test_a_register_that_cannot_be_read_knows_nobody_until_it_can(tmp_path: Path, line: str) -> None:
    path = tmp_path / "principals"
    known = register.Register(path)
    token = known.make_token(NODE)
    good = path.read_text()
    path.write_text(f"{good}{line}\n")
    with pytest.raises(errors.UnavailableError) as caught:
        known.find(token)
    assert caught.value.code == "register_unreadable"
    path.write_text(good)
    assert known.find(token) == NODE


def test_a_new_token_lets_somebody_in_again_who_was_denied(tmp_path: Path) -> None:
    known = register.Register(tmp_path / "principals")
    token = known.make_token(NODE)
    known.deny(NODE.kind, NODE.name, "removed")
    with pytest.raises(errors.RefusedError) as caught:
        known.find(token)
    assert (caught.value.code, caught.value.value) == (register.DENIED, "n-1")
    assert known.find(known.make_token(NODE)) == NODE
