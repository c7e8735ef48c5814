"""Asks the keeper and the agent of this node; both may be down, and then the answer is that they are."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar, cast

from agent import processes
from agent.cli import answers
from agent.config import settings

KEEPER_TIMEOUT_SECONDS = 2.0  # a keeper that lives answers within milliseconds
AGENT_TIMEOUT_SECONDS = 5.0  # an agent may be reading a release
ANSWER_BYTES_MAX = 16 * 1024**2  # everything that a node knows

Answered = TypeVar("Answered")


def inspect(config: settings.Config) -> processes.Inspection | None:
    """Everything that the keeper holds; None where it does not answer."""
    try:
        return ask_keeper(config, lambda keeper: keeper.inspect())
    except answers.Refusal:
        return None


def ask_keeper(
    config: settings.Config, question: Callable[[processes.Keeper], Awaitable[Answered]], *, takes_seconds: float = 0
) -> Answered:
    """Ask the keeper one thing.

    Raises:
        answers.Refusal: It does not answer, or says no.
    """

    async def ask() -> Answered:
        async with asyncio.timeout(KEEPER_TIMEOUT_SECONDS + takes_seconds):
            keeper = await processes.Keeper.connect(config.layout.keeper_socket)
            try:
                return await question(keeper)
            finally:
                await keeper.close()

    try:
        return asyncio.run(ask())
    except (processes.KeeperError, TimeoutError) as error:
        message = f"cannot reach the keeper at {config.layout.keeper_socket}: {str(error) or 'no answer'}"
        raise answers.Refusal(message, code="keeper_gone", exit_code=answers.EXIT_UNREACHABLE) from error


def ask_agent(config: settings.Config, request: Mapping[str, object]) -> dict[str, object]:
    """Ask the agent one thing.

    Raises:
        answers.Refusal: It does not answer, or says no.
    """
    path = config.agent_socket
    try:
        document = json.loads(_exchange(str(path), json.dumps(request).encode() + b"\n"))
    except (OSError, ValueError) as error:
        message = f"cannot reach the agent at {path}: {error}"
        raise answers.Refusal(message, code="agent_gone", exit_code=answers.EXIT_UNREACHABLE) from error
    if "error" in document:
        error_document = document["error"]
        raise answers.Refusal(error_document["message"], code=error_document["code"], exit_code=answers.EXIT_REFUSED)
    return cast("dict[str, object]", document["ok"])


def agent_status(config: settings.Config) -> dict[str, object] | None:
    """What the agent says of the node; None where it does not answer."""
    try:
        return ask_agent(config, {"verb": "status"})
    except answers.Refusal:
        return None


def _exchange(path: str, request: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(AGENT_TIMEOUT_SECONDS)
        connection.connect(path)
        connection.sendall(request)
        answer = b""
        while data := connection.recv(65536):
            answer += data
            if len(answer) > ANSWER_BYTES_MAX:
                raise ValueError("the answer is too long")
    return answer
