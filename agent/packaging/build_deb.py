# noqa: INP001  # a folder of files for packages, not a package
"""`python agent/packaging/build_deb.py DIRECTORY`: make the Debian package of the agent, and print its path.

Rules kept here: it holds the agent and what it needs, as installed and hash-checked in the environment that runs this,
and nothing of the controller; the same sources give the same bytes; its modules are compiled for the one minor version
of Python that its libraries are for, and it depends on that. Left out: signing, and repositories.
"""

from __future__ import annotations

import compileall
import hashlib
import os
import py_compile
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCE = HERE.parents[1]
PACKAGE = "instar-agent"
LIBRARY = Path("usr/lib/instar-agent")
DOCUMENTS = Path("usr/share/doc/instar-agent")  # laid as in the sources, so that their links lead somewhere
PROGRAM = b"#!"
EPOCH_SECONDS = "1577836800"  # 2020: any fixed instant that zip and tar can write
NAME = re.compile(r"[A-Za-z0-9._-]+")
MODE_PROGRAM, MODE_FILE = 0o755, 0o644
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc", "packaging", "conformance")


def main() -> int:
    """Make the package."""
    match sys.argv[1:]:
        case [directory]:
            sys.stdout.write(f"{build(Path(directory))}\n")
            return 0
        case _:
            sys.stderr.write("usage: build_deb.py DIRECTORY\n")
            return os.EX_USAGE


def build(directory: Path) -> Path:
    """Make the package in a directory."""
    version = metadata.version("instar")
    architecture = _said("dpkg", "--print-architecture")
    path = directory.resolve() / f"{PACKAGE}_{version}_{architecture}.deb"
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(MODE_PROGRAM)
        _lay_library(root / LIBRARY)
        _lay_files(root)
        _lay_control(root, version, architecture)
        _make_alike(root)
        environment = {**os.environ, "SOURCE_DATE_EPOCH": EPOCH_SECONDS}
        command = ["dpkg-deb", "--root-owner-group", "-Zgzip", "--build", str(root), str(path)]
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)  # noqa: S603  # our own words
    return path


def _lay_library(library: Path) -> None:
    library.mkdir(parents=True)
    shutil.copytree(SOURCE / "agent", library / "agent", ignore=LEFT_OUT)
    shutil.copytree(SOURCE / "generated" / "instar", library / "instar", ignore=LEFT_OUT)
    for distribution in _needed("instar", set()):
        for file in distribution.files or ():
            _copy(Path(str(distribution.locate_file(file))), library, str(file))
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH  # times in a package are all one
    if not compileall.compile_dir(
        library, quiet=2, stripdir=str(library), prependdir=f"/{LIBRARY}", invalidation_mode=mode
    ):
        raise RuntimeError("cannot compile the library")


def _needed(name: str, seen: set[str]) -> Iterator[metadata.Distribution]:
    """Everything that a distribution needs without its extras, each once, but not itself."""
    for requirement in metadata.distribution(name).requires or ():
        wanted = NAME.match(requirement)
        if "extra ==" in requirement or wanted is None or wanted[0].lower() in seen:
            continue
        seen.add(wanted[0].lower())
        yield metadata.distribution(wanted[0])
        yield from _needed(wanted[0], seen)


def _copy(source: Path, library: Path, name: str) -> None:
    """Copy one installed file; programs and compiled modules stay behind."""
    if (
        name.startswith("..")
        or "__pycache__" in name
        or not source.is_file()
        or name.endswith(("/RECORD", "/INSTALLER"))
    ):
        return
    target = library / name
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _lay_files(root: Path) -> None:
    files = {
        "usr/bin/instar-agent": HERE / "debian" / "instar-agent",
        "usr/lib/systemd/system/instar-agent.service": HERE / "instar-agent.service",
        "etc/instar/agent.toml": HERE / "agent.toml",
        f"{DOCUMENTS}/README.md": SOURCE / "README.md",
        f"{DOCUMENTS}/CHANGELOG.md": SOURCE / "CHANGELOG.md",
        f"{DOCUMENTS}/copyright": SOURCE / "LICENSE",
    }
    shutil.copytree(SOURCE / "docs", root / DOCUMENTS / "docs")
    for name, source in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, root / name)


def _lay_control(root: Path, version: str, architecture: str) -> None:
    control = root / "DEBIAN"
    control.mkdir()
    for name in ("postinst", "prerm", "postrm"):
        shutil.copyfile(HERE / "debian" / name, control / name)
    minor = sys.version_info.minor
    size_kib = sum(path.stat().st_size for path in root.rglob("*") if path.is_file()) // 1024
    (control / "control").write_text(
        f"Package: {PACKAGE}\nVersion: {version}\nArchitecture: {architecture}\nSection: admin\nPriority: optional\n"
        f"Depends: python3 (>= 3.{minor}), python3 (<< 3.{minor + 1}~), libc6\nInstalled-Size: {size_kib}\n"
        "Maintainer: instar <instar@example.org>\nHomepage: https://example.org/instar\n"
        "Description: upgrades software on this host while it runs\n"
        " The keeper holds sockets and processes of components, the agent changes their\n"
        " versions: by hot swap or restart, undone by itself when the new one is not well.\n"
    )
    (control / "conffiles").write_text("/etc/instar/agent.toml\n")
    sums = [
        f"{hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()}  {path.relative_to(root)}\n"
        for path in sorted(root.rglob("*"))
        if path.is_file() and control not in path.parents
    ]
    (control / "md5sums").write_text("".join(sums))


def _make_alike(root: Path) -> None:
    """Give every file the mode that it should have and one time."""
    for path in sorted(root.rglob("*"), reverse=True):
        is_program = path.is_dir() or (path.parent.name in {"bin", "DEBIAN"} and path.read_bytes().startswith(PROGRAM))
        path.chmod(MODE_PROGRAM if is_program else MODE_FILE)
        os.utime(path, (int(EPOCH_SECONDS), int(EPOCH_SECONDS)))


def _said(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603  # our own words


if __name__ == "__main__":
    sys.exit(main())
