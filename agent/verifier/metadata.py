"""The metadata that python-tuf believed, and what this project asks of it beyond the specification.

Rules kept here: each role has one parent: the targets delegate to components, components to nobody, so that no role is
believed by the keys of another (python-tuf looks at the keys of one parent only); a component is named by its own role
alone; one key under two names counts once; expiries are judged by a time that is handed in. Left out: whether it is
older than what was believed before (`floors`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tuf.api.metadata import DelegatedRole, Key, Metadata, Role, Root, Snapshot, Targets, Timestamp

from agent.verifier import floors, listing, updating
from agent.verifier.errors import VerificationError

TOP_LEVEL = ("root", "timestamp", "snapshot", "targets")


@dataclass(frozen=True, slots=True)
class Believed:
    """What follows from the pinned root.

    Args:
        component: Its name.
        path: Of the release that is looked for.
        role: The releases of the component; None where the targets do not name it.
    """

    component: str
    path: str
    root: Root
    timestamp: Timestamp
    snapshot: Snapshot
    targets: Targets
    role: listing.Listing | None

    def versions(self) -> Mapping[str, int]:
        """Version of each role."""
        return {name: signed.version for name, signed in self._signed().items()}

    def check(self, at: datetime) -> None:
        """Judge everything that python-tuf does not.

        Raises:
            VerificationError: It has expired by then (``metadata_expired``), or breaks a rule (``metadata_unsigned``).
        """
        for name, signed in self._signed().items():
            if signed.is_expired(at):
                rule = f"it expired at {signed.expires.isoformat()}, and it is {at.isoformat()}"
                raise VerificationError(f"cannot trust {name}: {rule}", code=updating.EXPIRED, field=name, rule=rule)
        for name, keys in self._keys():
            publics = [key.keyval["public"] for key in keys]
            if len(set(publics)) < len(publics):
                raise refused(name, "each of its keys counts once, whatever it is called")
        self._check_parents()

    def floors(self, pinned: Root) -> Mapping[str, floors.Floor]:
        """What will be the least from now on; the root's is kept under the keys of the pinned one."""
        roles: dict[str, Role] = {**self.root.roles, "root": pinned.roles["root"]}
        delegated = delegation(self.targets, self.component)
        if delegated is not None:
            roles[self.component] = delegated
        found = self.versions()
        return {name: floors.Floor(found[name], floors.key_set(roles[name].keyids)) for name in found}

    def _signed(self) -> Mapping[str, Root | Timestamp | Snapshot | Targets]:
        found: dict[str, Root | Timestamp | Snapshot | Targets] = {
            "root": self.root,
            "timestamp": self.timestamp,
            "snapshot": self.snapshot,
            "targets": self.targets,
        }
        return found if self.role is None else {**found, self.component: self.role.signed}

    def _keys(self) -> Iterator[tuple[str, list[Key]]]:
        for name in TOP_LEVEL:
            yield name, [self.root.keys[key_id] for key_id in self.root.roles[name].keyids]
        delegated, delegations = delegation(self.targets, self.component), self.targets.delegations
        if delegated is not None and delegations is not None:
            yield self.component, [delegations.keys[key_id] for key_id in delegated.keyids]

    def _check_parents(self) -> None:
        if self.targets.targets:
            raise refused("targets", "it names no releases itself, only components")
        delegated = delegation(self.targets, self.component)
        if delegated is not None and (not delegated.terminating or delegated.paths != [f"{self.component}/*"]):
            raise refused(self.component, f"it is asked for {self.component}/* alone, and nobody after it")
        if delegated is not None and self._first_asked() != self.component:
            raise refused(self.component, "no other role answers for its releases")
        if self.role is not None and self.role.signed.delegations is not None:
            raise refused(self.component, "it delegates to nobody, so that each role has one parent")

    def _first_asked(self) -> str:
        """The role that every client asks first for the release."""
        delegations = self.targets.delegations
        asked = delegations.get_roles_for_target(self.path) if delegations is not None else iter(())
        return next((name for name, _ in asked), "")


def delegation(targets: Targets, component: str) -> DelegatedRole | None:
    """The role of a component, as the targets name it."""
    roles = targets.delegations.roles if targets.delegations is not None else None
    return (roles or {}).get(component)


def load(directory: Path, source: updating.Fetched, component: str, path: str) -> Believed:
    """Read what python-tuf has just believed, and below it the role of a component among the fetched files.

    Args:
        directory: What python-tuf believes.
        source: The fetched files.
        component: Its name.
        path: Of the release that is looked for.

    Raises:
        VerificationError: The role of the component cannot be believed.
        OSError: The disk fails.
    """
    root = Metadata[Root].from_file(str(directory / "root.json")).signed
    timestamp = Metadata[Timestamp].from_file(str(directory / "timestamp.json")).signed
    snapshot = Metadata[Snapshot].from_file(str(directory / "snapshot.json")).signed
    targets = Metadata[Targets].from_file(str(directory / "targets.json")).signed
    is_named = delegation(targets, component) is not None
    role = listing.read(source, component, root, snapshot, targets) if is_named else None
    return Believed(component, path, root, timestamp, snapshot, targets, role)


def refused(name: str, rule: str) -> VerificationError:
    """Say which rule a role breaks."""
    return VerificationError(f"cannot trust {name}: {rule}", code=updating.UNSIGNED, field=name, rule=rule)
