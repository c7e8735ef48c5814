"""What a command says, and the code that it ends with."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_ROLLED_BACK = 3
EXIT_TIMED_OUT = 6
EXIT_UNREACHABLE = 7
EXIT_REFUSED = 8

Document = Mapping[str, object]


class Refusal(Exception):  # noqa: N818  # what was asked is refused; nothing went wrong
    """A command that does nothing.

    Args:
        message: One sentence for people; starts with "cannot".
        code: Stable, in snake_case.
        exit_code: The code that the command ends with.
    """

    def __init__(self, message: str, *, code: str, exit_code: int = EXIT_FAILED) -> None:
        super().__init__(message)
        self.code = code
        self.exit_code = exit_code


def say(document: Document, text: str, output: str) -> None:
    """Print an answer in the form that was asked for."""
    print(json.dumps(document) if output == "json" else text, flush=True)  # noqa: T201  # a command's answer


def refuse(refusal: Refusal, output: str) -> int:
    """Print why nothing was done; returns the exit code."""
    if output == "json":
        print(json.dumps({"error": {"code": refusal.code, "message": str(refusal)}}))  # noqa: T201  # a command's answer
    print(refusal, file=sys.stderr)  # noqa: T201  # for people, also where standard output has JSON
    return refusal.exit_code
