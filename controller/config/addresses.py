"""Addresses to listen on: where nothing speaks TLS, those of this machine alone."""

from __future__ import annotations

import ipaddress

from controller.config import fields

_PORT_MAX = 65535
_EXAMPLES = "such as 127.0.0.1:7443 or [::1]:7443"


def loopback(text: str, field: str) -> str:
    """A loopback address and port, in the one form that it has.

    Raises:
        InvalidRequestError: It is none.
    """
    address, port = _parts(text, field, f"a loopback address and port, {_EXAMPLES}")
    if not address.is_loopback:
        fields.refuse(field, text, "a loopback address, since without TLS (table [tls]) all would be sent in the clear")
    return _joined(address, port)


def numeric(text: str, field: str) -> str:
    """Any address and port, in the one form that it has.

    Raises:
        InvalidRequestError: It is none.
    """
    return _joined(*_parts(text, field, f"an address and port, {_EXAMPLES}"))


def _parts(text: str, field: str, rule: str) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, str]:
    host, _, port = text.rpartition(":")
    host = "127.0.0.1" if host == "localhost" else host
    if not port.isascii() or not port.isdecimal() or int(port) > _PORT_MAX:
        fields.refuse(field, text, "ADDRESS:PORT with a port up to 65535")
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]")), port
    except ValueError:
        fields.refuse(field, text, rule)


def _joined(address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: str) -> str:
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"  # noqa: PLR2004  # of IP
