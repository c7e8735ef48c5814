"""Runs every check for every fixture of a driver module, and counts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, unique
from pathlib import Path

from agent.drivers import conformance
from agent.drivers.conformance import checks, stage

CHECK_TIMEOUT_SECONDS = 180.0  # the slowest check makes six changes, each within a few seconds

Tell = Callable[[str], None]


@unique
class Outcome(Enum):
    """How a check ended."""

    PASSED = "passed"
    FAILED = "FAILED"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Result:
    """One check on one fixture."""

    name: str
    outcome: Outcome
    message: str = ""

    @property
    def line(self) -> str:
        """For people."""
        return f"{self.outcome.value:8}{self.name}{': ' if self.message else ''}{self.message}"


@dataclass(frozen=True, slots=True)
class Report:
    """All checks of one driver."""

    driver: str
    results: tuple[Result, ...]

    @property
    def passed(self) -> int:
        """How many passed."""
        return len(self._of(Outcome.PASSED))

    @property
    def is_success(self) -> bool:
        """None failed, and there was something to try."""
        return self.passed > 0 and not self._of(Outcome.FAILED)

    @property
    def document(self) -> dict[str, object]:
        """For programs."""
        return {
            "driver": self.driver,
            "checks": len(self.results),
            "passed": self.passed,
            "failed": [{"check": each.name, "message": each.message} for each in self._of(Outcome.FAILED)],
            "skipped": [{"check": each.name, "message": each.message} for each in self._of(Outcome.SKIPPED)],
        }

    def _of(self, outcome: Outcome) -> list[Result]:
        return [each for each in self.results if each.outcome is outcome]


async def run(module: conformance.FixtureModule, folder: Path, *, only: str, tell: Tell) -> Report:
    """Run the checks whose name contains a text; tell of each as it ends. Fixtures share nothing and run at once."""
    async with asyncio.TaskGroup() as tasks:
        tried = [
            tasks.create_task(_try_all(module, fixture, only, tell)) for fixture in module.conformance_fixtures(folder)
        ]
    return Report(module.NAME, tuple(result for task in tried for result in task.result()))


async def _try_all(
    module: conformance.FixtureModule, fixture: conformance.Fixture, only: str, tell: Tell
) -> list[Result]:
    results: list[Result] = []
    for check in checks.CHECKS:
        name = f"{module.NAME}/{fixture.name}: {check.__name__.replace('_', ' ')}"
        if only in name:
            results.append(await _try(module, fixture, check, name))
            tell(results[-1].line)
    return results


async def _try(
    module: conformance.FixtureModule, fixture: conformance.Fixture, check: checks.Check, name: str
) -> Result:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_SECONDS), stage.on(module, fixture) as made:
            await check(made)
    except stage.SkippedError as error:
        return Result(name, Outcome.SKIPPED, str(error))
    except Exception as error:  # noqa: BLE001  # whatever a driver raises is its failure
        return Result(name, Outcome.FAILED, str(error) or repr(error))
    return Result(name, Outcome.PASSED)
