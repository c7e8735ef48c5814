import hashlib
import io
import os
import tarfile
from pathlib import Path

import pytest

from agent.keeper import digest, errors

FILES = {
    "instar.toml": (b"name = 'web'\n", 0o644),
    "app.py": (b"x" * 512, 0o755),
    "empty": (b"", 0o644),
    "a/b-c": (b"before a/b/d by the byte", 0o644),
    "a/b/d": (b"y" * 513, 0o644),
    "ünï/cödé": ("ß".encode(), 0o644),
    f"{'long/' * 25}name": (b"z" * 20000, 0o644),
    f"{'p' * 90}/{'n' * 100}": (b"prefix and name", 0o755),
}


def bundle(files: dict[str, tuple[bytes, int]]) -> bytes:
    """Write the canonical bundle with the standard library."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in sorted(files):
            content, mode = files[name]
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), mode
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, (content, mode) in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(mode & 0o555)  # unpacked read-only, as releases are
    return tmp_path


def test_the_digest_of_a_tree_is_that_of_its_bundle(tree: Path) -> None:
    assert digest.tree_digest(tree) == f"sha256:{hashlib.sha256(bundle(FILES)).hexdigest()}"


def test_an_empty_tree_has_the_digest_of_an_empty_bundle(tmp_path: Path) -> None:
    assert digest.tree_digest(tmp_path) == f"sha256:{hashlib.sha256(bundle({})).hexdigest()}"


def test_a_tree_whose_end_blocks_begin_a_new_record_has_the_digest_of_its_bundle(tmp_path: Path) -> None:
    files = {"f": (b"x" * (9728 - 512), 0o644)}
    (tmp_path / "f").write_bytes(files["f"][0])
    (tmp_path / "f").chmod(0o644)
    assert digest.tree_digest(tmp_path) == f"sha256:{hashlib.sha256(bundle(files)).hexdigest()}"


@pytest.mark.parametrize("spoil", ["change", "add", "remove", "execute"])
def test_any_change_shows(tree: Path, spoil: str) -> None:
    before = digest.tree_digest(tree)
    target = tree / "empty"
    match spoil:
        case "change":
            target.chmod(0o644)
            target.write_bytes(b"!")
        case "add":
            (tree / "a" / "more").write_bytes(b"")
        case "remove":
            target.unlink()
        case _:
            target.chmod(0o555)
    assert digest.tree_digest(tree) != before


@pytest.mark.parametrize("kind", ["link", "pipe", "name"])
def test_a_tree_that_no_bundle_unpacks_to_is_refused(tmp_path: Path, kind: str) -> None:
    match kind:
        case "link":
            (tmp_path / "odd").symlink_to("/etc/passwd")
        case "pipe":
            os.mkfifo(tmp_path / "odd")
        case _:
            (tmp_path / ("odd" * 50)).write_bytes(b"")
    with pytest.raises(errors.RequestError, match="cannot trust") as caught:
        digest.tree_digest(tmp_path)
    assert caught.value.code == "digest_mismatch"
