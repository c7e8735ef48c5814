"""`instar-agent log`: the last lines that a component has printed, and what comes."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from agent import processes
from agent.cli import answers, asking
from agent.config import layout, settings

LOOK_SECONDS = 0.2  # between two looks at a log that is followed
LINE_BYTES_MAX = 65536  # a longer line is shown in pieces


def main(config: settings.Config, chosen: argparse.Namespace) -> int:
    """Show the log of the kept instance, else of the youngest one."""
    layout.component_name(chosen.component)
    if chosen.is_following and chosen.output == "json":
        message = "cannot follow a log as one JSON document: -f is for text"
        raise answers.Refusal(message, code="invalid", exit_code=answers.EXIT_USAGE)
    path = _path(config, chosen.component)
    with path.open("rb") as file:
        lines = _last_lines(path, file, chosen.lines)
        document = {"component": chosen.component, "instance_id": path.stem, "lines": lines}
        if lines or chosen.output == "json":
            answers.say(document, "\n".join(lines), chosen.output)
        if chosen.is_following:
            _follow(file)
    return answers.EXIT_OK


def _path(config: settings.Config, component: str) -> Path:
    inspection = asking.inspect(config)
    if inspection is None:
        message = f"cannot tell which log is that of {component}: the keeper does not answer"
        raise answers.Refusal(message, code="keeper_gone", exit_code=answers.EXIT_UNREACHABLE)
    found = sorted((each for each in inspection.instances if each.component == component), key=_rank)
    if not found:
        message = f"cannot show a log of {component}: it has no instance on this node"
        raise answers.Refusal(message, code="not_running", exit_code=answers.EXIT_REFUSED)
    return config.run_dir / f"{found[-1].id}.log"


def _rank(each: processes.Instance) -> tuple[bool, float]:
    return each.is_kept, each.started_at_monotonic


def _last_lines(path: Path, file: BinaryIO, count: int) -> list[str]:
    """Read to the end; what was turned away before counts too."""
    kept: deque[bytes] = deque(maxlen=count)
    old = path.with_name(f"{path.name}.old")
    if old.exists():
        with old.open("rb") as earlier:
            kept.extend(_lines(earlier))
    kept.extend(_lines(file))
    return [line.decode(errors="replace").rstrip("\n") for line in kept]


def _lines(file: BinaryIO) -> Iterator[bytes]:
    while line := file.readline(LINE_BYTES_MAX):
        yield line


def _follow(file: BinaryIO) -> None:
    """Go on until interrupted; a log that was begun anew, in place, is read from its start."""
    while True:
        data = file.read(LINE_BYTES_MAX)
        sys.stdout.write(data.decode(errors="replace"))
        sys.stdout.flush()
        if not data:
            if os.fstat(file.fileno()).st_size < file.tell():
                file.seek(0)
            time.sleep(LOOK_SECONDS)
