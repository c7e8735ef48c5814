"""What the demo does, in order: install 1.0.0, put it under load, upgrade it to 1.1.0, and perhaps two things more.

These are a bad 1.2.0, which is undone by itself, and the agents' own upgrade.

Rules kept: what is waited for has a deadline; everything started is stopped, also when something fails. The numbers of
the policies are small, so that the whole of it takes less than a minute.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

from controller import clock
from controller.cli.demo import (
    api,
    bundles,
    figures,
    fleet,
    outage,
    process,
    receiver,
    record,
    replicas,
    report,
    self_upgrade,
    stage,
)
from controller.core import secret
from instar.v1 import rollout_pb2

REQUESTS_PER_SECOND = 300.0  # over all nodes together: two small cores answer them with room to spare
REQUESTS_MIN = 5000  # the load goes on until there are so many
BASELINE_SECONDS = 3.0  # of load before the first upgrade, to compare with
HEARTBEAT_PERIOD = "1s"  # short, as everything here; what changes is told at once all the same
SOAK = timedelta(seconds=5)  # longer than the bad release needs to be found out: 2 s and two failed probes
BRIEF_SOAK = timedelta(seconds=2)  # where nothing bad comes, and the agents' upgrade takes time of its own
INSTALL_SOAK = timedelta(seconds=0.5)  # nobody asks anything yet
TRACE_SECONDS = 15.0  # for the last spans to come in after it

INSTALL = stage.Step(bundles.FIRST, rollout_pb2.STRATEGY_IMMEDIATE, INSTALL_SOAK, is_install=True)


@dataclass(frozen=True, slots=True)
class Options:
    """What a run shall do.

    Args:
        nodes: Number of nodes.
        is_bad: Whether to go on to the release that fails its health probe.
        is_self_upgrade: Whether to upgrade the agents themselves, too.
        replicas: Number of controllers; more than one share a database.
        kills_controller: Whether to kill the one that leads in the middle of the upgrade.
        store_url: The database of the controller's store; empty for a file, or for a server of the demo's own.
    """

    nodes: int
    strategy: rollout_pb2.Strategy.ValueType
    is_bad: bool
    is_self_upgrade: bool
    replicas: int
    kills_controller: bool
    store_url: secret.Secret[str]


@dataclass(frozen=True, slots=True)
class Script:
    """What a run does after the install, under load, in this order.

    Args:
        agents: Versions of the agent, first to last; none where the agents stay as they are.
    """

    services: Sequence[stage.Step]
    agents: Sequence[stage.Step]

    @property
    def steps(self) -> Sequence[stage.Step]:
        """All of it."""
        return (*self.services, *self.agents)


async def run(options: Options, say: stage.Say) -> report.Report:
    """Do all of it on this machine.

    Args:
        options: What to do.
        say: Takes each line of progress.

    Raises:
        process.ProcessError: A part did not come up or did not end; what it wrote is kept and named.
    """
    ticks = clock.SystemClock()
    began_seconds = ticks.monotonic()
    root = Path(tempfile.mkdtemp(prefix="instar-"))
    try:
        async with AsyncExitStack() as started:
            script = _script(options)
            controller, made = await _set_up(options, script, root, started, say)
            cut = outage.Outage(controller, say) if options.kills_controller else None
            found = await _perform(made, script, cut, lambda: ticks.monotonic() - began_seconds)
    except asyncio.CancelledError:
        shutil.rmtree(root)
        raise
    except Exception:
        say(f"what was written is kept in {root}")
        raise
    shutil.rmtree(root)
    return found


def _script(options: Options) -> Script:
    soak = BRIEF_SOAK if options.is_self_upgrade and not options.is_bad else SOAK
    services = [stage.Step(bundles.NEXT, options.strategy, soak)]
    if options.is_bad:
        services.append(stage.Step(bundles.BAD, options.strategy, SOAK, ends=rollout_pb2.ROLLOUT_STATE_REVERTED))
    return Script(services, self_upgrade.steps(options.strategy) if options.is_self_upgrade else ())


async def _set_up(
    options: Options, script: Script, root: Path, started: AsyncExitStack, say: stage.Say
) -> tuple[fleet.Controller, stage.Stage]:
    spans = receiver.Receiver()
    server, otlp_port = await receiver.serve(spans)
    started.push_async_callback(server.stop, None)
    controller = await _controller(options, root / "controller", otlp_port, started)
    started.push_async_callback(controller.stop)
    await controller.start()
    who = "the controller listens" if options.replicas == 1 else f"{options.replicas} controllers listen"
    say(f"{who} on {controller.address}, and TLS 1.3 is spoken by authorities of their own")
    nodes = [fleet.Node(f"demo-{index}", root / f"n{index}", controller) for index in range(1, options.nodes + 1)]
    started.push_async_callback(_together, [node.stop for node in nodes])
    sources = [step.source for step in (INSTALL, *script.steps)]
    await _together([*(partial(controller.publish, source) for source in sources), *(node.enrol for node in nodes)])
    await _together([node.start for node in nodes])
    made = stage.Stage(nodes, await started.enter_async_context(controller.connect()), spans, root, say)
    await process.until("every node is connected", made.is_connected, seconds=fleet.READY_SECONDS)
    say(f"{len(nodes)} nodes are connected, {len(sources)} releases are published")
    return controller, made


async def _controller(options: Options, folder: Path, otlp_port: int, started: AsyncExitStack) -> fleet.Controller:
    """One, or as many as are wanted, on a database."""
    url = options.store_url
    if options.replicas == 1:
        return fleet.Controller(folder, otlp_port, HEARTBEAT_PERIOD, has_tls=True, store_url=url)
    if not url.reveal():
        url = await _own_database(started)
    return replicas.Replicas(folder, otlp_port, HEARTBEAT_PERIOD, number=options.replicas, store_url=url, has_tls=True)


async def _own_database(started: AsyncExitStack) -> secret.Secret[str]:
    """A database of a server that ends with the demo.

    Raises:
        process.ProcessError: There is none to be had.
    """
    try:
        from controller.cli.demo import postgresql  # its driver is not part of every installation
    except ImportError as error:
        raise process.ProcessError(f"cannot run several controllers: {error}; install instar[postgres]") from error
    try:
        server = await asyncio.to_thread(postgresql.Server)
    except postgresql.ServerError as error:
        raise process.ProcessError(str(error)) from error
    started.callback(server.close)
    server.execute("CREATE DATABASE demo")
    return secret.Secret(server.url("demo"))


async def _together(actions: Sequence[Callable[[], Coroutine[None, None, None]]]) -> None:
    """Do some things at the same time.

    Raises:
        process.ProcessError: One of them failed; the others were given up.
    """
    try:
        async with asyncio.TaskGroup() as tasks:
            for action in actions:
                tasks.create_task(action())
    except ExceptionGroup as group:
        raise process.ProcessError("\n".join(str(error) for error in group.exceptions)) from group


async def _perform(
    made: stage.Stage, script: Script, cut: outage.Outage | None, elapsed_seconds: Callable[[], float]
) -> report.Report:
    install = await made.roll_out(INSTALL)
    if not install.is_as_expected:
        raise process.ProcessError(f"cannot go on: {install.rollout.name} did not succeed: {install.rollout.message}")
    load = await fleet.start_load(made.nodes, made.root, requests_per_second=REQUESTS_PER_SECOND)
    try:
        await made.requests_sent(load, int(BASELINE_SECONDS * REQUESTS_PER_SECOND))
        upgrades = await _upgrades(made, script.services, cut)
        agents = None
        if script.agents and all(ended.is_as_expected for ended in upgrades):
            before = await self_upgrade.trees(made)
            upgrades += await _upgrades(made, script.agents)
            agents = await self_upgrade.outcome(made, script.agents[-1].source.version, before)
        await made.requests_sent(load, REQUESTS_MIN)
    finally:
        await load.stop()
    trace = await _whole_trace(made, _traced(upgrades).trace_id)
    return report.Report(
        rollouts=(install, *upgrades),
        node_ids=made.node_ids,
        expected_version=bundles.NEXT.version,
        versions=await _versions(made),
        requests=figures.figures(record.read(made.records), figures.windows(trace)),
        trace=trace,
        agents=agents,
        outage=report.Outage(cut.seconds) if cut else None,
        seconds=elapsed_seconds(),
    )


async def _upgrades(
    made: stage.Stage, steps: Sequence[stage.Step], meanwhile: stage.Meanwhile | None = None
) -> list[report.Ended]:
    """The upgrades, one after the other, up to the first that does not end as it should."""
    done: list[report.Ended] = []
    for step in steps:
        done.append(await made.roll_out(step, meanwhile))
        if not done[-1].is_as_expected:
            break
    return done


def _traced(upgrades: Sequence[report.Ended]) -> rollout_pb2.Rollout:
    """The last one that was meant to go through on every node."""
    return [ended.rollout for ended in upgrades if ended.expected == rollout_pb2.ROLLOUT_STATE_SUCCEEDED][-1]


async def _whole_trace(made: stage.Stage, trace_id: str) -> receiver.Trace:
    """The trace as it is once its last spans are in, or as far as it came within TRACE_SECONDS."""

    async def is_whole() -> bool:
        trace = made.spans.trace(trace_id)
        drained = {span.node_id for span in trace.named("drain")}
        return len(trace.roots) > 0 and not trace.orphans and drained >= made.node_ids

    with contextlib.suppress(process.ProcessError):
        await process.until("the trace is whole", is_whole, seconds=TRACE_SECONDS)
    return made.spans.trace(trace_id)


async def _versions(made: stage.Stage) -> dict[str, int]:
    nodes = await api.nodes(made.link)
    return dict(Counter(one.version for node in nodes for one in node.components if one.name == bundles.COMPONENT))
