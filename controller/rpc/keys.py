"""The keys of an issuer of tokens: from a file, or from where it publishes them, kept for some minutes.

Rules kept here: keys come from where the configuration says, over https, without redirects and proxies; every answer is
bounded in bytes, time and count; however many tokens name keys that are unknown, the issuer is asked at most each half
minute; what it last said holds for an hour while it cannot be reached, and no longer.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping
from pathlib import Path

import httpx
import jwt

from controller import clock
from controller.config import issuers as configured
from controller.core import errors

KEYS_BYTES_MAX = 256 << 10  # 256 KiB: a key has some hundreds of bytes
KEYS_MAX = 64  # of one issuer: two or three are usual
FRESH_SECONDS = 600.0  # then they are asked for again
STALE_SECONDS = 3600.0  # then they count no longer, if they could not be had again
ASK_EACH_SECONDS = 30.0  # at most, whatever tokens name
_LEAST = -1e9  # seconds: before anything was asked

_Found = Mapping[str, Mapping[str, object]]


class Keys:
    """The keys of one issuer, by their names."""

    def __init__(self, issuer: configured.Issuer, time: clock.Clock) -> None:
        self._issuer = issuer
        self._clock = time
        self._found: _Found = {}
        self._made: dict[tuple[str, str], jwt.PyJWK | None] = {}
        self._seen: tuple[int, int, int] | None = None
        self._had_at_seconds = _LEAST
        self._asked_at_seconds = _LEAST
        self._fault = ""  # why they could not be had when they were last asked for
        self._asking = asyncio.Lock()
        self._client: httpx.AsyncClient | None = None

    def key(self, key_id: str, algorithm: str) -> jwt.PyJWK | None:
        """The key of a name, for an algorithm; without a name the only one. None where there is none."""
        if self._are_stale():
            return None
        name = key_id or (next(iter(self._found)) if len(self._found) == 1 else "")
        if name not in self._found:
            return None
        if (name, algorithm) not in self._made:
            self._made[name, algorithm] = _made(self._found[name], algorithm)
        return self._made[name, algorithm]

    async def ready(self, key_id: str) -> None:
        """Look whether there are other keys by now, where that is due or one is wanted that is not there.

        Raises:
            UnavailableError: They cannot be had, and what was had is too old or was never there.
        """
        if self._issuer.jwks_file is not None:
            self._read(self._issuer.jwks_file)
            return
        if self._is_due(key_id) or (self._asking.locked() and self._is_missing(key_id)):
            async with self._asking:
                if self._is_due(key_id):  # somebody else may have asked meanwhile
                    await self._ask()
        if self._are_stale():
            raise self._unavailable(self._fault)

    async def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            await self._client.aclose()

    def _is_due(self, key_id: str) -> bool:
        now_seconds = self._clock.monotonic()
        is_old = now_seconds - self._had_at_seconds > FRESH_SECONDS
        return (is_old or self._is_missing(key_id)) and now_seconds - self._asked_at_seconds > ASK_EACH_SECONDS

    def _is_missing(self, key_id: str) -> bool:
        return self._are_stale() or (key_id not in self._found if key_id else not self._found)

    def _are_stale(self) -> bool:
        return self._clock.monotonic() - self._had_at_seconds > STALE_SECONDS

    def _read(self, file: Path) -> None:
        try:
            seen = file.stat()
            mark = seen.st_ino, seen.st_mtime_ns, seen.st_size
            if mark != self._seen:
                self._take(file.read_bytes()[: KEYS_BYTES_MAX + 1])
                self._seen = mark
        except OSError as fault:
            raise self._unavailable(fault.strerror or "it cannot be read") from fault
        self._had_at_seconds = self._clock.monotonic()

    async def _ask(self) -> None:
        self._asked_at_seconds = self._clock.monotonic()
        try:
            async with asyncio.timeout(self._issuer.time_out.total_seconds()):
                self._take(await self._answer())
        except (OSError, TimeoutError, httpx.HTTPError, errors.UnavailableError) as fault:
            self._fault = str(fault) or type(fault).__name__
            return
        self._had_at_seconds = self._clock.monotonic()

    async def _answer(self) -> bytes:
        self._client = self._client or _client(self._issuer)
        async with self._client.stream("GET", self._issuer.jwks_url) as response:
            if response.status_code != httpx.codes.OK:
                raise self._unavailable(f"it answers {response.status_code}")
            body = bytearray()
            async for part in response.aiter_raw():
                body += part
                if len(body) > KEYS_BYTES_MAX:
                    break
            return bytes(body)

    def _take(self, body: bytes) -> None:
        if len(body) > KEYS_BYTES_MAX:
            raise self._unavailable(f"it is longer than {KEYS_BYTES_MAX} bytes")
        try:
            told = json.loads(body)
        except (ValueError, RecursionError) as fault:
            raise self._unavailable("it is no JSON") from fault
        found = told.get("keys") if isinstance(told, dict) else None
        if not isinstance(found, list) or len(found) > KEYS_MAX:
            raise self._unavailable(f"it is no set of at most {KEYS_MAX} keys")
        usable = [each for each in found if isinstance(each, dict) and each.get("use", "sig") == "sig"]
        self._found = {str(each.get("kid", "")): each for each in usable}
        self._made = {}

    def _unavailable(self, why: str) -> errors.UnavailableError:
        return errors.UnavailableError(
            f"cannot have the keys of issuer {self._issuer.name}: {why}",
            code="issuer_keys_unavailable",
            field="token",
            rule="the issuer's keys can be read",
        )


def _made(told: Mapping[str, object], algorithm: str) -> jwt.PyJWK | None:
    """A key for an algorithm; None where it is for another one, or cannot be."""
    if told.get("alg", algorithm) != algorithm:
        return None
    try:
        return jwt.PyJWK(dict(told), algorithm)
    except jwt.PyJWTError:
        return None


def _client(issuer: configured.Issuer) -> httpx.AsyncClient:
    context = ssl.create_default_context(cafile=None if issuer.ca_file is None else str(issuer.ca_file))
    return httpx.AsyncClient(
        verify=context,
        timeout=issuer.time_out.total_seconds(),
        follow_redirects=False,
        trust_env=False,
        headers={"accept": "application/json", "accept-encoding": "identity", "user-agent": "instar"},
        limits=httpx.Limits(max_connections=1),
    )
