"""`python -m agent.cli`: the same as `instar-agent`."""

import sys

from agent import cli

if __name__ == "__main__":
    sys.exit(cli.main())
