"""The commands put together, and the one place where they end.

Rules kept here: an error that is foreseen is one line that starts with "cannot"; any other is a fault of ours and shows
its traceback. The demo is imported only when it is run. Left out: the commands themselves.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import typer

from controller.cli import (
    approval_commands,
    audit_commands,
    ca_commands,
    component_commands,
    controller_commands,
    credentials,
    doctor_command,
    event_commands,
    failures,
    fleet_commands,
    freeze_commands,
    node_commands,
    options,
    principal_commands,
    release_commands,
    rollback_commands,
    rollout_commands,
    store_commands,
    trigger_commands,
    trust_commands,
    upgrade_commands,
)
from controller.core import errors

INTERRUPTED = 130  # 128 and the number of SIGINT, as shells count


def run(arguments: Sequence[str]) -> int:
    """Run a command; return its exit code."""
    try:
        code = _application(arguments)(list(arguments), standalone_mode=False, prog_name="instar")
    except failures.CommandError as error:
        return _end(str(error), error.exit_code)
    except errors.InstarError as error:
        found = failures.local(error)
        return _end(str(found), found.exit_code)
    except typer.TyperException as error:
        return _usage(error)
    except (KeyboardInterrupt, typer.Abort):
        return _end("cannot go on: interrupted; what the controller has accepted goes on", INTERRUPTED)
    return code if isinstance(code, int) else failures.Exit.OK


def _end(message: str, code: int) -> int:
    sys.stderr.write(f"{message}\n")
    return code


def _usage(error: typer.TyperException) -> int:
    message = error.format_message()
    if message.startswith("Usage:"):  # nothing was asked for: this is the help
        return _end(message, failures.Exit.USAGE)
    return _end(f"cannot understand the command: {message}", failures.Exit.USAGE)


def _application(arguments: Sequence[str]) -> typer.Typer:
    app = typer.Typer(
        name="instar",
        help="Upgrade software while it runs, across a fleet, and undo it where it is not well.",
        no_args_is_help=True,
        add_completion=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(_root)
    app.add_typer(controller_commands.app, name="controller")
    app.add_typer(store_commands.app, name="store")
    app.add_typer(ca_commands.app, name="ca")
    app.add_typer(release_commands.app, name="release")
    app.add_typer(trust_commands.app, name="trust")
    app.add_typer(upgrade_commands.app, name="upgrade")
    app.add_typer(rollout_commands.app, name="rollout")
    app.add_typer(approval_commands.app, name="approval")
    app.add_typer(rollback_commands.app, name="rollback")
    app.add_typer(node_commands.app, name="node")
    app.add_typer(principal_commands.app, name="principal")
    app.add_typer(component_commands.app, name="component")
    app.add_typer(fleet_commands.app, name="fleet")
    app.add_typer(freeze_commands.app, name="freeze")
    app.add_typer(trigger_commands.app, name="trigger")
    app.add_typer(event_commands.app, name="event")
    app.add_typer(audit_commands.app, name="audit")
    app.command("doctor")(doctor_command.doctor)
    if arguments[:1] == ["demo"]:
        from controller.cli.demo import command

        app.command("demo")(command.demo)
    else:
        app.command("demo")(_demo)
    if arguments[:1] == ["up"]:
        from controller.cli.demo import up_command

        app.command("up")(up_command.up)
    else:
        app.command("up")(_up)
    return app


def _root(
    ca_file: options.CaFile = None,
    certificate_file: options.CertificateFile = None,
    key_file: options.KeyFile = None,
) -> None:
    """Upgrade software while it runs, across a fleet, and undo it where it is not well."""
    # Said before the command, since it is for all of them; passed on as the environment, where it can be said as well.
    given = {
        credentials.CA_FILE: ca_file,
        credentials.CERTIFICATE_FILE: certificate_file,
        credentials.KEY_FILE: key_file,
    }
    os.environ.update({name: str(path) for name, path in given.items() if path is not None})


# Only listed: both come from a room of their own, which is imported when they are named.


def _demo() -> None:
    """Upgrade a live service on nodes of this machine, and show what it cost."""


def _up() -> None:
    """Run a controller and one node on this machine, to try things out."""
