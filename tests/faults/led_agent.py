"""`python -m tests.faults.led_agent CONFIG DIR [--check]`: the real agent, led through files, by a name of its own.

Its leader is never there to hear that the journal failed: then the agent ends at once and the next one goes on, where
else it would tell of it for a minute.
"""

import asyncio
import logging
import os
import sys
from pathlib import Path

from agent.config import settings
from agent.runner import process
from tests.agent import live_agent


class Link(live_agent.FileLink):
    """The link, without a session."""

    @property
    def is_open(self) -> bool:
        return False


def main(words: list[str]) -> None:
    """Run it until the keeper ends it."""
    logging.basicConfig(level=logging.INFO)
    config = settings.load(Path(words[0]), os.environ)
    is_check = words[2:] == ["--check"]
    asyncio.run(process.check(config) if is_check else process.serve(config, lambda _: Link(Path(words[1]))))


if __name__ == "__main__":
    main(sys.argv[1:])
