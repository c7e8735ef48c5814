"""Files of signed metadata: their names, their bounds, what each may hold, and whose signatures it needs.

Rules kept: bytes stay as they came, so that the hashes and signatures of others stay true; what nodes would not take
is not taken here either; each component has one role, named as it is, and that role has one parent. Left out: which
file follows which (`succession`) and where they are kept (`folder`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Never

from cryptography.hazmat.primitives import serialization
from securesystemslib.signer import Key
from tuf.api.metadata import Metadata, Root, Signed, Snapshot, TargetFile, Targets, Timestamp
from tuf.api.serialization import DeserializationError

from controller.core import errors, versions

TOP_LEVEL = (Root.type, Timestamp.type, Snapshot.type, Targets.type)
EXPIRES_AFTER: Mapping[str, timedelta] = {
    Root.type: timedelta(days=365),
    Snapshot.type: timedelta(days=7),
    Timestamp.type: timedelta(days=1),  # so long a freeze can last that nobody notices
}
TARGETS_EXPIRE_AFTER = timedelta(days=90)  # the top-level targets, and each component's
BYTES_MAX: Mapping[str, int] = {Root.type: 512_000, Timestamp.type: 16_384, Snapshot.type: 2_000_000}
TARGETS_BYTES_MAX = 5_000_000  # these are the bounds of TUF's own client: nodes take no more
COMPONENTS_MAX = 1_000  # of one top-level targets file
TARGETS_MAX = 10_000  # of one component: a megabyte of metadata
VERSION_MAX = (1 << 53) - 1  # past it, JSON readers disagree about numbers
CUSTOM_VERSION = 1  # of what `custom` says under "instar"
NAME_RULE = "N.ROLE.json, where ROLE is root, targets or a component"
_NAME = re.compile(r"([1-9][0-9]{0,15})\.([A-Za-z0-9][A-Za-z0-9._-]{0,127})\.json")
_COMPONENT = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,38}[a-z0-9])?")  # as manifests have it

Delegator = Root | Targets


@dataclass(frozen=True, slots=True)
class File:
    """One file of metadata, as it came and as it reads.

    Args:
        role: The role that it speaks for.
        content: The very bytes.
        metadata: What they say; never changed.
    """

    role: str
    content: bytes
    metadata: Metadata[Any]

    @property
    def version(self) -> int:
        """Its version within the role."""
        return int(self.metadata.signed.version)

    @property
    def name(self) -> str:
        """The name that it is kept under."""
        return file_name(self.role, self.version)

    @property
    def expires_at(self) -> datetime:
        """The instant from which on it counts no longer."""
        expires: datetime = self.metadata.signed.expires
        return expires

    @property
    def root(self) -> Root:
        """What it says, of a root."""
        signed = self.metadata.signed
        assert isinstance(signed, Root)  # noqa: S101 `read` has seen to it
        return signed

    @property
    def targets(self) -> Targets:
        """What it says, of targets or a component."""
        signed = self.metadata.signed
        assert isinstance(signed, Targets)  # noqa: S101 `read` has seen to it
        return signed

    @property
    def snapshot(self) -> Snapshot:
        """What it says, of a snapshot."""
        signed = self.metadata.signed
        assert isinstance(signed, Snapshot)  # noqa: S101 `read` has seen to it
        return signed


def file_name(role: str, version: int) -> str:
    """The name of a file in a repository with consistent snapshots."""
    return f"{version}.{role}.json"


def parse_name(name: str) -> tuple[str, int]:
    """Role and version of a file.

    Raises:
        InvalidRequestError: The name breaks NAME_RULE.
    """
    found = _NAME.fullmatch(name)
    if found is None:
        raise invalid("name", name[:200], NAME_RULE)
    return found[2], int(found[1])


def read(name: str, content: bytes) -> File:
    """Read a file that may come from anybody; its signatures are not looked at.

    Raises:
        InvalidRequestError: Name, size, form or what it says is not as it must be.
    """
    role, version = parse_name(name)
    most = BYTES_MAX.get(role, TARGETS_BYTES_MAX)
    if len(content) > most:
        raise invalid("content", f"{len(content)} bytes of {name}", f"at most {most} bytes")
    try:
        metadata: Metadata[Any] = Metadata.from_bytes(content)
    except (DeserializationError, RecursionError) as fault:
        raise invalid("content", name, f"metadata of TUF ({fault.__cause__ or fault})") from fault
    kind = role if role in TOP_LEVEL else Targets.type
    signed: Signed = metadata.signed
    if signed.type != kind or signed.version != version or version > VERSION_MAX:
        raise invalid("content", f"{signed.type} {signed.version} in {name}", f"{kind} {version}, as its name says")
    file = File(role, content, metadata)
    _check_form(file)
    return file


def read_root(content: bytes) -> File:
    """Read a root whose version nobody has told.

    Raises:
        InvalidRequestError: It is none.
    """
    try:
        version = int(json.loads(content)["signed"]["version"])
    except (ValueError, KeyError, TypeError, RecursionError) as fault:
        raise invalid("content", "root.json", f"metadata of TUF ({fault})") from fault
    return read(file_name(Root.type, version), content)


def written(role: str, metadata: Metadata[Any]) -> File:
    """The file of some metadata of ours."""
    return File(role, metadata.to_bytes(), metadata)


def delegations(targets: Targets) -> Mapping[str, frozenset[str]]:
    """The components that a top-level targets file delegates to, with the ids of their keys."""
    if targets.delegations is None or targets.delegations.roles is None:
        return {}
    return {name: frozenset(role.keyids) for name, role in targets.delegations.roles.items()}


def key_ids(delegator: Delegator, role: str) -> frozenset[str]:
    """The ids of the keys that a role has by the word of its delegator; none where it delegates to no such role."""
    try:
        return frozenset(delegator.get_delegated_role(role).keyids)
    except ValueError:
        return frozenset()


def check_signed(file: File, delegator: Delegator) -> None:
    """See that enough different keys of a role have signed a file.

    Raises:
        RefusedError: Code ``metadata_unsigned``: below the threshold, or by keys that are not the role's.
    """
    try:
        found = delegator.get_verification_result(file.role, file.metadata.signed_bytes, file.metadata.signatures)
    except ValueError:
        _refuse_unsigned(file, "by a role that delegates to it")
    if len({key_material(key) for key in found.signed.values()}) < found.threshold:
        _refuse_unsigned(file, f"by {found.threshold} keys of {file.role}, not {len(found.signed)}")


def is_signed(file: File, delegator: Delegator) -> bool:
    """Tell whether enough keys have signed."""
    try:
        check_signed(file, delegator)
    except errors.RefusedError:
        return False
    return True


def key_material(key: Key) -> bytes:
    """What makes a key the key that it is, whatever it is called and however it is written.

    Raises:
        ValueError: It is of no kind that is taken.
    """
    public = key.keyval["public"]
    if key.keytype == "ed25519":
        return bytes.fromhex(public)
    loaded = serialization.load_pem_public_key(public.encode())
    return loaded.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def floor_of(component: Targets) -> str | None:
    """The version below which a component must not go any more: the highest floor of all its targets."""
    floors = [floor for target in component.targets.values() if (floor := floor_of_target(target)) is not None]
    return max(floors, key=versions.order, default=None)


def floor_of_target(target: TargetFile) -> str | None:
    """The floor that one target sets."""
    told = _custom(target).get("floor")
    return None if told is None else str(told)


def invalid(field: str, value: str, rule: str) -> errors.InvalidRequestError:
    """What is wrong with metadata in itself."""
    return errors.InvalidRequestError(
        f"cannot take {field} {value!r}: it must be {rule}",
        code="metadata_invalid",
        field=field,
        value=value,
        rule=rule,
    )


def refused(code: str, file: File, rule: str) -> errors.RefusedError:
    """What keeps well-formed metadata out; the code says which promise it would break."""
    return errors.RefusedError(
        f"cannot take {file.name}: it must be {rule}", code=code, field="name", value=file.name, rule=rule
    )


def _refuse_unsigned(file: File, rule: str) -> Never:
    raise refused("metadata_unsigned", file, f"signed {rule}")


def _check_form(file: File) -> None:
    if file.role == Root.type:
        _check_root(file)
    elif file.role == Targets.type:
        _check_top(file)
    elif file.role not in TOP_LEVEL:
        _check_component(file)


def _check_root(file: File) -> None:
    if not file.root.consistent_snapshot:
        raise invalid("content", file.name, "a root with consistent snapshots")
    for role in TOP_LEVEL:
        _check_keys(file, file.root, role)


def _check_top(file: File) -> None:
    """The top level names no bundle; it gives each component one role of its own."""
    targets = file.targets
    if targets.targets:
        raise invalid("content", file.name, "targets without bundles: these are in the roles of their components")
    if targets.delegations is None:
        return
    if targets.delegations.roles is None or len(targets.delegations.roles) > COMPONENTS_MAX:
        raise invalid("content", file.name, f"targets with at most {COMPONENTS_MAX} roles, each by name")
    for name, role in targets.delegations.roles.items():
        is_plain = role.paths == [f"{name}/*"] and role.terminating and not role.path_hash_prefixes
        if not _COMPONENT.fullmatch(name) or name in TOP_LEVEL or not is_plain:
            raise invalid(
                "content", f"{name} in {file.name}", "a component's role, terminating, with paths COMPONENT/*"
            )
        _check_keys(file, targets, name)


def _check_component(file: File) -> None:
    """A component's role delegates nothing, so that no role has two parents, and names only what is its own."""
    if file.targets.delegations is not None:
        raise invalid("content", file.name, "a component's role that delegates to no other: a role has one parent")
    if len(file.targets.targets) > TARGETS_MAX:
        raise invalid("content", f"{len(file.targets.targets)} targets in {file.name}", f"at most {TARGETS_MAX}")
    for path, target in file.targets.targets.items():
        component, _, version = path.partition("/")
        if component != file.role:
            raise invalid("content", f"{path} in {file.name}", f"{file.role}/VERSION")
        _check_target(file, target, version)


def _check_target(file: File, target: TargetFile, version: str) -> None:
    try:
        versions.parse(version)
        if (floor := floor_of_target(target)) is not None:
            versions.parse(floor)
    except errors.InvalidRequestError as fault:
        raise invalid("content", f"{target.path} in {file.name}", "named by SemVer, its floor too") from fault
    if not re.fullmatch(r"[0-9a-f]{64}", target.hashes.get("sha256", "")):
        raise invalid("content", f"{target.path} in {file.name}", "there with the sha256 of its bytes")
    if _custom(target).get("v", CUSTOM_VERSION) != CUSTOM_VERSION:
        raise invalid("content", f"{target.path} in {file.name}", f"one whose custom data are of form {CUSTOM_VERSION}")


def _custom(target: TargetFile) -> Mapping[str, Any]:
    custom = target.custom
    found = custom.get("instar", {}) if isinstance(custom, dict) else {}
    return found if isinstance(found, dict) else {}


def _check_keys(file: File, delegator: Delegator, role: str) -> None:
    """The keys of a role must be there and be different ones: one key under two names would count twice."""
    told = delegator.get_delegated_role(role)
    try:
        materials = {key_material(delegator.get_key(key_id)) for key_id in told.keyids}
    except (ValueError, KeyError, AttributeError, TypeError) as fault:
        raise invalid("content", f"a key of {role} in {file.name}", "one that can be read") from fault
    if len(materials) != len(told.keyids):
        raise refused("metadata_unsigned", file, f"one in which the keys of {role} are different keys")
    if len(materials) < told.threshold:
        raise refused("metadata_unsigned", file, f"one in which {role} has as many keys as its threshold")
