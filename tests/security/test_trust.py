"""What metadata vouches for and what not: lines of the fault matrix by their numbers, and what is asked on top."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.metadata import DelegatedRole, Delegations, Key, Metadata

from agent.config import settings
from agent.config import trust as trust_file
from agent.config.errors import ConfigError
from tests.agent import bundles
from tests.security import judged, repository

FIRST, SECOND = judged.bundle(version="1.0.0"), judged.bundle(version="1.1.0")
MEMORY_KIB_MAX = 60 * 1024  # G12 has 64 MiB
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.fixture
def signed() -> repository.Repository:
    made = repository.Repository("web", "db")
    made.release("web", "1.0.0", FIRST)
    return made


@pytest.fixture
def node(tmp_path: Path, signed: repository.Repository) -> judged.Node:
    return judged.Node(tmp_path, signed.root)


def believe(node: judged.Node, signed: repository.Repository) -> None:
    assert node.told(signed.served("web"), FIRST) == ""
    shutil.rmtree(node.state / "releases" / bundles.hex_of(FIRST))


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
    believe(node, signed)
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
    believe(node, signed)
    TEARS[tear](node.trust / "metadata")
    assert node.told(older, FIRST) == "metadata_rolled_back"
    assert node.told(signed.served("web"), FIRST) == ""


def test_19_the_floor_alone_refuses_it(node: judged.Node, signed: repository.Repository) -> None:
    older = signed.served("web")
    signed.refresh()
    believe(node, signed)
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
    believe(node, signed)
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
    believe(node, signed)
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
    believe(node, signed)
    for role, version in honest.items():
        signed.metadata[role].signed.version = version
    signed.refresh()
    assert node.told(signed.served("web"), FIRST) == "metadata_rolled_back"
    signed.rotate(*repository.ONLINE)
    signed.refresh()
    older = signed.served("web")
    signed.refresh()
    believe(node, signed)
    assert node.told(older, FIRST) == "metadata_rolled_back"  # the new keys have a floor of their own


def test_26_a_component_whose_keys_changed_begins_anew(node: judged.Node, signed: repository.Repository) -> None:
    signed.metadata["web"].signed.version = 2**31
    signed.sign("web")
    signed.refresh()
    believe(node, signed)
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
    assert run(*arguments)["trust"]["web"] == signed.version("web")
    signed.withdraw("web", "1.0.0")
    repository.lay(node.incoming, signed.served("web"))
    assert run(*arguments)["error"]["code"] == "release_unsigned"
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
    believe(node, signed)
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


def test_a_floor_file_that_was_changed_lets_nothing_pass(node: judged.Node, signed: repository.Repository) -> None:
    believe(node, signed)
    path = node.trust / "floors.json"
    whole = path.read_bytes()
    for data in (b"", whole[:-1], whole.replace(b'"version": 1', b'"version": 0')):
        path.write_bytes(data)
        assert node.told(signed.served("web"), FIRST) == "trust_damaged"
    path.write_bytes(whole)
    assert node.told(signed.served("web"), FIRST) == ""


def test_damaged_files_of_the_client_are_fetched_anew(node: judged.Node, signed: repository.Repository) -> None:
    signed.rotate("root")
    signed.refresh()
    believe(node, signed)
    paths = [path for path in (node.trust / "metadata").rglob("*.json") if not path.is_symlink()]
    assert len(paths) == 5
    for path in paths:
        for data in (b"", path.read_bytes()[:100], path.read_bytes().replace(b"sig", b"gis")):
            path.write_bytes(data)
            assert node.told(signed.served("web"), FIRST) == "", path.name
            shutil.rmtree(node.state / "releases" / bundles.hex_of(FIRST))


def test_links_among_fetched_files_are_not_followed(node: judged.Node, signed: repository.Repository) -> None:
    repository.lay(node.incoming, signed.served("web"))
    (node.incoming / "timestamp.json").rename(node.state / "elsewhere")
    (node.incoming / "timestamp.json").symlink_to(node.state / "elsewhere")
    assert node.verify(FIRST)["error"]["code"] == "disk_failed"


WRITABLE: dict[str, Callable[[judged.Node], object]] = {
    "file": lambda node: (node.config.parent / "trust.toml").chmod(0o664),
    "root": lambda node: node.pinned.chmod(0o646),
    "folder": lambda node: node.config.parent.chmod(0o777),
    "no root": lambda node: node.pinned.write_bytes(b"{}"),
    "missing": lambda node: node.pinned.unlink(),
    "other key": lambda node: (node.config.parent / "trust.toml").write_text('roots = "root.json"'),
    "no TOML": lambda node: (node.config.parent / "trust.toml").write_text("root"),
    "unsigned": lambda node: node.pinned.write_bytes(node.pinned.read_bytes().replace(b"consistent", b"inconsistent")),
    "too large": lambda node: node.pinned.write_bytes(b" " * 600_000),
}


@pytest.mark.parametrize("change", WRITABLE)
def test_a_trust_file_that_cannot_be_relied_on_lets_nothing_pass(
    node: judged.Node, signed: repository.Repository, change: str
) -> None:
    WRITABLE[change](node)
    assert node.told(signed.served("web"), FIRST) == "trust_unusable"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_trust_file_of_the_agents_user_is_refused(node: judged.Node) -> None:
    os.chown(node.pinned, 65534, 65534)
    with pytest.raises(ConfigError, match="belong to root"):
        trust_file.read(settings.load(node.config, {}))


def run(*arguments: str, within: tuple[str, ...] = ()) -> dict[str, dict[str, object]]:
    command = [*within, sys.executable, "-m", "agent.verifier", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    answer: dict[str, dict[str, object]] = json.loads(done.stdout)
    return answer


@pytest.mark.skipif(not shutil.which("strace"), reason="this host has no strace")
def test_everything_that_is_believed_is_on_the_disk_before_it_has_its_name(
    node: judged.Node, signed: repository.Repository
) -> None:
    repository.lay(node.incoming, signed.served("web"))
    hex_digits = bundles.put(node.state, FIRST)
    traced = node.state.parent / "calls"
    strace = ("strace", "-f", "-y", "-e", "trace=fsync,rename,renameat,renameat2", "-o", str(traced))
    assert "trust" in run(str(node.state), hex_digits, str(node.config), "web", "1.0.0", within=strace)
    calls = [line.split(None, 1)[1] for line in traced.read_text().splitlines() if f"{node.trust}" in line]
    renames = [number for number, call in enumerate(calls) if call.startswith("rename")]
    names = [calls[number].split('"')[-2].rpartition("/")[2] for number in renames]
    assert names == ["1.root.json", "timestamp.json", "snapshot.json", "targets.json", "floors.json"]
    for number, name in zip(renames, names, strict=True):
        assert calls[number - 1].startswith("fsync("), name
        assert f".{name}.tmp>" in calls[number - 1]
        assert calls[number + 1].startswith("fsync("), name


def test_ten_thousand_releases_of_a_component_are_judged_in_60_mib(tmp_path: Path) -> None:
    signed = repository.Repository("web")
    for number in range(10_000):
        signed.add("web", f"0.{number}.0", FIRST)
    signed.release("web", "1.0.0", FIRST)
    node = judged.Node(tmp_path, signed.root)
    repository.lay(node.incoming, signed.served("web"))
    arguments = [str(node.state), bundles.put(node.state, FIRST), str(node.config), "web", "1.0.0"]
    program = (
        "import resource, subprocess, sys\n"
        "subprocess.run([sys.executable, '-m', 'agent.verifier', *sys.argv[1:]], check=True, stdout=-3)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, check=True)
    assert int(done.stdout) < MEMORY_KIB_MAX


def test_the_child_has_no_capabilities() -> None:
    program = "from agent.verifier import privileges\nprivileges.drop()\nprint(open('/proc/self/status').read())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    told = dict(line.split(":", 1) for line in done.stdout.splitlines() if ":" in line)
    assert {told[name].strip() for name in ("CapEff", "CapPrm", "CapInh")} == {"0" * 16}
    assert told["NoNewPrivs"].strip() == "1"
