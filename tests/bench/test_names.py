"""The list of `make bench` and the benchmarks that there are."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from tests.bench import __main__ as command

MAKEFILE = Path(__file__).parents[2] / "Makefile"


def test_everything_that_make_bench_runs_is_a_benchmark_and_tls_is_among_it() -> None:
    found = re.search(r"^BENCHES \?= (.*)$", MAKEFILE.read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None
    lines = [shlex.split(line) for line in shlex.split(found[1])]
    for line in lines:
        command.chosen([*line, "-o", "json"])
    assert ["heartbeat", "--tls"] in lines
