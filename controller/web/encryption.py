"""TLS of the web side: the certificate of the controller's listeners, kept fresh while the server runs.

Rules kept: TLS 1.3 alone; connections that are made after a change see the new certificate, and none is cut. Left out:
certificates of callers, who show what `application` asks of them.
"""

from __future__ import annotations

import asyncio
import ssl
import tempfile
from pathlib import Path
from typing import Never

from controller.trust import listening

LOOK_SECONDS = 5.0  # between two looks whether the certificate is another one


def context(shown: listening.Shown) -> ssl.SSLContext:
    """How a connection is made."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    _load(made, shown)
    return made


async def keep_fresh(used: ssl.SSLContext, own: listening.Listening, shown: listening.Shown) -> Never:
    """Give the connections to come the certificate that holds now."""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        if (now := own.shown()) is not shown:
            _load(used, now)
            shown = now


def _load(used: ssl.SSLContext, shown: listening.Shown) -> None:
    """The only way in is a file, which lives in memory, as long as it is read, and is its owner's alone."""
    with tempfile.NamedTemporaryFile(dir=_folder()) as file:
        file.write((shown.key + shown.chain).encode())
        file.flush()
        used.load_cert_chain(file.name)


def _folder() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108  # names in it cannot be guessed
