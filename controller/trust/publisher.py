"""A publisher's folder: keys, signed metadata, and the one change that is being signed.

    keys/        private keys, ROLE-ID.pem; they may as well lie elsewhere, each with its holder
    metadata/    what is signed: every root, and the newest file of each other role
    drafts/      a change that lacks signatures: it goes from holder to holder
    online/      what the controller gets: its two keys and the first root
    root.json    the first root, to pin on nodes

Rules kept: one change at a time; it counts once all its files are signed, by the same rules by which controllers take
them; a step that a crash cut short is finished or forgotten. Left out: what changes there are (`drafting`), and that
one command at a time works in a folder (`controller.cli`).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from securesystemslib.signer import CryptoSigner, Signer
from tuf.api.metadata import Metadata, Root, Targets

from controller.core import errors
from controller.trust import drafting, files, keeping, keys, metadata, repository, succession

KEYS_MAX = 16  # of one role: more people never meet
LOCK_NAME = ".lock"  # held by the command that works in the folder
ONLINE = "online"  # what the two roles that a controller signs are called together


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a draft is signed.

    Args:
        name: Its file.
        signatures: Keys of the role that have signed it; of a root, of the keys that lack most.
        threshold: So many are needed.
    """

    name: str
    signatures: int
    threshold: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a change.

    Args:
        stored: Files that are signed and count from now on; none where signatures are missing.
        standings: The drafts that wait for signatures.
    """

    stored: tuple[str, ...]
    standings: tuple[Standing, ...] = ()


@dataclass(frozen=True, slots=True)
class Numbers:
    """How many keys a role gets, and how many of them must sign."""

    keys: int
    threshold: int


class Publisher:
    """One folder.

    Args:
        path: The folder.
        now: The instant of the command.
    """

    def __init__(self, path: Path, now: datetime) -> None:
        self._path = path
        self._metadata = path / "metadata"
        self._next, self._last = path / ".metadata.next", path / ".metadata.last"
        self._now = now
        self._made: dict[str, Signer] = {}  # keys of this command
        self._finish()

    @property
    def keys_folder(self) -> Path:
        """Where its private keys lie, those that are here."""
        return self._path / "keys"

    def init(self, root: Numbers, targets: Numbers, passphrase: bytes | None = None) -> Outcome:
        """Make keys and the first metadata, signed with all of them.

        Raises:
            RefusedError: The folder holds something, code ``folder_used``.
            InvalidRequestError: A number is out of bounds.
        """
        _check_numbers("root", root)
        _check_numbers("targets", targets)
        if any(path.name != LOCK_NAME for path in self._path.glob("*")):
            raise _refused("folder_used", "DIR", str(self._path), "a new folder, or an empty one")
        for name in ("keys", "metadata", ONLINE):
            (self._path / name).mkdir(parents=True, exist_ok=True, mode=0o700)
        holders = {Root.type: self._make(Root.type, root, passphrase)}
        holders |= {Targets.type: self._make(Targets.type, targets, passphrase), **self._make_online()}
        drafts = drafting.first(holders, self._now)
        made = [_signed_by(file, drafts[0].root, None, self._made) for file in drafts]
        self._store(succession.succeed(repository.Repository((made[0],)), made, self._now))
        for place in (self._path, self._path / ONLINE):
            files.write(place / keeping.ROOT_NAME, made[0].content)
        return Outcome(tuple(file.name for file in made))

    def signers(self, passphrase: bytes | None = None) -> Mapping[str, CryptoSigner]:
        """The private keys that lie in the folder, by their ids."""
        return keys.read_folder(self.keys_folder, passphrase)

    def signed(self) -> repository.Repository:
        """What is signed.

        Raises:
            InvalidRequestError: The folder is none of a publisher, or something in it is not as it must be.
            RefusedError: A file is not signed as it must be.
        """
        found = _read(self._metadata)
        roots = sorted((file for file in found if file.role == Root.type), key=lambda file: file.version)
        first = keeping.read_root(self._path / keeping.ROOT_NAME)
        newest: dict[str, metadata.File] = {}
        for file in sorted(found, key=lambda file: file.version):
            newest[file.role] = file
        whole = repository.Repository(
            roots=tuple(roots) or (first,),
            targets=newest.get(Targets.type),
            components={role: file for role, file in newest.items() if role not in metadata.TOP_LEVEL},
        )
        if whole.roots[0].content != first.content:
            raise _refused("metadata_mixed", keeping.ROOT_NAME, str(self._path), "the first root of the metadata")
        succession.check(whole)
        return whole

    def drafts(self) -> tuple[metadata.File, ...]:
        """The change that waits for signatures; nothing where none does."""
        known = {file.name: file.metadata.signed for file in _read(self._metadata)}
        waiting = _read(self._path / "drafts")  # a crash may have left those that are signed by now
        return tuple(file for file in waiting if known.get(file.name) != file.metadata.signed)

    def propose(self, drafts: drafting.Drafts, signers: Mapping[str, Signer]) -> Outcome:
        """Begin a change, and sign it with the keys at hand.

        Raises:
            RefusedError: Another change waits, code ``draft_open``.
        """
        self._refuse_open()
        return self._sign(self.signed(), drafts, signers)

    def sign(self, signers: Mapping[str, Signer]) -> Outcome:
        """Sign the change that waits; it counts from then on where no signature is missing any more.

        Raises:
            NotFoundError: None waits.
            RefusedError: None of the keys has a say in it, code ``key_unknown``.
        """
        drafts = self.drafts()
        if not drafts:
            raise errors.NotFoundError(
                f"cannot sign: nothing in {self._path / 'drafts'} waits for signatures",
                code="draft_not_found",
                field="trust",
                value=str(self._path),
            )
        return self._sign(self.signed(), drafts, signers)

    def release(self, named: drafting.Named, signers: Mapping[str, Signer]) -> Outcome:
        """Name a release; where a draft names it already, sign that one.

        Raises:
            RefusedError: See `drafting.release`; or another change waits.
        """
        for file in self.drafts():
            known = file.targets.targets.get(named.path) if file.role == named.component else None
            if known is not None and known == named.target():
                return self.sign(signers)
        return self.propose(drafting.release(self.signed(), named, self._now), signers)

    def withdraw(self, component: str, version: str, signers: Mapping[str, Signer]) -> Outcome:
        """Name a release no longer.

        Raises:
            NotFoundError: It is not named.
            RefusedError: Another change waits.
        """
        return self.propose(drafting.withdraw(self.signed(), component, version, self._now), signers)

    def renew(self, roles: Sequence[str], signers: Mapping[str, Signer]) -> Outcome:
        """Let roles, or all of them, expire later.

        Raises:
            NotFoundError: One of the roles is not there.
            RefusedError: Another change waits.
        """
        return self.propose(drafting.renew(self.signed(), roles, self._now), signers)

    def rotate(
        self, role: str, wanted: Numbers | None, signers: Mapping[str, Signer], passphrase: bytes | None
    ) -> Outcome:
        """Give a role new keys, made in this folder; they sign at once, as do those from before that are at hand.

        Args:
            role: ``root``, ``targets``, ``online``, or a component.
            wanted: As many as the role has now where it is None; of online keys it is one of each in any case.
            signers: Keys from before.
            passphrase: Of the new keys.

        Raises:
            NotFoundError: There is no such role.
            RefusedError: Another change waits.
        """
        known = self.signed()
        self._refuse_open()
        if role == ONLINE:
            return self.propose(drafting.rotate_online(known, self._make_online(), self._now), signers)
        present = _numbers(known, role)
        numbers = wanted or present
        _check_numbers(role, numbers)
        holders = self._make(role, numbers, passphrase)
        if role == Root.type:
            drafts: drafting.Drafts = drafting.rotate_root(known, holders, self._now)
        elif role == Targets.type:
            drafts = drafting.rotate_targets(known, holders, self._now)
        else:
            drafts = drafting.rotate_component(known, role, holders, self._now)
        return self.propose(drafts, signers)

    def take(self, put: Iterable[tuple[str, bytes]]) -> tuple[str, ...]:
        """Take signed metadata from a controller, by the rules by which it took them itself.

        Returns:
            Names of those that were new.
        """
        known = self.signed() if any(self._metadata.glob("*.json")) else self._empty()
        read = [metadata.read(name, content) for name, content in put]
        after = succession.succeed(known, read, self._now)
        names = {file.name for file in known.signed_offline()}
        self._store(after)
        return tuple(file.name for file in after.signed_offline() if file.name not in names)

    def _empty(self) -> repository.Repository:
        for name in ("keys", "metadata"):
            (self._path / name).mkdir(parents=True, exist_ok=True, mode=0o700)
        return repository.Repository((keeping.read_root(self._path / keeping.ROOT_NAME),))

    def _sign(self, known: repository.Repository, drafts: drafting.Drafts, signers: Mapping[str, Signer]) -> Outcome:
        over, able = _overlaid(known, drafts), {**signers, **self._made}
        signed = [_signed_by(file, over.root, over.top, able, known.root) for file in drafts]
        if signers and drafts and all(new.content == old.content for new, old in zip(signed, drafts, strict=True)):
            raise _refused(
                "key_unknown", "key", ", ".join(sorted(signers)), "of a role that has yet to sign the drafts"
            )
        standings = tuple(_standing(file, over, known.root) for file in signed)
        if any(one.signatures < one.threshold for one in standings):
            self._keep_drafts(signed)
            return Outcome((), standings)
        self._store(succession.succeed(known, signed, self._now))
        shutil.rmtree(self._path / "drafts", ignore_errors=True)
        return Outcome(tuple(file.name for file in signed))

    def _keep_drafts(self, signed: drafting.Drafts) -> None:
        folder = self._path / "drafts"
        folder.mkdir(exist_ok=True, mode=0o700)
        for file in signed:
            files.write(folder / file.name, file.content)

    def _store(self, whole: repository.Repository) -> None:
        """Keep what is signed in the place of what was: a crash leaves the one or the other, whole."""
        shutil.rmtree(self._next, ignore_errors=True)
        self._next.mkdir(mode=0o700)
        for file in whole.signed_offline():
            files.write(self._next / file.name, file.content)
        shutil.rmtree(self._last, ignore_errors=True)
        self._metadata.rename(self._last)
        self._finish()
        shutil.rmtree(self._last)

    def _finish(self) -> None:
        """Put the next metadata where there are none: the second half of a step that a crash may have cut in two."""
        if not self._metadata.exists() and self._next.exists():
            self._next.rename(self._metadata)
            files.sync_folder(self._path)

    def _make(self, role: str, numbers: Numbers, passphrase: bytes | None) -> drafting.Holders:
        made = [keys.make(self.keys_folder, role, passphrase) for _ in range(numbers.keys)]
        self._made |= keys.by_id(made)
        return drafting.Holders([one.public_key for one in made], numbers.threshold)

    def _make_online(self) -> Mapping[str, drafting.Holders]:
        folder = self._path / ONLINE
        folder.mkdir(exist_ok=True, mode=0o700)
        return {role: drafting.Holders([keys.make(folder, role).public_key], 1) for role in drafting.ONLINE}

    def _refuse_open(self) -> None:
        if waiting := self.drafts():
            names = " and ".join(file.name for file in waiting)
            rule = f"begun once {names} has all signatures (`instar trust sign`), or was removed from drafts/"
            raise _refused("draft_open", "change", str(self._path), rule)


def _read(folder: Path) -> list[metadata.File]:
    return [metadata.read(path.name, path.read_bytes()) for path in sorted(folder.glob("*.json"))]


def _overlaid(known: repository.Repository, drafts: drafting.Drafts) -> repository.Repository:
    """What would be, were the drafts signed."""
    for file in drafts:
        if file.role == Root.type:
            known = replace(known, roots=(*known.roots, file))
        elif file.role == Targets.type:
            known = replace(known, targets=file)
        else:
            known = replace(known, components={**known.components, file.role: file})
    return known


def _delegators(
    file: metadata.File, root: Root, top: Targets | None, root_before: Root | None
) -> list[metadata.Delegator]:
    """Whose keys sign a file; a root is signed by those of the one before, too."""
    if file.role == Root.type:
        return [root] if root_before is None else [root, root_before]
    if file.role == Targets.type:
        return [root]
    return [] if top is None else [top]


def _signed_by(
    file: metadata.File,
    root: Root,
    top: Targets | None,
    signers: Mapping[str, Signer],
    root_before: Root | None = None,
) -> metadata.File:
    """The file with the signatures more that these keys can give."""
    wanted = {key for one in _delegators(file, root, top, root_before) for key in metadata.key_ids(one, file.role)}
    able = sorted(wanted & signers.keys() - file.metadata.signatures.keys())
    if not able:
        return file
    made = Metadata(file.metadata.signed, dict(file.metadata.signatures))
    for key_id in able:
        made.sign(signers[key_id], append=True)
    return metadata.written(file.role, made)


def _standing(file: metadata.File, over: repository.Repository, root_before: Root) -> Standing:
    found = [
        one.get_verification_result(file.role, file.metadata.signed_bytes, file.metadata.signatures)
        for one in _delegators(file, over.root, over.top, root_before)
    ]
    worst = max(found, key=lambda one: one.missing)
    return Standing(file.name, len(worst.signed), worst.threshold)


def _numbers(known: repository.Repository, role: str) -> Numbers:
    """How many keys a role has."""
    delegator = known.root if role in (Root.type, Targets.type) else known.top
    if delegator is None or not metadata.key_ids(delegator, role):
        raise _no_role(role)
    told = delegator.get_delegated_role(role)
    return Numbers(len(told.keyids), told.threshold)


def _check_numbers(role: str, numbers: Numbers) -> None:
    if not 1 <= numbers.threshold <= numbers.keys <= KEYS_MAX:
        rule = f"1 <= threshold <= keys <= {KEYS_MAX}"
        raise errors.InvalidRequestError(
            f"cannot give {role} {numbers.keys} keys of which {numbers.threshold} must sign: {rule}",
            code="threshold_invalid",
            field=f"{role}_threshold",
            value=str(numbers.threshold),
            rule=rule,
        )


def _no_role(role: str) -> errors.NotFoundError:
    return errors.NotFoundError(
        f"cannot give {role} new keys: it must be root, targets, online or a component with a release",
        code="role_not_found",
        field="role",
        value=role,
    )


def _refused(code: str, field: str, value: str, rule: str) -> errors.RefusedError:
    return errors.RefusedError(
        f"cannot go on with {field} {value!r}: it must be {rule}", code=code, field=field, value=value, rule=rule
    )
