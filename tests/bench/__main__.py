"""The command `python -m tests.bench NAME [-o json]`."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
from collections.abc import Sequence
from typing import Any

from tests import bench
from tests.bench import result

_NOT_BENCHMARKS = {"__main__", "herd", "load", "result"}


def names() -> Sequence[str]:
    """The benchmarks that there are."""
    modules = (module.name for module in pkgutil.iter_modules(bench.__path__))
    return sorted(name for name in modules if name not in _NOT_BENCHMARKS and not name.startswith("test_"))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one benchmark and print what it measured."""
    arguments, module = chosen(argv)
    found: result.Result = module.measure_tls() if arguments.tls else module.measure()
    print(found.as_json() if arguments.output == "json" else found.as_text())  # noqa: T201 it is what the command is for
    return 0


def chosen(argv: Sequence[str] | None) -> tuple[argparse.Namespace, Any]:
    """What a command line asks for, and the module of the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("name", choices=names())
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")
    parser.add_argument("--tls", action="store_true", help="with TLS, over the same without; for those that know it")
    arguments = parser.parse_args(argv)
    module = importlib.import_module(f"tests.bench.{arguments.name}")
    if arguments.tls and not hasattr(module, "measure_tls"):
        parser.error(f"{arguments.name} does not know --tls")
    return arguments, module


if __name__ == "__main__":
    sys.exit(main())
