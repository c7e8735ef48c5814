"""Private keys in files: made, kept for their owner's eyes alone, read again.

Rules kept: Ed25519, whose keys and signatures are short and the same everywhere; a file is made new and never written
over; where there is a passphrase the file is encrypted with it. Left out: keys in hardware, for which the metadata have
room: a role takes any kind of key that TUF knows.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from securesystemslib.signer import CryptoSigner

from controller.core import errors
from controller.trust import files

ID_CHARS = 8  # of a key's id in the name of its file: enough to tell a few keys apart
FILES_MAX = 256  # in one folder


def make(folder: Path, role: str, passphrase: bytes | None = None) -> CryptoSigner:
    """Make a key and keep it as ``ROLE-ID.pem``, which only its owner can read.

    Raises:
        FileExistsError: That file is there.
    """
    private = ed25519.Ed25519PrivateKey.generate()
    signer = CryptoSigner(private)
    way: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        way = serialization.BestAvailableEncryption(passphrase)
    content = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, way)
    path = folder / f"{role}-{signer.public_key.keyid[:ID_CHARS]}.pem"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    files.sync_folder(folder)
    return signer


def read(path: Path, passphrase: bytes | None = None) -> CryptoSigner:
    """Read a key.

    Raises:
        InvalidRequestError: Others can read the file too, or it cannot be read, or not with this passphrase.
    """
    try:
        with path.open("rb") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise _invalid(path, "a file that only its owner can read (chmod 600)")
            content = file.read()
        is_encrypted = b"ENCRYPTED" in content
        private = serialization.load_pem_private_key(content, passphrase if is_encrypted else None)
        if not isinstance(private, ed25519.Ed25519PrivateKey):
            raise _invalid(path, "an Ed25519 key")
        return CryptoSigner(private)
    except TypeError as fault:
        raise _invalid(path, "read with its passphrase") from fault
    except (OSError, ValueError) as fault:
        raise _invalid(path, f"a private key that can be read ({fault})") from fault


def read_folder(folder: Path, passphrase: bytes | None = None) -> Mapping[str, CryptoSigner]:
    """Every key of a folder, by its id.

    Raises:
        InvalidRequestError: One cannot be read, or there are more than FILES_MAX.
    """
    paths = sorted(folder.glob("*.pem"))
    if len(paths) > FILES_MAX:
        raise _invalid(folder, f"a folder with at most {FILES_MAX} keys")
    return by_id(read(path, passphrase) for path in paths)


def by_id(signers: Iterable[CryptoSigner]) -> Mapping[str, CryptoSigner]:
    """Signers by the ids of their keys."""
    return {signer.public_key.keyid: signer for signer in signers}


def _invalid(path: Path, rule: str) -> errors.InvalidRequestError:
    return errors.InvalidRequestError(
        f"cannot use key {str(path)!r}: it must be {rule}",
        code="key_invalid",
        field="key",
        value=str(path),
        rule=rule,
    )
