"""`python -m agent --config FILE`: the agent's process; the keeper starts it.

Rules kept here: OpenSSL stays out of the process, for gRPC brings its own, and its two ways in cost 3 MiB each (G12):
asyncio's ssl, and the faster half of hashlib. What is left of that hashes some 250 MiB each second.
"""

from __future__ import annotations

import sys

OPENSSL = ("ssl", "_hashlib")


def main() -> int:
    """Run the agent; returns the exit code."""
    for name in OPENSSL:
        sys.modules[name] = None  # type: ignore[assignment]  # what makes an import fail, as the language documents
    from agent.runner import process  # noqa: PLC0415  # only now, without OpenSSL

    return process.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
