"""The signature over the sums: one of OpenSSH, which every host can verify, by an Ed25519 key.

Rules kept here: the key is only named, and ssh-keygen uses it: it may be a file with a passphrase, the public half of a
key in an agent, or one in a security key; the signature says what it is for, so that none made for another purpose
counts. Source: PROTOCOL.sshsig of OpenSSH.
"""

from __future__ import annotations

from pathlib import Path

from controller.packaging.distribution import programs
from controller.packaging.distribution.building import SIGNATURE, SUMS
from controller.packaging.distribution.errors import EXIT_USAGE, DistributionError

NAMESPACE = "instar-release"
KINDS = ("(ED25519)", "(ED25519-SK)")  # the second in a security key


def sign(folder: Path, key: Path) -> str:
    """Sign the sums of a folder.

    Args:
        folder: Where they lie, and the signature beside them.
        key: The private key, or the public half of one that an agent holds.

    Returns:
        The fingerprint of the key.

    Raises:
        DistributionError: The key cannot be used, or is of another kind.
    """
    fingerprint = check(key)
    (folder / SIGNATURE).unlink(missing_ok=True)  # ssh-keygen would ask
    programs.let_ask("ssh-keygen", "-q", "-Y", "sign", "-f", key, "-n", NAMESPACE, folder / SUMS)
    if not (folder / SIGNATURE).exists():
        raise DistributionError(f"cannot sign {folder / SUMS}: ssh-keygen has written no signature")
    return fingerprint


def check(key: Path) -> str:
    """See whether a key could sign, without its passphrase.

    Returns:
        Its fingerprint.

    Raises:
        DistributionError: It is no key, or of another kind.
    """
    if not key.is_file():
        raise DistributionError(f"cannot sign with {key}: there is no such file", exit_code=EXIT_USAGE)
    _, fingerprint, *_, kind = programs.said("ssh-keygen", "-l", "-f", key).split()
    if kind not in KINDS:
        raise DistributionError(
            f"cannot sign with {key}: it is {kind[1:-1]}, and must be Ed25519", exit_code=EXIT_USAGE
        )
    return fingerprint
