"""A publisher of signed releases for tests, with all its keys in one hand: also what no honest one would make.

Rules kept: every file that was ever made is kept, so that it can be replayed; nothing is judged here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from securesystemslib import formats
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

LIFETIMES = {"root": timedelta(days=365), "snapshot": timedelta(days=7), "timestamp": timedelta(days=1)}
LIFETIME = timedelta(days=90)  # of targets and components
ONLINE = ("snapshot", "timestamp")


def signers(count: int) -> list[CryptoSigner]:
    return [CryptoSigner.generate_ed25519() for _ in range(count)]


class Repository:
    """Two of three keys sign root and targets; a component is signed by the targets' keys unless it has its own."""

    def __init__(self, *components: str, at: datetime | None = None) -> None:
        self.at = at or datetime.now(UTC)  # noqa: TID251  # tests live at the present
        self.signers: dict[str, Sequence[CryptoSigner]] = {"root": signers(3), "targets": signers(3)}
        self.signers |= {role: signers(1) for role in ONLINE}
        self.metadata: dict[str, Metadata[Any]] = {
            "root": Metadata(Root(consistent_snapshot=True)),
            "targets": Metadata(Targets(delegations=Delegations({}, {}))),
            "snapshot": Metadata(Snapshot()),
            "timestamp": Metadata(Timestamp()),
        }
        self.made: dict[str, bytes] = {}
        self.has_hashes = False  # whether length and hash of each file are said where its version is
        for role in ("root", "targets", *ONLINE):
            self._name_keys(role)
        for component in components:
            self.delegate(component)
        for role in ("root", "targets", *components):
            self.commit(role, is_first=True)
        self.metadata["snapshot"].signed.version = self.metadata["timestamp"].signed.version = 0
        self.refresh()

    @property
    def root(self) -> bytes:
        """The first root, which nodes pin."""
        return self.made["1.root.json"]

    def version(self, role: str) -> int:
        version: int = self.metadata[role].signed.version
        return version

    def delegate(self, component: str, *, keys: Sequence[CryptoSigner] | None = None, threshold: int = 2) -> None:
        """Give a component a role in the targets."""
        self.signers[component] = keys or self.signers["targets"]
        self.metadata.setdefault(component, Metadata(Targets()))
        delegations = self.metadata["targets"].signed.delegations
        role = DelegatedRole(component, [], threshold, terminating=True, paths=[f"{component}/*"])
        delegations.roles[component] = role
        for signer in self.signers[component]:
            delegations.keys[signer.public_key.keyid] = signer.public_key
            role.keyids.append(signer.public_key.keyid)

    def add(self, component: str, version: str, data: bytes, *, floor: str = "", role: str = "") -> None:
        """Name a release in the role of its component, or in another; `release` signs too."""
        told: dict[str, object] = {"v": 1, "floor": floor} if floor else {"v": 1}
        path = f"{component}/{version}"
        hashes = {"sha256": hashlib.sha256(data).hexdigest()}
        target = TargetFile(len(data), hashes, path, {"custom": {"instar": told}})
        self.metadata[role or component].signed.targets[path] = target

    def release(self, component: str, version: str, data: bytes, *, floor: str = "") -> None:
        """Sign a release, and let the controller serve it."""
        self.add(component, version, data, floor=floor)
        self.commit(component)
        self.refresh()

    def withdraw(self, component: str, version: str) -> None:
        del self.metadata[component].signed.targets[f"{component}/{version}"]
        self.commit(component)
        self.refresh()

    def commit(
        self,
        role: str,
        *,
        by: Iterable[CryptoSigner] | None = None,
        lifetime: timedelta | None = None,
        is_first: bool = False,
    ) -> None:
        """Make the next version of a role and sign it, with all its keys but one unless told otherwise."""
        signed = self.metadata[role].signed
        signed.version += 0 if is_first else 1
        signed.expires = self.at + (lifetime or LIFETIMES.get(role, LIFETIME))
        signed.expires = signed.expires.replace(microsecond=0)
        self.sign(role, by)

    def sign(self, role: str, by: Iterable[CryptoSigner] | None = None) -> None:
        """Sign a role as it is, and keep the file."""
        metadata = self.metadata[role]
        metadata.signatures.clear()
        for signer in self.enough(role) if by is None else by:
            metadata.sign(signer, append=True)
        self.keep(role)

    def keep(self, role: str) -> None:
        name = f"{role}.json" if role == "timestamp" else f"{self.version(role)}.{role}.json"
        self.made[name] = self.made[f"{self.version(role)}.{role}.json"] = self.metadata[role].to_bytes()

    def enough(self, role: str) -> Sequence[CryptoSigner]:
        """As many keys of a role as it takes."""
        held = self.signers[role]
        return held[: max(1, len(held) - 1)]

    def refresh(self, *, lifetime: timedelta | None = None) -> None:
        """Do what the controller does with its online keys."""
        meta = {f"{role}.json": self.told(role) for role in self.metadata if role not in ("root", *ONLINE)}
        self.metadata["snapshot"].signed.meta = meta
        self.commit("snapshot", lifetime=lifetime)
        self.metadata["timestamp"].signed.snapshot_meta = self.told("snapshot")
        self.commit("timestamp", lifetime=lifetime)

    def rotate(self, *roles: str, by: Iterable[CryptoSigner] | None = None) -> None:
        """Give roles new keys, in one new root that the old and the new root keys sign."""
        before = self.enough("root")
        for role in roles:
            for key_id in list(self.metadata["root"].signed.roles[role].keyids):
                self.metadata["root"].signed.revoke_key(key_id, role)
            self.signers[role] = signers(len(self.signers[role]))
            self._name_keys(role)
        after = self.enough("root") if "root" in roles else []
        self.commit("root", by=[*before, *after] if by is None else by)

    def served(self, component: str, root_version: int = 1) -> dict[str, bytes]:
        """What a controller answers to ReadTrust."""
        return {name: self.made[name] for name in self.served_names(component, root_version)}

    def served_names(self, component: str, root_version: int = 1) -> list[str]:
        roots = range(root_version + 1, self.version("root") + 1)
        names = [f"{version}.root.json" for version in roots]
        roles = [role for role in ("snapshot", "targets", component) if role in self.metadata]
        return [*names, "timestamp.json", *(f"{self.version(role)}.{role}.json" for role in roles)]

    def rewrite(self, name: str, change: Callable[[dict[str, Any]], object], by: Iterable[CryptoSigner] = ()) -> None:
        """Change a file as JSON, to what python-tuf would not write; it is signed anew where keys are given."""
        document = json.loads(self.made[name])
        change(document)
        if by:
            text = str(formats.encode_canonical(document["signed"])).encode()
            document["signatures"] = [signer.sign(text).to_dict() for signer in by]
        self.made[name] = json.dumps(document).encode()

    def told(self, role: str) -> MetaFile:
        """What is said of the newest file of a role."""
        if not self.has_hashes:
            return MetaFile(self.version(role))
        data = self.made[f"{self.version(role)}.{role}.json"]
        return MetaFile(self.version(role), len(data), {"sha256": hashlib.sha256(data).hexdigest()})

    def _name_keys(self, role: str) -> None:
        for signer in self.signers[role]:
            self.metadata["root"].signed.add_key(signer.public_key, role)
        self.metadata["root"].signed.roles[role].threshold = max(1, len(self.signers[role]) - 1)


def lay(folder: Path, files: dict[str, bytes]) -> None:
    """Put files into a folder, in the place of what is there."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    for name, content in files.items():
        (folder / name).write_bytes(content)
