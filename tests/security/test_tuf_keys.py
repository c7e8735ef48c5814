"""The cases of the specification's conformance suite about keys, thresholds, and keys that follow one another."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
from securesystemslib.signer import CryptoSigner

from tests.security import repository, tuf_cases, warm


def test_a_snapshot_below_its_threshold_is_refused(client: warm.Client, signed: repository.Repository) -> None:
    assert tuf_cases.check(client, signed) == ""
    keys = [*signed.signers["snapshot"], *repository.signers(2)]
    tuf_cases.add_keys(signed, "snapshot", keys[1:], 3)
    tuf_cases.publish(signed, "root")
    before = client.believed()["snapshot"]
    signed.sign("snapshot", keys[:2])
    assert tuf_cases.check(client, signed) == "metadata_unsigned"
    assert client.believed()["snapshot"] == before
    signed.sign("snapshot", keys)
    assert tuf_cases.check(client, signed) == ""


def test_a_threshold_that_no_number_of_keys_reaches_lets_nothing_pass(
    client: warm.Client, signed: repository.Repository
) -> None:
    keys = [*signed.signers["snapshot"], *repository.signers(4)]
    tuf_cases.add_keys(signed, "snapshot", keys[1:], 6)
    tuf_cases.publish(signed, "root")
    signed.sign("snapshot", keys)
    assert tuf_cases.check(client, signed) == "metadata_unsigned"
    assert "snapshot" not in client.believed()


def test_one_key_that_is_named_or_signs_many_times_counts_once(
    client: warm.Client, signed: repository.Repository
) -> None:
    (online,), root = signed.signers["snapshot"], signed.metadata["root"].signed
    root.roles["snapshot"].threshold = 6
    tuf_cases.publish(signed, "root")
    name = f"{signed.version('snapshot')}.snapshot.json"
    signed.rewrite(name, lambda document: document["signatures"].extend(document["signatures"] * 8))
    assert tuf_cases.check(client, signed) == "metadata_unsigned"
    signed.rewrite(
        "2.root.json",
        lambda document: document["signed"]["roles"]["snapshot"].update(keyids=[online.public_key.keyid] * 9),
        signed.enough("root"),
    )
    assert tuf_cases.check(client, signed) == "metadata_unsigned"
    assert "snapshot" not in client.believed()


@pytest.mark.parametrize("role", ["snapshot", "web"])
def test_a_key_that_signs_twice_is_refused_even_where_the_others_are_enough(
    client: warm.Client, signed: repository.Repository, role: str
) -> None:
    name = f"{signed.version(role)}.{role}.json"
    signed.rewrite(name, lambda document: document["signatures"].append(document["signatures"][0]))
    assert tuf_cases.check(client, signed) == "metadata_unsigned"
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
    tuf_cases.add_keys(signed, "root", [added], 3)
    signed.commit("root", by=[*old, added])
    assert tuf_cases.check(client, signed) == ""
    assert client.believed()["root"] == 2
    signed.commit("root", by=[*old, added])
    wrong = added.sign(b"something else").to_dict()["sig"]

    def spoil(document: dict[str, Any]) -> None:
        next(each for each in document["signatures"] if each["keyid"] == added.public_key.keyid)["sig"] = wrong

    signed.rewrite("3.root.json", spoil)
    assert tuf_cases.check(client, signed) == "metadata_unsigned"
    assert client.believed()["root"] == 2


@pytest.mark.parametrize("kept", ["other", ""])
@pytest.mark.parametrize("role", ["timestamp", "web"])
def test_a_signature_that_is_wrong_beside_enough_right_ones_does_not_disturb(
    client: warm.Client, signed: repository.Repository, role: str, kept: str
) -> None:
    added = repository.signers(1)[0]
    if role == "timestamp":
        tuf_cases.add_keys(signed, role, [added], 1)
        signed.commit("root")
    signed.refresh()
    by = [*signed.enough(role), added if role == "timestamp" else signed.signers[role][2]]
    signed.sign(role, by)
    wrong = added.sign(b"something else").to_dict()["sig"] if kept else ""
    for name in ("timestamp.json",) if role == "timestamp" else (f"{signed.version(role)}.{role}.json",):
        signed.rewrite(name, lambda document: document["signatures"][-1].update(sig=wrong))
    assert tuf_cases.check(client, signed) == ""


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
        tuf_cases.add_keys(signed, "root", [POOL[key] for key in each.named], each.threshold)
        signed.commit("root", by=[POOL[key] for key in each.signing], is_first=number == 0)
    signed.release("web", "1.0.0", tuf_cases.FIRST)
    client = warm.Client(memory_path, signed.root, children)
    assert tuf_cases.check(client, signed) == ("" if is_believed else "metadata_unsigned")
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
@pytest.mark.parametrize("role", tuf_cases.ROLES[1:])
def test_new_keys_of_a_role_count_from_the_root_on_that_names_them(
    client: warm.Client, signed: repository.Repository, role: str, case: str
) -> None:
    assert tuf_cases.check(client, signed) == ""
    is_believed, keys = OTHERS[case]
    signed.metadata["root"].signed.roles[role].keyids.clear()
    tuf_cases.add_keys(signed, role, [POOL[key] for key in keys.named], keys.threshold)
    tuf_cases.publish(signed, "root", "targets")
    signed.sign(role, [POOL[key] for key in keys.signing])
    assert tuf_cases.check(client, signed) == ("" if is_believed else "metadata_unsigned")
    assert (client.believed() == tuf_cases.versions(signed)) == is_believed
