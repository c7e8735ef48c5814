"""`python -m agent.identity VERB`: one piece of key work; question on standard input, answer on standard output, JSON.

It prints what `child` answers, exit code 0, or {"error": message}, exit code 1.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Sequence

from agent.identity import child

USAGE = f"usage: python -m agent.identity {'|'.join(child.VERBS)}"
CPU_SECONDS = 30  # thirty times what it takes on a slow host
ADDRESS_BYTES = 512 << 20  # of addresses; what is resident stays under 64 MiB
INPUT_BYTES_MAX = 1 << 20


def main(arguments: Sequence[str]) -> int:
    """Run the child; returns its exit code."""
    match arguments:
        case [verb] if verb in child.VERBS:
            resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
            resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_BYTES, ADDRESS_BYTES))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core would have the key in it
            return _answer(verb)
        case _:
            sys.stderr.write(USAGE + "\n")
            return os.EX_USAGE


def _answer(verb: str) -> int:
    try:
        document = child.VERBS[verb](json.loads(sys.stdin.read(INPUT_BYTES_MAX)))
    except (OSError, ValueError, TypeError, KeyError) as error:
        sys.stdout.write(json.dumps({"error": str(error) or type(error).__name__}) + "\n")
        return 1
    sys.stdout.write(json.dumps(document) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
