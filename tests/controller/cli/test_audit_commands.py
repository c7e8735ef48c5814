"""The audit log from the command line: a real controller, the real program, and files that somebody has touched."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from controller.cli import application, audit_files
from controller.core.audit import chain
from controller.store import guards
from tests import documents
from tests.controller.cli import house
from tests.controller.core.audit import chains

STRANGER = documents.DOCS / "examples" / "audit" / "verify.py"
AT_START = 3  # rows of a first start: that it begins, the configuration of who may do what, and the register
Lines = list[str]


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[house.House]:
    found = house.House(tmp_path)
    async with found.serving():
        yield found


def export(folder: Path, *lengths: int, begin: chain.Head = chain.GENESIS) -> Path:
    """An export of a chain of epochs of so many rows each."""
    records = [each for each in chains.of(*lengths) if each.head.place > begin.place]
    lines = [audit_files.begin_line(begin), *map(audit_files.record_line, records)]
    file = folder / "audit.jsonl"
    file.write_text("".join([*lines, audit_files.head_line(records[-1].head)]), encoding="utf-8")
    return file


def touched(file: Path, touch: Callable[[Lines], Lines]) -> Path:
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join(touch(lines)), encoding="utf-8")
    return file


def verified(capsys: pytest.CaptureFixture[str], file: Path, *more: str) -> tuple[int, list[tuple[str, int, int]]]:
    """How `instar audit verify FILE` ends, and what it finds."""
    code = application.run(["audit", "verify", str(file), *more, "-o", "json"])
    told = json.loads(capsys.readouterr().out)
    assert told["whole"] is (code == 0)
    return code, [(each["fault"], each["epoch"], each["position"]) for each in told["findings"]]


def stranger(file: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """The example of the documentation, which knows nothing of ours."""
    return subprocess.run([sys.executable, "-I", STRANGER, file, *more], capture_output=True, text=True, check=False)


async def test_what_was_done_and_refused_is_listed_verified_and_exported(home: house.House, tmp_path: Path) -> None:
    for reason in ("holidays", "moving", "more"):
        assert (await home.instar("freeze", "add", "--reason", reason)).code == 0
    assert (await home.instar("rollout", "pause", "nothing", "--reason", "lunch")).code == 8
    listed = await home.instar("audit", "list", "--actor", "operator", "-o", "json")
    told = [(each["action"], each["result"]) for each in listed.document["rows"]]
    assert told == [("rollout.pause", "rollout_not_found"), *[("freeze.add", "done")] * 3]
    assert [each["reason"] for each in listed.document["rows"]][1:] == ["more", "moving", "holidays"]
    table = await home.instar("audit", "list", "--action", "freeze", "-n", "2")
    assert ("moving" in table.out, "holidays" in table.out) == (True, False)
    late = await home.instar("audit", "list", "--since", "2100-01-01T00:00Z", "-o", "json")
    assert late.document["rows"] == []

    whole = await home.instar("audit", "verify", "-o", "json")
    assert (whole.code, whole.document["findings"], whole.document["rows"]) == (0, [], AT_START + 4)
    head = whole.document["head"]
    file = tmp_path / "all.jsonl"
    written = await home.instar("audit", "export", "--out", file)
    assert (written.code, written.out) == (0, f"head: {head}\n")
    assert (await home.instar("audit", "verify", file, "--since", head)).code == 0
    assert stranger(file, head).stdout.startswith(f"whole: {1 + AT_START + 4} records")

    assert (await home.instar("freeze", "add", "--reason", "once more")).code == 0
    later = await home.instar("audit", "export", "--since", head)
    assert len(later.out.splitlines()) == 3
    assert "once more" in later.out
    assert later.err.startswith(f"head: 1:{AT_START + 5}:")
    forked = head[:-1] + ("0" if head[-1] != "0" else "1")
    for option in ((), ("--by-controller",)):
        assert (await home.instar("audit", "verify", "--since", head, *option)).code == 0
        other = await home.instar("audit", "verify", "--since", forked, *option)
        assert (other.code, other.out.split()[:2]) == (1, ["FORKED", f"1:{AT_START + 4}:"])
    unknown = await home.instar("audit", "export", "--since", forked)
    assert (unknown.code, "cannot find audit_head" in unknown.err, unknown.out) == (8, True, "")


async def test_what_somebody_does_to_the_database_is_found_by_both_sides_and_by_an_earlier_head(
    home: house.House,
) -> None:
    for reason in ("holidays", "moving"):
        await home.instar("freeze", "add", "--reason", reason)
    head = (await home.instar("audit", "verify", "-o", "json")).document["head"]
    with sqlite3.connect(home.state_dir / "controller.db") as connection:
        for name in guards.AUDIT_GUARDS:
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute("UPDATE audit SET reason = 'nothing' WHERE reason = 'holidays'")
        connection.execute("DELETE FROM audit WHERE reason = 'moving'")
    connection.close()
    for option in ((), ("--by-controller",), ("--since", head)):
        found = await home.instar("audit", "verify", *option, "-o", "json")
        faults = [(each["fault"], each["position"]) for each in found.document["findings"]]
        wanted = [("CHANGED", AT_START + 1), ("TRUNCATED", AT_START + 1)]
        assert (found.code, sorted(set(faults))) == (1, wanted), option


@pytest.mark.parametrize(
    ("touch", "expected"),
    [
        (
            lambda lines: [each.replace('"lunch"', '"dinner"') if "r-1" in each else each for each in lines],
            ("CHANGED", 1, 2),
        ),
        (lambda lines: [*lines[:3], *lines[4:]], ("MISSING", 1, 2)),
        (lambda lines: [*lines[:3], lines[4], lines[3], *lines[5:]], ("MISPLACED", 1, 2)),
        (lambda lines: [*lines[:3], lines[2], *lines[3:]], ("REPEATED", 1, 1)),
        (lambda lines: [*lines[:-2], lines[-1]], ("TRUNCATED", 2, 0)),
        (lambda lines: lines[:-1], ("TRUNCATED", 2, 1)),
    ],
)
def test_whatever_is_done_to_an_export_is_found_by_us_and_by_anybody(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], touch: Callable[[Lines], Lines], expected: tuple[str, int, int]
) -> None:
    file = export(tmp_path, 3, 1)
    assert verified(capsys, file) == (0, [])
    assert stranger(file).returncode == 0
    touched(file, touch)
    assert verified(capsys, file) == (1, [expected])
    assert stranger(file).returncode == 1


def test_an_export_of_a_part_is_verified_from_its_beginning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin = chains.of(3)[2].head
    file = export(tmp_path, 3, 1, begin=begin)
    assert verified(capsys, file) == (0, [])
    assert verified(capsys, file, "--since", str(begin)) == (0, [])
    assert verified(capsys, file, "--since", str(chains.of(1)[1].head)) == (1, [("MISSING", 1, 1)])
    assert stranger(file).returncode == 0
    assert stranger(file, str(chains.of(1)[1].head)).returncode == 1


@pytest.mark.parametrize(
    "touch",
    [
        lambda _: [],
        lambda lines: lines[1:],
        lambda lines: [*lines, lines[2]],
        lambda lines: [lines[0], "nonsense\n"],
        lambda lines: [lines[0], "[1]\n"],
        lambda lines: [lines[0], '{"record": "other"}\n'],
        lambda lines: [each.replace('"lunch"', "7") for each in lines],
        lambda lines: [each.replace('"position": 1', '"position": "1"') for each in lines],
        lambda lines: [each.replace('"position": 1', '"position": -1') for each in lines],
        lambda lines: [each.replace("+00:00", "Z") for each in lines],
        lambda lines: [each.replace('"record": "row"', '"record": "row", "more": 1') for each in lines],
        lambda lines: [each.replace("instar-audit-1", "instar-audit-2") for each in lines],
        lambda lines: [each.replace("0:0:0", "0:0:x") for each in lines],
    ],
)
def test_what_is_no_export_is_refused_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], touch: Callable[[Lines], Lines]
) -> None:
    file = touched(export(tmp_path, 2), touch)
    assert application.run(["audit", "verify", str(file)]) == 2
    assert "cannot use FILE" in capsys.readouterr().err


def test_what_cannot_be_read_or_means_nothing_is_an_error_of_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert application.run(["audit", "verify", str(tmp_path / "none")]) == 2
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    assert application.run(["audit", "verify", str(tmp_path / "binary")]) == 2
    assert application.run(["audit", "verify", str(export(tmp_path, 1)), "--by-controller"]) == 2
    assert application.run(["audit", "verify", "--since", "yesterday"]) == 2
    assert capsys.readouterr().err.count("cannot use ") == 4


def test_an_export_that_cannot_be_made_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("token")
    options = ("--controller", "127.0.0.1:1", "--token-file", str(tmp_path / "token"))
    assert application.run(["audit", "export", "--out", str(tmp_path / "out"), *options]) == 7
    assert {each.name for each in tmp_path.iterdir()} == {"token"}
