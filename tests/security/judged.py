"""A node's files without a node: what its verifier says of a release, in this process."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from agent.verifier import __main__ as verifier
from tests.agent import bundles
from tests.security import repository


def bundle(component: str = "web", version: str = "1.0.0") -> bytes:
    manifest = bundles.MANIFEST.replace(b'"web"', f'"{component}"'.encode()).replace(b"1.0.0", version.encode())
    return bundles.bundle({**bundles.FILES, "instar.toml": manifest})


class Node:
    """State, configuration, and a pinned root."""

    def __init__(self, folder: Path, root: bytes) -> None:
        self.state = folder / "state"
        self.incoming = self.state / "incoming" / "trust"
        self.trust = self.state / "trust"
        self.config = folder / "agent.toml"
        self.pinned = folder / "root.json"
        for name in ("incoming", "releases", "components"):
            (self.state / name).mkdir(parents=True, exist_ok=True)
        self.pinned.write_bytes(root)
        (folder / "trust.toml").write_text('root = "root.json"\n')
        places = f'state_dir = "{self.state}"\nrun_dir = "/run/n1"\ntrust_file = "{folder}/trust.toml"\n'
        self.config.write_text(f'node_id = "n1"\n{places}')

    def verify(
        self, data: bytes, version: str = "1.0.0", component: str = "web", now: datetime | None = None
    ) -> dict[str, Any]:
        """Let the verifier look at a bundle, with the metadata that lies there."""
        asked = verifier.Asked(component, version, self.config, now or datetime.now(UTC))  # noqa: TID251  # the present
        document, code = verifier.answer(self.state, bundles.put(self.state, data), asked)
        assert code == (1 if "error" in document else 0)
        return cast("dict[str, Any]", json.loads(json.dumps(document)))

    def told(
        self,
        served: dict[str, bytes],
        data: bytes,
        version: str = "1.0.0",
        component: str = "web",
        now: datetime | None = None,
    ) -> str:
        """Fetch metadata and verify; "" where the release is let in, else the code of the refusal."""
        repository.lay(self.incoming, served)
        document = self.verify(data, version, component, now)
        if "error" not in document:
            assert document["trust"]["root"] >= 1
            return ""
        assert document["error"]["message"].startswith("cannot "), document
        assert not (self.state / "releases" / bundles.hex_of(data)).exists()
        return str(document["error"]["code"])

    def believe(self, served: dict[str, bytes], data: bytes) -> None:
        """Let a release in, and forget it; what vouched for it stays believed."""
        assert self.told(served, data) == ""
        shutil.rmtree(self.state / "releases" / bundles.hex_of(data))


def run_child(*arguments: str, within: tuple[str, ...] = ()) -> dict[str, dict[str, object]]:
    """What the verifier answers that runs as a process of its own, as on a node."""
    command = [*within, sys.executable, "-m", "agent.verifier", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    answer: dict[str, dict[str, object]] = json.loads(done.stdout)
    return answer
