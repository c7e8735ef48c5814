"""What a publisher changes: a release more or less, a later expiry, other keys. Each change is a set of unsigned files.

Rules kept: what is not to change stays as it is, unknown fields too; versions go up by one; whatever hangs on a key
that goes is signed anew with it, so that a change is whole. Left out: who signs, and where drafts lie (`publisher`).
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from securesystemslib.signer import Key
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    Role,
    Root,
    Signed,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from controller.core import errors, versions
from controller.trust import metadata, repository

ONLINE = (Snapshot.type, Timestamp.type)
Drafts = Sequence[metadata.File]


@dataclass(frozen=True, slots=True)
class Holders:
    """The keys of a role, and how many of them must sign."""

    keys: Sequence[Key]
    threshold: int


@dataclass(frozen=True, slots=True)
class Named:
    """A release as signed metadata name it.

    Args:
        digest: ``sha256:`` and 64 hexadecimal digits.
        floor: From this release on nodes go to none below it; None to leave that as it is.
    """

    component: str
    version: str
    digest: str
    size_bytes: int
    floor: str | None = None

    @property
    def path(self) -> str:
        """Its target path."""
        return f"{self.component}/{self.version}"

    def target(self) -> TargetFile:
        """What the metadata say of it."""
        told: dict[str, object] = {"v": metadata.CUSTOM_VERSION}
        told |= {} if self.floor is None else {"floor": self.floor}
        hashes = {"sha256": self.digest.removeprefix("sha256:")}
        return TargetFile(self.size_bytes, hashes, self.path, {"custom": {"instar": told}})


def first(holders: Mapping[str, Holders], now: datetime) -> Drafts:
    """The first root, and targets that name nothing yet.

    Args:
        holders: The keys of each of the four roles at the top.
        now: From it on the expiry counts.
    """
    found = Root(
        expires=_expiry(Root.type, now),
        keys={key.keyid: key for one in holders.values() for key in one.keys},
        roles={role: Role([key.keyid for key in one.keys], one.threshold) for role, one in holders.items()},
        consistent_snapshot=True,
    )
    return _file(Root.type, found), _file(Targets.type, Targets(expires=_expiry(Targets.type, now)))


def release(known: repository.Repository, named: Named, now: datetime) -> Drafts:
    """Name a release; the first of a component gives the component its role, with the keys of the targets.

    One that is named already is not named again.

    Raises:
        RefusedError: The version is named with other bytes, code ``release_exists``; or it is below the floor of its
            component, code ``release_below_floor``.
        InvalidRequestError: Its floor is above it, code ``floor_invalid``.
    """
    file = known.components.get(named.component)
    role = Targets() if file is None else copy.deepcopy(file.targets)
    _check_release(named, role)
    there = role.targets.get(named.path)
    if there is not None and named.floor in (None, metadata.floor_of_target(there)):
        return ()
    role.targets[named.path] = named.target()
    if file is not None:
        return (_next(file, role, now),)
    role.expires = _expiry(named.component, now)
    return _delegated(known, named.component, now), _file(named.component, role)


def withdraw(known: repository.Repository, component: str, version: str, now: datetime) -> Drafts:
    """Name a release no longer.

    A floor that it set goes with it, so where that was the highest, the release that stays highest takes it over.

    Raises:
        NotFoundError: It is not named.
    """
    file = known.components.get(component)
    path = f"{component}/{version}"
    if file is None or path not in file.targets.targets:
        raise errors.NotFoundError(
            f"cannot withdraw {component} {version}: the metadata do not name it",
            code="release_not_found",
            field="version",
            value=version,
        )
    role = copy.deepcopy(file.targets)
    floor = metadata.floor_of(role)
    del role.targets[path]
    if floor is not None and role.targets and metadata.floor_of(role) != floor:
        _hand_over(role, floor)
    return (_next(file, role, now),)


def renew(known: repository.Repository, roles: Collection[str], now: datetime) -> Drafts:
    """The same content with a later expiry.

    Args:
        known: What is signed.
        roles: Which; all where there is none.
        now: From it on the expiry counts.

    Raises:
        NotFoundError: One of the roles is not there.
    """
    latest = {file.role: file for file in known.signed_offline()}
    for role in roles:
        if role not in latest:
            raise _no_role(role)
    wanted = [latest[role] for role in latest if not roles or role in roles]
    return tuple(_next(file, copy.deepcopy(file.metadata.signed), now) for file in wanted)


def rotate_root(known: repository.Repository, holders: Holders, now: datetime) -> Drafts:
    """Other root keys: the next root has to be signed by enough of both."""
    return (_rekeyed(known, {Root.type: holders}, now),)


def rotate_online(known: repository.Repository, online: Mapping[str, Holders], now: datetime) -> Drafts:
    """Other keys of snapshot and timestamp."""
    return (_rekeyed(known, online, now),)


def rotate_targets(known: repository.Repository, holders: Holders, now: datetime) -> Drafts:
    """Other keys of the targets, and of every component that has the same ones; all of these are signed anew."""
    root = _rekeyed(known, {Targets.type: holders}, now)
    if known.targets is None:
        return (root,)
    old = metadata.key_ids(known.root, Targets.type)
    top = copy.deepcopy(known.targets.targets)
    followers = [name for name, ids in metadata.delegations(top).items() if ids == old]
    for name in followers:
        _give(top, name, holders)
    signed_anew = (
        _next(known.components[name], copy.deepcopy(known.components[name].targets), now) for name in followers
    )
    return root, _next(known.targets, top, now), *signed_anew


def rotate_component(known: repository.Repository, component: str, holders: Holders, now: datetime) -> Drafts:
    """Keys of its own for a component, in the place of those that it had.

    Raises:
        NotFoundError: No release of it was ever named.
    """
    if known.targets is None or component not in known.components:
        raise _no_role(component)
    top = copy.deepcopy(known.targets.targets)
    _give(top, component, holders)
    file = known.components[component]
    return _next(known.targets, top, now), _next(file, copy.deepcopy(file.targets), now)


def _check_release(named: Named, role: Targets) -> None:
    version, floor = named.version, metadata.floor_of(role)
    known = role.targets.get(named.path)
    if known is not None and f"sha256:{known.hashes['sha256']}" != named.digest:
        raise errors.RefusedError(
            f"cannot sign {named.component} {version}: it is named with digest sha256:{known.hashes['sha256']}",
            code="release_exists",
            field="digest",
            value=named.digest,
            rule="a version names the same bytes for ever",
        )
    if floor is not None and versions.is_lower(version, floor):
        raise errors.RefusedError(
            f"cannot sign {named.component} {version}: its component's floor is {floor}",
            code="release_below_floor",
            field="version",
            value=version,
            rule=f"{floor} or later",
        )
    if named.floor is not None and versions.is_lower(version, named.floor):
        raise errors.InvalidRequestError(
            f"cannot set floor {named.floor}: it is above {version}, which sets it",
            code="floor_invalid",
            field="floor",
            value=named.floor,
            rule=f"{version} or lower",
        )


def _hand_over(role: Targets, floor: str) -> None:
    path = max(role.targets, key=lambda path: versions.order(path.partition("/")[2]))
    target = role.targets[path]
    custom = dict(target.custom) if isinstance(target.custom, dict) else {}
    custom["instar"] = {"v": metadata.CUSTOM_VERSION} | custom.get("instar", {}) | {"floor": floor}
    target.unrecognized_fields["custom"] = custom


def _delegated(known: repository.Repository, component: str, now: datetime) -> metadata.File:
    """Targets that delegate to one component more."""
    if known.targets is None:
        raise _no_role(Targets.type)
    top = copy.deepcopy(known.targets.targets)
    role = known.root.roles[Targets.type]
    keys = [known.root.get_key(key_id) for key_id in role.keyids]
    _give(top, component, Holders(keys, role.threshold))
    return _next(known.targets, top, now)


def _give(top: Targets, component: str, holders: Holders) -> None:
    """Delegate to a component by these keys; keys that nobody uses any more go."""
    if top.delegations is None:
        top.delegations = Delegations(keys={}, roles={})
    roles = dict(top.delegations.roles or {})
    ids = [key.keyid for key in holders.keys]
    roles[component] = DelegatedRole(component, ids, holders.threshold, terminating=True, paths=[f"{component}/*"])
    keys = {**top.delegations.keys, **{key.keyid: key for key in holders.keys}}
    top.delegations.keys = _used(keys, roles.values())
    top.delegations.roles = roles


def _rekeyed(known: repository.Repository, holders: Mapping[str, Holders], now: datetime) -> metadata.File:
    root = copy.deepcopy(known.root)
    for role, one in holders.items():
        root.roles[role] = Role([key.keyid for key in one.keys], one.threshold)
        root.keys |= {key.keyid: key for key in one.keys}
    root.keys = _used(root.keys, root.roles.values())
    return _next(known.roots[-1], root, now)


def _used(keys: Mapping[str, Key], roles: Iterable[Role]) -> dict[str, Key]:
    ids = {key_id for role in roles for key_id in role.keyids}
    return {key_id: key for key_id, key in keys.items() if key_id in ids}


def _next(file: metadata.File, changed: Signed, now: datetime) -> metadata.File:
    changed.version = file.version + 1
    changed.expires = _expiry(file.role, now)
    return _file(file.role, changed)


def _file(role: str, signed: Signed) -> metadata.File:
    made: Metadata[Any] = Metadata(signed)
    return metadata.written(role, made)


def _expiry(role: str, now: datetime) -> datetime:
    return now.replace(microsecond=0) + metadata.EXPIRES_AFTER.get(role, metadata.TARGETS_EXPIRE_AFTER)


def _no_role(role: str) -> errors.NotFoundError:
    return errors.NotFoundError(
        f"cannot find role {role}: the metadata have none of that name", code="role_not_found", field="role", value=role
    )
