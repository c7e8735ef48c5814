"""Secrets that are planted, and the search for them in whatever form somebody may have written them down.

Rules kept: a secret is searched for as it is, in hexadecimal and in both alphabets of base64 at every offset, since
what is encoded may stand within something longer.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from pathlib import Path

_CHARS_OF_LAST_BYTES = 2  # of base64, which depend on what comes behind


def forms(secret: bytes) -> Iterator[bytes]:
    """Whatever stands for a secret."""
    yield secret
    yield secret.hex().encode()
    yield secret.hex().upper().encode()
    for offset in range(3):
        # Of the first group some bits are of what stands before, of the last one of what comes behind.
        shifted = bytes(offset) + secret
        begin = (0, 2, 3)[offset]
        for encode in (base64.standard_b64encode, base64.urlsafe_b64encode):
            yield encode(shifted).rstrip(b"=")[begin:-_CHARS_OF_LAST_BYTES]


def found(secret: bytes, text: bytes) -> bool:
    """Tell whether a text has a secret in it, in some form."""
    return any(form in text for form in forms(secret))


def files(root: Path, apart: Iterable[Path]) -> Iterator[Path]:
    """Every file under a folder but those that are there to hold secrets, and what is in their folders."""
    known = tuple(apart)
    for path in sorted(root.rglob("*")):
        is_apart = any(path == each or path.is_relative_to(each) for each in known)
        if path.is_file() and not path.is_symlink() and not is_apart:
            yield path
