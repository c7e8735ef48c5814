"""The conformance suite finds planted faults, and says so in one document."""

import json
from pathlib import Path

import pytest

from agent import drivers
from agent.core import model
from agent.drivers import held
from agent.drivers.conformance import __main__ as command
from agent.drivers.conformance import suite
from tests.drivers import held as fixtures

ABORT = "an abort at any point leaves the old version serving"
GC = "gc of everything leaves nothing running"
TRUTH = "inspect tells the truth"
TWICE = "an upgrade works with every verb called twice"
BRING_UP = "bring up makes a release serve when everything was killed"
CRASH = "a version that crashes at start is blamed and undone"


class AbortsNothing(held.Held):
    async def abort(self, _change: drivers.Change) -> drivers.Evidence:
        return {}


class StopsNothing(held.Held):
    async def gc(self, _component: str, _keep: object) -> drivers.Evidence:
        return {}


class ShowsNothing(held.Held):
    async def inspect(self, _component: str) -> tuple[model.Instance, ...]:
        return ()


class CannotCommitTwice(held.Held):
    async def commit(self, change: drivers.Change) -> drivers.Verdict:
        if any(each.is_kept and each.id == _id(change) for each in await self.inspect(change.component)):
            raise RuntimeError("cannot commit: it is committed")
        return await super().commit(change)


class BringsNothingUp(held.Held):
    async def bring_up(self, _component: str, _launch: drivers.Launch) -> drivers.Evidence:
        return {}


class BlamesTheHost(held.Held):
    async def activate(self, change: drivers.Change) -> drivers.Evidence:
        try:
            return await super().activate(change)
        except drivers.DriverError as error:
            raise drivers.DriverError(str(error), fault=model.Fault.INFRASTRUCTURE, reason=error.reason) from error


class Planted:
    """A driver module with a fault."""

    NAME = "planted"
    METHODS = held.METHODS
    conformance_fixtures = staticmethod(fixtures.conformance_fixtures)

    def __init__(self, driver: type[held.Held]) -> None:
        self._driver = driver

    def make(self, rooms: drivers.Rooms) -> drivers.Driver:
        return self._driver(rooms, held.METHODS)


@pytest.mark.parametrize(
    ("driver", "check"),
    [
        (AbortsNothing, ABORT),
        (StopsNothing, GC),
        (ShowsNothing, TRUTH),
        (CannotCommitTwice, TWICE),
        (BringsNothingUp, BRING_UP),
        (BlamesTheHost, CRASH),
    ],
)
async def test_a_planted_fault_is_found(
    driver: type[held.Held], check: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.drivers.conformance.stage.PATIENCE_SECONDS", 3.0)
    lines: list[str] = []
    report = await suite.run(Planted(driver), tmp_path, only=check, tell=lines.append)
    assert (len(report.results), report.is_success, report.passed) == (1, False, 0)
    assert lines[0].startswith(f"FAILED  planted/listen_fds: {check}: ")


def test_the_command_prints_one_document_and_its_exit_code_says_whether_all_passed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command.main(["tests.drivers.held", "-o", "json", "-k", "capabilities"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == {"driver": "held", "checks": 1, "passed": 1, "failed": [], "skipped": []}
    assert command.main(["tests.drivers.held", "-o", "json", "-k", "no such check"]) == 1
    assert json.loads(capsys.readouterr().out)["checks"] == 0


def test_a_check_that_a_fixture_cannot_have_is_skipped_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["tests.drivers.process", "-k", "restart: a socket without an address"]) == 1
    assert "skipped process/restart" in capsys.readouterr().out


def _id(change: drivers.Change) -> str:
    return change.new.instance_id if change.new else ""
