"""The web side, as the controller's configuration file says it: where it listens, and what senders have to show.

Rules kept: it is off unless it is configured; each way in is off unless its secret is named; secrets stay in files of
their own. Left out: what is done with them (`controller.web`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from controller.config import addresses, fields


@dataclass(frozen=True, slots=True)
class Web:
    """How others reach the controller over HTTP.

    Args:
        listen: Address and port, without TLS of loopback; port 0 takes a free one.
        events_secret_file: File with the secret that senders of events sign with; None where none are taken.
        alertmanager_token_file: File with the token that an Alertmanager shows; None where no alerts are taken.
        has_tls: It speaks HTTPS, with a certificate of the controller's listeners.
    """

    listen: str
    events_secret_file: Path | None = None
    alertmanager_token_file: Path | None = None
    has_tls: bool = False


def read(found: object, *, can_speak_tls: bool) -> Web | None:
    """Read the table ``web`` of a configuration file; nothing where it is not there.

    Args:
        found: What stands there.
        can_speak_tls: There is a table ``tls`` as well.

    Raises:
        InvalidRequestError: A key is unknown, or a value breaks its rule.
    """
    table = fields.Table("web", found)
    if not table.has("listen") and not found:
        return None
    has_tls = table.flag("tls")
    if has_tls and not can_speak_tls:
        fields.refuse(table.key("tls"), has_tls, "false, or there must be a table [tls]")
    check = addresses.numeric if has_tls else addresses.loopback
    web = Web(
        listen=check(table.text("listen"), table.key("listen")),
        events_secret_file=table.file("events_secret_file"),
        alertmanager_token_file=table.file("alertmanager_token_file"),
        has_tls=has_tls,
    )
    table.end()
    return web
