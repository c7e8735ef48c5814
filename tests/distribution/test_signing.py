"""The signature over the sums: what an operator types, and what is refused by it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from controller.packaging.distribution import __main__ as command
from controller.packaging.distribution import building, errors, signing
from tests import documents
from tests.distribution import conftest

pytestmark = conftest.needs_ssh


def make_key(path: Path, kind: str = "ed25519") -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "release", "-f", path], check=True)
    return path


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return make_key(tmp_path / "release")


@pytest.fixture
def folder(tmp_path: Path, built: conftest.Built, key: Path) -> Path:
    """What an operator has got, and from elsewhere the file that says who may sign."""
    made = shutil.copytree(built.folder, tmp_path / "fetched")
    signing.sign(made, key)
    public = key.with_suffix(".pub").read_text()
    (made / "allowed_signers").write_text(f'instar namespaces="{signing.NAMESPACE}" {public}')
    return made


def verifies(folder: Path) -> bool:
    """Type what the page says, up to the first command that fails."""
    page = (documents.DOCS / "supply-chain.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- how to verify -->\n```sh\n(.*?)```", page, re.DOTALL)
    assert found is not None
    return subprocess.run(["sh", "-e", "-c", found[1]], cwd=folder, capture_output=True, check=False).returncode == 0


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_what_was_signed_is_verified_by_what_the_page_says(folder: Path) -> None:
    assert verifies(folder)


def test_one_bit_of_any_file_that_is_another_is_noticed(folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        if path.name == "allowed_signers":
            continue
        whole = path.read_bytes()
        flip(path)
        assert not verifies(folder), path.name
        path.write_bytes(whole)
    assert verifies(folder)


def test_a_file_that_is_missing_is_noticed(folder: Path) -> None:
    next(folder.glob("*.whl")).unlink()
    assert not verifies(folder)


def test_a_signature_of_another_key_or_for_another_purpose_counts_nothing(
    folder: Path, key: Path, tmp_path: Path
) -> None:
    signature = folder / building.SIGNATURE
    signing.sign(folder, make_key(tmp_path / "stranger"))
    assert not verifies(folder)
    signature.unlink()
    subprocess.run(["ssh-keygen", "-q", "-Y", "sign", "-f", key, "-n", "git", folder / building.SUMS], check=True)
    assert signature.exists()
    assert not verifies(folder)
    signing.sign(folder, key)  # in the place of the one that was there
    assert verifies(folder)


def test_a_build_without_a_signature_is_not_verified(folder: Path) -> None:
    (folder / building.SIGNATURE).unlink()
    assert not verifies(folder)


def test_a_key_of_another_kind_or_none_is_refused_before_anything_is_built(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "dist"
    for key in (make_key(tmp_path / "rsa", "rsa"), tmp_path / "absent"):
        assert command.main(["wheels", str(place), "--key", str(key)]) == errors.EXIT_USAGE
        assert capsys.readouterr().err.startswith("cannot sign with ")
    assert not place.exists()
