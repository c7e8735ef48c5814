"""What dies again and again, what is shed, what is logged, and what a stop of the node does."""

import asyncio
import dataclasses
import itertools
import signal
import socket
from datetime import timedelta

import pytest

from agent import processes
from agent.keeper import instance, logs
from tests.agent.keeper import node
from tests.agent.keeper.test_instances import refused
from tests.agent.keeper.test_plain import ask, kept, plain

CRASHES = "import os\nif not os.path.exists(os.environ['HEALED']):\n    raise SystemExit(3)\n"
FLOODS = """
import sys, time
for number in range(300000):
    sys.stdout.write(f"line {number} " + "x" * 80 + "\\n")
sys.stdout.flush()
print("the end", flush=True)
time.sleep(600)
"""

FLOOD_SECONDS = 3.0
FLOODS_FAST = f"""
import os, time
line = b"x" * 99 + b"\\n"
began, written = time.monotonic(), 0
while (now := time.monotonic()) < began + {FLOOD_SECONDS}:
    due = int((now - began) * 120_000_000) - written
    written += os.write(1, line * (due // 100)) if due >= 100 else 0
print("written", written, flush=True)
time.sleep(600)
"""
FLOODED_MAX_BYTES = 64 << 20  # at 120 MB/s


async def test_a_crash_loop_is_broken_and_stays_so_over_a_killed_keeper_until_it_is_revived(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    healed = a_node.state / "healed"
    source = CRASHES + "import time\ntime.sleep(600)"
    spec = plain(a_node, "1.0.0", source, environment={"HEALED": str(healed)})
    await kept(keeper, spec)

    async def is_broken() -> bool:
        return (await node.find(keeper, spec.id)).is_broken

    await node.until(is_broken)
    broken = await node.find(keeper, spec.id)
    assert (broken.state, broken.exit_code, broken.is_kept) == (processes.InstanceState.EXITED, 3, True)
    assert broken.restarts == instance.BREAK_DEATHS - 1
    a_node.kill()
    a_node.start()
    keeper = await a_node.attached()
    still = await node.find(keeper, spec.id)
    assert (still.is_broken, still.is_kept, still.restarts) == (True, True, broken.restarts)
    healed.touch()
    revived = await keeper.revive(spec.id)
    assert (revived.state, revived.is_broken) == (processes.InstanceState.ACTIVE, False)


async def test_deaths_are_counted_on_over_a_keeper_that_died_between_them(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    source = CRASHES
    spec = plain(a_node, "1.0.0", source, environment={"HEALED": "/nowhere"})
    await kept(keeper, spec)

    async def has_died_twice() -> bool:
        return (await node.find(keeper, spec.id)).restarts >= 2

    await node.until(has_died_twice)
    a_node.kill()
    a_node.start()
    keeper = await a_node.attached()

    async def is_broken() -> bool:
        return (await node.find(keeper, spec.id)).is_broken

    await node.until(is_broken)
    assert (await node.find(keeper, spec.id)).restarts <= instance.BREAK_DEATHS


async def test_what_waits_is_turned_away_only_after_the_bound_and_served_again_later(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    started = await kept(keeper, plain(a_node, "1.0.0"))
    with refused("unknown_socket"):
        await keeper.hold("web", ["web.other"], timedelta(seconds=1))
    await keeper.hold("web", ["web.http"], timedelta(seconds=1.5))
    assert (await ask(a_node))[0] == "1.0.0"
    await keeper.say(started.id, processes.Word.PARK, node.WORD_TIMEOUT)
    loop = asyncio.get_running_loop()
    parked_at = loop.time()
    with socket.create_connection(a_node.address) as waiting:
        waiting.settimeout(0)
        assert await loop.sock_recv(waiting, 1) == b""
        assert loop.time() - parked_at >= 1.4
    with socket.create_connection(a_node.address) as another:
        another.settimeout(0)
        assert await loop.sock_recv(another, 1) == b""
    await keeper.say(started.id, processes.Word.RESUME, node.WORD_TIMEOUT)
    assert (await ask(a_node))[0] == "1.0.0"
    await keeper.stop(started.id, timedelta(seconds=5))  # the last: the hold is forgotten
    await keeper.unlisten("web.http")


async def test_the_next_keeper_goes_on_holding(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    started = await kept(keeper, plain(a_node, "1.0.0"))
    await keeper.hold("web", ["web.http"], timedelta(seconds=0.1))
    a_node.kill()
    a_node.start()
    keeper = await a_node.attached()
    await keeper.say(started.id, processes.Word.PARK, node.WORD_TIMEOUT)
    assert await asyncio.wait_for(ask(a_node), node.PATIENCE_SECONDS) == [""]


async def test_a_flood_of_a_log_is_bounded_and_its_end_is_there(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    spec = plain(a_node, "1.0.0", FLOODS)
    await keeper.start(spec)

    async def is_over() -> bool:
        return (await keeper.log(spec.id, 1000)).endswith("the end\n")

    await node.until(is_over)

    async def is_bounded() -> bool:
        return sum(path.stat().st_size for path in a_node.run.glob("*.log*")) <= 2 * logs.LOG_MAX_BYTES

    await node.until(is_bounded)
    tail = await keeper.log(spec.id, logs.TAIL_MAX_BYTES)
    numbers = [int(line.split()[1]) for line in tail.splitlines()[:-1]]
    assert len(tail) > logs.TAIL_MAX_BYTES - 200
    assert all(after == before + 1 for before, after in itertools.pairwise(numbers))
    assert numbers[-1] == 299999


@pytest.mark.parametrize(
    ("bytes_a_second", "seconds"), [(0, 0.25), (-1e9, 0.25), (1e6, 0.25), (20 << 20, 0.2), (120e6, 0.1), (1e12, 0.1)]
)
def test_the_faster_a_log_grows_the_sooner_it_is_looked_at_again(bytes_a_second: float, seconds: float) -> None:
    assert logs.period_seconds(bytes_a_second) == pytest.approx(seconds)


@pytest.mark.alone  # what a keeper that waits for a processor does not look at comes on top
async def test_the_logs_of_a_program_that_writes_120_megabytes_a_second_stay_bounded(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    spec = plain(a_node, "1.0.0", FLOODS_FAST)
    await keeper.start(spec)
    seen: list[int] = []

    def size() -> int:
        return sum(
            path.stat().st_size
            for path in (a_node.run / f"{spec.id}.log{end}" for end in ("", ".old"))
            if path.exists()
        )

    async def is_over() -> bool:
        seen.append(await asyncio.to_thread(size))
        return "written" in await keeper.log(spec.id, 100)

    await node.until(is_over)
    written = int((await keeper.log(spec.id, 100)).split()[-1])
    assert written > 2 * FLOODED_MAX_BYTES  # else it was none
    assert max(seen) < FLOODED_MAX_BYTES


@pytest.mark.parametrize("is_signalled", [True, False])
async def test_a_stop_of_the_node_does_to_each_component_what_it_declared(
    a_node: node.Node, *, is_signalled: bool
) -> None:
    keeper = await a_node.attached()
    kept_on = await kept(keeper, plain(a_node, "1.0.0"))
    spec = plain(a_node, "2.0.0", on_agent_stop=processes.OnAgentStop.STOP)
    stopped = await keeper.start(dataclasses.replace(spec, component="other", sockets=[]))
    assert a_node.process is not None
    if is_signalled:
        a_node.process.send_signal(signal.SIGTERM)
    else:
        await keeper.shutdown(processes.OnShutdown.DECLARED)
    assert a_node.process.wait(node.PATIENCE_SECONDS) == 0
    assert node.is_over(stopped.pid)
    assert (await ask(a_node))[1] == str(kept_on.pid)
    a_node.start()
    (left,) = (await (await a_node.client()).inspect()).instances
    assert (left.id, left.pid) == (kept_on.id, kept_on.pid)
