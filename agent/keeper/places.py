"""Where the keeper's files are: the run directory and the releases.

Rules kept here: every file of an instance is named by its id, so a new keeper finds all of them; a file that it
relies on is replaced whole or not at all. Left out: the agent's files.
"""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

FOLDER_MODE = 0o700  # control sockets and records are the keeper's own
SHARED_MODE = 0o711  # where others than the keeper's user run: what they may reach they know by name


@dataclass(frozen=True, slots=True)
class Places:
    """The directories of a node that the keeper knows.

    Args:
        config: The node's configuration, for users and secrets; None where it has none.
        agent_uid: The agent's user, who may reach sockets here; None where it is the keeper's own.
    """

    state: Path
    run: Path
    config: Path | None = None
    agent_uid: int | None = None

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
    def holds(self) -> Path:
        """Listeners that are held while nothing serves."""
        return self.run / "keeper.holds"

    @property
    def releases(self) -> Path:
        """The only place that programs are started from."""
        return self.state / "releases"

    @property
    def environments(self) -> Path:
        """Virtual environments of releases, each beside the file with its digest."""
        return self.state / "environments"

    def credentials(self, owner_id: str) -> Path:
        """Secrets of an instance or a task."""
        return self.run / f"{owner_id}.cred"

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

    def old_log(self, instance_id: str) -> Path:
        """What was the log before it was begun anew."""
        return self.run / f"{instance_id}.log.old"

    def forget(self, instance_id: str) -> None:
        """Remove every file of an instance."""
        for path in (self.record, self.control, self.probe, self.log, self.old_log):
            path(instance_id).unlink(missing_ok=True)
        remove_tree(self.credentials(instance_id))


def replace(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; durable against the keeper's death, and a boot makes it worthless anyway."""
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(content)
    os.replace(part, path)  # noqa: PTH105  # as the whole of this line: one rename


def remove_tree(folder: Path) -> None:
    """Remove a folder of files; none is fine."""
    with contextlib.suppress(FileNotFoundError):
        folder.chmod(FOLDER_MODE)
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
