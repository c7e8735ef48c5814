"""Where the store is, as the controller's configuration says it: a file of its own, or a database of PostgreSQL.

Rules kept: the address may hold a password, so it is a secret, and no refusal repeats it; what goes over a network is
encrypted. Left out: how the database is spoken to (`controller.store`).
"""

from __future__ import annotations

import ipaddress
import urllib.parse
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Never

from controller.config import fields
from controller.core import secret

SCHEME = "postgresql+psycopg"
LEASE_DEFAULT = timedelta(seconds=15)
LEASE_MIN = timedelta(seconds=2)  # below it a slow disk makes controllers take turns
LEASE_MAX = timedelta(minutes=5)  # so long nobody would lead
_ENCRYPTED = ("require", "verify-ca", "verify-full")
_URL_RULE = f"{SCHEME}://USER@HOST/DATABASE"


@dataclass(frozen=True, slots=True)
class PostgreSQL:
    """A database of a PostgreSQL server.

    Args:
        url: Its address, as SQLAlchemy and libpq read it.
        shown: The same for people: host, port and database.
        password_file: File with the password, read for each connection; None where the address or libpq has it.
        lease: Time after the last write of a controller until another may take over.
    """

    url: secret.Secret[str]
    shown: str
    password_file: Path | None = None
    lease: timedelta = LEASE_DEFAULT


def read(found: object, url: str) -> PostgreSQL | None:
    """Read the table ``store`` of a configuration file; None where the store is the usual file.

    Args:
        found: What stands there.
        url: The address by the environment, which goes before; empty where it says nothing.

    Raises:
        InvalidRequestError: A key is unknown, or a value breaks its rule.
    """
    table = fields.Table("store", found)
    written = table.hidden("url")
    password_file = table.file("password_file")
    lease = table.duration("lease", LEASE_DEFAULT, LEASE_MIN, LEASE_MAX)
    table.end()
    address = url or written
    if not address:
        if password_file is not None:
            fields.refuse("store.password_file", password_file, "absent where there is no store.url")
        return None
    return PostgreSQL(secret.Secret(address), _shown(address, has_file=password_file is not None), password_file, lease)


def _shown(address: str, *, has_file: bool) -> str:
    try:
        parts = urllib.parse.urlsplit(address)
        port, query = parts.port, urllib.parse.parse_qs(parts.query, keep_blank_values=True)
    except ValueError:
        _refuse("")
    host = parts.hostname or query.get("host", [""])[0]
    if parts.scheme != SCHEME or not parts.path.strip("/"):
        _refuse(host)
    if "password" in query or (has_file and parts.password):
        fields.refuse("store.url", host, "without a password where it can be seen or stands in a file of its own")
    if not _is_local(host) and query.get("sslmode", [""])[-1] not in _ENCRYPTED:
        fields.refuse("store.url", host, f"with sslmode={', '.join(_ENCRYPTED)} where the host is not this one")
    return f"{host}{f':{port}' if port else ''}{parts.path}"


def _is_local(host: str) -> bool:
    """Tell whether an address is a socket of this machine, or its loopback."""
    if not host or host.startswith(("/", "@")) or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _refuse(shown: str) -> Never:  # what was written may hold a password: it is not repeated
    fields.refuse("store.url", shown, _URL_RULE)
