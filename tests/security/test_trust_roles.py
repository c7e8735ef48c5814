"""Who may speak for which component, by the metadata."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tuf.api.metadata import DelegatedRole, Delegations, Key

from tests.security import judged, repository

FIRST, SECOND = judged.bundle(version="1.0.0"), judged.bundle(version="1.1.0")
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def test_a_component_is_named_by_its_own_role_alone(node: judged.Node, signed: repository.Repository) -> None:
    signed.add("web", "1.1.0", SECOND, role="db")  # the keys of another component
    signed.commit("db")
    signed.refresh()
    served = signed.served("web") | signed.served("db")
    assert node.told(served, SECOND, "1.1.0") == "release_unsigned"
    signed.add("web", "1.1.0", SECOND, role="targets")  # past the floor of the component
    signed.commit("targets")
    signed.refresh()
    assert node.told(signed.served("web") | signed.served("db"), SECOND, "1.1.0") == "metadata_unsigned"


def test_two_parents_for_one_role_are_refused(node: judged.Node, signed: repository.Repository) -> None:
    keys: dict[str, Key] = {signer.public_key.keyid: signer.public_key for signer in signed.signers["web"]}
    below = DelegatedRole("db", list(keys), 1, terminating=True, paths=["web/*"])
    signed.metadata["web"].signed.delegations = Delegations(keys, {"db": below})
    signed.commit("web")
    signed.refresh()
    assert node.told(signed.served("web") | signed.served("db"), FIRST) == "metadata_unsigned"


@pytest.mark.parametrize(("paths", "is_terminating"), [(["web/*", "db/*"], True), (["*/*"], True), (["web/*"], False)])
def test_a_role_that_may_speak_for_more_than_its_component_is_refused(
    node: judged.Node, signed: repository.Repository, paths: list[str], *, is_terminating: bool
) -> None:
    role = signed.metadata["targets"].signed.delegations.roles["web"]
    role.paths, role.terminating = paths, is_terminating
    signed.commit("targets")
    signed.refresh()
    assert node.told(signed.served("web"), FIRST) == "metadata_unsigned"


def test_a_role_that_stands_in_the_way_of_a_component_is_refused(
    node: judged.Node, signed: repository.Repository
) -> None:
    node.believe(signed.served("web"), FIRST)
    delegations = signed.metadata["targets"].signed.delegations
    delegations.roles["db"].paths = ["*/*"]
    delegations.roles = {"db": delegations.roles["db"], "web": delegations.roles["web"]}
    signed.add("web", "1.1.0", SECOND, role="db")
    for role in ("targets", "db", "web"):
        signed.commit(role)
    signed.refresh()
    assert node.told(signed.served("web") | signed.served("db"), SECOND, "1.1.0") == "metadata_unsigned"


@pytest.mark.parametrize("name", ["root", "timestamp", "snapshot", "targets"])
def test_a_component_has_no_name_of_a_role(node: judged.Node, signed: repository.Repository, name: str) -> None:
    delegations = signed.metadata["targets"].signed.delegations
    keys = list(delegations.keys)
    delegations.roles[name] = DelegatedRole(name, keys, 2, terminating=True, paths=[f"{name}/*"])
    signed.commit("targets")
    signed.refresh()
    assert node.told(signed.served("web"), judged.bundle(name), component=name) == "release_unsigned"


def test_a_bundle_of_another_component_or_version_is_refused_though_its_bytes_are_signed(
    node: judged.Node, signed: repository.Repository
) -> None:
    for data in (judged.bundle("db"), judged.bundle(version="2.0.0")):
        signed.release("web", "1.1.0", data)
        assert node.told(signed.served("web"), data, "1.1.0") == "component_mismatch"
