"""`python -m controller`: serve with the settings of the environment, as a service manager starts it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from controller.config import settings, tls
from controller.core import errors

EXIT_USAGE = 2
EXIT_REFUSED = 8


def main() -> int:
    """Serve; return the exit code."""
    tls.pin_version()
    from controller import server  # noqa: PLC0415  # it imports gRPC, which now speaks TLS 1.3 alone

    file = os.environ.get("INSTAR_CONFIG")
    try:
        loaded = settings.load({}, os.environ, Path(file) if file else None)
        server.run(loaded, _say)
    except errors.InstarError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_USAGE if isinstance(error, errors.InvalidRequestError) else EXIT_REFUSED
    return 0


def _say(address: str) -> None:
    sys.stderr.write(f"listening on {address}\n")


if __name__ == "__main__":
    sys.exit(main())
