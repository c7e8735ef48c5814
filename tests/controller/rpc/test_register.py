"""Tokens: whose they are, and what of them is stored."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from controller.core import errors
from controller.rpc import principals, register

OPERATOR = principals.Principal(principals.Kind.API, "operator")
NODE = principals.Principal(principals.Kind.AGENT, "n-1")


def test_a_token_leads_to_its_principal_and_is_nowhere_stored(tmp_path: Path) -> None:
    known = register.Register(tmp_path / "tokens" / "principals")
    tokens = {one: known.make_token(one) for one in (OPERATOR, NODE)}
    assert all(known.find(token) == one for one, token in tokens.items())
    stored = (tmp_path / "tokens" / "principals").read_text()
    assert not any(token in stored for token in tokens.values())
    assert stat.S_IMODE((tmp_path / "tokens" / "principals").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "tokens").stat().st_mode) == 0o700


def test_a_token_that_another_process_made_counts_from_the_next_call_on(tmp_path: Path) -> None:
    served = register.Register(tmp_path / "principals")
    for one in (OPERATOR, NODE):
        with pytest.raises(errors.UnauthenticatedError):
            served.find("unknown")
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
