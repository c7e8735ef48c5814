"""What the controller's own listeners show and trust: made anew as certificates age and authorities are rotated.

Rules kept: nothing is restarted: each new connection asks, from a thread of gRPC's, and is answered within
microseconds where nothing has changed; the key of a listener is never written anywhere; where the files cannot be read
the last good answer stays. Left out: what a caller's certificate says (`peers`).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from controller import clock
from controller.core import errors
from controller.trust import authorities, certificates

_K = authorities.Kind
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Shown:
    """What a listener shows and trusts, as PEM.

    Args:
        chain: Its certificate, and the authorities that are trusted for such, from which a join token picks by hash.
        callers: Authorities whose certificates callers may show.
    """

    known: authorities.Authorities
    chain: str
    key: str
    callers: str
    renewed_at: datetime


class Listening:
    """The certificate of the listeners, always a fresh one.

    Args:
        folder: Of the authorities.
        names: By which callers reach the controller.

    Raises:
        NotFoundError: There are no authorities.
        InvalidRequestError: They cannot be read.
    """

    def __init__(self, folder: Path, names: Sequence[str], time: clock.Clock) -> None:
        self._folder = folder
        self._names = tuple(names)
        self._clock = time
        self._lock = threading.Lock()
        self._seen = authorities.fingerprint(folder)
        self._shown = self._made(authorities.load(folder))

    def shown(self) -> Shown:
        """What holds now; from any thread."""
        with self._lock:
            seen = authorities.fingerprint(self._folder)
            if seen != self._seen or self._clock.now() >= self._shown.renewed_at:
                self._renew(seen)
            return self._shown

    @property
    def known(self) -> authorities.Authorities:
        """The authorities as they stand now."""
        return self.shown().known

    def _renew(self, seen: tuple[object, ...]) -> None:
        try:
            self._shown = self._made(authorities.load(self._folder))
            self._seen = seen
        except errors.InstarError:
            _logger.exception("cannot renew the certificate of the listeners; the one before goes on")

    def _made(self, known: authorities.Authorities) -> Shown:
        now, key = self._clock.now(), certificates.make_key()
        own = certificates.issue_server(known.signing(_K.SERVERS), self._names, key.public_key(), now)
        return Shown(
            known=known,
            chain=certificates.pem(own) + known.bundle(_K.SERVERS),
            key=certificates.key_pem(key),
            callers=known.bundle(_K.AGENTS, _K.CLIENTS),
            renewed_at=now + (own.not_valid_after_utc - now) / 2,
        )
