"""`python -m tests.security.warm`: the verifier's child for each line of arguments, forked from what is loaded already.

Rules kept: each judgement has a process of its own, as under the keeper, and is the verifier's real `main`; only the
start of Python, which takes longer than all else, is shared.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

from agent.verifier import __main__ as verifier
from agent.verifier import vouching  # noqa: F401  # what it brings is loaded once
from tests.agent import bundles
from tests.security import judged, repository


class Verifiers:
    """A process that forks the children; ends with the block."""

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", __name__]
        self._parent = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._parent.communicate()

    def judge(self, *arguments: str) -> dict[str, Any]:
        """What a child answers to its arguments."""
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        self._parent.stdin.write(json.dumps(arguments) + "\n")
        self._parent.stdin.flush()
        answer = self._parent.stdout.readline()
        code = int(self._parent.stdout.readline()) if answer.startswith("{") else int(answer)
        document: dict[str, Any] = json.loads(answer)
        assert code == (1 if "error" in document else 0)
        return document


class Client(judged.Node):
    """The client of a node: its files, and a child for each judgement."""

    def __init__(self, folder: Path, root: bytes, children: Verifiers) -> None:
        super().__init__(folder, root)
        self._children = children

    def judges(self, served: dict[str, bytes], data: bytes, version: str = "1.0.0", component: str = "web") -> str:
        """Lay the metadata down as fetched, and ask before the bundle is; "" where it vouches, else the code."""
        repository.lay(self.incoming, served)
        arguments = [str(self.state), bundles.hex_of(data), str(self.config), component, version]
        return _code(self._children.judge(verifier.VOUCH, *arguments))

    def takes(self, served: dict[str, bytes], wanted: bytes, got: bytes, version: str = "1.0.0") -> str:
        """Take a bundle that was fetched; "" where it was unpacked, else the code."""
        repository.lay(self.incoming, served)
        digits = bundles.hex_of(wanted)
        (self.state / "incoming" / digits).write_bytes(got)
        code = _code(self._children.judge(str(self.state), digits, str(self.config), "web", version))
        assert (self.state / "releases" / digits).is_dir() == (code == "")
        return code

    def takes_again(self, served: dict[str, bytes], data: bytes, version: str = "1.0.0") -> str:
        """Ask for a release that is unpacked already."""
        repository.lay(self.incoming, served)
        return _code(self._children.judge(str(self.state), bundles.hex_of(data), str(self.config), "web", version))

    def believed(self) -> dict[str, int]:
        """Version of each role that it keeps."""
        found = {path.stem: json.loads(path.read_bytes()) for path in (self.trust / "metadata").glob("*.json")}
        return {role: document["signed"]["version"] for role, document in found.items()}


def _code(document: dict[str, Any]) -> str:
    return str(document["error"]["code"]) if "error" in document else ""


def main() -> None:
    """Fork a child for each line."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            code = os.EX_SOFTWARE
            try:
                code = verifier.main(json.loads(line))
            finally:
                sys.stdout.flush()
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        sys.stdout.write(f"{code}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
