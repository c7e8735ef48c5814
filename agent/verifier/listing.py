"""The releases of a component as its role signs them, read so that ten thousand of them cost little memory.

Rules kept here: python-tuf's own code judges length, hashes, and the threshold of signatures; what is signed is what
came, in canonical form, and never a copy of it; an entry becomes python-tuf's object only while it is looked at.
python-tuf's own client makes an object of each, and writes all of them twice for the signatures. Left out: the roles
above (`updating`), and which role may speak for a component (`metadata`).

Source: https://theupdateframework.github.io/specification/latest/#update-targets
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from securesystemslib import exceptions as signing
from securesystemslib import formats
from securesystemslib.signer import Signature
from tuf.api import exceptions
from tuf.api.metadata import Root, Snapshot, TargetFile, Targets
from tuf.api.serialization import DeserializationError

from agent.verifier import updating

BYTES_MAX = updating.TARGETS_BYTES_MAX  # where the snapshot does not say how long it is
MALFORMED = (ValueError, KeyError, TypeError, AttributeError, RecursionError, signing.Error)


@dataclass(frozen=True, slots=True)
class Listing:
    """What the role of a component says.

    Args:
        signed: All of it but the releases.
        entries: The releases by their paths, as they came.
    """

    signed: Targets
    entries: Mapping[str, dict[str, Any]]

    def target(self, path: str) -> TargetFile | None:
        """What it says of a release; None where it does not name it.

        Raises:
            VerificationError: It says it in a form that nobody can read.
        """
        return self._made(path) if path in self.entries else None

    def targets(self) -> Iterator[TargetFile]:
        """What it says of every release, one after another; raises as `target` does."""
        return map(self._made, self.entries)

    def _made(self, path: str) -> TargetFile:
        try:
            return TargetFile.from_dict(dict(self.entries[path]), path)
        except MALFORMED as error:
            raise updating.refused(updating.UNSIGNED, path, f"python-tuf can read it: {error}") from error


def read(source: updating.Fetched, component: str, root: Root, snapshot: Snapshot, targets: Targets) -> Listing:
    """Read and judge the role of a component, which the targets delegate to.

    Raises:
        VerificationError: It is missing, unsigned, or not the one that the snapshot names.
        OSError: The disk fails.
    """
    with updating.refusing(source):
        told = snapshot.meta.get(f"{component}.json")
        if told is None:
            raise exceptions.RepositoryError(f"the snapshot does not name {component}.json")
        name = f"{told.version}.{component}.json" if root.consistent_snapshot else f"{component}.json"
        data = source.download_bytes(updating.BASE_URL + name, told.length or BYTES_MAX)
        told.verify_length_and_hashes(data)
        found = _verified(data, component, targets)
        if found.signed.version != told.version:
            raise exceptions.BadVersionNumberError(f"it is version {told.version}, not {found.signed.version}")
        return found


def _verified(data: bytes, component: str, targets: Targets) -> Listing:
    try:
        document = json.loads(data)
        signed, signatures = document["signed"], {}
        for each in document["signatures"]:
            signature = Signature.from_dict(each)
            if signature.keyid in signatures:
                raise ValueError(f"key {signature.keyid} has signed twice")
            signatures[signature.keyid] = signature
        targets.verify_delegate(component, _canonical(signed), signatures)
        entries = signed.pop("targets")
        return Listing(Targets.from_dict({**signed, "targets": {}}), {**entries})
    except MALFORMED as error:
        raise DeserializationError(f"it cannot be read: {error}") from error


def _canonical(signed: dict[str, Any]) -> bytes:
    """What the keys have signed, written without a list of all its words."""
    text = io.StringIO()
    formats.encode_canonical(signed, text.write)
    return text.getvalue().encode()
