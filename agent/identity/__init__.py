"""What this node shows and trusts: one file of its owner alone, read here and written by the disposable child.

Rules kept: certificate, key and authorities change together, by one rename; no cryptography in this process: what
the certificate says stands beside it, as the child has read it. Left out: keys and certificates themselves (`child`).
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from agent.config.errors import ConfigError

FILE_NAME = "identity.json"
NEXT_KEY_NAME = "next.key"
_FORBIDDEN_MODE = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, slots=True)
class Identity:
    """What a node shows and trusts, as PEM, and what its certificate says.

    Args:
        name: The SPIFFE name in the certificate.
        serial: How many certificates the node has had.
        issued_at: When it came, by the clock of this host.
        enrol_address: Where nodes without a good certificate are answered.
    """

    node_id: str
    name: str
    serial: int
    issued_at: datetime
    not_after: datetime
    enrol_address: str
    certificate: str
    key: str
    authorities: str


def folder(state_dir: Path) -> Path:
    """Where it lies."""
    return state_dir / "identity"


def exists(state_dir: Path) -> bool:
    """Tell whether this node has been taken in."""
    return (folder(state_dir) / FILE_NAME).exists()


def load(state_dir: Path) -> Identity:
    """Read it.

    Raises:
        ConfigError: It cannot be read, or others can read it too.
    """
    path = folder(state_dir) / FILE_NAME
    try:
        with path.open(encoding="utf-8") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            found = json.load(file)
        dates = {name: datetime.fromisoformat(found[name]) for name in ("issued_at", "not_after")}
        known = Identity(**{**found, **dates})
    except (OSError, ValueError, KeyError, TypeError) as error:
        rule = "a file that `instar-agent enrol` has written"
        raise ConfigError(f"cannot read the identity {path}: {error}", field="identity", rule=rule) from error
    if mode & _FORBIDDEN_MODE:
        rule = f"nobody but its owner may read it (mode 0600, not {mode:04o})"
        raise ConfigError(f"cannot use the identity {path}: {rule}", field="identity", value=str(path), rule=rule)
    return known
