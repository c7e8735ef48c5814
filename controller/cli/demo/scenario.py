"""What the demo does, in order: install 1.0.0, put it under load, upgrade it to 1.1.0, and then perhaps to a bad 1.2.0.

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

from google.protobuf import duration_pb2

from controller import clock
from controller.cli import connection
from controller.cli.demo import api, bundles, figures, fleet, process, receiver, record, report
from instar.v1 import rollout_pb2

REQUESTS_PER_SECOND = 300.0  # over all nodes together: two small cores answer them with room to spare
REQUESTS_MIN = 5000  # the load goes on until there are so many
BASELINE_SECONDS = 3.0  # of load before the first upgrade, to compare with
HEARTBEAT_PERIOD = "1s"  # short, as everything here; what changes is told at once all the same
SOAK = timedelta(seconds=5)  # longer than the bad release needs to be found out: 2 s and two failed probes
INSTALL_SOAK = timedelta(seconds=0.5)  # nobody asks anything yet
MIN_HEALTHY = timedelta(seconds=2)
ROLLOUT_SECONDS = 60.0  # for one rollout to end
TRACE_SECONDS = 15.0  # for the last spans to come in after it
LOAD_SECONDS = 30.0  # for the load client to have sent what is wanted

EXPECTED_STATES = (rollout_pb2.ROLLOUT_STATE_SUCCEEDED, rollout_pb2.ROLLOUT_STATE_REVERTED)  # to 1.1.0, to 1.2.0


@dataclass(frozen=True, slots=True)
class Options:
    """What a run shall do.

    Args:
        nodes: Number of nodes.
        is_bad: Whether to go on to the release that fails its health probe.
    """

    nodes: int
    strategy: rollout_pb2.Strategy.ValueType
    is_bad: bool


Say = Callable[[str], None]


async def run(options: Options, say: Say) -> report.Report:
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
            stage = await _set_up(options, root, started, say)
            found = await _perform(stage, options, lambda: ticks.monotonic() - began_seconds)
    except asyncio.CancelledError:
        shutil.rmtree(root)
        raise
    except Exception:
        say(f"what was written is kept in {root}")
        raise
    shutil.rmtree(root)
    return found


@dataclass(frozen=True, slots=True)
class _Stage:
    """What runs while the demo does its work."""

    nodes: Sequence[fleet.Node]
    link: connection.Connection
    spans: receiver.Receiver
    root: Path
    say: Say

    @property
    def node_ids(self) -> frozenset[str]:
        return frozenset(node.id for node in self.nodes)

    @property
    def records(self) -> Path:
        return self.root / "requests.tsv"


async def _set_up(options: Options, root: Path, started: AsyncExitStack, say: Say) -> _Stage:
    spans = receiver.Receiver()
    server, otlp_port = await receiver.serve(spans)
    started.push_async_callback(server.stop, None)
    controller = fleet.Controller(root / "controller", otlp_port, HEARTBEAT_PERIOD)
    started.push_async_callback(controller.stop)
    await controller.start()
    say(f"the controller listens on {controller.address}")
    nodes = [fleet.Node(f"demo-{number}", root / f"n{number}", controller) for number in range(1, options.nodes + 1)]
    started.push_async_callback(_together, [node.stop for node in nodes])
    sources = (bundles.FIRST, bundles.NEXT, *((bundles.BAD,) if options.is_bad else ()))
    await _together([*(partial(controller.publish, source) for source in sources), *(node.enrol for node in nodes)])
    await _together([node.start for node in nodes])
    stage = _Stage(nodes, await started.enter_async_context(controller.connect()), spans, root, say)
    await process.until("every node is connected", partial(_is_connected, stage), seconds=fleet.READY_SECONDS)
    say(f"{len(nodes)} nodes are connected, {len(sources)} releases are published")
    return stage


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


async def _is_connected(stage: _Stage) -> bool:
    return {node.node_id for node in await api.nodes(stage.link) if node.connected} >= stage.node_ids


async def _perform(stage: _Stage, options: Options, elapsed_seconds: Callable[[], float]) -> report.Report:
    install = await _roll_out(stage, _request(bundles.FIRST, rollout_pb2.STRATEGY_IMMEDIATE))
    if install.state != rollout_pb2.ROLLOUT_STATE_SUCCEEDED:
        raise process.ProcessError(f"cannot go on: {install.name} did not succeed: {install.message}")
    load = await fleet.start_load(stage.nodes, stage.root, requests_per_second=REQUESTS_PER_SECOND)
    try:
        await _requests_sent(stage, load, int(BASELINE_SECONDS * REQUESTS_PER_SECOND))
        upgrades = await _upgrades(stage, options)
        await _requests_sent(stage, load, REQUESTS_MIN)
    finally:
        await load.stop()
    trace = await _whole_trace(stage, upgrades[0].trace_id)
    versions = await _versions(stage)
    return report.Report(
        rollouts=(install, *upgrades),
        expected_states=(rollout_pb2.ROLLOUT_STATE_SUCCEEDED, *EXPECTED_STATES)[: 1 + len(upgrades)],
        node_ids=stage.node_ids,
        expected_version=bundles.NEXT.version,
        versions=versions,
        requests=figures.figures(record.read(stage.records), figures.windows(trace)),
        trace=trace,
        seconds=elapsed_seconds(),
    )


async def _upgrades(stage: _Stage, options: Options) -> Sequence[rollout_pb2.Rollout]:
    """The upgrades, one after the other, up to the first that does not end as it should."""
    done: list[rollout_pb2.Rollout] = []
    sources = (bundles.NEXT, bundles.BAD) if options.is_bad else (bundles.NEXT,)
    for source, expected in zip(sources, EXPECTED_STATES, strict=False):
        done.append(await _roll_out(stage, _request(source, options.strategy)))
        if done[-1].state != expected:
            break
    return done


def _request(source: bundles.Source, strategy: rollout_pb2.Strategy.ValueType) -> rollout_pb2.UpgradeRequest:
    is_install = source is bundles.FIRST
    return rollout_pb2.UpgradeRequest(
        component=bundles.COMPONENT,
        target_version=source.version,
        strategy=strategy,
        install=is_install,
        name=f"{bundles.COMPONENT}-{source.version}",
        policy=rollout_pb2.Policy(
            soak_duration=_duration(INSTALL_SOAK if is_install else SOAK),
            min_healthy_duration=_duration(MIN_HEALTHY),
        ),
    )


def _duration(span: timedelta) -> duration_pb2.Duration:
    message = duration_pb2.Duration()
    message.FromTimedelta(span)
    return message


async def _roll_out(stage: _Stage, request: rollout_pb2.UpgradeRequest) -> rollout_pb2.Rollout:
    """Start a rollout and follow it to its end."""
    accepted = await api.start(stage.link, request, request_id=f"demo-{request.name}")
    rollout, said = accepted, ""
    try:
        async with asyncio.timeout(ROLLOUT_SECONDS):
            async for rollout in api.watch(stage.link, accepted.rollout_id):
                if (line := report.progress(rollout)) != said:
                    stage.say(line)
                    said = line
    except TimeoutError as error:
        raise process.ProcessError(f"cannot wait any longer than {ROLLOUT_SECONDS:g} s for: {said}") from error
    return rollout


async def _requests_sent(stage: _Stage, load: process.Process, number: int) -> None:
    async def is_so() -> bool:
        if not load.is_running:
            raise load.failure("send requests")
        return record.number(stage.records) >= number

    await process.until(f"{number} requests were sent", is_so, seconds=LOAD_SECONDS)


async def _whole_trace(stage: _Stage, trace_id: str) -> receiver.Trace:
    """The trace as it is once its last spans are in, or as far as it came within TRACE_SECONDS."""

    async def is_whole() -> bool:
        trace = stage.spans.trace(trace_id)
        drained = {span.node_id for span in trace.named("drain")}
        return len(trace.roots) > 0 and not trace.orphans and drained >= stage.node_ids

    with contextlib.suppress(process.ProcessError):
        await process.until("the trace is whole", is_whole, seconds=TRACE_SECONDS)
    return stage.spans.trace(trace_id)


async def _versions(stage: _Stage) -> dict[str, int]:
    nodes = await api.nodes(stage.link)
    return dict(Counter(one.version for node in nodes for one in node.components if one.name == bundles.COMPONENT))
