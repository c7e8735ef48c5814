"""`instar-agent run`: becomes the keeper, which starts the agent."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Never

from agent.config import settings


def main(config: settings.Config, chosen: argparse.Namespace) -> Never:
    """Become the keeper."""
    path = str(chosen.config.resolve())
    agent = [sys.executable, "-m", "agent", "--config", path]
    places = ["--state", str(config.state_dir), "--run", str(config.run_dir), "--config", path]
    command = [sys.executable, "-S", "-P", "-m", "agent.keeper", *places, "--", *agent]
    root = str(Path(__file__).resolve().parents[2])  # where this very agent was found: -S finds nothing by itself
    found = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(found)}
    os.execve(sys.executable, command, environment)  # noqa: S606  # to become it is the command
