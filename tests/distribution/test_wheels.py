"""Wheels and source: the same bytes for everybody, what is committed and nothing else, and they run."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import agent
from controller.packaging.distribution import building
from tests.distribution import conftest

VERSION = agent.__version__
FILES = {
    f"instar-{VERSION}-py3-none-any.whl",
    f"instar_handover-{VERSION}-py3-none-any.whl",
    f"instar-{VERSION}.tar.gz",
    f"instar-{VERSION}.cdx.json",
    "SHA256SUMS",
}


def test_two_builds_give_the_same_bytes_whoever_makes_them_where_and_beside_what(
    built: conftest.Built, tmp_path: Path
) -> None:
    clone, folder = tmp_path / "elsewhere", tmp_path / "again"
    subprocess.run(["git", "clone", "-q", building.ROOT, clone], check=True)
    shutil.copytree(
        building.HERE, clone / building.HERE.relative_to(building.ROOT), dirs_exist_ok=True
    )  # ours build, in both
    (clone / "controller" / "left_over.py").write_text("print('not committed')\n")
    (clone / "README.md").write_text("changed, and not committed\n")
    environment = {"TZ": "Asia/Tokyo", "PYTHONHASHSEED": "7", "LC_ALL": "C.UTF-8", "PYTHONPATH": str(clone)}
    before = os.umask(0o077)
    try:
        said = conftest.run("wheels", folder, within=clone, environment=environment)
    finally:
        os.umask(before)
    assert "what differs from it is left out" in said
    assert {path.name for path in folder.iterdir()} == FILES
    for name in FILES:
        assert (folder / name).read_bytes() == (built.folder / name).read_bytes(), name


def test_another_time_than_that_of_the_commit_is_taken_where_it_is_said(built: conftest.Built, tmp_path: Path) -> None:
    conftest.run("sbom", tmp_path, environment={"SOURCE_DATE_EPOCH": "86400"})
    (bill,) = tmp_path.iterdir()
    assert '"timestamp": "1970-01-02T00:00:00+00:00"' in bill.read_text()
    assert '"timestamp": "1970' not in (built.folder / bill.name).read_text()


def test_an_unsigned_build_says_so_and_leaves_no_signature_of_another(built: conftest.Built) -> None:
    assert "not signed: no key was named" in built.said
    assert {path.name for path in built.folder.iterdir()} == FILES


def test_the_sums_are_those_of_all_files(built: conftest.Built) -> None:
    lines = [line.split("  ") for line in (built.folder / building.SUMS).read_text().splitlines()]
    assert {name for _, name in lines} == FILES - {building.SUMS}
    for digits, name in lines:
        assert hashlib.sha256((built.folder / name).read_bytes()).hexdigest() == digits


def test_the_wheel_runs_without_the_sources_and_holds_no_tests(built: conftest.Built, tmp_path: Path) -> None:
    with zipfile.ZipFile(built.folder / f"instar-{VERSION}-py3-none-any.whl") as wheel:
        wheel.extractall(tmp_path)  # noqa: S202  # our own
        folders = {name.split("/")[0] for name in wheel.namelist()}
    assert folders == {"agent", "controller", "instar", f"instar-{VERSION}.dist-info"}
    program = (
        "import agent.cli, controller.server, instar.v1\n"
        "for module in (agent, controller, instar.v1): print(module.__path__[0])\n"
    )
    clean = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], cwd=tmp_path, env=clean, capture_output=True, text=True, check=True
    )
    assert all(line.startswith(str(tmp_path)) for line in done.stdout.splitlines()), done.stdout


def test_the_source_holds_what_is_needed_to_build_and_test_it(built: conftest.Built) -> None:
    with tarfile.open(built.folder / f"instar-{VERSION}.tar.gz") as packed:
        names = {name.partition("/")[2] for name in packed.getnames()}
    needed = {
        "Makefile",
        "requirements.lock",
        "pyproject.toml",
        "LICENSE",
        "agent/sdk/pyproject.toml",
        "tests/conftest.py",
    }
    assert needed <= names
    assert not [name for name in names if name.startswith((".git/", ".venv", ".ci", "dist/")) or "left_over" in name]
