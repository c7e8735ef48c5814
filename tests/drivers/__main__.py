"""The command `python -m tests.drivers [-o json] [NAME...]`."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import importlib.util
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from agent.drivers import conformance, registry
from agent.drivers.conformance import suite
from tests.drivers import load

NOT_TRIED = {"agent": "its instances are the agent itself: tests of the self-upgrade try it"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the suite for our drivers, then the load; exit code 1 where anything failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.drivers", description=__doc__)
    parser.add_argument("names", nargs="*", help="drivers; all where none is named")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")
    parser.add_argument("-k", "--only", default="", help="run the checks whose name has this in it")
    arguments = parser.parse_args(argv)
    names = arguments.names or sorted(registry.BUILT_IN)
    is_json = arguments.output == "json"
    tell = _silent if is_json else _print
    missing = [name for name in names if not _has_fixtures(name)]
    reports = [asyncio.run(_suite(name, arguments.only, tell)) for name in names if name not in missing]
    loads = asyncio.run(load.run_all(tell)) if "reload" in names and not arguments.only else []
    absent = {name: NOT_TRIED.get(name, f"there is no tests/drivers/{name}.py") for name in missing}
    is_success = all(report.is_success for report in reports) and all(each["failed"] == 0 for each in loads)
    document = {"drivers": [each.document for each in reports], "load": loads, "not_tried": absent}
    _print(json.dumps(document) if is_json else _summary(reports, absent))
    return 0 if is_success else 1


async def _suite(name: str, only: str, tell: suite.Tell) -> suite.Report:
    module = cast("conformance.FixtureModule", importlib.import_module(f"tests.drivers.{name}"))
    with tempfile.TemporaryDirectory(prefix="idf-") as folder:
        return await suite.run(module, Path(folder), only=only, tell=tell)


def _has_fixtures(name: str) -> bool:
    return importlib.util.find_spec(f"tests.drivers.{name}") is not None


def _summary(reports: Sequence[suite.Report], absent: dict[str, str]) -> str:
    passed = [f"{each.driver}: {each.passed} of {len(each.results)} checks passed" for each in reports]
    return "\n".join([*passed, *(f"{name}: not tried, {why}" for name, why in absent.items())])


def _print(line: str) -> None:
    print(line, flush=True)  # noqa: T201  # it is what the command is for


def _silent(_line: str) -> None:
    """One document is all that is printed."""


if __name__ == "__main__":
    sys.exit(main())
