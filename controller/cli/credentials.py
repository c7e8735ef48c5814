"""What a command shows to a controller: a certificate, or a token.

Rules kept: certificates that are named come first, then a token file that is named, then what the local controller has
made for its operator; a token goes over TLS to a controller that the named authorities vouch for, and in the clear to a
loopback address alone. Left out: whether what is shown is any good, which the controller decides and `instar doctor`
explains.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from controller.cli import failures
from controller.config import settings
from controller.core import secret
from controller.trust import clients

CA_FILE, CERTIFICATE_FILE, KEY_FILE = "INSTAR_CA_FILE", "INSTAR_CERTIFICATE_FILE", "INSTAR_KEY_FILE"
_OPTIONS = {CA_FILE: "--ca-file", CERTIFICATE_FILE: "--certificate-file", KEY_FILE: "--key-file"}


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token.

    Args:
        roots: What the controller is checked against, as PEM, before the token is shown; None where it speaks no TLS.
    """

    text: secret.Secret[str]
    roots: bytes | None = None


@dataclass(frozen=True, slots=True)
class Files:
    """Where a certificate lies."""

    roots: Path
    certificate: Path
    key: Path

    def read(self) -> Certificates:
        """Read all three.

        Raises:
            CommandError: One cannot be read.
        """
        return Certificates(*(_bytes(_OPTIONS[name], path) for name, path in zip(_OPTIONS, self._all, strict=True)))

    @property
    def _all(self) -> tuple[Path, Path, Path]:
        return self.roots, self.certificate, self.key


@dataclass(frozen=True, slots=True)
class Certificates:
    """A certificate with its key, and what the controller is checked against, as PEM."""

    roots: bytes
    certificate: bytes
    key: bytes


def find(address: str, token_file: Path | None) -> Token | Certificates:
    """What to show to a controller.

    Raises:
        CommandError: It cannot be read, or must not be shown there.
    """
    found = files(os.environ, token_file)
    if found is not None:
        return found.read()
    authority = authority_file(os.environ)
    if authority is not None and token_file is not None:
        return Token(_token(token_file), _bytes(_OPTIONS[CA_FILE], authority))
    if not _is_loopback(address):
        rule = "a loopback address, or --ca-file be given for TLS: a token would go in the clear"
        raise failures.usage("--controller", address, rule)
    return Token(_token(token_file or settings.operator_token_file(_state_dir())))


def files(environment: Mapping[str, str], token_file: Path | None) -> Files | None:
    """Where the certificate lies that is shown; None where a token is shown.

    Raises:
        CommandError: Some of the files are named, and others are not.
    """
    named = {name: environment[name] for name in _OPTIONS if environment.get(name)}
    if len(named) == len(_OPTIONS):
        return Files(*(Path(named[name]) for name in _OPTIONS))
    is_token_over_tls = token_file is not None and list(named) == [CA_FILE]
    if named and not is_token_over_tls:
        missing = next(name for name in _OPTIONS if name not in named)
        rule = f"given, or {missing} be set, as the other two are; or --token-file, with --ca-file and nothing else"
        raise failures.usage(_OPTIONS[missing], "", rule)
    folder = settings.operator_certificate_dir(_state_dir())
    if token_file is None and (folder / clients.CERTIFICATE_NAME).exists():
        return of_folder(folder)
    return None


def authority_file(environment: Mapping[str, str]) -> Path | None:
    """What the controller is checked against; None where nothing is named."""
    return Path(environment[CA_FILE]) if environment.get(CA_FILE) else None


def of_folder(folder: Path) -> Files:
    """The files of a folder that `instar ca client` has written."""
    return Files(folder / clients.AUTHORITY_NAME, folder / clients.CERTIFICATE_NAME, folder / clients.KEY_NAME)


def _state_dir() -> Path:
    return Path(os.environ.get("INSTAR_STATE_DIR") or settings.default_state_dir(os.environ))


def _token(path: Path) -> secret.Secret[str]:
    try:
        return secret.Secret(path.read_text("ascii").strip())
    except (OSError, UnicodeDecodeError) as fault:
        why = fault.strerror if isinstance(fault, OSError) else "not ASCII"
        raise failures.usage("--token-file", str(path), f"a file with a token that can be read ({why})") from fault


def _bytes(option: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as fault:
        raise failures.usage(option, str(path), f"a file that can be read ({fault.strerror})") from fault


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].removeprefix("[").removesuffix("]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
