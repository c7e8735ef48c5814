"""The register of principals: a file that only its owner reads, with what each was granted and the hash of its token.

Rules kept here: only hashes of tokens are stored, so that a stolen register opens no door and the time of a look-up
tells nothing; what is changed while the controller runs counts from the next call on; a file that cannot be read lets
nobody in. Left out: tokens of issuers (`issuers`), and what roles may do (`policies`).

One line for each: a JSON object; or ``<sha256 of the token> <kind> <name>`` as earlier versions wrote it, which of a
person or service means the role admin.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from controller.core import errors, roles, secret
from controller.rpc import principals
from controller.trust import private_files

TOKEN_BYTES = 32  # 256 bits: past guessing
NAME_RULE = "1 to 253 letters, digits, dots, dashes and underscores, beginning with a letter or digit"
DENIED = "principal_denied"  # code of the refusal of somebody who is known, and not to be let in
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")
_FOREIGN = re.compile(r"[a-z0-9._-]{1,63}:[!-~]{1,253}")  # of an issuer: it can be denied, and is not kept otherwise
_Key = tuple[principals.Kind, str]


@dataclass(frozen=True, slots=True)
class Entry:
    """One principal, as the register has it.

    Args:
        token_hash: Of its token; empty where it shows something else.
        denied_because: Why it is not let in; empty where it is.
    """

    principal: principals.Principal
    token_hash: str = ""
    denied_because: str = ""

    @property
    def key(self) -> _Key:
        """What tells it from all others."""
        return self.principal.kind, self.principal.name


@dataclass(frozen=True, slots=True)
class _Book:
    """All of the file."""

    entries: Mapping[_Key, Entry]
    by_token: Mapping[str, Entry]


class Register:
    """The file of principals.

    A principal has one token at a time: making another one ends the one before.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._book = _Book({}, {})
        self.revision = 0  # of what was read last
        self.heard: Callable[[tuple[Entry, ...]], None] | None = None  # told of each file that is read from now on

    # Changes.

    def make_token(self, principal: principals.Principal) -> secret.Secret[str]:
        """Make a token for a principal, and grant it what it comes with; durable before the token is returned.

        Raises:
            InvalidRequestError: The name breaks NAME_RULE.
        """
        _check_name(principal)
        token = secret.Secret(secrets.token_urlsafe(TOKEN_BYTES))
        with self._changed() as entries:
            entry = Entry(principal, hash_of(token))
            entries[entry.key] = entry
        return token

    def put(self, principal: principals.Principal) -> None:
        """Grant a principal what it comes with, and nothing else; it keeps its token, if it has one.

        Raises:
            InvalidRequestError: The name breaks NAME_RULE.
        """
        _check_name(principal)
        with self._changed() as entries:
            entry = Entry(principal)
            entries[entry.key] = replace(entries.get(entry.key, entry), principal=principal)

    def take_in(self, principal: principals.Principal) -> None:
        """Grant a principal what it comes with, unless the register grants it something already.

        Raises:
            InvalidRequestError: The name breaks NAME_RULE.
        """
        _check_name(principal)
        with self._changed() as entries:
            entry = entries.setdefault((principal.kind, principal.name), Entry(principal))
            if not entry.principal.grants:
                entries[entry.key] = replace(entry, principal=principal)

    def remove(self, kind: principals.Kind, name: str) -> None:
        """Forget a principal: its token ends, and so do its live streams.

        Raises:
            NotFoundError: Code ``principal_not_found``.
        """
        with self._changed() as entries:
            if entries.pop((kind, name), None) is None:
                raise _not_found(name)

    def deny(self, kind: principals.Kind, name: str, reason: str) -> None:
        """Let a principal in no longer, whatever it shows; also one that is not in the register.

        Raises:
            InvalidRequestError: Nobody can have that name.
        """
        principal = principals.Principal(kind, name)
        if not _FOREIGN.fullmatch(name):
            _check_name(principal)
        with self._changed() as entries:
            entry = entries.get((kind, name), Entry(principal))
            entries[entry.key] = replace(entry, denied_because=reason or "denied")

    def allow(self, kind: principals.Kind, name: str) -> None:
        """Let a principal in again with what it showed before.

        Raises:
            NotFoundError: Code ``principal_not_found``.
        """
        with self._changed() as entries:
            entry = entries.get((kind, name))
            if entry is None:
                raise _not_found(name)
            entries[entry.key] = replace(entry, denied_because="")

    # Questions.

    def entries(self) -> tuple[Entry, ...]:
        """All principals, by kind and name.

        Raises:
            UnavailableError: The file cannot be read.
        """
        self.refresh()
        return tuple(sorted(self._book.entries.values(), key=lambda one: (one.key[0].value, one.key[1])))

    def entry(self, kind: principals.Kind, name: str) -> Entry:
        """One principal.

        Raises:
            NotFoundError: Code ``principal_not_found``.
            UnavailableError: The file cannot be read.
        """
        self.refresh()
        found = self._book.entries.get((kind, name))
        if found is None:
            raise _not_found(name)
        return found

    def find(self, token: secret.Secret[str]) -> principals.Principal:
        """The principal that a token belongs to.

        Raises:
            UnauthenticatedError: Nobody's.
            RefusedError: It is denied.
            UnavailableError: The file cannot be read.
        """
        self.refresh()
        found = self._book.by_token.get(hash_of(token))  # the time of a look-up by hash tells nothing of the token
        if found is None:
            raise errors.UnauthenticatedError(
                "cannot let the caller in: the token is not one of this controller's",
                code="token_unknown",
                field="token",
                rule="a token that this controller made",
            )
        return self.checked(found.principal)

    def checked(self, principal: principals.Principal) -> principals.Principal:
        """A principal that showed who it is in whatever way, unless it is denied.

        One that comes with no grants has those of the register.

        Raises:
            RefusedError: It is denied.
            UnavailableError: The file cannot be read.
        """
        self.refresh()
        found = self._book.entries.get((principal.kind, principal.name))
        if found is None:
            return principal
        if found.denied_because:
            raise errors.RefusedError(
                f"cannot let {principal} in: {found.denied_because}",
                code=DENIED,
                field="token",
                value=principal.name,
                rule="a principal that is not denied",
            )
        return principal if principal.grants else replace(principal, grants=found.principal.grants)

    def refresh(self) -> None:
        """Read the file again where it is another one by now.

        Raises:
            UnavailableError: It cannot be read; then nobody is known.
        """
        seen = private_files.fingerprint(self._path)
        if seen == self._seen:
            return
        self._seen, self._book = None, _Book({}, {})
        entries = self._read()
        self._book = _Book(
            {one.key: one for one in entries}, {one.token_hash: one for one in entries if one.token_hash}
        )
        self._seen = seen
        self.revision += 1
        if self.heard is not None:
            self.heard(entries)

    @contextmanager
    def _changed(self) -> Iterator[dict[_Key, Entry]]:
        with private_files.locked(self._path):
            entries = {one.key: one for one in self._read()}
            yield entries
            private_files.write(self._path, "".join(map(_line, entries.values())))

    def _read(self) -> tuple[Entry, ...]:
        try:
            lines = self._path.read_text("utf-8").splitlines()
            return tuple(map(_entry, lines))
        except FileNotFoundError:
            return ()
        except (OSError, ValueError, KeyError, TypeError, errors.InvalidRequestError) as fault:
            raise errors.UnavailableError(
                f"cannot read the register of principals {self._path}: {fault}",
                code="register_unreadable",
                field="principals",
                rule="one principal on each line",
            ) from fault


def _entry(line: str) -> Entry:
    if not line.startswith("{"):
        token_hash, kind, name = line.split()
        known = principals.Kind(kind)
        granted = roles.WHOLE_FLEET_ADMIN if known is principals.Kind.API else ()
        return Entry(principals.Principal(known, name, granted), token_hash)
    told = json.loads(line)
    grants = tuple(roles.grant(one["role"], one.get("scope", "")) for one in told.get("grants", ()))
    principal = principals.Principal(principals.Kind(told["kind"]), told["name"], grants)
    return Entry(principal, told.get("token_sha256", ""), told.get("denied", ""))


def _line(entry: Entry) -> str:
    principal = entry.principal
    told: dict[str, object] = {"kind": principal.kind.value, "name": principal.name}
    if principal.grants:
        told["grants"] = list(map(_grant, principal.grants))
    if entry.token_hash:
        told["token_sha256"] = entry.token_hash
    if entry.denied_because:
        told["denied"] = entry.denied_because
    return json.dumps(told) + "\n"


def _grant(grant: roles.Grant) -> dict[str, str]:
    return {"role": grant.role.value} | ({"scope": grant.scope} if grant.scope else {})


def hash_of(token: secret.Secret[str]) -> str:
    """What is kept of a token."""
    return hashlib.sha256(token.reveal().encode()).hexdigest()


def _check_name(principal: principals.Principal) -> None:
    if not _NAME.fullmatch(principal.name):
        raise errors.InvalidRequestError(
            f"cannot take in a principal: name {principal.name!r} is not {NAME_RULE}",
            code="name_invalid",
            field="name",
            value=principal.name,
            rule=NAME_RULE,
        )


def _not_found(name: str) -> errors.NotFoundError:
    return errors.NotFoundError(
        f"cannot find principal {name!r}: it is not in the register",
        code="principal_not_found",
        field="name",
        value=name,
        rule="a principal of the register",
    )
