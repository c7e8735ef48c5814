"""The verifier: the canonical bundle passes, whole; everything else leaves nothing behind."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

import pytest

from agent.config import manifest
from agent.keeper import digest
from agent.verifier import __main__ as verifier
from agent.verifier import archive
from tests.agent import bundles

MEMORY_KIB_MAX = 64 * 1024  # G12
BUNDLE = bundles.bundle()
TOML = bundles.member("instar.toml", bundles.MANIFEST)
Members = Iterable[tuple[tarfile.TarInfo, bytes]]


def verify(state_dir: Path, data: bytes) -> dict[str, Any]:
    """What the verifier says of these bytes, under the name of their own digest."""
    return said(state_dir, bundles.put(state_dir, data))


def said(state_dir: Path, hex_digits: str) -> dict[str, Any]:
    document, code = verifier.answer(state_dir, hex_digits)
    assert code == (1 if "error" in document else 0)
    return cast("dict[str, Any]", json.loads(json.dumps(document)))


def refused(state_dir: Path, data: bytes) -> dict[str, str]:
    error: dict[str, str] = verify(state_dir, data)["error"]
    assert error["message"].startswith("cannot ")
    assert list((state_dir / "releases").iterdir()) == []
    return error


def odd(name: str, **changes: object) -> tuple[tarfile.TarInfo, bytes]:
    """A member with its header changed."""
    info, data = bundles.member(name)
    for field, value in changes.items():
        setattr(info, field, value)
    return info, data


def raw(change: Callable[[bytearray], None]) -> bytes:
    """A canonical bundle, changed in its bytes, with the checksum of the first header made right again."""
    data = bytearray(BUNDLE)
    change(data)
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    return bytes(data)


def put_bytes(offset: int, new: bytes) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        data[offset : offset + len(new)] = new

    return change


def test_a_canonical_bundle_is_unpacked_whole_and_its_manifest_told(tmp_path: Path) -> None:
    data = bundles.bundle({**bundles.FILES, "run.sh": b"#!/bin/sh\n", "empty": b"", "x" * 90 + "/" + "y" * 90: b"long"})
    found = verify(tmp_path, data)
    assert bundles.manifest_of(found["manifest"]) == manifest.parse_toml(bundles.MANIFEST.decode())
    assert found["manifest"]["prepare_timeout"] == "2.500s"
    release = tmp_path / "releases" / bundles.hex_of(data)
    assert (release / "lib/deep/data.bin").read_bytes() == bytes(1000)
    assert (release / "run.sh").stat().st_mode & 0o7777 == 0o755
    assert (release / "main.py").stat().st_mode & 0o7777 == 0o644
    assert digest.tree_digest(release) == bundles.digest_of(data)
    assert [path.name for path in (tmp_path / "releases").iterdir()] == [release.name]


def test_a_tight_umask_does_not_change_the_modes_of_files(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        verify(tmp_path, BUNDLE)
    finally:
        os.umask(before)
    assert (tmp_path / "releases" / bundles.hex_of(BUNDLE) / "main.py").stat().st_mode & 0o7777 == 0o644


def test_a_release_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    verify(tmp_path, BUNDLE)
    release = tmp_path / "releases" / bundles.hex_of(BUNDLE)
    inode = release.stat().st_ino
    assert "manifest" in verify(tmp_path, BUNDLE)
    assert release.stat().st_ino == inode


@pytest.mark.parametrize("tamper", ["change", "add", "link", "remove"])
def test_a_release_that_was_tampered_with_is_replaced(tmp_path: Path, tamper: str) -> None:
    verify(tmp_path, BUNDLE)
    release = tmp_path / "releases" / bundles.hex_of(BUNDLE)
    match tamper:
        case "change":
            (release / "main.py").write_bytes(b"print('evil')\n")
        case "add":
            (release / "extra.py").write_bytes(b"")
        case "link":
            (release / "link").symlink_to("/etc/passwd")
        case _:
            (release / "main.py").unlink()
    assert "manifest" in verify(tmp_path, BUNDLE)
    assert digest.tree_digest(release) == bundles.digest_of(BUNDLE)
    assert [path.name for path in (tmp_path / "releases").iterdir()] == [release.name]


def test_bytes_that_differ_from_the_digest_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    hex_digits = bundles.put(tmp_path, BUNDLE)
    (tmp_path / "incoming" / hex_digits).write_bytes(BUNDLE[:-1] + b"x")
    assert said(tmp_path, hex_digits)["error"]["code"] == "digest_mismatch"
    assert list((tmp_path / "releases").iterdir()) == []


def test_a_bundle_that_changes_while_it_is_unpacked_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "incoming" / bundles.put(tmp_path, BUNDLE)
    members = archive.members

    def change_after(descriptor: int) -> tuple[archive.Member, ...]:
        found = members(descriptor)
        path.write_bytes(BUNDLE.replace(b"hello", b"world"))
        return found

    monkeypatch.setattr(archive, "members", change_after)
    assert said(tmp_path, path.name)["error"]["code"] == "digest_mismatch"
    assert list((tmp_path / "releases").iterdir()) == []


HOSTILE: dict[str, Members] = {
    "symbolic link": [TOML, odd("link", type=tarfile.SYMTYPE, linkname="/etc/passwd")],
    "hard link": [TOML, odd("link", type=tarfile.LNKTYPE, linkname="instar.toml")],
    "directory": [TOML, odd("lib", type=tarfile.DIRTYPE)],
    "character device": [TOML, odd("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3)],
    "block device": [TOML, odd("disk", type=tarfile.BLKTYPE)],
    "fifo": [TOML, odd("pipe", type=tarfile.FIFOTYPE)],
    "contiguous file": [TOML, odd("file", type=tarfile.CONTTYPE)],
    "old regular file": [TOML, odd("file", type=tarfile.AREGTYPE)],
    "sparse file": [TOML, odd("file", type=tarfile.GNUTYPE_SPARSE)],
    "unknown type": [TOML, odd("file", type=b"Z")],
    "absolute path": [odd("/etc/cron.d/x"), TOML],
    "parent at the start": [odd("../x"), TOML],
    "parent in the middle": [odd("a/../../x"), TOML],
    "dot": [odd("./a"), TOML],
    "empty part": [odd("a//b"), TOML],
    "trailing slash": [odd("a/"), TOML],
    "empty name": [odd(""), TOML],
    "line break": [odd("a\nb"), TOML],
    "too deep": [bundles.member("/".join("a" * 33)), TOML],
    "duplicate": [TOML, TOML],
    "out of order": [bundles.member("main.py"), TOML],
    "duplicate by case": [bundles.member("README"), bundles.member("ReadMe"), TOML],
    "directory by case": [bundles.member("A/x"), bundles.member("a/y"), TOML],
    "file that is a directory": [bundles.member("a"), bundles.member("a/b"), TOML],
    "file that is a directory by case": [bundles.member("A/b"), bundles.member("a"), TOML],
    "set-user-id": [bundles.member("bin", mode=0o4755), TOML],
    "writable by all": [bundles.member("bin", mode=0o666), TOML],
    "owner": [odd("a", uid=1000), TOML],
    "name of an owner": [odd("a", uname="root"), TOML],
    "time": [odd("a", mtime=1), TOML],
    "link name of a file": [odd("a", linkname="b"), TOML],
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_archive_is_refused(tmp_path: Path, kind: str) -> None:
    members = list(HOSTILE[kind])
    error = refused(tmp_path, bundles.archive(members))
    assert error["code"] == "bundle_not_canonical"
    assert ("regular file" in error["rule"]) == any(info.type != tarfile.REGTYPE for info, _ in members)


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_other_forms_of_tar_are_refused(tmp_path: Path, form: int) -> None:
    members = [bundles.member("é" * 60), TOML]
    assert refused(tmp_path, bundles.archive(members, form))["code"] == "bundle_not_canonical"


RAW: dict[str, bytes] = {
    "wrong checksum": BUNDLE[:148] + b"000000\0 " + BUNDLE[156:],
    "negative size": raw(put_bytes(124, b"\xff" * 12)),
    "size beyond the end": raw(put_bytes(124, b"77777777777\0")),
    "size without digits": raw(put_bytes(124, b"\0" * 12)),
    "size in another writing": raw(put_bytes(124, b" ")),
    "NUL within the name": raw(put_bytes(20, b"x")),
    "name that is not UTF-8": raw(put_bytes(0, b"\xff")),
    "name split in another way": raw(put_bytes(345, b"lib")),
    "padding that is not zero": raw(put_bytes(1023, b"x")),
    "something after the end": BUNDLE[:-1] + b"x",
    "one record too many": BUNDLE + bytes(10240),
    "no record": b"",
    "not tar": b"PK\x03\x04" + bytes(10236),
    "compressed": b"\x1f\x8b" + bytes(600),
}


@pytest.mark.parametrize("kind", RAW)
def test_a_broken_archive_is_refused(tmp_path: Path, kind: str) -> None:
    assert refused(tmp_path, RAW[kind])["code"] in {"bundle_not_canonical", "bundle_truncated"}


def test_a_bundle_cut_anywhere_is_refused(tmp_path: Path) -> None:
    for size_bytes in {0, 1, 511, 512, 513, 1024, *range(0, len(BUNDLE) - 1, 700), len(BUNDLE) - 512, len(BUNDLE) - 1}:
        error = refused(tmp_path, BUNDLE[:size_bytes])
        assert error["code"] in {"bundle_truncated", "bundle_not_canonical"}


def test_more_paths_than_the_limit_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "PATHS_MAX", 40)
    files = {f"{'/'.join('abcdefghijkl')}/{number:03}": b"" for number in range(30)}
    error = refused(tmp_path, bundles.bundle({**files, "instar.toml": bundles.MANIFEST}))
    assert "at most 40 files and directories" in error["message"]


def test_a_bomb_of_zeros_is_refused_by_its_size_alone(tmp_path: Path) -> None:
    path = tmp_path / "incoming" / bundles.put(tmp_path, BUNDLE)
    os.truncate(path, 2**40)
    assert said(tmp_path, path.name)["error"]["code"] == "bundle_too_large"


def test_a_bundle_that_is_a_link_or_no_file_is_refused(tmp_path: Path) -> None:
    hex_digits = bundles.put(tmp_path, BUNDLE)
    path = tmp_path / "incoming" / hex_digits
    path.rename(tmp_path / "elsewhere")
    assert said(tmp_path, hex_digits)["error"]["code"] == "bundle_not_found"
    path.symlink_to(tmp_path / "elsewhere")
    assert said(tmp_path, hex_digits)["error"]["code"] == "disk_failed"
    path.unlink()
    os.mkfifo(path)
    assert said(tmp_path, hex_digits)["error"]["code"] == "bundle_not_found"


@pytest.mark.parametrize(
    ("text", "code", "field"),
    [
        (None, "manifest_missing", "instar.toml"),
        (b"x" * (manifest.MANIFEST_BYTES_MAX + 1), "manifest_invalid", "instar.toml"),
        (b"\xff", "manifest_invalid", "instar.toml"),
        (b"colour = 1", "manifest_invalid", "colour"),
        (bundles.MANIFEST + b"[health.http.x]\n", "manifest_invalid", "health.http.x"),
        (b'minimum_agent_version = "999.0.0"\n' + bundles.MANIFEST, "agent_too_old", "minimum_agent_version"),
    ],
)
def test_a_wrong_manifest_is_refused_by_its_key(tmp_path: Path, text: bytes | None, code: str, field: str) -> None:
    files = {"main.py": b""} if text is None else {"instar.toml": text}
    error = refused(tmp_path, bundles.bundle(files))
    assert (error["code"], error["field"]) == (code, field)


def test_a_full_disk_leaves_nothing_and_says_so(tmp_path: Path) -> None:
    data = bundles.bundle({**bundles.FILES, "large": bytes(200_000)})
    done = run(tmp_path, bundles.put(tmp_path, data), file_bytes_max=100_000)
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["code"] == "disk_failed"
    assert list((tmp_path / "releases").iterdir()) == []


def run(state_dir: Path, *words: str, file_bytes_max: int = resource.RLIM_INFINITY) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "agent.verifier", str(state_dir), *words]
    limited = ["prlimit", f"--fsize={file_bytes_max}", "--as=536870912", *command]
    return subprocess.run(limited, capture_output=True, text=True, check=False)


def peak_kib(state_dir: Path, hex_digits: str) -> int:
    """Peak memory of the child; a small process starts it, since a peak counts from the fork on."""
    program = (
        "import resource, subprocess, sys\n"
        "subprocess.run([sys.executable, '-m', 'agent.verifier', *sys.argv[1:]], check=True, stdout=-3)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(state_dir), hex_digits], capture_output=True, check=True)
    return int(done.stdout)


def test_the_child_prints_one_document_and_stays_small(tmp_path: Path) -> None:
    hex_digits = bundles.put(tmp_path, BUNDLE)
    done = run(tmp_path, hex_digits)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["manifest"]["name"] == "web"
    large = bundles.bundle({**bundles.FILES, "large": bytes(32 * 1024 * 1024)})
    assert peak_kib(tmp_path, bundles.put(tmp_path, large)) < MEMORY_KIB_MAX


def test_the_child_refuses_what_is_no_digest(tmp_path: Path) -> None:
    done = run(tmp_path, "../../etc/passwd")
    assert (done.returncode, done.stdout) == (os.EX_USAGE, "")
    assert done.stderr.startswith("usage:")


def test_a_child_that_is_killed_leaves_a_whole_release_or_none(tmp_path: Path) -> None:
    data = bundles.bundle({f"f{number:04}": b"x" for number in range(300)} | dict(bundles.FILES))
    hex_digits = bundles.put(tmp_path, data)
    with subprocess.Popen([sys.executable, "-m", "agent.verifier", str(tmp_path), hex_digits]) as child:
        while child.poll() is None and not any((tmp_path / "releases").glob(".staging-*/f*")):
            pass
        child.send_signal(signal.SIGKILL)
    release = tmp_path / "releases" / hex_digits
    assert not release.exists() or digest.tree_digest(release) == f"sha256:{hex_digits}"
    assert "manifest" in said(tmp_path, hex_digits)


@pytest.mark.skipif(not shutil.which("strace"), reason="this host has no strace")
def test_everything_is_durable_before_the_release_has_its_name_by_one_flush(tmp_path: Path) -> None:
    files = {**bundles.FILES, **{f"many/{number}": b"x" for number in range(200)}}
    hex_digits = bundles.put(tmp_path, bundles.bundle(files))
    traced = tmp_path / "trace"
    words = ["strace", "-f", "-e", "trace=syncfs,fsync,fdatasync,rename,renameat,renameat2", "-o", str(traced)]
    subprocess.run([*words, sys.executable, "-m", "agent.verifier", str(tmp_path), hex_digits], check=True)
    calls = [line.split(None, 1)[1].partition("(")[0] for line in traced.read_text().splitlines() if "(" in line]
    assert calls[-4:] in (["syncfs", "rename", "rename", "fsync"], ["syncfs", "rename", "renameat2", "fsync"]), calls
    assert calls.count("syncfs") == 1
