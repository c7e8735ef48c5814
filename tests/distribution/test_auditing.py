"""`make audit-deps`: pip-audit itself, and a source of advisories that answers as OSV does."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http import server
from pathlib import Path
from typing import Any

import pytest

from controller.packaging.distribution import __main__ as command
from controller.packaging.distribution import auditing, errors

HASHED = f"--hash=sha256:{'0' * 64}"
# One package for two kinds of platforms, and one for all.
LOCK = f"""\
alpha==1.0 ; sys_platform == 'linux' {HASHED}
alpha==2.0 ; sys_platform != 'linux' {HASHED}
beta==1.0 {HASHED}
"""


def advisory(name: str, fixed: str) -> dict[str, Any]:
    affected = {"package": {"name": name, "ecosystem": "PyPI"}}
    return {
        "id": f"TEST-{name}",
        "affected": [affected | {"ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": fixed}]}]}],
    }


class Source(server.ThreadingHTTPServer):
    """Says what it is told to of each version, and keeps what it was asked."""

    def __init__(self) -> None:
        self.known: dict[auditing.Key, dict[str, Any]] = {auditing.KNOWN_BAD: advisory(auditing.KNOWN_BAD[0], "5.4")}
        self.asked: list[auditing.Key] = []
        super().__init__(("127.0.0.1", 0), _Answers)


class _Answers(server.BaseHTTPRequestHandler):
    server: Source

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = asked["package"]["name"], asked["version"]
        self.server.asked.append(key)
        known = self.server.known.get(key)
        body = json.dumps({} if known is None else {"vulns": [known]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its name is the library's
        del format, args


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Iterator[Source]:
    with Source() as made:
        monkeypatch.setenv("PIP_AUDIT_VULNERABILITY_SERVICE", "osv")
        monkeypatch.setenv("PIP_AUDIT_OSV_URL", f"http://127.0.0.1:{made.server_port}/v1/query")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


@pytest.fixture
def pins(tmp_path: Path) -> str:
    path = tmp_path / "requirements.lock"
    path.write_text(LOCK)
    return str(path)


def audited(pins: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Run the command; how it ends and all that it says."""
    code = command.main(["audit", pins])
    said = "".join(capsys.readouterr())
    if "could not be installed" in said:
        pytest.skip("no package registry is reached")
    return code, said


def test_all_is_well_where_the_source_has_answered_for_every_version(
    source: Source, pins: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audited(pins, capsys) == (errors.EXIT_OK, "nothing is known against 3 versions\n")
    assert sorted(source.asked) == [("alpha", "1.0"), ("alpha", "2.0"), ("beta", "1.0"), auditing.KNOWN_BAD]


def test_what_is_known_is_named_also_of_a_version_for_another_platform(
    source: Source, pins: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source.known["alpha", "2.0"] = advisory("alpha", "2.1")
    assert audited(pins, capsys) == (errors.EXIT_FAILED, "alpha 2.0: TEST-alpha, fixed in 2.1\n")


def test_a_source_that_knows_nothing_of_what_everybody_knows_is_no_answer(
    source: Source, pins: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source.known.clear()
    code, said = audited(pins, capsys)
    assert (code, source.asked) == (errors.EXIT_UNREACHABLE, [auditing.KNOWN_BAD])
    assert said.startswith("cannot audit: it knows nothing of pyyaml 5.3.1")


def test_a_source_that_is_not_reached_is_no_answer(
    source: Source, pins: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source.server_close()
    code, said = audited(pins, capsys)
    assert code == errors.EXIT_UNREACHABLE
    assert said.startswith("cannot audit: ")


def test_versions_that_the_source_does_not_have_are_no_good_news() -> None:
    key, answer = auditing._answer({"name": "Beta", "skip_reason": "not found"})
    assert (key[0], answer) == ("beta", None)
    found = auditing.Found(7, [], [(f"p{number}", "1.0") for number in range(7)])
    assert auditing.exit_code(found) == errors.EXIT_UNREACHABLE
    assert list(auditing.lines(found)) == [
        "cannot say anything of 7 of 7 versions: p0 1.0, p1 1.0, p2 1.0, p3 1.0, p4 1.0 and 2 more"
    ]
    bad = auditing.Found(7, [auditing.Advisory("p0", "1.0", "TEST-1", ())], found.unanswered)
    assert auditing.exit_code(bad) == errors.EXIT_FAILED
    assert next(auditing.lines(bad)) == "p0 1.0: TEST-1, not fixed yet"
