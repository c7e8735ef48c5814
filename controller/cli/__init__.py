"""The operators' command line, `instar`.

Rules kept here: with ``-o json`` exactly one JSON document goes to stdout and nothing else does; progress and errors go
to stderr; an error starts with "cannot" and names what is wrong; the exit code tells what became of it (`failures`). A
command imports its room only when it runs, so that ``instar --help`` is quick. Left out: all decisions.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command that the arguments name, and leave with its exit code."""
    try:
        from controller.config import tls

        tls.pin_version()
        from controller.cli import application
    except ModuleNotFoundError as error:  # a host that has the agent alone
        sys.exit(f"cannot run instar: {error.name} is missing; install instar[controller]")

    sys.exit(application.run(sys.argv[1:]))
