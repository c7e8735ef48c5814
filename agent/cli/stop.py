"""`instar-agent stop`: one component until somebody starts it again, or agent and keeper."""

from __future__ import annotations

import argparse

from agent import processes
from agent.cli import answers, asking, change
from agent.config import layout, settings

DRAIN_SECONDS = 120.0  # components that are to stop may drain before

STOPPED = frozenset({"COMMITTED", "PERMANENT"})


def main(config: settings.Config, chosen: argparse.Namespace) -> int:
    """Stop what was named."""
    if chosen.component:
        if chosen.components != "declared":
            message = "cannot use --components with a component: it is for the stop of agent and keeper"
            raise answers.Refusal(message, code="invalid", exit_code=answers.EXIT_USAGE)
        request = {"component": layout.component_name(chosen.component), "kind": "STOP"}
        return change.carry_out(config, request, chosen, ends=STOPPED)
    return _end(config, chosen)


def _end(config: settings.Config, chosen: argparse.Namespace) -> int:
    word = processes.OnShutdown(chosen.components)
    asking.ask_keeper(config, lambda keeper: keeper.hello())
    try:
        asking.ask_keeper(config, lambda keeper: keeper.shutdown(word), takes_seconds=DRAIN_SECONDS)
    except answers.Refusal:
        if asking.inspect(config) is not None:  # else it ended before it could say so
            raise
    document = {"is_keeper_up": False, "components": chosen.components}
    answers.say(document, f"agent and keeper have ended; components: {chosen.components}", chosen.output)
    return answers.EXIT_OK
