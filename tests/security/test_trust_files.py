"""What of trust lies on a node's disk: what is believed, the trust file; and the child that reads it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from agent.config import settings
from agent.config import trust as trust_file
from agent.config.errors import ConfigError
from tests.agent import bundles
from tests.security import judged, repository

FIRST, SECOND = judged.bundle(version="1.0.0"), judged.bundle(version="1.1.0")
MEMORY_KIB_MAX = 60 * 1024  # G12 has 64 MiB
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def test_a_floor_file_that_was_changed_lets_nothing_pass(node: judged.Node, signed: repository.Repository) -> None:
    node.believe(signed.served("web"), FIRST)
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
    node.believe(signed.served("web"), FIRST)
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


@pytest.mark.skipif(not shutil.which("strace"), reason="this host has no strace")
def test_everything_that_is_believed_is_on_the_disk_before_it_has_its_name(
    node: judged.Node, signed: repository.Repository
) -> None:
    repository.lay(node.incoming, signed.served("web"))
    hex_digits = bundles.put(node.state, FIRST)
    traced = node.state.parent / "calls"
    strace = ("strace", "-f", "-y", "-e", "trace=fsync,rename,renameat,renameat2", "-o", str(traced))
    assert "trust" in judged.run_child(str(node.state), hex_digits, str(node.config), "web", "1.0.0", within=strace)
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
