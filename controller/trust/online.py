"""What a controller signs itself: which files belong together, and that nothing newer is known.

Rules kept: these keys vouch for freshness and for nothing else; a snapshot forgets no role, since nodes hold that
against it, until its keys are changed. Versions go with the clock, and always upwards: a controller that lost its state
and got its metadata anew goes on above what nodes have seen. Left out: when it is signed (`keeping`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from securesystemslib.signer import Signer
from tuf.api.metadata import Metadata, MetaFile, Snapshot, Timestamp

from controller.core import errors
from controller.trust import metadata, repository


def signed(offline: repository.Repository, signers: Mapping[str, Signer], now: datetime) -> repository.Repository:
    """The same repository with a new snapshot and a new timestamp; without targets, as it is.

    Args:
        offline: Its snapshot and timestamp are those from before.
        signers: By the ids of their keys.
        now: From it on the new files are valid.

    Raises:
        UnavailableError: Code ``online_key_missing``: the keys are fewer than the root asks for.
    """
    if offline.targets is None:
        return offline
    snapshot = _signed(offline, Snapshot.type, _snapshot(offline, now), signers)
    timestamp = _signed(offline, Timestamp.type, _timestamp(offline, snapshot, now), signers)
    return replace(offline, snapshot=snapshot, timestamp=timestamp)


def _snapshot(offline: repository.Repository, now: datetime) -> Snapshot:
    known = offline.snapshot
    is_followed = known is not None and metadata.is_signed(known, offline.root)  # else its keys were changed
    meta = dict(known.snapshot.meta) if known is not None and is_followed else {}
    for file in (offline.targets, *offline.components.values()):
        if file is not None:
            meta[f"{file.role}.json"] = _told(file)
    return Snapshot(_next_version(known, now), expires=_expiry(Snapshot.type, now), meta=meta)


def _timestamp(offline: repository.Repository, snapshot: metadata.File, now: datetime) -> Timestamp:
    version = _next_version(offline.timestamp, now)
    return Timestamp(version, expires=_expiry(Timestamp.type, now), snapshot_meta=_told(snapshot))


def _told(file: metadata.File) -> MetaFile:
    return MetaFile.from_data(file.version, file.content, ["sha256"])


def _next_version(known: metadata.File | None, now: datetime) -> int:
    return max(1 if known is None else known.version + 1, int(now.timestamp()))


def _expiry(role: str, now: datetime) -> datetime:
    return now.replace(microsecond=0) + metadata.EXPIRES_AFTER[role]


def _signed(
    offline: repository.Repository, role: str, what: Snapshot | Timestamp, signers: Mapping[str, Signer]
) -> metadata.File:
    told = offline.root.roles[role]
    made: Metadata[Any] = Metadata(what)
    for key_id in told.keyids:
        if key_id in signers:
            made.sign(signers[key_id], append=True)
    if len(made.signatures) < told.threshold:
        raise errors.UnavailableError(
            f"cannot sign the {role}: trust_dir holds {len(made.signatures)} of the {told.threshold} keys that"
            f" {offline.roots[-1].name} asks for",
            code="online_key_missing",
            field="trust_dir",
            value=role,
            rule="a private key for each of the online roles",
        )
    return metadata.written(role, made)
