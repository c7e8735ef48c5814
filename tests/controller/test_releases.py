"""Bundles: built the same every time, read without trust, kept whole or not at all."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from controller import releases
from controller.core import errors, model

MANIFEST = b'name = "web"\n'


def make_tree(root: Path) -> Path:
    (root / "lib").mkdir(parents=True)
    (root / "instar.toml").write_bytes(MANIFEST)
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o700)
    (root / "lib" / "a.py").write_text("x = 1\n" * 200)
    return root


def bundle_of(tmp_path: Path) -> Path:
    path = tmp_path / "web.tar"
    releases.build(make_tree(tmp_path / "tree"), path)
    return path


def test_a_bundle_is_what_tarfile_writes_for_sorted_files_without_owner_and_time(tmp_path: Path) -> None:
    path = bundle_of(tmp_path)
    expected = io.BytesIO()
    with tarfile.open(fileobj=expected, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, mode in (("instar.toml", 0o644), ("lib/a.py", 0o644), ("run.sh", 0o755)):
            member = tarfile.TarInfo(name)
            data = (tmp_path / "tree" / name).read_bytes()
            member.size, member.mode = len(data), mode
            archive.addfile(member, io.BytesIO(data))
    assert path.read_bytes() == expected.getvalue()


def test_the_same_files_give_the_same_digest_wherever_and_whenever_they_lie(tmp_path: Path) -> None:
    first = releases.build(make_tree(tmp_path / "one"), tmp_path / "one.tar")
    other = make_tree(tmp_path / "two")
    os.utime(other / "run.sh", (1, 1))
    (other / "__pycache__").mkdir()
    (other / "__pycache__" / "a.pyc").write_bytes(os.urandom(8))
    assert releases.build(other, tmp_path / "two.tar") == first
    assert releases.measure(tmp_path / "one.tar") == first
    assert first.digest == "sha256:" + hashlib.sha256((tmp_path / "one.tar").read_bytes()).hexdigest()


def _link(tree: Path) -> None:
    (tree / "link").symlink_to("run.sh")


def _folder_link(tree: Path) -> None:
    (tree / "folder").symlink_to("lib", target_is_directory=True)


def _fifo(tree: Path) -> None:
    os.mkfifo(tree / "pipe")


def _long_name(tree: Path) -> None:
    (tree / ("n" * 101)).write_text("")


def _no_manifest(tree: Path) -> None:
    (tree / "instar.toml").unlink()


def _no_text(tree: Path) -> None:
    Path(os.fsdecode(bytes(tree) + b"/\xff")).write_text("")


def _control_character(tree: Path) -> None:
    (tree / "a\nb").write_text("")


@pytest.mark.parametrize("spoil", [_link, _folder_link, _fifo, _long_name, _no_manifest, _no_text, _control_character])
def test_a_directory_that_cannot_be_bundled_is_refused_and_leaves_no_file(
    tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    tree = make_tree(tmp_path / "tree")
    spoil(tree)
    with pytest.raises(errors.InvalidRequestError, match=r"^cannot use"):
        releases.build(tree, tmp_path / "web.tar")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tree"]


def test_a_bundle_that_cannot_be_written_is_refused_by_the_name_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidRequestError, match="nowhere") as caught:
        releases.build(make_tree(tmp_path / "tree"), tmp_path / "nowhere" / "web.tar")
    assert caught.value.field == "file"


def test_a_bundle_is_not_written_into_the_directory_that_it_is_made_of(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree")
    with pytest.raises(errors.InvalidRequestError) as caught:
        releases.build(tree, tree / "web.tar")
    assert caught.value.field == "destination"


def test_the_manifest_is_read_from_a_canonical_bundle(tmp_path: Path) -> None:
    with bundle_of(tmp_path).open("rb") as file:
        assert releases.manifest_text(file) == MANIFEST.decode()


def write_tar(members: list[tuple[tarfile.TarInfo, bytes]], kind: int = tarfile.USTAR_FORMAT) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=kind) as archive:
        for member, body in members:
            archive.addfile(member, io.BytesIO(body))
    return data.getvalue()


def member_of(name: str, body: bytes = b"", **facts: object) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.size = len(body)
    for fact, value in facts.items():
        setattr(member, fact, value)
    return member, body


GOOD = member_of("instar.toml", MANIFEST)
BAD_BUNDLES = {
    "no tar": b"hello",
    "empty": b"",
    "no manifest": write_tar([member_of("a")]),
    "a symbolic link": write_tar([GOOD, member_of("link", type=tarfile.SYMTYPE, linkname="/etc/passwd")]),
    "a hard link": write_tar([GOOD, member_of("link", type=tarfile.LNKTYPE, linkname="instar.toml")]),
    "a device": write_tar([GOOD, member_of("null", type=tarfile.CHRTYPE)]),
    "a folder": write_tar([GOOD, member_of("lib", type=tarfile.DIRTYPE)]),
    "an absolute name": write_tar([member_of("/instar.toml", MANIFEST), GOOD]),
    "a name above the root": write_tar([member_of("../a"), GOOD]),
    "a second spelling": write_tar([member_of("./a"), GOOD]),
    "an owner": write_tar([member_of("instar.toml", MANIFEST, uid=1)]),
    "a time": write_tar([member_of("instar.toml", MANIFEST, mtime=1)]),
    "a set-uid mode": write_tar([member_of("instar.toml", MANIFEST, mode=0o4755)]),
    "not sorted": write_tar([member_of("z"), GOOD]),
    "a file twice": write_tar([GOOD, GOOD]),
    "a file that is a folder": write_tar([member_of("a"), member_of("a/b"), GOOD]),
    "extended headers": write_tar([member_of("instar.toml", MANIFEST, pax_headers={"x": "y"})], tarfile.PAX_FORMAT),
    "more after the end": write_tar([GOOD]) + bytes(tarfile.RECORDSIZE),
    "cut off": write_tar([GOOD])[:1024],
    "no text": write_tar([member_of("instar.toml", b"\xff")]),
    "a huge manifest": write_tar([member_of("instar.toml", bytes(releases.MANIFEST_BYTES_MAX + 1))]),
}


@pytest.mark.parametrize("what", BAD_BUNDLES)
def test_a_bundle_that_is_not_canonical_is_refused(what: str) -> None:
    with pytest.raises(errors.InvalidRequestError) as caught:
        releases.manifest_text(io.BytesIO(BAD_BUNDLES[what]))
    assert caught.value.code == "bundle_invalid"


def test_a_bundle_with_bytes_in_its_padding_is_refused(tmp_path: Path) -> None:
    data = bytearray(bundle_of(tmp_path).read_bytes())
    data[512 + len(MANIFEST)] = 1
    with pytest.raises(errors.InvalidRequestError, match="padded with zeros"):
        releases.manifest_text(io.BytesIO(data))


def test_a_received_bundle_is_kept_under_its_digest_and_can_be_opened(tmp_path: Path) -> None:
    path = bundle_of(tmp_path)
    bundle = releases.measure(path)
    blobs = releases.Blobs(tmp_path / "blobs")
    with blobs.receive(bundle) as incoming:
        for byte in range(0, bundle.size_bytes, 1000):
            incoming.write(path.read_bytes()[byte : byte + 1000])
        assert incoming.checked_manifest() == MANIFEST.decode()
        incoming.keep()
    with blobs.open_blob(bundle.digest) as kept:
        assert kept.read() == path.read_bytes()
    assert [one.name for one in (tmp_path / "blobs").iterdir()] == [bundle.digest.removeprefix("sha256:")]


def test_bytes_that_differ_from_the_digest_are_refused_by_name_and_not_kept(tmp_path: Path) -> None:
    path = bundle_of(tmp_path)
    bundle = releases.measure(path)
    blobs = releases.Blobs(tmp_path / "blobs")
    with blobs.receive(bundle) as incoming:
        incoming.write(path.read_bytes()[:-1] + b"x")
        with pytest.raises(errors.InvalidRequestError) as caught:
            incoming.checked_manifest()
    assert (caught.value.code, caught.value.field) == ("digest_mismatch", "digest")
    assert list((tmp_path / "blobs").iterdir()) == []


@pytest.mark.parametrize("difference", [-1, 1])
def test_bytes_that_differ_from_the_size_are_refused_by_name(tmp_path: Path, difference: int) -> None:
    path = bundle_of(tmp_path)
    bundle = releases.measure(path)
    said = releases.Bundle(bundle.digest, bundle.size_bytes + difference)

    def receive() -> None:
        with releases.Blobs(tmp_path / "blobs").receive(said) as incoming:
            incoming.write(path.read_bytes())
            incoming.checked_manifest()

    with pytest.raises(errors.InvalidRequestError) as caught:
        receive()
    assert (caught.value.code, caught.value.field) == ("size_mismatch", "size_bytes")


@pytest.mark.parametrize("size_bytes", [0, releases.BUNDLE_BYTES_MAX + 1])
def test_a_bundle_of_an_impossible_size_is_refused_before_a_byte_is_taken(tmp_path: Path, size_bytes: int) -> None:
    said = releases.Bundle(model.Digest("sha256:" + "0" * 64), size_bytes)
    with pytest.raises(errors.InvalidRequestError) as caught:
        releases.Blobs(tmp_path).receive(said)
    assert caught.value.field == "size_bytes"


@pytest.mark.parametrize("digest", ["", "sha256:abc", "sha256:" + "A" * 64, "sha256:../../../../etc/passwd"])
def test_what_is_no_digest_names_no_file(tmp_path: Path, digest: str) -> None:
    with pytest.raises(errors.InvalidRequestError) as caught:
        releases.Blobs(tmp_path).open_blob(model.Digest(digest))
    assert caught.value.field == "digest"


def test_a_bundle_that_was_never_published_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(errors.NotFoundError) as caught:
        releases.Blobs(tmp_path).open_blob(model.Digest("sha256:" + "0" * 64))
    assert caught.value.field == "digest"


def test_what_a_killed_controller_left_unfinished_is_gone_at_the_next_start(tmp_path: Path) -> None:
    said = releases.Bundle(model.Digest("sha256:" + "0" * 64), 10)
    incoming = releases.Blobs(tmp_path).receive(said)
    assert len(list(tmp_path.iterdir())) == 1
    releases.Blobs(tmp_path)
    assert list(tmp_path.iterdir()) == []
    incoming.__exit__(None, None, None)
