"""The cases of the specification's conformance suite about delegations, names and files; see `tuf_cases`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest
from tuf.api.metadata import DelegatedRole, Delegations, Key, Metadata, TargetFile, Targets

from tests.agent import bundles
from tests.security import judged, repository, warm

FIRST = judged.bundle()
SECOND = judged.bundle(version="1.1.0")


@pytest.fixture
def signed() -> repository.Repository:
    made = repository.Repository("db", "web", "cache")
    made.release("web", "1.0.0", FIRST)
    return made


def below(signed: repository.Repository, parent: str, *children: str, paths: tuple[str, ...] = ("web/*",)) -> None:
    """Let a role delegate to others, which are made where they are not there."""
    keys: dict[str, Key] = {signer.public_key.keyid: signer.public_key for signer in signed.signers["targets"]}
    roles = {name: DelegatedRole(name, list(keys), 2, terminating=True, paths=list(paths)) for name in children}
    signed.metadata[parent].signed.delegations = Delegations(keys, roles)
    for name in children:
        signed.signers.setdefault(name, signed.signers["targets"])
        signed.metadata.setdefault(name, Metadata(Targets()))
        signed.commit(name)


def changed(signed: repository.Repository, **change: object) -> None:
    """Change how the targets delegate to web."""
    role = signed.metadata["targets"].signed.delegations.roles["web"]
    for name, value in change.items():
        setattr(role, name, value)


def first(signed: repository.Repository, name: str, *paths: str) -> None:
    """Let a role be asked before web."""
    roles = signed.metadata["targets"].signed.delegations.roles
    roles[name].paths = list(paths)
    signed.metadata["targets"].signed.delegations.roles = {name: roles.pop(name), **roles}


REFUSED = "metadata_unsigned"
GRAPHS: dict[str, tuple[str, list[Callable[[repository.Repository], object]]]] = {
    "targets to web": ("", []),
    "targets to others too, which are not asked": ("", [lambda signed: first(signed, "cache", "cache/*")]),
    "another level": (REFUSED, [lambda signed: below(signed, "web", "c")]),
    "another level below a role that is not asked": ("", [lambda signed: below(signed, "db", "c")]),
    "another level, depth first": (REFUSED, [lambda signed: below(signed, "web", "c", "d")]),
    "three levels": (REFUSED, [lambda signed: below(signed, "web", "c"), lambda signed: below(signed, "c", "d")]),
    "not terminating": (REFUSED, [lambda signed: changed(signed, terminating=False)]),
    "terminating, and delegating below": (REFUSED, [lambda signed: below(signed, "web", "c", paths=("web/1.*",))]),
    "a role before it that answers for its path": (REFUSED, [lambda signed: first(signed, "cache", "web/*")]),
    "a role before it that answers for this release": (REFUSED, [lambda signed: first(signed, "cache", "web/1.0.?")]),
    "a role before it that answers for another path": ("", [lambda signed: first(signed, "cache", "*.py", "*/*/*")]),
    "a cycle": (REFUSED, [lambda signed: below(signed, "web", "db"), lambda signed: below(signed, "db", "web")]),
    "to itself": (REFUSED, [lambda signed: below(signed, "web", "web")]),
    "two parents": (REFUSED, [lambda signed: below(signed, "web", "c"), lambda signed: below(signed, "db", "c")]),
    "two parents, one of them not asked": (REFUSED, [lambda signed: below(signed, "web", "db", paths=("db/*",))]),
    "two parents, of which none is on the way": (
        "",
        [lambda signed: below(signed, "cache", "c"), lambda signed: below(signed, "db", "c")],
    ),
}


@pytest.mark.parametrize("graph", GRAPHS)
def test_a_release_is_looked_for_in_the_role_of_its_component_and_nowhere_below(
    client: warm.Client, signed: repository.Repository, graph: str
) -> None:
    code, changes = GRAPHS[graph]
    for change in changes:
        change(signed)
    for role in ("targets", "web", "db", "cache"):
        signed.commit(role)
    signed.refresh()
    every = {name: data for role in signed.metadata for name, data in signed.served(role).items()}
    assert client.judges(every, FIRST) == code
    assert client.judges(every, FIRST, "9.9.9") in (code, "release_unsigned")


@pytest.mark.parametrize(
    ("paths", "path", "code"),
    [
        (["web/*"], "web/1.1.0", ""),
        (["web/*"], "web/1.1.0/x", "release_unsigned"),
        (["web/*"], "web-1.1.0", "release_unsigned"),
        (["web/*"], "WEB/1.1.0", "release_unsigned"),
        (["web/1.?.0"], "web/1.1.0", REFUSED),
        (["web/*", "web/*/*"], "web/1.1.0", REFUSED),
        (["*"], "web/1.1.0", REFUSED),
        (["w?b/*"], "web/1.1.0", REFUSED),
        (["db/*"], "web/1.1.0", REFUSED),
        ([], "web/1.1.0", REFUSED),
    ],
)
def test_the_path_of_a_release_is_component_and_version_as_they_are(
    client: warm.Client, signed: repository.Repository, paths: list[str], path: str, code: str
) -> None:
    target = TargetFile(len(SECOND), {"sha256": bundles.hex_of(SECOND)}, path)
    signed.metadata["web"].signed.targets[path] = target
    changed(signed, paths=paths)
    signed.commit("targets")
    signed.commit("web")
    signed.refresh()
    assert client.judges(signed.served("web"), SECOND, "1.1.0") == code


def test_a_release_that_the_targets_name_themselves_is_refused(
    client: warm.Client, signed: repository.Repository
) -> None:
    signed.add("web", "1.1.0", SECOND, role="targets")
    signed.commit("targets")
    signed.refresh()
    assert client.judges(signed.served("web"), SECOND, "1.1.0") == REFUSED


def test_a_release_is_not_found_in_a_role_that_may_not_speak_for_it(
    client: warm.Client, signed: repository.Repository
) -> None:
    signed.add("web", "1.1.0", SECOND, role="db")
    signed.commit("db")
    signed.refresh()
    served = signed.served("web") | signed.served("db")
    assert client.judges(served, SECOND, "1.1.0") == "release_unsigned"


def test_a_list_that_was_believed_for_one_component_is_not_believed_for_another(
    client: warm.Client, signed: repository.Repository
) -> None:
    signed.delegate("db", keys=repository.signers(3))
    signed.commit("targets")
    signed.metadata["db"].signed.targets = dict(signed.metadata["web"].signed.targets)
    signed.commit("db", by=signed.signers["web"])  # enough for web, and nobody for db
    signed.refresh()
    assert client.judges(signed.served("web"), FIRST) == ""
    assert client.judges(signed.served("db"), FIRST, component="db") == REFUSED
    assert client.judges(signed.served("web"), FIRST) == ""


def test_a_component_that_the_snapshot_does_not_name_is_refused(
    client: warm.Client, signed: repository.Repository
) -> None:
    web = signed.metadata.pop("web")
    signed.refresh()
    served = signed.served("web")
    signed.metadata["web"] = web
    served[f"{signed.version('web')}.web.json"] = signed.made[f"{signed.version('web')}.web.json"]
    assert client.judges(served, FIRST) == "metadata_mixed"
    assert client.believed() == {role: signed.version(role) for role in ("root", "timestamp", "snapshot", "targets")}


@pytest.mark.parametrize("name", ["?", "#", "/delegatedrole", "../delegatedrole", "..", "a b", "é"])
def test_a_role_of_an_unusual_name_reaches_no_file_and_disturbs_nothing(
    client: warm.Client, signed: repository.Repository, name: str
) -> None:
    signed.delegate(name)
    signed.metadata["targets"].signed.delegations.roles[name].paths = ["*/2.*"]
    for role in ("targets", name):
        signed.commit(role)
    signed.refresh()
    before = {path for path in client.state.parent.rglob("*") if client.trust not in path.parents}
    assert client.judges(signed.served("web"), FIRST) == ""
    assert client.judges(signed.served("web"), FIRST, "2.0.0") == "release_unsigned"
    left = {path for path in client.state.parent.rglob("*") if client.trust not in path.parents}
    assert {path.name for path in left - before} <= {"trust", *signed.served_names("web")}
    assert set(client.believed()) == {"root", "timestamp", "snapshot", "targets"}


# Files.


def test_the_bundle_that_is_signed_is_taken(client: warm.Client, signed: repository.Repository) -> None:
    assert client.takes(signed.served("web"), FIRST, FIRST) == ""
    unpacked = client.state / "releases" / bundles.hex_of(FIRST)
    assert {str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file()} == set(bundles.FILES)


def test_other_bytes_in_the_place_of_a_bundle_are_refused(client: warm.Client, signed: repository.Repository) -> None:
    signed.release("web", "1.1.0", SECOND)
    served = signed.served("web")
    assert client.takes(served, FIRST, FIRST) == ""
    for version, wanted in (("1.0.0", judged.bundle(version="1.0.0-x")), ("1.1.0", SECOND)):
        evil = b"x" * len(wanted)
        assert client.takes(served, wanted, evil, version) == "digest_mismatch"
        assert client.takes(served, evil, evil, version) == "digest_mismatch"
    assert client.takes(served, SECOND, SECOND, "1.1.0") == ""


def test_a_release_that_is_signed_anew_with_other_bytes_counts_and_those_before_do_not(
    client: warm.Client, signed: repository.Repository
) -> None:
    last = FIRST
    for number in range(10):
        data = bundles.bundle({**bundles.FILES, "number": str(number).encode()})
        signed.release("web", "1.0.0", data)
        assert client.judges(signed.served("web"), data) == ""
        assert client.judges(signed.served("web"), last) == "digest_mismatch"
        forged = bundles.bundle({**bundles.FILES, "number": b"forged"})
        assert client.judges(signed.served("web"), forged) == "digest_mismatch"
        last = data


def test_a_release_that_is_here_is_judged_again_without_its_bundle(
    client: warm.Client, signed: repository.Repository
) -> None:
    assert client.takes(signed.served("web"), FIRST, FIRST) == ""
    (client.state / "incoming" / bundles.hex_of(FIRST)).unlink()
    assert client.takes_again(signed.served("web"), FIRST) == ""
    signed.withdraw("web", "1.0.0")
    assert client.takes_again(signed.served("web"), FIRST) == "release_unsigned"


HASHES: dict[str, tuple[str, tuple[str, ...]]] = {
    "sha256": ("", ("sha256",)),
    "two": ("", ("sha256", "sha512")),
    "one that nobody knows beside it": ("", ("sha256", "unknown")),
    "none": (REFUSED, ()),
    "sha512 alone": ("digest_mismatch", ("sha512",)),
    "blake2b-256 alone": ("digest_mismatch", ("blake2b-256",)),
    "one that nobody knows": ("digest_mismatch", ("unknown",)),
}


@pytest.mark.parametrize("hashes", HASHES)
def test_a_release_is_known_by_its_sha_256(client: warm.Client, signed: repository.Repository, hashes: str) -> None:
    code, names = HASHES[hashes]
    known = {"sha256": hashlib.sha256(FIRST).hexdigest(), "sha512": hashlib.sha512(FIRST).hexdigest()}
    signed.metadata["web"].signed.targets["web/1.0.0"].hashes = {name: known.get(name, "0" * 64) for name in names}
    signed.commit("web")
    signed.refresh()
    assert client.judges(signed.served("web"), FIRST) == code


@pytest.mark.parametrize("by_bytes", [-1, 1])
def test_a_bundle_of_another_length_than_is_signed_is_refused(
    client: warm.Client, signed: repository.Repository, by_bytes: int
) -> None:
    signed.metadata["web"].signed.targets["web/1.0.0"].length += by_bytes
    signed.commit("web")
    signed.refresh()
    assert client.takes(signed.served("web"), FIRST, FIRST) == "digest_mismatch"


ENTRIES: list[object] = [
    7,
    None,
    [],
    "text",
    {},
    {"length": 1},
    {"hashes": {}},
    {"length": "1", "hashes": {"sha256": "0"}},
]


@pytest.mark.parametrize("entry", ENTRIES)
def test_an_entry_that_nobody_can_read_lets_nothing_of_its_list_pass(
    client: warm.Client, signed: repository.Repository, entry: object
) -> None:
    name = f"{signed.version('web')}.web.json"
    signed.rewrite(
        name, lambda document: document["signed"]["targets"].update({"web/0.1.0": entry}), signed.enough("web")
    )
    assert client.judges(signed.served("web"), FIRST) == REFUSED


LISTS = [b"", b"[]", b"{}", b"7", b'{"signed": {}, "signatures": []}', b'{"signed": 7, "signatures": {}}', b"\xff"]
LISTS += [
    b"[" * 100_000,
    b'{"signed": {"x": 1.5}, "signatures": []}',
    b'{"signed": {"x": "\\ud800"}, "signatures": []}',
]


@pytest.mark.parametrize("data", LISTS)
def test_a_list_that_is_none_is_refused(client: warm.Client, signed: repository.Repository, data: bytes) -> None:
    served = {**signed.served("web"), f"{signed.version('web')}.web.json": data}
    assert client.judges(served, FIRST) == REFUSED


def test_a_list_beyond_the_bound_is_refused(client: warm.Client, signed: repository.Repository) -> None:
    served = {**signed.served("web"), f"{signed.version('web')}.web.json": b" " * 5_000_001}
    assert client.judges(served, FIRST) == "metadata_mixed"
