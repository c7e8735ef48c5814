"""`instar-agent`: runs a node, says what it is doing, and changes it by hand where there is no controller.

Rules kept here: with ``-o json`` standard output has one JSON document and nothing else; what only looks reads the
keeper, the disk and the journal, so it works without a controller and while the agent is down; exit codes are those of
the page on operations. Left out: leading the fleet, which is the work of `instar`.
"""

from __future__ import annotations

import argparse
import importlib
import os
from collections.abc import Sequence
from pathlib import Path

from agent.cli import answers
from agent.config import settings, tls
from agent.config.errors import ConfigError

DEFAULT_CONFIG = Path("/etc/instar/agent.toml")
LINES_MAX = 100_000  # of a log on a terminal
DEFAULT_LINES = 100

COMMANDS = {  # each is imported when it is asked for: `status` on a small host should not pay for `doctor`
    "run": "agent.cli.run",
    "enroll": "agent.cli.enroll",
    "status": "agent.cli.status",
    "versions": "agent.cli.versions",
    "log": "agent.cli.log",
    "rollback": "agent.cli.change",
    "start": "agent.cli.change",
    "stop": "agent.cli.stop",
    "doctor": "agent.cli.doctor",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    tls.pin_version()
    chosen = _parser().parse_args(arguments)
    output = getattr(chosen, "output", "text")
    try:
        config = settings.load(chosen.config, os.environ)
        work = importlib.import_module(COMMANDS[chosen.command]).main
        code = work(config, chosen)
    except ConfigError as error:
        return answers.refuse(answers.Refusal(str(error), code="invalid", exit_code=answers.EXIT_USAGE), output)
    except answers.Refusal as error:
        return answers.refuse(error, output)
    except (OSError, ValueError) as error:
        return answers.refuse(answers.Refusal(f"cannot read the state of the node: {error}", code="failed"), output)
    except KeyboardInterrupt:
        return answers.EXIT_FAILED
    return int(code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="instar-agent", description="Runs one node of an instar fleet.")
    parser.add_argument("--version", action="version", version=settings.agent_version())
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("run", parents=[_config()], help="hold the sockets and processes of this node, and its agent")
    _add_enroll(commands.add_parser("enroll", parents=[_config(), _output()], help="be taken in by a controller"))
    commands.add_parser("status", parents=[_config(), _output()], help="say what this node runs")
    versions = commands.add_parser("versions", parents=[_config(), _output()], help="say what it could run")
    versions.add_argument("component", nargs="?", default="", help="one component; all where it is left out")
    _add_log(commands.add_parser("log", parents=[_config(), _output()], help="show what a component has printed"))
    _add_rollback(commands.add_parser("rollback", parents=[_config(), _output()], help="go back to a version on disk"))
    start = commands.add_parser("start", parents=[_config(), _output()], help="start a component that was stopped")
    start.add_argument("component")
    _add_stop(commands.add_parser("stop", parents=[_config(), _output()], help="stop a component, or agent and keeper"))
    commands.add_parser("doctor", parents=[_config(), _output()], help="say which file, socket or right is wrong")
    return parser


def _add_enroll(enroll: argparse.ArgumentParser) -> None:
    enroll.add_argument("token", help="as `instar node token` has made it; - to read it from standard input")
    enroll.add_argument(
        "--controller", required=True, metavar="HOST:PORT", help="where it answers nodes that have no certificate yet"
    )


def _add_log(log: argparse.ArgumentParser) -> None:
    log.add_argument("component")
    log.add_argument("-n", dest="lines", type=_lines, default=DEFAULT_LINES, metavar="LINES", help="last lines to show")
    log.add_argument("-f", dest="is_following", action="store_true", help="go on as more is printed; text only")


def _add_rollback(rollback: argparse.ArgumentParser) -> None:
    rollback.add_argument("component")
    rollback.add_argument("--to", default="", metavar="DIGEST|VERSION", help="the last rollback point where left out")
    rollback.add_argument("--method", choices=("HOT_SWAP", "RESTART"), help="the gentlest one where left out")
    rollback.add_argument("--discard-writes", action="store_true", help="a snapshot may take the place of newer writes")
    rollback.add_argument("--no-wait", dest="is_waiting", action="store_false", help="return once it has begun")


def _add_stop(stop: argparse.ArgumentParser) -> None:
    stop.add_argument("component", nargs="?", default="", help="one component; agent and keeper where it is left out")
    stop.add_argument(
        "--components",
        choices=("declared", "keep", "stop"),
        default="declared",
        help="what becomes of the components without their keeper; what their manifests declare where left out",
    )


def _config() -> argparse.ArgumentParser:
    parent = argparse.ArgumentParser(add_help=False)
    parent.add_argument("--config", type=Path, default=_default_config(), help="the agent's configuration file")
    return parent


def _default_config() -> Path:
    return Path(os.environ.get("INSTAR_AGENT_CONFIG") or DEFAULT_CONFIG)


def _output() -> argparse.ArgumentParser:
    parent = argparse.ArgumentParser(add_help=False)
    parent.add_argument("-o", dest="output", choices=("text", "json"), default="text", help="form of the answer")
    return parent


def _lines(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= LINES_MAX:
        raise argparse.ArgumentTypeError(f"cannot use -n {text}: it is a number from 1 to {LINES_MAX}")
    return int(text)
