"""The command `python -m agent.drivers.conformance MODULE [-o json]`."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from agent.drivers import conformance
from agent.drivers.conformance import suite


def main(argv: Sequence[str] | None = None) -> int:
    """Try a driver; exit code 1 where a check failed."""
    parser = argparse.ArgumentParser(prog="python -m agent.drivers.conformance", description=__doc__)
    parser.add_argument("module", help="driver module with conformance_fixtures(folder)")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")
    parser.add_argument("-k", "--only", default="", help="run the checks whose name has this in it")
    arguments = parser.parse_args(argv)
    module = cast("conformance.FixtureModule", importlib.import_module(arguments.module))
    is_json = arguments.output == "json"
    with tempfile.TemporaryDirectory(prefix="idf-") as folder:
        report = asyncio.run(suite.run(module, Path(folder), only=arguments.only, tell=_silent if is_json else _print))
    if is_json:
        _print(json.dumps(report.document))
    else:
        _print(f"{report.driver}: {report.passed} of {len(report.results)} checks passed")
    return 0 if report.is_success else 1


def _print(line: str) -> None:
    print(line, flush=True)  # noqa: T201  # it is what the command is for


def _silent(_line: str) -> None:
    """One document is all that is printed."""


if __name__ == "__main__":
    sys.exit(main())
