"""`python -m agent --config FILE`: the agent's process; the keeper starts it.

Rules kept here: OpenSSL stays out of the process, for gRPC brings its own, and each of its two ways in costs 3 MiB
(G12): asyncio's ssl, and hashlib, which has hashes of Python's own instead (250 MiB each second). An interpreter that
was built without these keeps OpenSSL's.
"""

from __future__ import annotations

import sys
from importlib import util

from agent.config import tls

OWN_HASHES = ("_sha256", "_sha2")  # up to Python 3.11, and since 3.12


def keep_openssl_out() -> None:
    """Let imports of OpenSSL fail, as the language documents it; comes before whatever may import it."""
    sys.modules["ssl"] = None  # type: ignore[assignment]  # what makes an import fail
    if any(map(util.find_spec, OWN_HASHES)):
        sys.modules["_hashlib"] = None  # type: ignore[assignment]  # as above


def main() -> int:
    """Run the agent; returns the exit code."""
    keep_openssl_out()
    tls.pin_version()
    from agent.runner import process  # noqa: PLC0415  # only now, without OpenSSL

    return process.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
