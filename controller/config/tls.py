"""TLS, as the controller's configuration file says it: the names of the listeners, and how nodes come in.

Rules kept: without the table nothing speaks TLS, and nothing listens but on loopback; authorities are not configured
but made by `instar ca`. Left out: certificates (`controller.trust`).
"""

from __future__ import annotations

import os
import re
import socket
from dataclasses import dataclass
from datetime import timedelta

from controller.config import addresses, fields

AGENT_LIFETIME_DEFAULT = timedelta(hours=24)
AGENT_LIFETIME_MIN = timedelta(seconds=10)  # below it agents do nothing but renew
AGENT_LIFETIME_MAX = timedelta(hours=24)  # so long a stolen certificate is good, and each step of a rotation waits
RECOVERIES_DEFAULT = 1
RECOVERIES_MAX = 100
NAMES_MAX = 32
_HOST = re.compile(r"(\*\.)?[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|[0-9A-Fa-f:.]{2,45}")


# gRPC for Python has no word for the least version. Its ciphers count up to TLS 1.2 alone, and none of these fits the
# keys on P-256 that all of ours are: a handshake of TLS 1.2 ends without a common cipher, and that of 1.3 is as ever.
CIPHERS_NAME, CIPHERS = "GRPC_SSL_CIPHER_SUITES", "ECDHE-RSA-AES128-GCM-SHA256"


def pin_version() -> None:
    """Let gRPC speak TLS 1.3 alone; comes before gRPC is imported."""
    os.environ[CIPHERS_NAME] = CIPHERS


@dataclass(frozen=True, slots=True)
class Tls:
    """How the controller speaks TLS.

    Args:
        names: Host names and addresses by which callers reach it, beside those that it has anyway.
        enrol_listen: Where nodes come that have no certificate yet; None for nowhere.
        token_listen: Where users of the API come who show a token of an issuer; None for nowhere.
        agent_lifetime: For so long an agent's certificate is valid.
        recoveries: So often a node whose certificate ran out may come back by itself.
    """

    names: tuple[str, ...] = ()
    enrol_listen: str | None = None
    agent_lifetime: timedelta = AGENT_LIFETIME_DEFAULT
    recoveries: int = RECOVERIES_DEFAULT
    token_listen: str | None = None

    def all_names(self, *listen: str) -> tuple[str, ...]:
        """Every name of the listeners: those configured, those of this host, and where it listens.

        Args:
            listen: Addresses of listeners beside those that stand here.
        """
        own = [each for each in (self.enrol_listen, self.token_listen) if each is not None]
        hosts = [each.rpartition(":")[0].strip("[]") for each in (*listen, *own)]
        known = [*self.names, socket.gethostname(), "localhost", "127.0.0.1", "::1", *hosts]
        return tuple(dict.fromkeys(each for each in known if each not in ("0.0.0.0", "::") and _HOST.fullmatch(each)))  # noqa: S104  # not a name


def read(found: object) -> Tls | None:
    """Read the table ``tls`` of a configuration file; nothing where it is not there.

    Raises:
        InvalidRequestError: A key is unknown, or a value breaks its rule.
    """
    if found is None:
        return None
    table = fields.Table("tls", found)
    tls = Tls(
        names=_names(table),
        enrol_listen=_address(table, "enrol_listen"),
        token_listen=_address(table, "token_listen"),
        agent_lifetime=table.duration("agent_lifetime", AGENT_LIFETIME_DEFAULT, AGENT_LIFETIME_MIN, AGENT_LIFETIME_MAX),
        recoveries=table.whole("recoveries", RECOVERIES_DEFAULT, 0, RECOVERIES_MAX),
    )
    table.end()
    return tls


def _address(table: fields.Table, key: str) -> str | None:
    found = table.text(key, "")
    return addresses.numeric(found, table.key(key)) if found else None


def _names(table: fields.Table) -> tuple[str, ...]:
    found = table.words("names")
    if len(found) > NAMES_MAX:
        fields.refuse(table.key("names"), len(found), f"at most {NAMES_MAX} names")
    for each in found:
        if not _HOST.fullmatch(each):
            fields.refuse(table.key("names"), each, "host names and addresses")
    return found
