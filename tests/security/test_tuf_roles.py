"""The cases of the specification's conformance suite about files of each role: whole, signed, and of one state."""

from __future__ import annotations

import json

import pytest

from tests.security import repository, tuf_cases, warm


def test_a_refresh_believes_every_role_as_it_is_served(client: warm.Client, signed: repository.Repository) -> None:
    tuf_cases.publish(signed, "root", "targets", "web")
    assert tuf_cases.check(client, signed) == ""
    assert client.believed() == tuf_cases.versions(signed)


def test_who_asks_for_a_release_that_is_not_named_refreshes_all_the_same(
    client: warm.Client, signed: repository.Repository
) -> None:
    tuf_cases.publish(signed, "root", "targets")
    assert client.judges(signed.served("web"), tuf_cases.FIRST, "9.9.9") == "release_unsigned"
    assert client.believed() == tuf_cases.versions(signed)


def test_an_initial_root_that_is_no_root_is_refused(client: warm.Client, signed: repository.Repository) -> None:
    document = json.loads(signed.root)
    del document["signed"]["version"]
    client.pinned.write_bytes(json.dumps(document).encode())
    assert tuf_cases.check(client, signed) == "trust_unusable"
    assert client.believed() == {}


def test_an_initial_root_that_is_signed_wrongly_is_refused(client: warm.Client, signed: repository.Repository) -> None:
    document = json.loads(signed.root)
    for each in document["signatures"]:
        each["sig"] = document["signatures"][0]["sig"]
    client.pinned.write_bytes(json.dumps(document).encode())
    assert tuf_cases.check(client, signed) == "trust_unusable"
    assert client.believed() == {}


@pytest.mark.parametrize("role", tuf_cases.BEFORE)
def test_a_role_that_is_signed_too_little_is_refused_and_those_before_it_believed(
    client: warm.Client, signed: repository.Repository, role: str
) -> None:
    assert tuf_cases.check(client, signed) == ""
    before = client.believed()
    tuf_cases.publish(signed, "root", "targets", "web")
    signed.sign(role, by=repository.signers(2))
    assert tuf_cases.check(client, signed) == "metadata_unsigned"
    assert client.believed() == before | {name: signed.version(name) for name in tuf_cases.BEFORE[role]}


@pytest.mark.parametrize("role", ["root", "snapshot", "targets", "web"])
def test_a_file_whose_name_says_another_version_is_refused(
    client: warm.Client, signed: repository.Repository, role: str
) -> None:
    tuf_cases.publish(signed, "root", "targets", "web")
    named = f"{signed.version(role)}.{role}.json"
    served = signed.served("web")
    signed.commit(role)
    served[named] = signed.made[f"{signed.version(role)}.{role}.json"]
    assert client.judges(served, tuf_cases.FIRST) == "metadata_mixed"
    assert set(client.believed()) == {"root", *tuf_cases.BEFORE[role]}


def test_a_timestamp_that_changes_without_a_new_version_is_not_taken(
    client: warm.Client, signed: repository.Repository
) -> None:
    assert tuf_cases.check(client, signed) == ""
    served = signed.served("web")
    signed.metadata["timestamp"].signed.snapshot_meta.version = 100
    signed.sign("timestamp")
    assert client.judges({**served, "timestamp.json": signed.made["timestamp.json"]}, tuf_cases.FIRST) == ""
    assert (client.trust / "metadata" / "timestamp.json").read_bytes() == served["timestamp.json"]


def test_lengths_and_hashes_of_metadata_are_understood(client: warm.Client, signed: repository.Repository) -> None:
    signed.has_hashes = True
    tuf_cases.publish(signed, "targets", "web")
    assert tuf_cases.check(client, signed) == ""
    assert client.believed() == tuf_cases.versions(signed)


@pytest.mark.parametrize("what", ["hash", "longer", "shorter"])
@pytest.mark.parametrize("role", ["snapshot", "targets", "web"])
def test_a_file_of_another_hash_or_length_than_was_told_is_refused(
    client: warm.Client, signed: repository.Repository, role: str, what: str
) -> None:
    signed.has_hashes = True
    tuf_cases.publish(signed, "targets", "web")
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
    assert tuf_cases.check(client, signed) == "metadata_mixed"
    assert set(client.believed()) == set(tuf_cases.BEFORE[role])


def test_what_is_kept_is_byte_for_byte_what_came(client: warm.Client, signed: repository.Repository) -> None:
    served = signed.served("web")
    served["timestamp.json"] += b" "
    assert client.judges(served, tuf_cases.FIRST) == ""
    assert (client.trust / "metadata" / "timestamp.json").read_bytes() == served["timestamp.json"]


def test_fields_that_nobody_knows_are_signed_and_do_not_disturb(
    client: warm.Client, signed: repository.Repository
) -> None:
    odd = {"x-list": [1, {"deep": None}], "x-text": 'é"\\\n\x7f', "x-true": True}
    for role in (*tuf_cases.ROLES, "web"):
        signed.metadata[role].signed.unrecognized_fields.update(odd)
    root, targets = signed.metadata["root"].signed, signed.metadata["targets"].signed
    next(iter(root.keys.values())).unrecognized_fields.update(odd)
    root.roles["snapshot"].unrecognized_fields.update(odd)
    targets.delegations.unrecognized_fields.update(odd)
    targets.delegations.roles["web"].unrecognized_fields.update(odd)
    signed.metadata["web"].signed.targets["web/1.0.0"].unrecognized_fields.update(odd)
    tuf_cases.publish(signed, "root", "targets", "web")
    assert tuf_cases.check(client, signed) == ""
    name = f"{signed.version('web')}.web.json"
    signed.rewrite(name, lambda document: document["signed"].update({"x-true": False}))
    assert tuf_cases.check(client, signed) == "metadata_unsigned"


def test_an_old_field_that_names_algorithms_of_key_ids_says_nothing(
    client: warm.Client, signed: repository.Repository
) -> None:
    key = signed.signers["snapshot"][0].public_key
    signed.metadata["root"].signed.keys[key.keyid].unrecognized_fields["keyid_hash_algorithms"] = ["md5"]
    tuf_cases.publish(signed, "root")
    assert tuf_cases.check(client, signed) == ""


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "web"])
def test_a_file_that_is_missing_is_refused_and_those_before_it_believed(
    client: warm.Client, signed: repository.Repository, role: str
) -> None:
    assert tuf_cases.check(client, signed) == ""
    before = client.believed()
    tuf_cases.publish(signed, "targets", "web")
    served = signed.served("web")
    del served[f"{role}.json" if role == "timestamp" else f"{signed.version(role)}.{role}.json"]
    assert client.judges(served, tuf_cases.FIRST) == "metadata_missing"
    assert client.believed() == before | {name: signed.version(name) for name in tuf_cases.BEFORE[role]}


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
    assert client.judges(served, tuf_cases.FIRST) in ("metadata_mixed", "metadata_unsigned")
    assert set(client.believed()) <= {"root", *tuf_cases.BEFORE[role]}
