"""The cases of the specification's conformance suite about what has expired, what is older, and what ran far ahead."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from tests.security import repository, tuf_cases, warm

HOUR = timedelta(hours=1)
FAR = 2**31


def test_a_root_that_expired_is_believed_and_nothing_after_it(
    client: warm.Client, signed: repository.Repository
) -> None:
    tuf_cases.publish(signed, "root")
    assert tuf_cases.check(client, signed) == ""
    before = client.believed()
    signed.commit("root", lifetime=-HOUR)
    tuf_cases.publish(signed, "targets")
    assert tuf_cases.check(client, signed) == "metadata_expired"
    assert client.believed() == before | {"root": 3}


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "web"])
def test_a_newer_role_that_expired_is_not_believed(
    client: warm.Client, signed: repository.Repository, role: str
) -> None:
    assert tuf_cases.check(client, signed) == ""
    before = client.believed()
    if role in repository.ONLINE:
        signed.refresh()
        signed.metadata[role].signed.expires = (signed.at - HOUR).replace(microsecond=0)
        signed.sign(role)
    else:
        signed.commit(role, lifetime=-HOUR)
        signed.refresh()
    assert tuf_cases.check(client, signed) == "metadata_expired"
    assert client.believed() == before | {name: signed.version(name) for name in tuf_cases.BEFORE[role]}


def test_from_a_root_that_expired_here_the_newest_is_reached(
    memory_path: Path, children: warm.Verifiers, signed: repository.Repository
) -> None:
    signed.commit("root", lifetime=-HOUR)
    expired = signed.made["2.root.json"]
    client = warm.Client(memory_path, expired, children)
    kept = client.trust / "metadata" / "root_history"
    kept.mkdir(parents=True)
    (kept / "2.root.json").write_bytes(expired)
    tuf_cases.publish(signed, "root", "targets")
    assert client.judges(signed.served("web", root_version=2), tuf_cases.FIRST) == ""
    assert client.believed() == tuf_cases.versions(signed)


def test_from_a_timestamp_that_expired_here_the_newest_is_reached(
    client: warm.Client, signed: repository.Repository
) -> None:
    assert tuf_cases.check(client, signed) == ""
    signed.refresh(lifetime=-HOUR)
    (client.trust / "metadata" / "timestamp.json").write_bytes(signed.made["timestamp.json"])
    older = signed.served("web")
    tuf_cases.publish(signed, "targets")
    assert tuf_cases.check(client, signed) == ""
    assert client.believed() == tuf_cases.versions(signed)
    assert client.judges(older, tuf_cases.FIRST) == "metadata_rolled_back"


# Going back.


def test_an_older_timestamp_is_refused(client: warm.Client, signed: repository.Repository) -> None:
    older = signed.served("web")
    signed.refresh()
    assert tuf_cases.check(client, signed) == ""
    assert client.judges(older, tuf_cases.FIRST) == "metadata_rolled_back"
    assert client.believed() == tuf_cases.versions(signed)


@pytest.mark.parametrize("has_hashes", [False, True])
def test_an_older_snapshot_is_refused_that_a_newer_timestamp_names(
    client: warm.Client, signed: repository.Repository, *, has_hashes: bool
) -> None:
    signed.has_hashes = has_hashes
    signed.refresh()
    assert tuf_cases.check(client, signed) == ""
    before = client.believed()
    signed.metadata["snapshot"].signed.version -= 2
    signed.refresh()
    assert tuf_cases.check(client, signed) == "metadata_rolled_back"
    assert client.believed() == before


@pytest.mark.parametrize("has_hashes", [False, True])
def test_older_targets_are_refused_that_a_newer_snapshot_names(
    client: warm.Client, signed: repository.Repository, *, has_hashes: bool
) -> None:
    signed.has_hashes = has_hashes
    tuf_cases.publish(signed, "targets")
    assert tuf_cases.check(client, signed) == ""
    before = client.believed()
    signed.metadata["targets"].signed.version -= 2
    tuf_cases.publish(signed, "targets")
    assert tuf_cases.check(client, signed) == "metadata_rolled_back"
    assert client.believed() == before | {"timestamp": signed.version("timestamp")}


def test_a_role_that_a_newer_snapshot_leaves_out_is_missed(client: warm.Client, signed: repository.Repository) -> None:
    assert tuf_cases.check(client, signed) == ""
    before = client.believed()
    del signed.metadata["db"]
    signed.refresh()
    assert tuf_cases.check(client, signed) == "metadata_mixed"
    assert client.believed() == before | {"timestamp": signed.version("timestamp")}


def ahead(signed: repository.Repository, role: str) -> int:
    """A thief of the role's keys, who runs its version numbers up; returns what it was."""
    honest = signed.version(role)
    signed.metadata[role].signed.version = FAR
    if role in repository.ONLINE:
        signed.refresh()
    else:
        tuf_cases.publish(signed, role)
    return honest


@pytest.mark.parametrize("rotated", [("snapshot",), ("snapshot", "targets")])
def test_targets_far_ahead_are_forgotten_with_the_keys_of_the_snapshot_and_their_own(
    client: warm.Client, signed: repository.Repository, rotated: tuple[str, ...]
) -> None:
    honest = ahead(signed, "targets")
    assert tuf_cases.check(client, signed) == ""
    signed.rotate(*rotated)
    signed.metadata["targets"].signed.version = honest
    tuf_cases.publish(signed, "targets")
    is_enough = (
        "targets" in rotated
    )  # the specification does without; then who has the online keys brings old lists back
    assert tuf_cases.check(client, signed) == ("" if is_enough else "metadata_rolled_back")


def test_targets_that_only_a_snapshot_said_to_be_far_ahead_are_forgotten_with_its_keys(
    client: warm.Client, signed: repository.Repository
) -> None:
    assert tuf_cases.check(client, signed) == ""
    honest = signed.version("targets")
    signed.metadata["targets"].signed.version = FAR
    signed.refresh()
    served = {name: signed.made.get(name, b"{}") for name in signed.served_names("web")}
    assert client.judges(served, tuf_cases.FIRST) == "metadata_unsigned"
    signed.metadata["targets"].signed.version = honest
    tuf_cases.publish(signed, "targets")
    assert tuf_cases.check(client, signed) == "metadata_rolled_back"
    signed.rotate("snapshot")
    signed.refresh()
    assert tuf_cases.check(client, signed) == ""


@pytest.mark.parametrize(("role", "rotated"), [("snapshot", repository.ONLINE), ("timestamp", ("timestamp",))])
def test_what_the_online_keys_ran_far_ahead_is_forgotten_with_them(
    client: warm.Client, signed: repository.Repository, role: str, rotated: tuple[str, ...]
) -> None:
    honest = ahead(signed, role)
    assert tuf_cases.check(client, signed) == ""
    signed.metadata[role].signed.version = honest
    signed.refresh()
    assert tuf_cases.check(client, signed) == "metadata_rolled_back"
    signed.rotate(*rotated)
    signed.refresh()
    assert tuf_cases.check(client, signed) == ""
    assert client.believed() == tuf_cases.versions(signed)
