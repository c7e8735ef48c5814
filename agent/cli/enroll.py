"""`instar-agent enroll`: takes this node in by a join token, so that it has a certificate from then on.

Rules kept here: the key is made on this host by a disposable child, and its file is of the agent's user alone; where
the answer was lost, the same token does it again; a node that shows a bearer token is told to leave that first.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import pwd
import re
import sys
from pathlib import Path

from agent import identity
from agent.cli import answers
from agent.config import settings
from agent.link import enrolment

TOKEN = re.compile(r"instar1\.[0-9a-f]{16}\.[A-Za-z0-9_-]{43}\.[0-9a-f]{64}")
TOKEN_BYTES_MAX = 4096
STANDARD_INPUT = "-"


def main(config: settings.Config, chosen: argparse.Namespace) -> int:
    """Take the node in."""
    token = sys.stdin.read(TOKEN_BYTES_MAX).strip() if chosen.token == STANDARD_INPUT else chosen.token
    _check(config, token, chosen.controller)
    folder = identity.folder(config.state_dir)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        asyncio.run(enrolment.enrol(folder, config.node_id, token, chosen.controller))
    except enrolment.EnrolmentError as error:
        code = answers.EXIT_REFUSED if error.is_refused else answers.EXIT_FAILED
        raise answers.Refusal(str(error), code="not_enrolled", exit_code=code) from error
    finally:
        _give_to_agent(config, folder)
    known = identity.load(config.state_dir)
    until = known.not_after.isoformat()
    document = {"node_id": known.node_id, "name": known.name, "serial": known.serial, "expires_at": until}
    answers.say(document, f"this node is {known.name}; its certificate is good until {until}", chosen.output)
    return answers.EXIT_OK


def _check(config: settings.Config, token: str, address: str) -> None:
    if not TOKEN.fullmatch(token):
        raise _usage("cannot use the token: it is none that `instar node token` has made")
    if not settings.HOST_AND_PORT.fullmatch(address):
        raise _usage(f"cannot use --controller {address!r}: it is HOST:PORT")
    if config.token_file is not None:
        raise _usage("cannot enroll: token_file is configured, which comes first; take it out of the configuration")


def _usage(message: str) -> answers.Refusal:
    return answers.Refusal(message, code="invalid", exit_code=answers.EXIT_USAGE)


def _give_to_agent(config: settings.Config, folder: Path) -> None:
    """Let the agent's user have what was made, where that is another one."""
    if not config.agent_user or os.geteuid() != 0:
        return
    user = pwd.getpwnam(config.agent_user)
    for path in (folder, *folder.iterdir()):
        os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)
