"""`python -m agent.stager STATE_DIR HEX [CONFIG]`: make the environment of one release, and print what came of it.

It prints {"environment": {…}}, exit code 0, or {"error": {"code", "message", "field", "value", "rule"}}, exit code 1.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from agent import stager
from agent.config import layout, settings
from agent.config.errors import ConfigError
from agent.stager import environment

USAGE = "usage: python -m agent.stager STATE_DIR HEX [CONFIG]"


def main(arguments: Sequence[str]) -> int:
    """Run the child; returns its exit code."""
    match arguments:
        case [state_dir, hex_digits, *config] if layout.HEX.fullmatch(hex_digits) and len(config) <= 1:
            document, code = answer(Path(state_dir), hex_digits, Path(config[0]) if config else None)
            sys.stdout.write(json.dumps(document) + "\n")
            return code
        case _:
            sys.stderr.write(USAGE + "\n")
            return os.EX_USAGE


def answer(state_dir: Path, hex_digits: str, config: Path | None) -> tuple[Mapping[str, object], int]:
    """Make one environment; returns the document to print and the exit code."""
    try:
        own = settings.load(config, os.environ) if config else None
    except ConfigError as error:
        return _error("config_invalid", error), 1
    try:
        places = layout.Layout(state_dir, state_dir)
        return {"environment": environment.stage(places, layout.digest_of(hex_digits), own)}, 0
    except stager.StagingError as error:
        return _error(error.reason, error), 1
    except ConfigError as error:
        return _error("manifest_invalid", error), 1
    except OSError as error:
        return _error("disk_failed", error), 1


def _error(code: str, error: Exception) -> Mapping[str, object]:
    fields = {name: getattr(error, name, "") for name in ("field", "value", "rule")}
    message = str(error) if str(error).startswith("cannot ") else f"cannot make the environment: {error}"
    return {"error": {"code": code, "message": message, **fields}}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
