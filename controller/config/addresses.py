"""Addresses to listen on; as long as there is no TLS, those of this machine alone."""

from __future__ import annotations

import ipaddress

from controller.config import fields

_PORT_MAX = 65535


def loopback(text: str, field: str) -> str:
    """A loopback address and port, in the one form that it has.

    Raises:
        InvalidRequestError: It is none.
    """
    host, _, port = text.rpartition(":")
    host = "127.0.0.1" if host == "localhost" else host
    if not port.isascii() or not port.isdecimal() or int(port) > _PORT_MAX:
        fields.refuse(field, text, "ADDRESS:PORT with a port up to 65535")
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        fields.refuse(field, text, "a loopback address and port, such as 127.0.0.1:7443 or [::1]:7443")
    if not address.is_loopback:
        fields.refuse(field, text, "a loopback address, since the controller does not speak TLS yet")
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"  # noqa: PLR2004  # of IP
