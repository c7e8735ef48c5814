"""What the agent comes in: a unit of systemd, and a Debian package that is built, installed, upgraded and removed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import agent
from agent.config import settings
from tests.agent import bundles
from tests.security import judged, repository

PACKAGING = Path(agent.__file__).parent / "packaging"
UNIT = PACKAGING / "instar-agent.service"
PATIENCE_SECONDS = 60.0
DEBIAN_PYTHON = Path("/usr/bin/python3")

needs_dpkg = pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="this host has no dpkg")
needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="this host has no systemd")


def said(*words: str | Path, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(said(sys.executable, PACKAGING / "build_deb.py", tmp_path_factory.mktemp("deb")).strip())


class Root:
    """A system of its own, as far as dpkg sees it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "var/lib/dpkg/info").mkdir(parents=True)
        (path / "var/lib/dpkg/updates").mkdir()
        for name in ("status", "available"):
            (path / "var/lib/dpkg" / name).touch()

    def dpkg(self, *words: str | Path) -> str:
        forced = ("--force-script-chrootless", "--force-depends", "--force-confold")
        return said("dpkg", f"--root={self.path}", *forced, "--log=/dev/null", *words)

    def agent(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        program = self.path / "usr/bin/instar-agent"
        return subprocess.run([program, *words], capture_output=True, text=True, check=False, env=clean_environment())

    def state(self) -> str:
        shown = said("dpkg-query", f"--admindir={self.path}/var/lib/dpkg", "-W", "-f", "${Version} ${db:Status-Status}")
        return shown.strip()


def clean_environment() -> dict[str, str]:
    """As a login has it: nothing of the tests' own interpreter."""
    return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/nonexistent"}


@pytest.fixture
def root() -> Iterator[Root]:
    path = Path(tempfile.mkdtemp(prefix="id-"))  # tmp_path is too long for socket paths
    yield Root(path)
    shutil.rmtree(path)


def with_version(package: Path, version: str, folder: Path) -> Path:
    """The same package under another version."""
    said("dpkg-deb", "-R", package, folder / "tree")
    control = folder / "tree/DEBIAN/control"
    control.write_text(re.sub(r"(?m)^Version: .*$", f"Version: {version}", control.read_text()))
    return Path(said("dpkg-deb", "--root-owner-group", "-Zgzip", "-b", folder / "tree", folder).split("'")[3])


@needs_systemd
def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/usr/bin/instar-agent", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert "instar-agent.service" not in done.stderr
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "line",
    [
        "KillMode=process",
        "Delegate=yes",
        "Restart=always",
        "RuntimeDirectoryPreserve=yes",
        "OOMPolicy=continue",
        "SystemCallFilter=pidfd_getfd",
    ],
)
def test_the_unit_never_ends_a_component(line: str) -> None:
    assert line in UNIT.read_text().splitlines()


@needs_dpkg
@pytest.mark.slow
def test_the_package_is_installed_upgraded_removed_and_purged(package: Path, root: Root, tmp_path: Path) -> None:
    root.dpkg("-i", package)
    assert root.state() == f"{agent.__version__} installed"
    done = root.agent("--version")
    assert (done.returncode, done.stdout.strip()) == (0, agent.__version__)

    config, kept = root.path / "etc/instar/agent.toml", root.path / "var/lib/instar/agent/journal"
    config.write_text('node_id = "mine"\n')
    kept.write_text("a journal")
    root.dpkg("-i", with_version(package, "99.0.0", tmp_path))
    assert root.state() == "99.0.0 installed"
    assert (config.read_text(), kept.read_text()) == ('node_id = "mine"\n', "a journal")

    root.dpkg("-r", "instar-agent")
    assert (config.exists(), kept.exists(), (root.path / "usr/bin/instar-agent").exists()) == (True, True, False)
    root.dpkg("-P", "instar-agent")
    assert (config.exists(), kept.parent.exists()) == (False, False)
    assert not (root.path / "etc/instar").exists()
    assert not (root.path / "var/lib/instar").exists()


@needs_dpkg
@pytest.mark.slow
def test_the_installed_agent_runs_a_node_with_the_python_of_the_system(package: Path, root: Root) -> None:
    if said(DEBIAN_PYTHON, "-c", "import sys; print(sys.version_info[:2])") != f"{sys.version_info[:2]}\n":
        pytest.skip("the package is for another Python than that of the system")
    root.dpkg("-i", package)
    config = root.path / "agent.toml"
    config.write_text(f'node_id = "n1"\nstate_dir = "{root.path}/s"\nrun_dir = "{root.path}/r"\n')
    program = root.path / "usr/bin/instar-agent"
    running = subprocess.Popen([program, "run", "--config", config], env=clean_environment(), stderr=subprocess.PIPE)
    try:
        until = time.monotonic() + PATIENCE_SECONDS
        document = json.loads(root.agent("status", "--config", config, "-o", "json").stdout)
        while not (document["is_keeper_up"] and document["is_agent_up"]):
            assert time.monotonic() < until, document
            assert running.poll() is None
            document = json.loads(root.agent("status", "--config", config, "-o", "json").stdout)
    finally:
        running.terminate()
        _, errors = running.communicate(timeout=PATIENCE_SECONDS)
    assert running.returncode == 0, errors
    assert b"Traceback" not in errors


@needs_dpkg
@pytest.mark.slow
def test_the_installed_verifier_knows_signed_releases_and_nothing_secret_was_made(
    package: Path, root: Root, tmp_path: Path
) -> None:
    if said(DEBIAN_PYTHON, "-c", "import sys; print(sys.version_info[:2])") != f"{sys.version_info[:2]}\n":
        pytest.skip("the package is for another Python than that of the system")
    root.dpkg("-i", package)
    assert [path.name for path in (root.path / "etc/instar").iterdir()] == ["agent.toml"]
    data, signed = judged.bundle(), repository.Repository("web")
    signed.release("web", "1.0.0", data)
    node = judged.Node(tmp_path, signed.root)
    repository.lay(node.incoming, signed.served("web"))
    hex_digits = bundles.put(node.state, data)
    words = ("-m", "agent.verifier", node.state, hex_digits, node.config, "web", "1.0.0")
    installed = {**clean_environment(), "PYTHONPATH": str(root.path / "usr/lib/instar-agent")}
    document = json.loads(said(DEBIAN_PYTHON, "-S", "-P", *words, environment=installed))
    assert document["trust"]["web"] == signed.version("web")


@needs_dpkg
@pytest.mark.slow
def test_the_same_sources_give_the_same_package_and_nothing_of_the_controller(package: Path, tmp_path: Path) -> None:
    again = Path(said(sys.executable, PACKAGING / "build_deb.py", tmp_path).strip())
    assert again.read_bytes() == package.read_bytes()
    names = said("dpkg-deb", "--contents", package)
    for absent in ("sqlalchemy", "/controller/", "conformance", "build_deb"):
        assert absent not in names
    assert " root/root " in names
    control = said("dpkg-deb", "--field", package)
    assert "Depends: python3 (>= 3.11)" in control
    assert said("dpkg-deb", "--info", package, "conffiles") == "/etc/instar/agent.toml\n"


def test_package_unit_and_agent_keep_the_state_in_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    default = settings.default_state_dir({})
    assert settings.parse((PACKAGING / "agent.toml").read_text(), {"INSTAR_NODE_ID": "n"}).state_dir == default
    assert f"StateDirectory={default.relative_to('/var/lib')}" in UNIT.read_text().splitlines()
    assert f'"$DPKG_ROOT{default}"' in (PACKAGING / "debian" / "postinst").read_text()
    assert f'"$DPKG_ROOT{default}"' in (PACKAGING / "debian" / "postrm").read_text()


@needs_dpkg
@pytest.mark.slow
def test_no_link_of_the_packaged_documents_is_dead(package: Path, tmp_path: Path) -> None:
    said("dpkg-deb", "-x", package, tmp_path)
    pages = list((tmp_path / "usr/share/doc/instar-agent").rglob("*.md"))
    dead = [
        (page.name, link)
        for page in pages
        for link in re.findall(r"\]\(([^)#]+)", page.read_text())
        if "://" not in link and not (page.parent / link).exists()
    ]
    assert dead == []
    named = re.findall(r"/usr/share/doc/\S+", (PACKAGING / "agent.toml").read_text())
    assert [(tmp_path / path.removeprefix("/")).exists() for path in named] == [True]


@needs_dpkg
def test_a_wrong_command_line_of_the_build_is_a_usage_error() -> None:
    done = subprocess.run([sys.executable, PACKAGING / "build_deb.py"], capture_output=True, check=False)
    assert done.returncode == os.EX_USAGE
