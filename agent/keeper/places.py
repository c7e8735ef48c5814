"""Where the keeper's files are: the run directory and the releases.

Rules kept here: every file of an instance is named by its id, so a new keeper finds all of them; a file that it
relies on is replaced whole or not at all. Left out: the agent's files.
"""

import os
from dataclasses import dataclass
from pathlib import Path

FOLDER_MODE = 0o700  # control sockets and records are the keeper's own


@dataclass(frozen=True, slots=True)
class Places:
    """The two directories of a node that the keeper knows."""

    state: Path
    run: Path

    @property
    def socket(self) -> Path:
        """The keeper's own socket."""
        return self.run / "keeper.sock"

    @property
    def lock(self) -> Path:
        """Held for life, so that a run directory has one keeper."""
        return self.run / "keeper.lock"

    @property
    def marks(self) -> Path:
        """Marks and outcomes; not *.json, which are instances."""
        return self.run / "keeper.marks"

    @property
    def releases(self) -> Path:
        """The only place that programs are started from."""
        return self.state / "releases"

    def control(self, instance_id: str) -> Path:
        """Control socket of an instance."""
        return self.run / f"{instance_id}.ctl"

    def probe(self, instance_id: str) -> Path:
        """Private probe listener of an instance."""
        return self.run / f"{instance_id}.probe"

    def record(self, instance_id: str) -> Path:
        """What a new keeper needs to adopt an instance."""
        return self.run / f"{instance_id}.json"

    def log(self, instance_id: str) -> Path:
        """Standard output and error of an instance."""
        return self.run / f"{instance_id}.log"

    def forget(self, instance_id: str) -> None:
        """Remove every file of an instance."""
        for path in (self.record, self.control, self.probe, self.log):
            path(instance_id).unlink(missing_ok=True)


def replace(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; durable against the keeper's death, and a boot makes it worthless anyway."""
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(content)
    os.replace(part, path)  # noqa: PTH105  # as the whole of this line: one rename
