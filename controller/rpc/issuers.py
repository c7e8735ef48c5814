"""Tokens that issuers of OpenID Connect have made (JWT): what must hold before one of them stands for somebody.

Theory of operation. A token names its issuer and its key; neither is believed, they only choose among what the
configuration names. Then the signature, by an algorithm that is pinned for that issuer; only then what it says, each
claim by its own rule. A token that was found good is kept for a minute by its hash, so that a call costs a look-up.

Rules kept here: nothing of a token is used before its signature was checked, but to choose the key; no extension is
understood (``crit``); what a caller may do comes from the configuration's grants; time is the clock's. Left out: where
keys come from (`keys`), and tokens of the controller's own (`register`).
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Never

import jwt

from controller import clock
from controller.config import issuers as configured
from controller.core import errors, roles, secret
from controller.rpc import keys, principals, register

TOKEN_CHARS_MAX = 6_144  # 6 KiB: what fits into the metadata of a call beside all else
KEPT_MAX = 4_096  # tokens that were found good
KEPT_SECONDS = 60.0  # for so long; then the keys of the day decide again
_SUBJECT = re.compile(r"[!-~]{1,189}")
_SECONDS_MAX = 250_000_000_000  # in the year 9892: there is room for ages and leeways behind it
_JWS = jwt.PyJWS(options={"enforce_minimum_key_length": True})


@dataclass(frozen=True, slots=True)
class _Shown:
    """A token, taken apart and not believed yet."""

    text: secret.Secret[str]
    issuer: configured.Issuer
    key_id: str
    algorithm: str


class Issuers:
    """The issuers whose tokens are taken."""

    def __init__(self, known: Sequence[configured.Issuer], time: clock.Clock) -> None:
        self._known = {each.issuer: each for each in known}
        self._keys = {each.issuer: keys.Keys(each, time) for each in known}
        self._clock = time
        self._kept: OrderedDict[str, tuple[float, principals.Principal]] = OrderedDict()

    @property
    def are_known(self) -> bool:
        """Tell whether there are any."""
        return bool(self._known)

    @staticmethod
    def takes(token: secret.Secret[str]) -> bool:
        """Tell whether it looks like one of theirs: three parts with dots between, as ours never are."""
        return "." in token.reveal()

    def knows(self, token: secret.Secret[str]) -> bool:
        """Tell whether it was found good a short time ago."""
        kept = self._kept.get(register.hash_of(token))
        return kept is not None and self._clock.monotonic() < kept[0]

    async def ready(self, token: secret.Secret[str]) -> None:
        """Have the keys at hand that a token is checked with, as far as that can be.

        Raises:
            UnauthenticatedError: It is none of theirs.
            UnavailableError: The issuer's keys cannot be had.
        """
        shown = self._taken_apart(token)
        await self._keys[shown.issuer.issuer].ready(shown.key_id)

    def find(self, token: secret.Secret[str]) -> principals.Principal:
        """The caller that a token stands for.

        Raises:
            UnauthenticatedError: It stands for nobody.
        """
        hashed = register.hash_of(token)
        now, now_seconds = self._clock.now(), self._clock.monotonic()
        kept = self._kept.get(hashed)
        if kept is not None and now_seconds < kept[0] and (kept[1].until is None or now < kept[1].until):
            return kept[1]
        self._kept.pop(hashed, None)
        found = self._checked(self._taken_apart(token), now)
        self._kept[hashed] = (now_seconds + KEPT_SECONDS, found)
        while len(self._kept) > KEPT_MAX:
            self._kept.popitem(last=False)
        return found

    async def close(self) -> None:
        """Close the connections to where keys are."""
        for each in self._keys.values():
            await each.close()

    def _taken_apart(self, token: secret.Secret[str]) -> _Shown:
        text = token.reveal()
        if len(text) > TOKEN_CHARS_MAX:
            _refuse(f"is longer than {TOKEN_CHARS_MAX} characters")
        try:
            header = _JWS.get_unverified_header(text)
            claims = json.loads(_JWS.decode(text, options={"verify_signature": False}))
        except (jwt.PyJWTError, ValueError, RecursionError):
            _refuse("cannot be read")
        if "crit" in header:
            _refuse("has a critical extension, and none is understood")
        issuer = self._known.get(_text(claims, "iss")) if isinstance(claims, dict) else None
        if issuer is None:
            _refuse("is of an issuer that is not configured")
        algorithm, key_id = header.get("alg"), header.get("kid", "")
        if not isinstance(algorithm, str) or algorithm not in issuer.algorithms:
            _refuse(f"is not signed by one of {', '.join(issuer.algorithms)}")
        return _Shown(token, issuer, key_id, algorithm)

    def _checked(self, shown: _Shown, now: datetime) -> principals.Principal:
        issuer = shown.issuer
        key = self._keys[issuer.issuer].key(shown.key_id, shown.algorithm)
        if key is None:
            _refuse("names a key that its issuer does not have")
        try:
            claims = json.loads(_JWS.decode(shown.text.reveal(), key, algorithms=[shown.algorithm]))
        except (jwt.PyJWTError, ValueError, RecursionError):
            _refuse("is not signed by its issuer")
        if issuer.audience not in _texts(claims.get("aud")):
            _refuse("is for another audience")
        subject = _text(claims, issuer.name_claim)
        if not _SUBJECT.fullmatch(subject):
            _refuse(f"says nobody's name in {issuer.name_claim}")
        until = _until(claims, issuer, now)
        return principals.Principal(
            principals.Kind.API, f"{issuer.name}:{subject}", tuple(_granted(claims, issuer)), until
        )


def _until(claims: Mapping[str, object], issuer: configured.Issuer, now: datetime) -> datetime:
    """When a token ends, of which the time has come and is not over."""
    issued_at, expires_at = _instant(claims, "iat"), _instant(claims, "exp")
    begins_at = _instant(claims, "nbf") if "nbf" in claims else issued_at
    if max(issued_at, begins_at) > now + issuer.leeway:
        _refuse("is not valid yet")
    until = min(expires_at, issued_at + issuer.age_max) + issuer.leeway
    if now >= expires_at + issuer.leeway:
        _refuse("has expired")
    if now >= until:
        _refuse(f"is older than {issuer.age_max}")
    return until


def _instant(claims: Mapping[str, object], name: str) -> datetime:
    value = claims.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= _SECONDS_MAX:
        _refuse(f"does not say {name}")  # and neither is what is no number
    return datetime.fromtimestamp(value, UTC)


def _granted(claims: Mapping[str, object], issuer: configured.Issuer) -> Iterator[roles.Grant]:
    held = frozenset(_texts(_claim(claims, issuer.roles_claim)))
    return (each.grant for each in issuer.grants if each.value in held)


def _claim(claims: Mapping[str, object], name: str) -> object:
    """A claim by its whole name, else along its dots."""
    if name in claims:
        return claims[name]
    head, _, rest = name.partition(".")
    inner = claims.get(head)
    return _claim(inner, rest) if rest and isinstance(inner, dict) else None


def _text(claims: Mapping[str, object], name: str) -> str:
    value = _claim(claims, name)
    return value if isinstance(value, str) else ""


def _texts(value: object) -> tuple[str, ...]:
    """A text, or a list of texts; nothing of what is anything else."""
    if isinstance(value, str):
        return (value,)
    return tuple(each for each in value if isinstance(each, str)) if isinstance(value, list) else ()


def _refuse(why: str) -> Never:
    raise errors.UnauthenticatedError(
        f"cannot let the caller in: its token {why}",
        code="token_invalid",
        field="token",
        rule="a token that a configured issuer has signed, for this audience, in its time",
    )
