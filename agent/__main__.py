"""`python -m agent --config FILE`: the agent's process; the keeper starts it.

Rules kept here: Python's ssl stays out of the process, for gRPC brings its own and asyncio's would cost 3 MiB (G12).
"""

from __future__ import annotations

import sys


def main() -> int:
    """Run the agent; returns the exit code."""
    sys.modules["ssl"] = None  # type: ignore[assignment]  # what makes an import fail, as the language documents
    from agent.runner import process  # noqa: PLC0415  # only now, without ssl

    return process.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
