"""Options that several commands share, declared once."""

from __future__ import annotations

from enum import Enum, unique
from pathlib import Path
from typing import Annotated

import typer


@unique
class Format(Enum):
    """What a command prints on stdout."""

    TABLE = "table"
    JSON = "json"


Output = Annotated[Format, typer.Option("--output", "-o", help="json prints one JSON document, and nothing else.")]
OutputOnly = Annotated[Format, typer.Option("--output", help="json prints one JSON document, and nothing else.")]
Controller = Annotated[
    str,
    typer.Option("--controller", envvar="INSTAR_CONTROLLER", help="Address of the controller.", metavar="HOST:PORT"),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        envvar="INSTAR_TOKEN_FILE",
        help="File of the token to show; over TLS with --ca-file; else the operator's of the local controller.",
    ),
]
CaFile = Annotated[
    Path | None,
    typer.Option("--ca-file", envvar="INSTAR_CA_FILE", help="Authorities that the controller is checked against."),
]
CertificateFile = Annotated[
    Path | None,
    typer.Option(
        "--certificate-file",
        envvar="INSTAR_CERTIFICATE_FILE",
        help="Certificate to show; the operator's of the local controller where neither it nor a token is named.",
    ),
]
KeyFile = Annotated[Path | None, typer.Option("--key-file", envvar="INSTAR_KEY_FILE", help="Key of the certificate.")]
StateDir = Annotated[
    Path | None,
    typer.Option("--state-dir", envvar="INSTAR_STATE_DIR", help="Where everything durable of the controller is."),
]
Timeout = Annotated[
    str | None, typer.Option("--timeout", help="Give up waiting after this time, for example 90s or 10m; exit code 6.")
]
ExitOnPause = Annotated[
    bool, typer.Option("--exit-on-pause", help="End the watch where the rollout is paused, with exit code 4.")
]
Watch = Annotated[bool, typer.Option("--watch", help="Follow the rollout to its end; the exit code tells it.")]
RequestId = Annotated[
    str | None, typer.Option(help="Chosen by the caller: asking again with the same one starts nothing twice.")
]
Selector = Annotated[str, typer.Option("--selector", "-l", help="Label selector, for example zone=a,tier!=test.")]
Reason = Annotated[str, typer.Option(help="Why, for the audit log.")]
Rollout = Annotated[str, typer.Argument(help="Identity or name; a name finds the newest rollout that has it.")]

CONTROLLER_DEFAULT = "127.0.0.1:7443"
