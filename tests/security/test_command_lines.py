"""What any user of a host can read: all command lines, while a node comes in as under `instar up` and in the demo."""

from __future__ import annotations

import contextlib
import re
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from controller.cli.demo import fleet

LOOK_SECONDS = 0.005  # between two looks: a command of ours lives a hundred times as long
JOIN_TOKEN = re.compile(r"instar1\.[0-9a-f]{16}\.")


class CommandLines:
    """All command lines that were seen while it was entered."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="command lines")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._is_over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._is_over.wait(LOOK_SECONDS):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    self.seen.add(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))


async def test_a_node_comes_in_and_no_join_token_stands_on_a_command_line(short_path: Path) -> None:
    controller = fleet.Controller(short_path / "controller", None, "1s", has_tls=True)
    node = fleet.Node("n-1", short_path / "node", controller)
    try:
        await controller.start()
        with CommandLines() as lines:
            await node.enrol()
    finally:
        await controller.stop()
    assert (node.state_dir / "identity" / "identity.json").exists()
    seen = [line for line in lines.seen if str(node.config_file) in line]
    assert any("instar-agent enroll - " in line for line in seen), seen
    assert [line for line in lines.seen if str(short_path) in line and JOIN_TOKEN.search(line)] == []
