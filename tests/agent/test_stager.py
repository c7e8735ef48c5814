"""The stager: real wheels into a real environment by uv; everything that the bundle did not lock stays out."""

from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import pytest

from agent import stager
from agent.config import layout
from agent.config.errors import ConfigError
from agent.core import model
from agent.keeper import digest as trees
from agent.stager import __main__ as child
from agent.stager import requirements, uv
from tests.agent import wheels

PATIENCE_SECONDS = 60.0
MANIFEST = """\
name = "web"
version = "1.0.0"
driver = "process"
command = ["python", "main.py"]
[python]
requirements = "requirements.txt"
"""
WHEELHOUSE = 'wheelhouse = "wheels"\n'
ONE = dict([wheels.wheel("alpha", "1.0", "WORD = 'one'\ndef main(): print(WORD)\n", ("beta>=1",))])
BETA = dict([wheels.wheel("beta", "2.0", "")])
TWO = dict([wheels.wheel("alpha", "2.0", "WORD = 'two'\ndef main(): print(WORD)\n")])


def release(state_dir: Path, letter: str, found: dict[str, bytes], *, locked: str = "", more: str = WHEELHOUSE) -> str:
    """Lay a release with a wheelhouse; returns its hexadecimal digits."""
    folder = state_dir / "releases" / (letter * 64)
    (folder / "wheels").mkdir(parents=True)
    (folder / "instar.toml").write_text(MANIFEST + more)
    (folder / "requirements.txt").write_text(locked or wheels.lock(found))
    for name, data in found.items():
        (folder / "wheels" / name).write_bytes(data)
    return letter * 64


def staged(state_dir: Path, hex_digits: str, config: Path | None = None) -> dict[str, str]:
    document, code = child.answer(state_dir, hex_digits, config)
    return dict(stager.read_answer(code, json.dumps(document)))


def refused(state_dir: Path, hex_digits: str, config: Path | None = None) -> stager.StagingError:
    with pytest.raises(stager.StagingError) as caught:
        staged(state_dir, hex_digits, config)
    assert str(caught.value).startswith("cannot ")
    environments = state_dir / "environments"
    assert not environments.exists() or list(environments.iterdir()) == []
    return caught.value


def says(state_dir: Path, hex_digits: str, code: str) -> str:
    python = state_dir / "environments" / hex_digits / "bin" / "python"
    return subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_two_releases_have_environments_of_their_own(tmp_path: Path) -> None:
    old, new = release(tmp_path, "a", {**ONE, **BETA}), release(tmp_path, "b", TWO)
    evidence = staged(tmp_path, old)
    staged(tmp_path, new)
    assert says(tmp_path, old, "import alpha, beta; print(alpha.WORD)") == "one"
    assert says(tmp_path, new, "import alpha; print(alpha.WORD)") == "two"
    assert evidence["packages"] == "2"
    place = layout.Layout(tmp_path, tmp_path)
    told = place.environment_digest(layout.digest_of(old)).read_text().strip()
    assert told == evidence["environment"] == trees.environment_digest(place.environment_dir(layout.digest_of(old)))


def test_what_was_staged_runs_from_its_place_and_is_compiled(tmp_path: Path) -> None:
    hex_digits = release(tmp_path, "b", TWO)
    staged(tmp_path, hex_digits)
    directory = tmp_path / "environments" / hex_digits
    assert subprocess.run([directory / "bin" / "run-alpha"], check=True, capture_output=True).stdout == b"two\n"
    assert list(directory.glob("lib/python*/site-packages/__pycache__/alpha.*.pyc"))
    before = trees.environment_digest(directory)
    says(tmp_path, hex_digits, "import alpha")
    assert trees.environment_digest(directory) == before


def test_an_environment_that_is_whole_is_left_alone_and_a_changed_one_is_made_anew(tmp_path: Path) -> None:
    hex_digits = release(tmp_path, "b", TWO)
    first = staged(tmp_path, hex_digits)
    assert staged(tmp_path, hex_digits) == {"environment": first["environment"], "made": "earlier"}
    [module] = (tmp_path / "environments" / hex_digits).glob("lib/python*/site-packages/alpha.py")
    module.write_text("WORD = 'evil'\n")
    assert "packages" in staged(tmp_path, hex_digits)
    assert says(tmp_path, hex_digits, "import alpha; print(alpha.WORD)") == "two"
    (tmp_path / "environments" / f"{hex_digits}.digest").unlink()
    assert "packages" in staged(tmp_path, hex_digits)


def test_a_release_without_python_packages_needs_no_environment(tmp_path: Path) -> None:
    folder = tmp_path / "releases" / ("c" * 64)
    folder.mkdir(parents=True)
    (folder / "instar.toml").write_text(MANIFEST.partition("[python]")[0])
    assert staged(tmp_path, "c" * 64) == {}
    assert not (tmp_path / "environments").exists()


def test_a_changed_wheel_is_refused(tmp_path: Path) -> None:
    [(name, _)] = TWO.items()
    other = dict([wheels.wheel("alpha", "2.0", "WORD = 'evil'\n")])
    hex_digits = release(tmp_path, "b", {name: other[name]}, locked=wheels.lock(TWO))
    error = refused(tmp_path, hex_digits)
    assert (error.reason, error.fault) == ("requirements_not_met", model.Fault.VERSION)
    assert "hash" in str(error).lower()


def test_a_package_that_is_not_locked_is_refused(tmp_path: Path) -> None:
    hex_digits = release(tmp_path, "a", {**ONE, **BETA}, locked=wheels.lock(ONE))
    assert refused(tmp_path, hex_digits).reason == "requirements_not_met"


def test_a_source_distribution_is_refused_and_nothing_of_it_runs(tmp_path: Path) -> None:
    out, ran = BytesIO(), tmp_path / "ran"
    files = {
        "alpha-2.0/PKG-INFO": "Metadata-Version: 2.1\nName: alpha\nVersion: 2.0\n",
        "alpha-2.0/pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "own"\nbackend-path = ["."]\n',
        "alpha-2.0/own.py": f"open({str(ran)!r}, 'w')\n",
    }
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            archive.addfile(info, BytesIO(text.encode()))
    found = {"alpha-2.0.tar.gz": out.getvalue()}
    locked = wheels.lock(found).replace("2.0.tar.gz", "2.0")
    assert refused(tmp_path, release(tmp_path, "a", found, locked=locked)).reason == "requirements_not_met"
    assert not ran.exists()


@pytest.mark.parametrize(
    "line",
    [
        "alpha==2.0",
        "alpha>=2.0 --hash=sha256:" + "0" * 64,
        "alpha==2.* --hash=sha256:" + "0" * 64,
        "alpha==2.0 --hash=md5:" + "0" * 32,
        "alpha @ file:///tmp/alpha-2.0-py3-none-any.whl --hash=sha256:" + "0" * 64,
        "--index-url https://example.org/simple",
        "--find-links /tmp",
        "-r other.txt",
        "-e .",
        "./alpha",
        "alpha==2.0 --hash=sha256:" + "0" * 64 + " --config-settings=x=y",
    ],
)
def test_a_requirement_that_is_not_locked_is_refused_by_its_line(tmp_path: Path, line: str) -> None:
    hex_digits = release(tmp_path, "b", TWO, locked=f"# all\n{line}\n")
    error = refused(tmp_path, hex_digits)
    assert error.reason == "requirements_invalid"
    assert line[:30] in str(error)


def test_locks_as_tools_write_them_are_taken() -> None:
    text = (
        "\n# made by a tool\nalpha==2.0 ; python_version >= '3.11' \\\n"
        f"    --hash=sha256:{'0' * 64} \\\n    --hash=sha256:{'1' * 64}\n    # via beta\n"
        f"zope.interface[test]==1!2.0.post1+cpu --hash=sha256:{'2' * 64}  # note\n"
    )
    assert requirements.check("requirements.txt", text) == 2
    with pytest.raises(ConfigError, match="at most"):
        requirements.check("requirements.txt", f"a==1 --hash=sha256:{'0' * 64}\n" * (requirements.LINES_MAX + 1))


def test_without_uv_nothing_is_made(tmp_path: Path) -> None:
    config = tmp_path / "agent.toml"
    config.write_text(f'node_id = "n"\nuv = "{tmp_path}/none"\n')
    error = refused(tmp_path, release(tmp_path, "b", TWO), config)
    assert (error.reason, error.fault) == ("uv_missing", model.Fault.INFRASTRUCTURE)


def test_uv_is_looked_for_beside_the_interpreter_and_then_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert uv.find(None) == Path(sys.executable).parent / "uv"
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert uv.find(None) is None
    (tmp_path / "uv").touch(0o755)
    assert uv.find(None) == tmp_path / "uv"


def test_a_bundle_without_wheels_needs_an_index_in_the_configuration(tmp_path: Path) -> None:
    error = refused(tmp_path, release(tmp_path, "b", TWO, more=""))
    assert (error.reason, error.fault) == ("index_missing", model.Fault.COMMAND)


@pytest.fixture
def index() -> Iterator[tuple[str, dict[str, bytes]]]:
    """A real index on the loopback: its address and what it serves."""
    pages: dict[str, bytes] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            body = pages.get(self.path)
            self.send_response(200 if body is not None else 404)
            self.send_header("Content-Type", "text/html" if self.path.endswith("/") else "application/octet-stream")
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_words: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/simple", pages
    server.shutdown()
    thread.join()
    server.server_close()


def test_wheels_come_from_the_index_that_the_node_names(tmp_path: Path, index: tuple[str, dict[str, bytes]]) -> None:
    address, pages = index
    [(name, data)] = TWO.items()
    pages["/simple/alpha/"] = f'<a href="/files/{name}">{name}</a>'.encode()
    pages[f"/files/{name}"] = data
    config = tmp_path / "agent.toml"
    config.write_text(f'node_id = "n"\npython_index = "{address}"\n')
    hex_digits = release(tmp_path, "b", TWO, more="")
    pages[f"/files/{name}"] = dict([wheels.wheel("alpha", "2.0", "WORD = 'evil'\n")])[name]
    error = refused(tmp_path, hex_digits, config)
    assert error.reason == "requirements_not_met", str(error)
    pages[f"/files/{name}"] = data
    staged(tmp_path, hex_digits, config)
    assert says(tmp_path, hex_digits, "import alpha; print(alpha.WORD)") == "two"


def test_an_index_that_does_not_answer_is_no_fault_of_the_version(tmp_path: Path) -> None:
    config = tmp_path / "agent.toml"
    config.write_text('node_id = "n"\npython_index = "http://127.0.0.1:9/simple"\n')
    error = refused(tmp_path, release(tmp_path, "b", TWO, more=""), config)
    assert (error.reason, error.fault) == ("index_failed", model.Fault.INFRASTRUCTURE)


def test_a_kill_in_the_middle_leaves_nothing_that_counts_and_the_next_run_cleans_up(tmp_path: Path) -> None:
    hex_digits = release(tmp_path, "b", TWO)
    environments = tmp_path / "environments"
    argv = [sys.executable, "-m", "agent.stager", str(tmp_path), hex_digits]
    running = subprocess.Popen(argv, stdout=subprocess.PIPE, start_new_session=True)
    until = time.monotonic() + PATIENCE_SECONDS
    while not list(environments.glob(".staging-*")):
        assert time.monotonic() < until
        assert running.poll() is None
    os.killpg(running.pid, signal.SIGKILL)
    running.communicate()
    assert [path.name for path in environments.iterdir() if not path.name.startswith(".")] == []
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    evidence = stager.read_answer(done.returncode, done.stdout)
    assert sorted(path.name for path in environments.iterdir()) == [hex_digits, f"{hex_digits}.digest"]
    assert evidence["packages"] == "1"


def test_a_child_that_said_nothing_of_use_is_the_hosts_fault() -> None:
    for code, output in ((None, ""), (1, "{}"), (0, "[]"), (1, '{"error": 1}')):
        with pytest.raises(stager.StagingError) as caught:
            stager.read_answer(code, output)
        assert (caught.value.reason, caught.value.fault) == ("stager_failed", model.Fault.INFRASTRUCTURE)


@pytest.mark.parametrize("words", [[], ["/s"], ["/s", "a"], ["/s", "a" * 64, "c", "d"]])
def test_a_wrong_command_line_is_a_usage_error(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert child.main(words) == os.EX_USAGE
    assert capsys.readouterr().err.startswith("usage:")


def test_a_release_or_configuration_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert refused(tmp_path, "d" * 64).reason == "manifest_invalid"
    hex_digits = release(tmp_path, "b", TWO)
    assert refused(tmp_path, hex_digits, tmp_path / "none.toml").reason == "config_invalid"
    document = cast("dict[str, Any]", child.answer(tmp_path, hex_digits, tmp_path / "none.toml")[0])
    assert document["error"]["field"] == "config"
