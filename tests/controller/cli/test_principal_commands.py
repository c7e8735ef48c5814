"""`instar principal`, on the machine of the controller, and what a controller would make of it."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from controller.cli import application
from controller.core import errors, roles, secret
from controller.rpc import principals, register

Ask = Callable[..., Any]
ANN = (roles.Grant(roles.Role.OPERATOR, "team=web"), roles.Grant(roles.Role.VIEWER, "zone=a"))


@pytest.fixture
def ask(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Ask:
    """Run a command; its exit code, and the document that it printed, or what it complained of."""

    def run(*arguments: str) -> tuple[int, Any]:
        code = application.run([*arguments, "--state-dir", str(tmp_path / "state"), "-o", "json"])
        said = capsys.readouterr()
        return code, json.loads(said.out) if code == 0 else said.err

    return run


@pytest.fixture
def known(tmp_path: Path) -> register.Register:
    return register.Register(tmp_path / "state" / "tokens" / "principals")


def test_somebody_is_added_with_roles_and_a_token_and_given_others(
    ask: Ask, known: register.Register, tmp_path: Path
) -> None:
    file = tmp_path / "ann.token"
    added = ("principal", "add", "ann", "--role", "operator", "--role", "viewer:zone=a", "--scope", "team=web")
    code, found = ask(*added, "--out", str(file))
    grants = [{"role": each.role.value, "scope": each.scope} for each in ANN]
    assert (code, found["grants"], found["has_token"], found["token_file"]) == (0, grants, True, str(file))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    token = secret.Secret(file.read_text().strip())
    assert known.find(token) == principals.Principal(principals.Kind.API, "ann", ANN)
    assert ask("principal", "add", "ann", "--role", "publisher")[1]["has_token"] is True
    assert known.find(token).grants == (roles.Grant(roles.Role.PUBLISHER),)


def test_a_new_token_keeps_the_roles_and_is_an_admins_where_nobody_is_known(
    ask: Ask, known: register.Register, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    ask("principal", "add", "ann", "--role", "viewer")
    for name, role in (("ann", roles.Role.VIEWER), ("bob", roles.Role.ADMIN)):
        assert ask("controller", "token", name, "--out", str(file))[0] == 0
        assert [each.role for each in known.find(secret.Secret(file.read_text().strip())).grants] == [role]


def test_somebody_is_listed_shown_denied_allowed_and_removed(
    ask: Ask, known: register.Register, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    ask("principal", "add", "ann", "--role", "viewer", "--out", str(file))
    token = secret.Secret(file.read_text().strip())
    ask("node", "token", "ann", "--out", str(file))  # a node of the same name is somebody else
    listed = ask("principal", "list")[1]["principals"]
    assert [(each["kind"], each["name"]) for each in listed] == [("agent", "ann"), ("api", "ann")]
    assert ask("principal", "show", "ann", "--agent")[1]["kind"] == "agent"
    assert ask("principal", "deny", "ann", "--reason", "she left")[1]["denied"] == "she left"
    with pytest.raises(errors.RefusedError, match="she left"):
        known.find(token)
    assert known.find(secret.Secret(file.read_text().strip())).kind is principals.Kind.AGENT
    assert ask("principal", "allow", "ann")[1]["denied"] == ""
    assert known.find(token).name == "ann"
    assert ask("principal", "remove", "ann")[1] == {"name": "ann", "kind": "api"}
    with pytest.raises(errors.UnauthenticatedError):
        known.find(token)


def test_the_table_shows_who_may_what(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = ("--state-dir", str(tmp_path))
    assert application.run(["principal", "add", "ann", "--role", "operator:team=web", *state]) == 0
    assert application.run(["principal", "deny", "corp:bob", *state]) == 0
    capsys.readouterr()
    assert application.run(["principal", "list", *state]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["ann", "api", "operator:team=web", "no", "-"] in lines
    assert ["corp:bob", "api", "-", "no", "denied"] in lines


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("add", "ann", "--role", "root"), "role 'root'"),
        (("add", "ann", "--role", "publisher:team=web"), "without a scope"),
        (("add", "ann", "--role", "viewer", "--scope", "a b c"), "selector"),
        (("add", "a b", "--role", "viewer"), "name 'a b'"),
        (("add", "ann"), "--role"),
        (("show", "ann"), "principal 'ann'"),
        (("remove", "ann"), "principal 'ann'"),
        (("allow", "ann"), "principal 'ann'"),
        (("deny", "a b"), "name 'a b'"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(
    ask: Ask, known: register.Register, arguments: tuple[str, ...], word: str
) -> None:
    code, said = ask("principal", *arguments)
    assert code == 2
    assert said.startswith("cannot")
    assert word in said
    assert known.entries() == ()
