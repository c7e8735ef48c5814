"""What metadata vouches for and what not: lines of the fault matrix by their numbers, and what is asked on top."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.metadata import Metadata

from tests.agent import bundles
from tests.security import judged, repository

FIRST, SECOND = judged.bundle(version="1.0.0"), judged.bundle(version="1.1.0")
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def test_a_signed_release_is_let_in_and_what_vouches_for_it_is_told(
    node: judged.Node, signed: repository.Repository
) -> None:
    repository.lay(node.incoming, signed.served("web"))
    document = node.verify(FIRST)
    assert "error" not in document, document
    assert document["manifest"]["name"] == "web"
    expected = {role: signed.version(role) for role in ("root", "timestamp", "snapshot", "targets", "web")}
    assert document["trust"] == {**expected, "floor": ""}
    assert (node.state / "releases" / bundles.hex_of(FIRST)).is_dir()


def test_18_an_older_timestamp_is_refused(node: judged.Node, signed: repository.Repository) -> None:
    older = signed.served("web")
    signed.refresh()
    node.believe(signed.served("web"), FIRST)
    assert node.told(older, FIRST) == "metadata_rolled_back"
    assert node.told(signed.served("web"), FIRST) == ""


TEARS: dict[str, Callable[[Path], object]] = {
    "empty": lambda folder: (folder / "timestamp.json").write_bytes(b""),
    "halved": lambda folder: os.truncate(folder / "timestamp.json", 200),
    "gone": lambda folder: (folder / "timestamp.json").unlink(),
    "with the snapshot": lambda folder: [(folder / f"{name}.json").write_bytes(b"") for name in repository.ONLINE],
    "all": shutil.rmtree,
}


@pytest.mark.parametrize("tear", TEARS)
def test_19_an_older_timestamp_is_refused_also_where_the_newer_one_was_torn(
    node: judged.Node, signed: repository.Repository, tear: str
) -> None:
    older = signed.served("web")
    signed.refresh()
    node.believe(signed.served("web"), FIRST)
    TEARS[tear](node.trust / "metadata")
    assert node.told(older, FIRST) == "metadata_rolled_back"
    assert node.told(signed.served("web"), FIRST) == ""


def test_19_the_floor_alone_refuses_it(node: judged.Node, signed: repository.Repository) -> None:
    older = signed.served("web")
    signed.refresh()
    node.believe(signed.served("web"), FIRST)
    (node.trust / "metadata" / "timestamp.json").write_bytes(b"")
    (node.trust / "floors.json").unlink()
    assert node.told(older, FIRST) == ""  # what python-tuf does by itself


def test_20_expired_metadata_is_refused(node: judged.Node, signed: repository.Repository) -> None:
    signed.refresh(lifetime=-HOUR)
    assert node.told(signed.served("web"), FIRST) == "metadata_expired"
    signed.refresh()
    signed.commit("web", lifetime=-HOUR)
    signed.refresh()
    assert node.told(signed.served("web"), FIRST) == "metadata_expired"
    signed.commit("web")
    signed.refresh()
    assert node.told(signed.served("web"), FIRST) == ""


def test_21_a_root_that_lacks_a_signature_of_the_old_or_the_new_keys_is_refused(
    node: judged.Node, signed: repository.Repository
) -> None:
    old = list(signed.signers["root"])
    signed.rotate("root")
    new = signed.signers["root"]
    for by in ([old[0], *new[:2]], [*old[:2], new[0]], new, old):
        signed.sign("root", by)
        assert node.told(signed.served("web"), FIRST) == "metadata_unsigned"
    signed.sign("root", [*old[:2], *new[:2]])
    assert node.told(signed.served("web"), FIRST) == ""


def test_22_roots_are_followed_one_by_one_and_none_is_skipped(node: judged.Node, signed: repository.Repository) -> None:
    for roles in (("root", "timestamp"), ("root",), ("root",), ("root", "snapshot")):
        signed.rotate(*roles)
    signed.refresh()
    served = signed.served("web")
    skipped = {name: data for name, data in served.items() if name not in {f"{each}.root.json" for each in (2, 3, 4)}}
    assert node.told(skipped, FIRST) == "metadata_unsigned"
    assert node.told({**skipped, "2.root.json": served["5.root.json"]}, FIRST) == "metadata_unsigned"
    assert node.told({**served, "3.root.json": served["2.root.json"]}, FIRST) == "metadata_mixed"
    assert node.told(served, FIRST) == ""
    shutil.rmtree(node.trust / "metadata")
    shutil.rmtree(node.state / "releases" / bundles.hex_of(FIRST))
    assert node.told(served, FIRST) == ""


def test_22_a_root_that_was_believed_is_not_withheld_afterwards(
    node: judged.Node, signed: repository.Repository
) -> None:
    before = signed.served("web")
    signed.rotate("root")
    signed.refresh()
    node.believe(signed.served("web"), FIRST)
    later = signed.served("web")
    shutil.rmtree(node.trust / "metadata")
    assert node.told({**later, "2.root.json": b""}, FIRST) == "metadata_unsigned"
    assert node.told({name: data for name, data in later.items() if name != "2.root.json"}, FIRST) != ""
    assert node.told(before, FIRST) == "metadata_rolled_back"


def test_23_targets_that_the_online_keys_signed_are_refused(node: judged.Node, signed: repository.Repository) -> None:
    signed.add("web", "1.1.0", SECOND)
    signed.commit("web", by=[*signed.signers["snapshot"], *signed.signers["timestamp"]])
    signed.refresh()
    assert node.told(signed.served("web"), SECOND, "1.1.0") == "metadata_unsigned"
    signed.sign("web")
    signed.commit("targets", by=signed.signers["snapshot"])
    signed.refresh()
    assert node.told(signed.served("web"), SECOND, "1.1.0") == "metadata_unsigned"


def test_24_one_signature_counts_once_however_often_it_stands_there(
    node: judged.Node, signed: repository.Repository
) -> None:
    signed.commit("web", by=signed.signers["web"][:1])
    signed.refresh()
    name = f"{signed.version('web')}.web.json"
    document = json.loads(signed.made[name])
    document["signatures"] *= 2
    assert node.told({**signed.served("web"), name: json.dumps(document).encode()}, FIRST) == "metadata_unsigned"
    assert node.told(signed.served("web"), FIRST) == "metadata_unsigned"


def test_24_one_key_counts_once_whatever_it_is_called(node: judged.Node, signed: repository.Repository) -> None:
    one = repository.signers(1)[0]
    key = one.public_key
    renamed = SSlibKey("another-name", key.keytype, key.scheme, copy.copy(key.keyval))
    twins = [one, CryptoSigner(one._private_key, renamed)]
    signed.delegate("web", keys=twins)
    signed.commit("targets")
    signed.commit("web", by=twins)
    signed.refresh()
    assert node.told(signed.served("web"), FIRST) == "metadata_unsigned"


def test_25_files_of_different_states_do_not_mix(node: judged.Node, signed: repository.Repository) -> None:
    older = signed.served("web")
    signed.release("web", "1.1.0", SECOND)
    signed.commit("targets")
    signed.refresh()
    served = signed.served("web")
    for role in ("snapshot", "targets", "web"):
        name = f"{signed.version(role)}.{role}.json"
        (before,) = [data for known, data in older.items() if known.endswith(f".{role}.json")]
        assert node.told({**served, name: before}, FIRST) == "metadata_mixed", role
        missing = {known: data for known, data in served.items() if known != name}
        assert node.told(missing, FIRST) == "metadata_missing", role
    assert node.told({**served, "timestamp.json": b"{}"}, FIRST) == "metadata_unsigned"
    assert node.told({}, FIRST) == "metadata_missing"
    assert node.told(served, FIRST) == ""


def test_25_the_online_keys_alone_bring_back_no_older_list(node: judged.Node, signed: repository.Repository) -> None:
    signed.release("web", "1.1.0", SECOND)
    node.believe(signed.served("web"), FIRST)
    signed.metadata["web"] = Metadata.from_bytes(signed.made[f"{signed.version('web') - 1}.web.json"])
    signed.refresh()
    assert node.told(signed.served("web"), FIRST) == "metadata_rolled_back"
    shutil.rmtree(node.trust / "metadata")
    assert node.told(signed.served("web"), FIRST) == "metadata_rolled_back"


def test_26_versions_that_were_pushed_far_ahead_are_forgotten_with_the_keys(
    node: judged.Node, signed: repository.Repository
) -> None:
    honest = {role: signed.version(role) for role in repository.ONLINE}
    for role in repository.ONLINE:
        signed.metadata[role].signed.version = 2**31
    signed.refresh()
    node.believe(signed.served("web"), FIRST)
    for role, version in honest.items():
        signed.metadata[role].signed.version = version
    signed.refresh()
    assert node.told(signed.served("web"), FIRST) == "metadata_rolled_back"
    signed.rotate(*repository.ONLINE)
    signed.refresh()
    older = signed.served("web")
    signed.refresh()
    node.believe(signed.served("web"), FIRST)
    assert node.told(older, FIRST) == "metadata_rolled_back"  # the new keys have a floor of their own


def test_26_a_component_whose_keys_changed_begins_anew(node: judged.Node, signed: repository.Repository) -> None:
    signed.metadata["web"].signed.version = 2**31
    signed.sign("web")
    signed.refresh()
    node.believe(signed.served("web"), FIRST)
    signed.metadata["web"].signed.version = 5
    signed.delegate("web", keys=repository.signers(3))
    signed.commit("targets")
    signed.commit("web")
    signed.rotate(*repository.ONLINE)  # the snapshot has said 2**31 too
    signed.refresh()
    assert node.told(signed.served("web"), FIRST) == ""


def test_27_a_release_that_nobody_signed_is_refused(node: judged.Node, signed: repository.Repository) -> None:
    served = signed.served("web")
    name = f"{signed.version('web')}.web.json"
    forged = served[name].replace(bundles.hex_of(FIRST).encode(), bundles.hex_of(SECOND).encode())
    assert node.told({**served, name: forged}, SECOND, "1.0.0") == "metadata_unsigned"
    assert node.told(served, SECOND, "1.1.0") == "release_unsigned"
    assert node.told(served, judged.bundle(version="1.0.0-evil"), "1.0.0") == "digest_mismatch"
    assert node.told(served, judged.bundle("cache"), component="cache") == "release_unsigned"


def test_27_a_release_that_was_withdrawn_is_as_if_never_signed(
    node: judged.Node, signed: repository.Repository
) -> None:
    signed.release("web", "1.1.0", SECOND)
    assert node.told(signed.served("web"), SECOND, "1.1.0") == ""
    signed.withdraw("web", "1.1.0")
    repository.lay(node.incoming, signed.served("web"))
    (node.state / "incoming" / bundles.hex_of(SECOND)).unlink()
    document = node.verify(FIRST, "1.0.0")
    assert "error" not in document
    assert node.told(signed.served("web"), judged.bundle(version="1.1.0-x"), "1.1.0") == "release_unsigned"


def test_27_what_is_unpacked_already_is_judged_again(node: judged.Node, signed: repository.Repository) -> None:
    repository.lay(node.incoming, signed.served("web"))
    node.verify(FIRST)
    hex_digits = bundles.hex_of(FIRST)
    arguments = [str(node.state), hex_digits, str(node.config), "web", "1.0.0"]
    (node.state / "incoming" / hex_digits).unlink()
    assert judged.run_child(*arguments)["trust"]["web"] == signed.version("web")
    signed.withdraw("web", "1.0.0")
    repository.lay(node.incoming, signed.served("web"))
    assert judged.run_child(*arguments)["error"]["code"] == "release_unsigned"
    assert (node.state / "releases" / hex_digits).is_dir()  # it may serve


def test_28_a_release_below_the_floor_is_refused_and_one_at_it_is_not(
    node: judged.Node, signed: repository.Repository
) -> None:
    signed.release("web", "1.1.0", SECOND, floor="1.1.0")
    served = signed.served("web")
    assert node.told(served, FIRST) == "release_below_floor"
    assert node.told(served, SECOND, "1.1.0") == ""
    signed.release("web", "1.2.0", judged.bundle(version="1.2.0"), floor="1.0.0")
    assert node.told(signed.served("web"), FIRST) == "release_below_floor"  # the highest counts
    assert node.told(signed.served("web"), judged.bundle(version="1.2.0"), "1.2.0") == ""


@pytest.mark.parametrize("told", [{"v": 2}, {}, "text", {"v": 1, "floor": "new"}])
def test_28_a_floor_that_cannot_be_read_lets_nothing_pass(
    node: judged.Node, signed: repository.Repository, told: object
) -> None:
    signed.metadata["web"].signed.targets["web/1.0.0"].unrecognized_fields["custom"] = {"instar": told}
    signed.commit("web")
    signed.refresh()
    assert node.told(signed.served("web"), FIRST) == "release_below_floor"


def test_29_a_clock_that_was_set_back_makes_nothing_young_again(tmp_path: Path) -> None:
    now = datetime.now(UTC)  # noqa: TID251  # python-tuf asks the real clock too
    signed = repository.Repository("web")
    signed.release("web", "1.0.0", FIRST)
    signed.refresh(lifetime=10 * DAY)
    node = judged.Node(tmp_path, signed.root)
    assert node.told(signed.served("web"), FIRST, now=now + 6 * DAY) == ""  # the latest time that it has seen
    shutil.rmtree(node.state / "releases" / bundles.hex_of(FIRST))
    signed.refresh(lifetime=5 * DAY)
    for clock in (now, now - 9999 * DAY):
        assert node.told(signed.served("web"), FIRST, now=clock) == "metadata_expired"
    signed.refresh(lifetime=7 * DAY)
    assert node.told(signed.served("web"), FIRST, now=now - 9999 * DAY) == ""


def test_29_a_clock_that_ran_years_ahead_leaves_nothing_behind(
    node: judged.Node, signed: repository.Repository
) -> None:
    now = datetime.now(UTC)  # noqa: TID251  # as above
    assert node.told(signed.served("web"), FIRST, now=now + 9999 * DAY) == "metadata_expired"
    assert node.told(signed.served("web"), FIRST, now=now) == ""
