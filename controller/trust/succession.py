"""Which metadata may follow which: roots one by one, versions upwards, everything signed by whom the newest root says.

Rules kept: all that is put is taken, or none of it; a role's version goes down only where its keys and those of the
snapshot were changed, which is how a repository recovers from a thief who ran its versions up. Left out: snapshot and
timestamp, which nobody puts (`online`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime

from tuf.api.metadata import Root, Snapshot, Targets, Timestamp

from controller.core import errors
from controller.trust import metadata, repository


def succeed(before: repository.Repository, files: Iterable[metadata.File], now: datetime) -> repository.Repository:
    """The repository that comes of what is put; its snapshot and timestamp are those from before.

    Args:
        before: What is trusted now.
        files: What is put, in any order; what is there already changes nothing.
        now: What is newly taken must not have expired by then.

    Raises:
        InvalidRequestError: Code ``metadata_invalid``.
        RefusedError: Code ``metadata_unsigned``, ``metadata_missing``, ``metadata_rolled_back``, ``metadata_mixed`` or
            ``metadata_expired``.
    """
    put = list(files)
    roots = _walked(before.roots, (file for file in put if file.role == Root.type))
    others = _by_role(file for file in put if file.role != Root.type)
    after = replace(before, roots=roots)
    after = replace(after, targets=_targets(before, after.root, others))
    after = replace(after, components=_components(before, after, others))
    for file in after.signed_offline():
        if not _is_old(before, file):
            check_fresh(file, now)
    check_fresh(after.roots[-1], now)
    return after


def check(found: repository.Repository) -> None:
    """See that a repository is signed throughout, whatever the time is.

    Raises:
        RefusedError: It is not.
    """
    _walked(found.roots[:1], found.roots[1:])
    if found.targets is not None:
        metadata.check_signed(found.targets, found.root)
    for file in found.components.values():
        _check_component(found.targets, file)


def check_fresh(file: metadata.File, now: datetime) -> None:
    """See that a file has not expired.

    Raises:
        RefusedError: Code ``metadata_expired``.
    """
    if file.expires_at <= now:
        raise metadata.refused("metadata_expired", file, f"valid: it expired at {file.expires_at:%Y-%m-%dT%H:%M:%SZ}")


def _walked(known: tuple[metadata.File, ...], put: Iterable[metadata.File]) -> tuple[metadata.File, ...]:
    """The roots, each signed by those of the one before and by its own."""
    for file in sorted(put, key=lambda file: file.version):
        newest = known[-1]
        if file.version < known[0].version:
            continue  # from before what is trusted here; nothing hangs on it
        if file.version <= newest.version:
            _refuse_other(known[file.version - known[0].version], file)
            continue
        if file.version != newest.version + 1:
            raise metadata.refused("metadata_missing", file, f"preceded by {newest.version + 1}.root.json")
        metadata.check_signed(file, newest.root)
        metadata.check_signed(file, file.root)
        known = (*known, file)
    return known


def _by_role(files: Iterable[metadata.File]) -> Mapping[str, metadata.File]:
    found: dict[str, metadata.File] = {}
    for file in files:
        if file.role in (Snapshot.type, Timestamp.type):
            raise metadata.invalid("name", file.name, "of a role that people sign")
        if file.role in found:
            raise metadata.invalid("name", file.name, "the only file of its role, but for roots")
        found[file.role] = file
    return found


def _targets(before: repository.Repository, root: Root, put: Mapping[str, metadata.File]) -> metadata.File | None:
    file = put.get(Targets.type, before.targets)
    if file is None:
        return None
    metadata.check_signed(file, root)
    is_rekeyed = metadata.key_ids(before.root, Targets.type) != metadata.key_ids(root, Targets.type)
    _refuse_older(before, before.targets, file, may_go_back=is_rekeyed and _is_resealed(before, root))
    return file


def _components(
    before: repository.Repository, after: repository.Repository, put: Mapping[str, metadata.File]
) -> Mapping[str, metadata.File]:
    top = after.targets
    delegated = {} if top is None else metadata.delegations(top.targets)
    for role, file in put.items():
        if role != Targets.type and role not in delegated:
            raise metadata.refused("metadata_unsigned", file, "of a component that targets delegate to")
    found: dict[str, metadata.File] = {}
    for name, keys in delegated.items():
        one = put.get(name, before.components.get(name))
        if one is None:
            raise _missing(name)
        _check_component(top, one)
        keys_before = {} if before.top is None else metadata.delegations(before.top)
        may_go_back = keys_before.get(name) != keys and _is_resealed(before, after.root)
        _refuse_older(before, before.components.get(name), one, may_go_back=may_go_back)
        found[name] = one
    return found


def _check_component(top: metadata.File | None, file: metadata.File) -> None:
    if top is None:
        raise metadata.refused("metadata_unsigned", file, "delegated to by targets")
    metadata.check_signed(file, top.targets)


def _refuse_older(
    before: repository.Repository, known: metadata.File | None, file: metadata.File, *, may_go_back: bool
) -> None:
    """Refuse a version below the latest that was ever vouched for, and another file of the same version."""
    if known is not None and file.version == known.version:
        _refuse_other(known, file)
    floor = _vouched_version(before, file.role, known)
    if file.version < floor and not may_go_back:
        raise metadata.refused("metadata_rolled_back", file, f"of version {floor} or later")


def _vouched_version(before: repository.Repository, role: str, known: metadata.File | None) -> int:
    """Also of a role that is gone meanwhile, the snapshot remembers how far it came."""
    told = None if before.snapshot is None else before.snapshot.snapshot.meta.get(f"{role}.json")
    return max(0 if known is None else known.version, 0 if told is None else told.version)


def _is_resealed(before: repository.Repository, root: Root) -> bool:
    return metadata.key_ids(before.root, Snapshot.type) != metadata.key_ids(root, Snapshot.type)


def _is_old(before: repository.Repository, file: metadata.File) -> bool:
    """Told by the bytes: a file under the version of another one does not come this far."""
    return any(known.content == file.content for known in before.signed_offline())


def _refuse_other(known: metadata.File, file: metadata.File) -> None:
    """Two files of one version are one and the same, or somebody signed twice."""
    if known.content != file.content:
        raise metadata.refused("metadata_mixed", file, "the file that has this version already")


def _missing(component: str) -> errors.RefusedError:
    rule = "there for every component that targets delegate to"
    return errors.RefusedError(
        f"cannot take the metadata: that of {component} must be {rule}",
        code="metadata_missing",
        field="name",
        value=component,
        rule=rule,
    )
