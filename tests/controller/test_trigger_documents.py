"""What docs/triggers.md shows works: each example file, and each request, sent by the programs that it names."""

from __future__ import annotations

import asyncio
import re
import shutil
from pathlib import Path

import pytest

from controller import clock, conditions
from controller.cli import trigger_files
from controller.core import model
from controller.core.triggers import checks
from controller.rpc import trigger_convert
from tests import documents
from tests.controller.web import house

EXAMPLES = sorted((documents.DOCS / "examples" / "triggers").glob("*.toml"))
PAGE = (documents.DOCS / "triggers.md").read_text(encoding="utf-8")
REQUESTS = re.findall(r"^```bash\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def triggers(file: Path) -> list[model.Trigger]:
    return [trigger_convert.from_trigger(one.trigger) for one in trigger_files.read(file)]


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_each_example_is_right_in_itself(file: Path) -> None:
    for trigger in triggers(file):
        checks.check(trigger)
        match trigger.when:
            case model.Threshold(condition=condition, clear=clear):
                conditions.compile(condition, "condition")
                conditions.compile(clear, "clear")
            case model.EventMatch(filter=text):
                conditions.compile_filter(text, "filter")
            case _:
                pass
        assert trigger.is_enabled


def test_there_is_an_example_of_every_kind_and_of_every_action_and_each_is_linked() -> None:
    found = [trigger for file in EXAMPLES for trigger in triggers(file)]
    assert {trigger.kind for trigger in found} == set(model.TriggerKind)
    assert {trigger.does for trigger in found} == set(model.TriggerActionKind)
    assert len({trigger.name for trigger in found}) == len(found)
    assert all(f"(examples/triggers/{file.name})" in PAGE for file in EXAMPLES)


@pytest.mark.skipif(not (shutil.which("curl") and shutil.which("openssl")), reason="curl and openssl are not here")
@pytest.mark.parametrize("number", range(2))
async def test_each_request_that_is_shown_is_taken(tmp_path: Path, number: int) -> None:
    async with house.standing(tmp_path, time=clock.SystemClock()) as door:
        (tmp_path / "events.secret").write_bytes(house.SECRET + b"\n")
        script = REQUESTS[number].replace("127.0.0.1:7480", door.address)
        process = await asyncio.create_subprocess_exec(
            *("bash", "-euo", "pipefail", "-c", script),
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await process.communicate()
        assert process.returncode == 0, out.decode()
        [event] = door.engine.received
    assert (event.source, event.type) == ("ci", "com.example.build.finished")
    assert event.data == '{"component": "web", "result": "passed"}'


def test_every_request_that_is_shown_is_tested() -> None:
    assert len(REQUESTS) == 2
