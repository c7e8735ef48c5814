"""Hostile archives: lines 30 to 32 of the fault matrix. More kinds of each stand in tests/agent/test_verifier.py."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import resource
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies

from agent.keeper import verify
from agent.verifier import __main__ as verifier
from agent.verifier import archive
from tests.agent import bundles
from tests.agent.test_verifier import TOML, odd

WHOLE = bundles.bundle()
REFUSALS = {"bundle_not_canonical", "bundle_truncated"}


def code_of(folder: Path, data: bytes) -> str:
    """What the verifier says of an archive that has the digest that was asked for; "" where it lets it in."""
    state = folder / "state"
    document, _ = verifier.answer(state, bundles.put(state, data))
    error = document.get("error")
    if error is None:
        return ""
    assert isinstance(error, dict)
    assert list((state / "releases").iterdir()) == []
    return str(error["code"])


def links(name: str, target: str, kind: bytes) -> bytes:
    return bundles.archive([TOML, odd(name, type=kind, linkname=target)])


KINDS: dict[str, bytes] = {
    "traversal": bundles.archive([odd("../../outside"), TOML]),
    "traversal within": bundles.archive([odd("a/b/../../../outside"), TOML]),
    "absolute": bundles.archive([odd("/tmp/outside"), TOML]),  # noqa: S108  # it is what must not be written
    "symbolic link": links("link", "../../outside", tarfile.SYMTYPE),
    "symbolic link, then a file through it": bundles.archive(
        [odd("a", type=tarfile.SYMTYPE, linkname="../.."), bundles.member("a/outside"), TOML]
    ),
    "hard link": links("link", "../../state", tarfile.LNKTYPE),
    "character device": bundles.archive([TOML, odd("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3)]),
    "block device": bundles.archive([TOML, odd("sda", type=tarfile.BLKTYPE, devmajor=8)]),
    "fifo": bundles.archive([TOML, odd("pipe", type=tarfile.FIFOTYPE)]),
    "duplicate": bundles.archive([TOML, TOML]),
    "duplicate by case": bundles.archive([bundles.member("README"), bundles.member("readme"), TOML]),
    "duplicate by case of sharp s": bundles.archive([TOML, bundles.member("strasse"), bundles.member("straße")]),
    "folder by case": bundles.archive([bundles.member("Lib/x"), TOML, bundles.member("lib/y")]),
    "long part": bundles.archive([TOML, odd("n" * 256)], tarfile.GNU_FORMAT),
    "control characters": bundles.archive([TOML, odd("name\x1b[2J")]),
    "set-user-id": bundles.archive([TOML, bundles.member("root", mode=0o4755)]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_30_what_reaches_out_of_its_folder_or_is_no_file_of_its_own_is_refused(tmp_path: Path, kind: str) -> None:
    assert code_of(tmp_path, KINDS[kind]) == "bundle_not_canonical"
    assert [path.name for path in tmp_path.iterdir()] == ["state"]
    assert not Path("/tmp/outside").exists()  # noqa: S108  # as above


def compressed(make: Callable[[bytes], bytes]) -> bytes:
    return make(bundles.bundle({**bundles.FILES, "zeros": bytes(8 * 1024 * 1024)}))


@pytest.mark.parametrize("make", [gzip.compress, lzma.compress])
def test_31_what_unpacks_to_more_than_it_is_is_refused_unread(tmp_path: Path, make: Callable[[bytes], bytes]) -> None:
    """The ratio of a bundle is one: nothing is decompressed."""
    assert code_of(tmp_path, compressed(make)) in REFUSALS


def test_31_a_header_that_promises_more_bytes_than_there_are_is_refused(tmp_path: Path) -> None:
    info, _ = bundles.member("large")
    info.size = 8**11 - 1
    header = info.tobuf(tarfile.USTAR_FORMAT, encoding="utf-8", errors="strict")
    assert code_of(tmp_path, header + WHOLE) == "bundle_truncated"


def test_31_a_sparse_file_is_refused(tmp_path: Path) -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info, data = bundles.member("large", b"x")
        info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(2**40)}
        tar.addfile(info, io.BytesIO(data))
    assert code_of(tmp_path, made.getvalue()) == "bundle_not_canonical"


def test_31_more_names_than_a_file_system_bears_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "PATHS_MAX", 50)
    many = bundles.bundle({**bundles.FILES, **{f"n{number:03}": b"" for number in range(60)}})
    assert code_of(tmp_path, many) == "bundle_not_canonical"


def test_31_a_file_of_a_tebibyte_is_refused_before_it_is_read(tmp_path: Path) -> None:
    hex_digits = bundles.put(tmp_path / "state", WHOLE)
    os.truncate(tmp_path / "state" / "incoming" / hex_digits, 2**40)
    document, _ = verifier.answer(tmp_path / "state", hex_digits)
    assert isinstance(error := document["error"], dict)
    assert error["code"] == "bundle_too_large"


def test_31_memory_time_files_and_their_size_are_bounded_from_outside() -> None:
    limits = dict(verify.VERIFY_LIMITS)
    bounded = {resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE}
    assert bounded <= set(limits)
    assert verify.VERIFY_BOUNDS.wall_seconds > limits[resource.RLIMIT_CPU]


def test_32_an_archive_that_ends_too_early_is_refused_wherever_that_is(tmp_path: Path) -> None:
    for size_bytes in range(0, len(WHOLE), archive.BLOCK_BYTES):
        assert code_of(tmp_path, WHOLE[:size_bytes]) in REFUSALS


@pytest.mark.parametrize(
    "size", [b"\xff" * 12, b"\x80" + b"\0" * 11, b"-0000000001\0", b"00000000-20\0", b"           \0"]
)
def test_32_a_header_that_leads_back_to_itself_is_refused(tmp_path: Path, size: bytes) -> None:
    """Negative sizes made readers begin again at the header that they came from (CVE-2025-8194)."""
    looping = bytearray(WHOLE)
    looping[archive.SIZE_FIELD] = size
    looping[148:156] = b" " * 8
    looping[148:156] = b"%06o\0 " % sum(looping[:512])
    assert code_of(tmp_path, bytes(looping)) == "bundle_not_canonical"


@hypothesis.given(offset=strategies.integers(0, 2 * archive.BLOCK_BYTES - 1), value=strategies.integers(1, 255))
@hypothesis.settings(max_examples=150)
def test_32_no_byte_of_a_header_can_be_another(offset: int, value: int) -> None:
    """Whatever is changed is refused, or it is content, and what was unpacked has the digest of just these bytes."""
    changed = bytearray(WHOLE)
    changed[offset] ^= value
    with tempfile.TemporaryDirectory() as folder:
        code = code_of(Path(folder), bytes(changed))
    is_content = archive.BLOCK_BYTES <= offset < archive.BLOCK_BYTES + len(bundles.MANIFEST)
    assert (code in REFUSALS) != is_content or (is_content and code in {"", "manifest_invalid", "agent_too_old"})
