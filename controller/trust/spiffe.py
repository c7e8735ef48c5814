"""SPIFFE names: what a certificate says of its holder, ``spiffe://DOMAIN/KIND/NAME``.

Rules kept: a name is made of checked parts and read back by the same rules, so that no two texts are one name. Left
out: whether it may be believed (`peers`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, unique

from controller.core import errors

DOMAIN_RULE = "1 to 253 lower-case letters, digits, dots and dashes, as in fleet.example"
NAME_RULE = "1 to 253 letters, digits, dots, dashes and underscores, beginning with a letter or digit"
_DOMAIN = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")
_SCHEME = "spiffe://"


@unique
class Kind(Enum):
    """What carries a name: the agent of a node, or a person or service that uses the API."""

    AGENT = "agent"
    CLIENT = "client"


@dataclass(frozen=True, slots=True)
class Identity:
    """One holder of a certificate."""

    domain: str
    kind: Kind
    name: str

    @property
    def uri(self) -> str:
        """As it stands in a certificate."""
        return f"{_SCHEME}{self.domain}/{self.kind.value}/{self.name}"


def identity(domain: str, kind: Kind, name: str) -> Identity:
    """Make a name.

    Raises:
        InvalidRequestError: A part breaks its rule.
    """
    check_domain(domain)
    if not _NAME.fullmatch(name):
        raise _invalid("name", name, NAME_RULE)
    return Identity(domain, kind, name)


def check_domain(domain: str) -> None:
    """See that a trust domain can be one.

    Raises:
        InvalidRequestError: It cannot.
    """
    if not _DOMAIN.fullmatch(domain):
        raise _invalid("domain", domain, DOMAIN_RULE)


def parse(uri: str) -> Identity | None:
    """Read a name; None where the text is none of ours."""
    domain, _, path = uri.removeprefix(_SCHEME).partition("/")
    kind, _, name = path.partition("/")
    if not uri.startswith(_SCHEME) or not _DOMAIN.fullmatch(domain) or not _NAME.fullmatch(name):
        return None
    found = next((each for each in Kind if each.value == kind), None)
    return None if found is None else Identity(domain, found, name)


def _invalid(field: str, value: str, rule: str) -> errors.InvalidRequestError:
    return errors.InvalidRequestError(
        f"cannot use {field} {value!r}: it must be {rule}", code="name_invalid", field=field, value=value, rule=rule
    )
