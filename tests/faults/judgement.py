"""What must hold at the end of the scenarios beside what holds for all of them.

Rules kept here: the judgement looks at what lies on disk and what runs, never at what the node says of itself alone.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import agent
from agent import processes
from agent.keeper import digest, errors
from tests.agent import agent_release
from tests.faults import bundles, stage

NEW_AGENT = "9.0.0"


@dataclass(slots=True)
class Seen:
    """What clients saw while it happened.

    Args:
        pid: Process that answered before it began; None where none did.
        acknowledged: Numbers that were answered; those that the state held in the beginning are among them.
        is_same_boot: The host did not die.
    """

    pid: int | None = None
    total: int = 0
    failed: int = 0
    acknowledged: set[int] = field(default_factory=set)
    is_same_boot: bool = True


Judge = Callable[[stage.FaultNode, Seen], Awaitable[None]]
Look = Callable[[stage.FaultNode], Awaitable[bool]]


async def nothing(_made: stage.FaultNode, _seen: Seen) -> None:
    """What holds for all is all."""


async def at_once(_made: stage.FaultNode) -> bool:
    """Nothing follows the operation."""
    return True


# The agent.


async def keeper_has_followed(made: stage.FaultNode) -> bool:
    """Say whether the keeper is of the release of the agent."""
    pointer = made.keeper.state / "components" / agent_release.COMPONENT / "current"
    try:
        client = await made.keeper.client()
        seen = (await client.inspect()).keeper_digest
        await client.close()
        return seen == f"sha256:{pointer.readlink().name}"
    except (processes.KeeperError, OSError):
        return False


async def one_agent(made: stage.FaultNode, seen: Seen) -> None:
    """Exactly one agent runs, of the version of the pointer; the component has not noticed.

    Raises:
        stage.Violation: It is not so.
    """
    wanted = made.current_version(agent_release.COMPONENT) or agent.__version__
    found: tuple[object, ...] = ()
    try:
        async with asyncio.timeout(stage.PATIENCE_SECONDS):
            while True:
                told = made.told()
                pids = [pid for pid, text in made.processes().items() if _is_agent(text)]
                found = (told.get("hello", {}).get("agent_version"), told["pid"], pids)
                if found == (wanted, told["pid"], [told["pid"]]):
                    break
                made.revive_keeper()
                await asyncio.sleep(stage.POLL_SECONDS)
    except TimeoutError as error:
        raise stage.Violation(f"agent {wanted} is current; (version, pid, processes) are {found}") from error
    served = await made.answer()
    if seen.is_same_boot and (served is None or served.pid != seen.pid):
        raise stage.Violation(f"the component ran as {seen.pid}, and {served} answers")


def _is_agent(text: str) -> bool:
    return "-m tests.faults.led_agent" in text and "--check" not in text and "agent.keeper" not in text


# The state.


async def state(made: stage.FaultNode, seen: Seen) -> None:
    """The state is wholly of the schema that is told of it, current can read it, and nothing acknowledged is lost.

    Raises:
        stage.Violation: It is not so.
    """
    folder = made.keeper.state / "data" / "web"
    version = made.current_version()
    try:
        schema = json.loads((folder / "schema.json").read_bytes())["schema"]
        names = sorted(path.name for path in (folder / "state").iterdir())
    except (OSError, ValueError, KeyError) as error:
        raise stage.Violation(f"the state is not whole: {error!r}") from error
    if names != [bundles.STATE_FILES[schema]] or version != f"1.{schema - 1}.0":
        raise stage.Violation(f"the state has schema {schema} and {names}; {version} is current")
    missing = sorted(seen.acknowledged - numbers(made.keeper.state))
    if missing:
        raise stage.Violation(f"{len(missing)} acknowledged numbers are lost: {missing[: stage.LISTED_MAX]}")


def numbers(state_dir: Path) -> set[int]:
    """Numbers that a state directory holds: in the state, and in what an abort had to set aside."""
    found = _read(state_dir / "data" / "web" / "state")
    for point in (state_dir / "rollback_points").glob("web/[!.]*/point.json"):
        if json.loads(point.read_bytes())["is_set_aside"]:
            found |= _read(point.parent / "state")
    return found


def _read(folder: Path) -> set[int]:
    found: set[int] = set()
    for path in folder.glob("lines.*"):
        for line in path.read_text().splitlines():
            found.add(json.loads(line)["n"] if path.suffix == ".jsonl" else int(line))
    return found


# The environment.


async def environments(made: stage.FaultNode, _seen: Seen) -> None:
    """Each environment that counts is what its digest says; current has the one that it needs.

    Raises:
        stage.Violation: It is not so.
    """
    folder = made.keeper.state / "environments"
    for told in folder.glob("[!.]*.digest") if folder.is_dir() else ():
        try:
            found = digest.environment_digest(told.with_suffix(""))
        except errors.RequestError as error:
            raise stage.Violation(f"environment {told.stem}: {error}") from error
        if found != told.read_text().strip():
            raise stage.Violation(f"environment {told.stem} is not what its digest says")
    current = (made.keeper.state / "components" / "web" / "current").resolve()
    has_environment = (folder / f"{current.name}.digest").exists()
    if (current / "requirements.txt").exists() and not has_environment:
        raise stage.Violation(f"{current.name} is current, and has no environment")
