"""The cases of the specification's conformance suite that are about root, timestamp, snapshot and targets.

Each is driven through the node's own verifier, a child for each judgement, over metadata as the controller serves them.
Which case is which, and which do not apply, says docs/node-trust.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from securesystemslib.signer import CryptoSigner

from tests.security import judged, repository, warm

FIRST = judged.bundle()
HOUR = timedelta(hours=1)
FAR = 2**31
ROLES = ("root", "timestamp", "snapshot", "targets")


@pytest.fixture(scope="module")
def children() -> Iterator[warm.Verifiers]:
    with warm.Verifiers() as started:
        yield started


@pytest.fixture
def signed() -> repository.Repository:
    made = repository.Repository("web", "db")
    made.release("web", "1.0.0", FIRST)
    return made


@pytest.fixture
def client(memory_path: Path, signed: repository.Repository, children: warm.Verifiers) -> warm.Client:
    return warm.Client(memory_path, signed.root, children)


def versions(signed: repository.Repository) -> dict[str, int]:
    return {role: signed.version(role) for role in ROLES}


def publish(signed: repository.Repository, *roles: str) -> None:
    """New versions of roles, and what the controller signs after them."""
    for role in roles:
        signed.commit(role)
    signed.refresh()


def check(client: warm.Client, signed: repository.Repository) -> str:
    return client.judges(signed.served("web"), FIRST)


# Basics.


def test_a_refresh_believes_every_role_as_it_is_served(client: warm.Client, signed: repository.Repository) -> None:
    publish(signed, "root", "targets", "web")
    assert check(client, signed) == ""
    assert client.believed() == versions(signed)


def test_who_asks_for_a_release_that_is_not_named_refreshes_all_the_same(
    client: warm.Client, signed: repository.Repository
) -> None:
    publish(signed, "root", "targets")
    assert client.judges(signed.served("web"), FIRST, "9.9.9") == "release_unsigned"
    assert client.believed() == versions(signed)


def test_an_initial_root_that_is_no_root_is_refused(client: warm.Client, signed: repository.Repository) -> None:
    document = json.loads(signed.root)
    del document["signed"]["version"]
    client.pinned.write_bytes(json.dumps(document).encode())
    assert check(client, signed) == "trust_unusable"
    assert client.believed() == {}


def test_an_initial_root_that_is_signed_wrongly_is_refused(client: warm.Client, signed: repository.Repository) -> None:
    document = json.loads(signed.root)
    for each in document["signatures"]:
        each["sig"] = document["signatures"][0]["sig"]
    client.pinned.write_bytes(json.dumps(document).encode())
    assert check(client, signed) == "trust_unusable"
    assert client.believed() == {}


BEFORE = {"root": (), "timestamp": ("root",), "snapshot": ("root", "timestamp"), "targets": ROLES[:3], "web": ROLES}


@pytest.mark.parametrize("role", BEFORE)
def test_a_role_that_is_signed_too_little_is_refused_and_those_before_it_believed(
    client: warm.Client, signed: repository.Repository, role: str
) -> None:
    assert check(client, signed) == ""
    before = client.believed()
    publish(signed, "root", "targets", "web")
    signed.sign(role, by=repository.signers(2))
    assert check(client, signed) == "metadata_unsigned"
    assert client.believed() == before | {name: signed.version(name) for name in BEFORE[role]}


@pytest.mark.parametrize("role", ["root", "snapshot", "targets", "web"])
def test_a_file_whose_name_says_another_version_is_refused(
    client: warm.Client, signed: repository.Repository, role: str
) -> None:
    publish(signed, "root", "targets", "web")
    named = f"{signed.version(role)}.{role}.json"
    served = signed.served("web")
    signed.commit(role)
    served[named] = signed.made[f"{signed.version(role)}.{role}.json"]
    assert client.judges(served, FIRST) == "metadata_mixed"
    assert set(client.believed()) == {"root", *BEFORE[role]}


def test_a_timestamp_that_changes_without_a_new_version_is_not_taken(
    client: warm.Client, signed: repository.Repository
) -> None:
    assert check(client, signed) == ""
    served = signed.served("web")
    signed.metadata["timestamp"].signed.snapshot_meta.version = 100
    signed.sign("timestamp")
    assert client.judges({**served, "timestamp.json": signed.made["timestamp.json"]}, FIRST) == ""
    assert (client.trust / "metadata" / "timestamp.json").read_bytes() == served["timestamp.json"]


def test_lengths_and_hashes_of_metadata_are_understood(client: warm.Client, signed: repository.Repository) -> None:
    signed.has_hashes = True
    publish(signed, "targets", "web")
    assert check(client, signed) == ""
    assert client.believed() == versions(signed)


@pytest.mark.parametrize("what", ["hash", "longer", "shorter"])
@pytest.mark.parametrize("role", ["snapshot", "targets", "web"])
def test_a_file_of_another_hash_or_length_than_was_told_is_refused(
    client: warm.Client, signed: repository.Repository, role: str, what: str
) -> None:
    signed.has_hashes = True
    publish(signed, "targets", "web")
    teller = signed.metadata["timestamp" if role == "snapshot" else "snapshot"].signed
    told = teller.snapshot_meta if role == "snapshot" else teller.meta[f"{role}.json"]
    if what == "hash":
        told.hashes = {"sha256": "0" * 64}
    else:
        told.length += -1 if what == "longer" else 1
    for each in ("snapshot", "timestamp") if role != "snapshot" else ("timestamp",):
        if each == "timestamp" and role != "snapshot":
            teller = signed.metadata["timestamp"].signed
            teller.snapshot_meta = signed.told("snapshot")
        signed.sign(each)
    assert check(client, signed) == "metadata_mixed"
    assert set(client.believed()) == set(BEFORE[role])


def test_what_is_kept_is_byte_for_byte_what_came(client: warm.Client, signed: repository.Repository) -> None:
    served = signed.served("web")
    served["timestamp.json"] += b" "
    assert client.judges(served, FIRST) == ""
    assert (client.trust / "metadata" / "timestamp.json").read_bytes() == served["timestamp.json"]


def test_fields_that_nobody_knows_are_signed_and_do_not_disturb(
    client: warm.Client, signed: repository.Repository
) -> None:
    odd = {"x-list": [1, {"deep": None}], "x-text": 'é"\\\n\x7f', "x-true": True}
    for role in (*ROLES, "web"):
        signed.metadata[role].signed.unrecognized_fields.update(odd)
    root, targets = signed.metadata["root"].signed, signed.metadata["targets"].signed
    next(iter(root.keys.values())).unrecognized_fields.update(odd)
    root.roles["snapshot"].unrecognized_fields.update(odd)
    targets.delegations.unrecognized_fields.update(odd)
    targets.delegations.roles["web"].unrecognized_fields.update(odd)
    signed.metadata["web"].signed.targets["web/1.0.0"].unrecognized_fields.update(odd)
    publish(signed, "root", "targets", "web")
    assert check(client, signed) == ""
    name = f"{signed.version('web')}.web.json"
    signed.rewrite(name, lambda document: document["signed"].update({"x-true": False}))
    assert check(client, signed) == "metadata_unsigned"


def test_an_old_field_that_names_algorithms_of_key_ids_says_nothing(
    client: warm.Client, signed: repository.Repository
) -> None:
    key = signed.signers["snapshot"][0].public_key
    signed.metadata["root"].signed.keys[key.keyid].unrecognized_fields["keyid_hash_algorithms"] = ["md5"]
    publish(signed, "root")
    assert check(client, signed) == ""


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "web"])
def test_a_file_that_is_missing_is_refused_and_those_before_it_believed(
    client: warm.Client, signed: repository.Repository, role: str
) -> None:
    assert check(client, signed) == ""
    before = client.believed()
    publish(signed, "targets", "web")
    served = signed.served("web")
    del served[f"{role}.json" if role == "timestamp" else f"{signed.version(role)}.{role}.json"]
    assert client.judges(served, FIRST) == "metadata_missing"
    assert client.believed() == before | {name: signed.version(name) for name in BEFORE[role]}


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "web"])
def test_a_role_of_another_type_is_refused_though_the_right_keys_signed_it(
    client: warm.Client, signed: repository.Repository, role: str
) -> None:
    other = "snapshot" if role == "timestamp" else "timestamp"
    served = signed.served("web")
    signed.metadata[other].signed.version = signed.version(role)
    signed.sign(other, signed.enough(role))
    served[f"{role}.json" if role == "timestamp" else f"{signed.version(role)}.{role}.json"] = signed.made[
        f"{signed.version(other)}.{other}.json"
    ]
    assert client.judges(served, FIRST) in ("metadata_mixed", "metadata_unsigned")
    assert set(client.believed()) <= {"root", *BEFORE[role]}


# Expiries.


def test_a_root_that_expired_is_believed_and_nothing_after_it(
    client: warm.Client, signed: repository.Repository
) -> None:
    publish(signed, "root")
    assert check(client, signed) == ""
    before = client.believed()
    signed.commit("root", lifetime=-HOUR)
    publish(signed, "targets")
    assert check(client, signed) == "metadata_expired"
    assert client.believed() == before | {"root": 3}


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "web"])
def test_a_newer_role_that_expired_is_not_believed(
    client: warm.Client, signed: repository.Repository, role: str
) -> None:
    assert check(client, signed) == ""
    before = client.believed()
    if role in repository.ONLINE:
        signed.refresh()
        signed.metadata[role].signed.expires = (signed.at - HOUR).replace(microsecond=0)
        signed.sign(role)
    else:
        signed.commit(role, lifetime=-HOUR)
        signed.refresh()
    assert check(client, signed) == "metadata_expired"
    assert client.believed() == before | {name: signed.version(name) for name in BEFORE[role]}


def test_from_a_root_that_expired_here_the_newest_is_reached(
    memory_path: Path, children: warm.Verifiers, signed: repository.Repository
) -> None:
    signed.commit("root", lifetime=-HOUR)
    expired = signed.made["2.root.json"]
    client = warm.Client(memory_path, expired, children)
    kept = client.trust / "metadata" / "root_history"
    kept.mkdir(parents=True)
    (kept / "2.root.json").write_bytes(expired)
    publish(signed, "root", "targets")
    assert client.judges(signed.served("web", root_version=2), FIRST) == ""
    assert client.believed() == versions(signed)


def test_from_a_timestamp_that_expired_here_the_newest_is_reached(
    client: warm.Client, signed: repository.Repository
) -> None:
    assert check(client, signed) == ""
    signed.refresh(lifetime=-HOUR)
    (client.trust / "metadata" / "timestamp.json").write_bytes(signed.made["timestamp.json"])
    older = signed.served("web")
    publish(signed, "targets")
    assert check(client, signed) == ""
    assert client.believed() == versions(signed)
    assert client.judges(older, FIRST) == "metadata_rolled_back"


# Keys and thresholds.


def add_keys(signed: repository.Repository, role: str, added: list[CryptoSigner], threshold: int) -> None:
    root = signed.metadata["root"].signed
    for signer in added:
        root.add_key(signer.public_key, role)
    root.roles[role].threshold = threshold


def test_a_snapshot_below_its_threshold_is_refused(client: warm.Client, signed: repository.Repository) -> None:
    assert check(client, signed) == ""
    keys = [*signed.signers["snapshot"], *repository.signers(2)]
    add_keys(signed, "snapshot", keys[1:], 3)
    publish(signed, "root")
    before = client.believed()["snapshot"]
    signed.sign("snapshot", keys[:2])
    assert check(client, signed) == "metadata_unsigned"
    assert client.believed()["snapshot"] == before
    signed.sign("snapshot", keys)
    assert check(client, signed) == ""


def test_a_threshold_that_no_number_of_keys_reaches_lets_nothing_pass(
    client: warm.Client, signed: repository.Repository
) -> None:
    keys = [*signed.signers["snapshot"], *repository.signers(4)]
    add_keys(signed, "snapshot", keys[1:], 6)
    publish(signed, "root")
    signed.sign("snapshot", keys)
    assert check(client, signed) == "metadata_unsigned"
    assert "snapshot" not in client.believed()


def test_one_key_that_is_named_or_signs_many_times_counts_once(
    client: warm.Client, signed: repository.Repository
) -> None:
    (online,), root = signed.signers["snapshot"], signed.metadata["root"].signed
    root.roles["snapshot"].threshold = 6
    publish(signed, "root")
    name = f"{signed.version('snapshot')}.snapshot.json"
    signed.rewrite(name, lambda document: document["signatures"].extend(document["signatures"] * 8))
    assert check(client, signed) == "metadata_unsigned"
    signed.rewrite(
        "2.root.json",
        lambda document: document["signed"]["roles"]["snapshot"].update(keyids=[online.public_key.keyid] * 9),
        signed.enough("root"),
    )
    assert check(client, signed) == "metadata_unsigned"
    assert "snapshot" not in client.believed()


@pytest.mark.parametrize("role", ["snapshot", "web"])
def test_a_key_that_signs_twice_is_refused_even_where_the_others_are_enough(
    client: warm.Client, signed: repository.Repository, role: str
) -> None:
    name = f"{signed.version(role)}.{role}.json"
    signed.rewrite(name, lambda document: document["signatures"].append(document["signatures"][0]))
    assert check(client, signed) == "metadata_unsigned"
    assert "snapshot" not in client.believed() or role == "web"


KINDS = {
    "rsa": CryptoSigner.generate_rsa,
    "ecdsa": CryptoSigner.generate_ecdsa,
    "ed25519": CryptoSigner.generate_ed25519,
}


@pytest.mark.parametrize("kind", KINDS)
def test_keys_of_each_kind_are_understood(client: warm.Client, signed: repository.Repository, kind: str) -> None:
    added = KINDS[kind]()
    old = signed.enough("root")
    add_keys(signed, "root", [added], 3)
    signed.commit("root", by=[*old, added])
    assert check(client, signed) == ""
    assert client.believed()["root"] == 2
    signed.commit("root", by=[*old, added])
    wrong = added.sign(b"something else").to_dict()["sig"]

    def spoil(document: dict[str, Any]) -> None:
        next(each for each in document["signatures"] if each["keyid"] == added.public_key.keyid)["sig"] = wrong

    signed.rewrite("3.root.json", spoil)
    assert check(client, signed) == "metadata_unsigned"
    assert client.believed()["root"] == 2


@pytest.mark.parametrize("kept", ["other", ""])
@pytest.mark.parametrize("role", ["timestamp", "web"])
def test_a_signature_that_is_wrong_beside_enough_right_ones_does_not_disturb(
    client: warm.Client, signed: repository.Repository, role: str, kept: str
) -> None:
    added = repository.signers(1)[0]
    if role == "timestamp":
        add_keys(signed, role, [added], 1)
        signed.commit("root")
    signed.refresh()
    by = [*signed.enough(role), added if role == "timestamp" else signed.signers[role][2]]
    signed.sign(role, by)
    wrong = added.sign(b"something else").to_dict()["sig"] if kept else ""
    for name in ("timestamp.json",) if role == "timestamp" else (f"{signed.version(role)}.{role}.json",):
        signed.rewrite(name, lambda document: document["signatures"][-1].update(sig=wrong))
    assert check(client, signed) == ""


# Going back.


def test_an_older_timestamp_is_refused(client: warm.Client, signed: repository.Repository) -> None:
    older = signed.served("web")
    signed.refresh()
    assert check(client, signed) == ""
    assert client.judges(older, FIRST) == "metadata_rolled_back"
    assert client.believed() == versions(signed)


@pytest.mark.parametrize("has_hashes", [False, True])
def test_an_older_snapshot_is_refused_that_a_newer_timestamp_names(
    client: warm.Client, signed: repository.Repository, *, has_hashes: bool
) -> None:
    signed.has_hashes = has_hashes
    signed.refresh()
    assert check(client, signed) == ""
    before = client.believed()
    signed.metadata["snapshot"].signed.version -= 2
    signed.refresh()
    assert check(client, signed) == "metadata_rolled_back"
    assert client.believed() == before


@pytest.mark.parametrize("has_hashes", [False, True])
def test_older_targets_are_refused_that_a_newer_snapshot_names(
    client: warm.Client, signed: repository.Repository, *, has_hashes: bool
) -> None:
    signed.has_hashes = has_hashes
    publish(signed, "targets")
    assert check(client, signed) == ""
    before = client.believed()
    signed.metadata["targets"].signed.version -= 2
    publish(signed, "targets")
    assert check(client, signed) == "metadata_rolled_back"
    assert client.believed() == before | {"timestamp": signed.version("timestamp")}


def test_a_role_that_a_newer_snapshot_leaves_out_is_missed(client: warm.Client, signed: repository.Repository) -> None:
    assert check(client, signed) == ""
    before = client.believed()
    del signed.metadata["db"]
    signed.refresh()
    assert check(client, signed) == "metadata_mixed"
    assert client.believed() == before | {"timestamp": signed.version("timestamp")}


def ahead(signed: repository.Repository, role: str) -> int:
    """A thief of the role's keys, who runs its version numbers up; returns what it was."""
    honest = signed.version(role)
    signed.metadata[role].signed.version = FAR
    if role in repository.ONLINE:
        signed.refresh()
    else:
        publish(signed, role)
    return honest


@pytest.mark.parametrize("rotated", [("snapshot",), ("snapshot", "targets")])
def test_targets_far_ahead_are_forgotten_with_the_keys_of_the_snapshot_and_their_own(
    client: warm.Client, signed: repository.Repository, rotated: tuple[str, ...]
) -> None:
    honest = ahead(signed, "targets")
    assert check(client, signed) == ""
    signed.rotate(*rotated)
    signed.metadata["targets"].signed.version = honest
    publish(signed, "targets")
    is_enough = (
        "targets" in rotated
    )  # the specification does without; then who has the online keys brings old lists back
    assert check(client, signed) == ("" if is_enough else "metadata_rolled_back")


def test_targets_that_only_a_snapshot_said_to_be_far_ahead_are_forgotten_with_its_keys(
    client: warm.Client, signed: repository.Repository
) -> None:
    assert check(client, signed) == ""
    honest = signed.version("targets")
    signed.metadata["targets"].signed.version = FAR
    signed.refresh()
    served = {name: signed.made.get(name, b"{}") for name in signed.served_names("web")}
    assert client.judges(served, FIRST) == "metadata_unsigned"
    signed.metadata["targets"].signed.version = honest
    publish(signed, "targets")
    assert check(client, signed) == "metadata_rolled_back"
    signed.rotate("snapshot")
    signed.refresh()
    assert check(client, signed) == ""


@pytest.mark.parametrize(("role", "rotated"), [("snapshot", repository.ONLINE), ("timestamp", ("timestamp",))])
def test_what_the_online_keys_ran_far_ahead_is_forgotten_with_them(
    client: warm.Client, signed: repository.Repository, role: str, rotated: tuple[str, ...]
) -> None:
    honest = ahead(signed, role)
    assert check(client, signed) == ""
    signed.metadata[role].signed.version = honest
    signed.refresh()
    assert check(client, signed) == "metadata_rolled_back"
    signed.rotate(*rotated)
    signed.refresh()
    assert check(client, signed) == ""
    assert client.believed() == versions(signed)


# New keys: which, how many of them it takes, and which sign.


class Keys(NamedTuple):
    """Numbers of keys."""

    named: tuple[int, ...]
    threshold: int
    signing: tuple[int, ...]


FIVE, ONE_NEW, ALL_NEW = (0, 1, 2, 3, 4), (0, 1, 3, 4, 5), (5, 6, 7, 8, 9)
ROOTS: dict[str, tuple[bool, list[Keys]]] = {
    "one key, replaced": (True, [Keys((1,), 1, (1,)), Keys((2,), 1, (2, 1)), Keys((2,), 1, (2,))]),
    "one key, strangers sign too": (
        True,
        [Keys((1,), 1, (3, 1, 4)), Keys((2,), 1, (3, 2, 1, 4)), Keys((2,), 1, (3, 2, 4))],
    ),
    "any three of five": (True, [Keys(FIVE, 3, by) for by in ((0, 2, 4), (0, 4, 1), (0, 1, 3), (0, 1, 3))]),
    "one of five replaced": (True, [Keys(FIVE, 3, (0, 2, 4)), Keys(ONE_NEW, 3, (0, 4, 1))]),
    "one of five replaced in two steps": (
        True,
        [Keys(FIVE, 3, (0, 2, 4)), Keys(ONE_NEW, 3, (0, 2, 4, 5)), Keys(ONE_NEW, 3, (0, 4, 5))],
    ),
    "five of five replaced": (
        True,
        [Keys(FIVE, 3, (0, 2, 4)), Keys(ALL_NEW, 3, (0, 2, 4, 5, 6, 7)), Keys(ALL_NEW, 3, (5, 6, 7))],
    ),
    "from one to two of three": (True, [Keys((1, 2, 3), 1, (1,)), Keys((1, 2, 3), 2, (1, 2))]),
    "from two to one of three": (
        True,
        [Keys((1, 2, 3), 2, (1, 2)), Keys((1, 2, 3), 1, (1, 2)), Keys((1, 2, 3), 1, (1,))],
    ),
    "from one to two of two": (True, [Keys((1,), 1, (1,)), Keys((1, 2), 2, (1, 2))]),
    "the old key does not sign": (False, [Keys((1,), 1, (1,)), Keys((2,), 1, (2, 3, 4))]),
    "the new key does not sign": (False, [Keys((1,), 1, (1,)), Keys((2,), 1, (1, 3, 4))]),
    "two new keys where it takes three": (False, [Keys(FIVE, 3, (0, 2, 4)), Keys(ONE_NEW, 3, (0, 2, 4))]),
    "two old keys where it takes three": (False, [Keys(FIVE, 3, (0, 2, 4)), Keys(ONE_NEW, 3, (0, 4, 5))]),
    "the higher threshold is not reached": (False, [Keys((1, 2, 3), 1, (1,)), Keys((1, 2, 3), 2, (2,))]),
    "the old, higher threshold is not reached": (False, [Keys((1, 2, 3), 2, (1, 2)), Keys((1, 2, 3), 1, (1,))]),
}
POOL = repository.signers(10)


@pytest.mark.parametrize("case", ROOTS)
def test_roots_follow_one_another_where_enough_old_and_new_keys_sign(
    memory_path: Path, children: warm.Verifiers, case: str
) -> None:
    is_believed, roots = ROOTS[case]
    signed = repository.Repository("web")
    for number, each in enumerate(roots):
        role = signed.metadata["root"].signed.roles["root"]
        role.keyids.clear()
        add_keys(signed, "root", [POOL[key] for key in each.named], each.threshold)
        signed.commit("root", by=[POOL[key] for key in each.signing], is_first=number == 0)
    signed.release("web", "1.0.0", FIRST)
    client = warm.Client(memory_path, signed.root, children)
    assert check(client, signed) == ("" if is_believed else "metadata_unsigned")
    newest = len(roots) if is_believed else len(roots) - 1
    assert (client.trust / "metadata" / "root.json").read_bytes() == signed.made[f"{newest}.root.json"]


OTHERS: dict[str, tuple[bool, Keys]] = {
    "one key, replaced": (True, Keys((2,), 1, (2,))),
    "one key, strangers sign too": (True, Keys((1,), 1, (3, 1, 4))),
    "the new key does not sign": (False, Keys((2,), 1, (1, 3, 4))),
    "one of three is a stranger": (False, Keys(ONE_NEW, 3, (0, 2, 4))),
    "two where it takes three": (False, Keys(ONE_NEW, 3, (0, 4))),
    **{f"three of five: {by}": (True, Keys(FIVE, 3, by)) for by in ((0, 2, 4), (0, 4, 1), (0, 1, 3), (1, 2, 3))},
    "three of five: (2, 3, 4)": (True, Keys(FIVE, 3, (2, 3, 4))),
}


@pytest.mark.parametrize("case", OTHERS)
@pytest.mark.parametrize("role", ROLES[1:])
def test_new_keys_of_a_role_count_from_the_root_on_that_names_them(
    client: warm.Client, signed: repository.Repository, role: str, case: str
) -> None:
    assert check(client, signed) == ""
    is_believed, keys = OTHERS[case]
    signed.metadata["root"].signed.roles[role].keyids.clear()
    add_keys(signed, role, [POOL[key] for key in keys.named], keys.threshold)
    publish(signed, "root", "targets")
    signed.sign(role, [POOL[key] for key in keys.signing])
    assert check(client, signed) == ("" if is_believed else "metadata_unsigned")
    assert (client.believed() == versions(signed)) == is_believed
