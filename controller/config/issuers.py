"""Issuers of tokens (OpenID Connect), as the configuration file names them, and what their claims are worth here.

Rules kept: what a token may be signed with is pinned, and asymmetric; keys come from a file, or over https from an
address that stands here and not in a token; a claim is worth only what a grant says. Left out: how tokens are checked
(`controller.rpc.issuers`).
"""

from __future__ import annotations

import re
import urllib.parse
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from controller.config import fields
from controller.core import errors, roles

ISSUERS_MAX = 8
GRANTS_MAX = 256  # of one issuer
ALGORITHMS = ("ES256", "ES384", "ES512", "EdDSA", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512")
AGE_MAX = timedelta(minutes=15)  # a token that leaks is of use no longer
LEEWAY_DEFAULT = timedelta(seconds=30)
LEEWAY_MAX = timedelta(minutes=1)  # clocks that differ by more are wrong
TIME_OUT_DEFAULT = timedelta(seconds=5)
TIME_OUT_MIN = timedelta(milliseconds=100)
TIME_OUT_MAX = timedelta(seconds=30)
_ZERO = timedelta()
_CLAIM = re.compile(r"[A-Za-z_][A-Za-z0-9_.:/-]{0,127}")
_CLAIM_RULE = "the name of a claim; with dots, one within another"


@dataclass(frozen=True, slots=True)
class Grant:
    """What a value of the claim is worth."""

    value: str
    grant: roles.Grant


@dataclass(frozen=True, slots=True)
class Issuer:
    """Who makes tokens.

    Args:
        name: By which the names of its callers begin, here: ``NAME:SUBJECT``.
        issuer: What its tokens say in ``iss``, to the letter.
        audience: What they have to say in ``aud``.
        algorithms: What they may be signed with.
        jwks_file: File with its keys, read again when it changes; None where they come from an address.
        jwks_url: Where its keys are; empty where they come from a file.
        ca_file: Certificates that the address is checked against; None for those of the system.
        time_out: For all of an answer with keys.
        name_claim: Claim with the caller's name.
        roles_claim: Claim with what the caller belongs to: a text, or a list of texts.
        grants: What that is worth.
        age_max: How old a token may be, whatever it says of its end.
        leeway: By so much clocks may differ.
    """

    name: str
    issuer: str
    audience: str
    algorithms: tuple[str, ...]
    jwks_file: Path | None
    jwks_url: str
    ca_file: Path | None
    time_out: timedelta
    name_claim: str
    roles_claim: str
    grants: tuple[Grant, ...]
    age_max: timedelta
    leeway: timedelta


def read(found: object) -> tuple[Issuer, ...]:
    """Read the issuers of a configuration file.

    Raises:
        InvalidRequestError: A key is unknown, a value breaks its rule, or two issuers are one.
    """
    tables = fields.tables("issuer", found)
    if len(tables) > ISSUERS_MAX:
        fields.refuse("issuer", len(tables), f"at most {ISSUERS_MAX} issuers")
    known = [_issuer(table) for table in tables]
    for key in ("name", "issuer"):
        values = [str(getattr(each, key)) for each in known]
        for value in values:
            if values.count(value) > 1:
                fields.refuse(f"issuer.{key}", value, "there once")
    return tuple(known)


def _issuer(table: fields.Table) -> Issuer:
    file, url = table.file("jwks_file"), _url(table)
    if (file is None) is (not url):
        fields.refuse(table.key("jwks_file"), file or "", "given, or jwks_url, and not both")
    found = Issuer(
        name=table.name("name"),
        issuer=table.text("issuer"),
        audience=table.text("audience"),
        algorithms=_algorithms(table),
        jwks_file=file,
        jwks_url=url,
        ca_file=table.file("ca_file"),
        time_out=table.duration("time_out", TIME_OUT_DEFAULT, TIME_OUT_MIN, TIME_OUT_MAX),
        name_claim=_claim(table, "name_claim", "sub"),
        roles_claim=_claim(table, "roles_claim", "roles"),
        grants=_grants(table),
        age_max=table.duration("max_age", AGE_MAX, timedelta(seconds=1), AGE_MAX),
        leeway=table.duration("leeway", LEEWAY_DEFAULT, _ZERO, LEEWAY_MAX),
    )
    for key in ("issuer", "audience"):
        if not getattr(found, key):
            fields.refuse(table.key(key), "", "given")
    table.end()
    return found


def _url(table: fields.Table) -> str:
    url = table.text("jwks_url", "")
    rule = "https:// with a host, without credentials and fragment"
    try:
        parts = urllib.parse.urlsplit(url)
        is_plain = parts.port != 0 and not (parts.username or parts.password or parts.fragment)
    except ValueError:
        fields.refuse(table.key("jwks_url"), "", rule)
    if url and (parts.scheme != "https" or not parts.hostname or not is_plain):
        fields.refuse(table.key("jwks_url"), parts.hostname or "", rule)  # without what may be a secret in it
    return url


def _algorithms(table: fields.Table) -> tuple[str, ...]:
    found = tuple(part.strip() for part in table.text("algorithms").split(","))
    for each in found:
        if each not in ALGORITHMS:
            fields.refuse(table.key("algorithms"), each, f"some of {', '.join(ALGORITHMS)}, with commas between")
    return found


def _claim(table: fields.Table, key: str, default: str) -> str:
    found = table.text(key, default)
    if not _CLAIM.fullmatch(found):
        fields.refuse(table.key(key), found, _CLAIM_RULE)
    return found


def _grants(table: fields.Table) -> tuple[Grant, ...]:
    tables = table.tables("grant")
    if not 0 < len(tables) <= GRANTS_MAX:
        fields.refuse(table.key("grant"), len(tables), f"1 to {GRANTS_MAX} grants: nothing is granted by itself")
    return tuple(map(_grant, tables))


def _grant(table: fields.Table) -> Grant:
    value, role, scope = table.text("value"), table.text("role"), table.text("scope", "")
    table.end()
    try:
        return Grant(value, roles.grant(role, scope, table.key("role")))
    except errors.InvalidRequestError as error:
        fields.refuse(table.key("role" if error.code == "grant_invalid" else "scope"), error.value, error.rule)
