"""The three authorities on disk: one for agents, one for the controller's listeners, one for users of the API.

Rules kept: each kind has one that signs, and for a rotation a second one beside it: the new one is trusted first, then
it signs, then the old one is dropped, and between two steps lies as long as a certificate lives, so that at every
instant all who are connected trust each other; a key that signs no more is deleted in the same write; files are their
owner's alone and are replaced whole. Left out: what is issued (`certificates`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum, unique
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from controller.core import errors
from controller.trust import certificates, private_files, spiffe

_FORM = 1


@unique
class Kind(Enum):
    """Whose certificates an authority signs."""

    AGENTS = "agents"
    SERVERS = "servers"
    CLIENTS = "clients"


@unique
class Role(Enum):
    """What an authority does: it is trusted and will sign, it signs, it is still trusted."""

    NEXT = "next"
    SIGNING = "signing"
    RETIRED = "retired"


LIFETIMES: Mapping[Kind, timedelta] = {
    Kind.AGENTS: certificates.AGENT_LIFETIME,
    Kind.SERVERS: certificates.SERVER_LIFETIME,
    Kind.CLIENTS: certificates.CLIENT_LIFETIME,
}
# How long those who must trust an authority may take to hear of it, and holders of its certificates to have new ones.
TRUST_OVERLAPS: Mapping[Kind, timedelta] = {
    Kind.AGENTS: timedelta(),  # the controller alone must trust it, and reads its file at each new connection
    Kind.SERVERS: certificates.CLIENT_LIFETIME,  # agents hear of it when they renew, users with their next certificate
    Kind.CLIENTS: timedelta(),
}


@dataclass(frozen=True, slots=True)
class Authority:
    """One authority.

    Args:
        since: When it took its role.
        key: None once it signs no more.
    """

    role: Role
    since: datetime
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey | None


@dataclass(frozen=True, slots=True)
class Authorities:
    """All of them, as their files say."""

    domain: str
    of: Mapping[Kind, Sequence[Authority]]

    def signing(self, kind: Kind) -> certificates.Issuer:
        """The one that signs."""
        for each in self.of[kind]:
            if each.role is Role.SIGNING and each.key is not None:
                return certificates.Issuer(each.certificate, each.key)
        raise AssertionError(kind)  # `load` has seen to it

    def trusted(self, kind: Kind) -> tuple[x509.Certificate, ...]:
        """Those that are trusted, the one that signs first."""
        ranked = sorted(self.of[kind], key=lambda each: each.role is not Role.SIGNING)
        return tuple(each.certificate for each in ranked)

    def bundle(self, *kinds: Kind) -> str:
        """The same as PEM."""
        return "".join(certificates.pem(each) for kind in kinds for each in self.trusted(kind))


def create(folder: Path, domain: str, now: datetime) -> Authorities:
    """Make all three.

    Raises:
        InvalidRequestError: The domain cannot be one.
        RefusedError: There are some already.
    """
    spiffe.check_domain(domain)
    with private_files.locked(folder):
        if any(_file(folder, kind).exists() for kind in Kind):
            raise errors.RefusedError(
                f"cannot make authorities: there are some in {folder}",
                code="authorities_exist",
                field="state_dir",
                value=str(folder),
                rule="a folder without authorities; `instar ca rotate` replaces those that are there",
            )
        for kind in Kind:
            _write(folder, kind, domain, [_made(kind, domain, Role.SIGNING, now)])
    return load(folder)


def load(folder: Path) -> Authorities:
    """Read all three.

    Raises:
        NotFoundError: There are none.
        InvalidRequestError: A file cannot be read.
    """
    found = {kind: _read(_file(folder, kind)) for kind in Kind}
    domains = {domain for domain, _ in found.values()}
    if len(domains) != 1:
        raise _unreadable(folder, f"they are of several domains: {', '.join(sorted(domains))}")
    return Authorities(domains.pop(), {kind: known for kind, (_, known) in found.items()})


def fingerprint(folder: Path) -> tuple[object, ...]:
    """What tells one state of the files from the next; costs three looks at the disk."""
    return tuple(private_files.fingerprint(_file(folder, kind)) for kind in Kind)


def begin_rotation(folder: Path, kind: Kind, now: datetime) -> Authorities:
    """Make a new authority, which is trusted from now on and signs nothing yet.

    Raises:
        RefusedError: A rotation is under way.
    """

    def begun(domain: str, found: list[Authority]) -> list[Authority]:
        known = [each for each in found if each.certificate.not_valid_after_utc > now or each.role is Role.SIGNING]
        if len(known) != 1:
            raise _wrong_step(kind, "trust", f"{len(known)} authorities are trusted", "the rotation before is over")
        return [*known, _made(kind, domain, Role.NEXT, now)]

    return _change(folder, kind, begun)


def sign_with_new(folder: Path, kind: Kind, now: datetime, *, is_forced: bool = False) -> Authorities:
    """Let the new authority sign; the old one stays trusted, and its key is deleted.

    Raises:
        RefusedError: There is no new one, or it is not known everywhere yet.
    """

    def signed(_: str, known: list[Authority]) -> list[Authority]:
        old, new = _one(kind, known, Role.SIGNING), _find(known, Role.NEXT)
        if new is None:
            raise _wrong_step(kind, "sign", "there is no new authority", "`instar ca rotate KIND trust` comes first")
        _wait(kind, "sign", new.since + TRUST_OVERLAPS[kind], now, is_forced=is_forced)
        return [replace(new, role=Role.SIGNING, since=now), replace(old, role=Role.RETIRED, since=now, key=None)]

    return _change(folder, kind, signed)


def drop_old(folder: Path, kind: Kind, now: datetime, *, is_forced: bool = False) -> Authorities:
    """Trust the old authority no longer.

    Raises:
        RefusedError: There is no old one, or certificates of it may be in use.
    """

    def dropped(_: str, known: list[Authority]) -> list[Authority]:
        old = _find(known, Role.RETIRED)
        if old is None:
            raise _wrong_step(kind, "drop", "there is no old authority", "`instar ca rotate KIND sign` comes first")
        is_over = old.certificate.not_valid_after_utc <= now
        _wait(kind, "drop", old.since + LIFETIMES[kind], now, is_forced=is_forced or is_over)
        return [each for each in known if each is not old]

    return _change(folder, kind, dropped)


def _change(folder: Path, kind: Kind, step: Callable[[str, list[Authority]], list[Authority]]) -> Authorities:
    with private_files.locked(folder):
        known = load(folder)
        _write(folder, kind, known.domain, step(known.domain, list(known.of[kind])))
    return load(folder)


def _wait(kind: Kind, step: str, until: datetime, now: datetime, *, is_forced: bool) -> None:
    if now < until and not is_forced:
        fault = f"not all who need to have heard of it before {until.isoformat(timespec='seconds')}"
        raise _wrong_step(kind, step, fault, "so long after the step before, or --force")


def _made(kind: Kind, domain: str, role: Role, now: datetime) -> Authority:
    made = certificates.make_authority(kind.value, domain, now)
    return Authority(role, now, made.certificate, made.key)


def _find(known: Sequence[Authority], role: Role) -> Authority | None:
    return next((each for each in known if each.role is role), None)


def _one(kind: Kind, known: Sequence[Authority], role: Role) -> Authority:
    found = _find(known, role)
    if found is None:
        raise AssertionError(kind)
    return found


def _file(folder: Path, kind: Kind) -> Path:
    return folder / f"{kind.value}.json"


def _write(folder: Path, kind: Kind, domain: str, known: Sequence[Authority]) -> None:
    rows = [
        {
            "role": each.role.value,
            "since": each.since.isoformat(),
            "certificate": certificates.pem(each.certificate),
            "key": None if each.key is None else certificates.key_pem(each.key),
        }
        for each in known
    ]
    document = {"form": _FORM, "domain": domain, "authorities": rows}
    private_files.write(_file(folder, kind), json.dumps(document, indent=1) + "\n")


def _read(path: Path) -> tuple[str, tuple[Authority, ...]]:
    try:
        found = json.loads(path.read_text("utf-8"))
        known = tuple(_authority(row) for row in found["authorities"])
        domain, signing = str(found["domain"]), _find(known, Role.SIGNING)
    except FileNotFoundError as fault:
        raise errors.NotFoundError(
            f"cannot find the authorities: {path} is not there; `instar ca init` makes them",
            code="authorities_missing",
            field="state_dir",
            value=str(path.parent),
            rule="a folder that `instar ca init` has filled",
        ) from fault
    except (OSError, ValueError, KeyError, TypeError) as fault:
        raise _unreadable(path, str(fault)) from fault
    if found.get("form") != _FORM or signing is None or signing.key is None:
        raise _unreadable(path, "it names no authority that signs, or is of another form")
    return domain, known


def _authority(row: Mapping[str, Any]) -> Authority:
    key = serialization.load_pem_private_key(row["key"].encode(), None) if row["key"] else None
    if key is not None and not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("a key is not of P-256")  # it is told as unreadable
    role, since = Role(row["role"]), datetime.fromisoformat(row["since"])
    return Authority(role, since, certificates.read(row["certificate"]), key)


def _unreadable(path: Path, why: str) -> errors.InvalidRequestError:
    rule = "files that `instar ca` has written"
    return errors.InvalidRequestError(
        f"cannot read the authorities in {path}: {why}; they must be {rule}",
        code="authorities_unreadable",
        field="state_dir",
        value=str(path),
        rule=rule,
    )


def _wrong_step(kind: Kind, step: str, fault: str, rule: str) -> errors.RefusedError:
    return errors.RefusedError(
        f"cannot go on with the rotation of {kind.value}, step {step}: {fault}; what must be: {rule}",
        code="rotation_refused",
        field="step",
        value=step,
        rule=rule,
    )
