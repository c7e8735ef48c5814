"""What a driver must do: one function for each check, named as a sentence.

Rules kept here: a check that returns has passed; `stage.CheckError` and any unexpected error fail it,
`stage.SkippedError` skips it.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

from agent import drivers
from agent.core import model
from agent.drivers import conformance
from agent.drivers.conformance import stage

Check = Callable[[stage.Stage], Awaitable[None]]

FIRST, SECOND = "1.0.0", "1.1.0"
REASON = re.compile(r"[a-z][a-z0-9_]*")
SLACK = timedelta(seconds=10)  # over a deadline, on a busy machine
SHORT = timedelta(seconds=2)  # a deadline that a healthy program keeps and that is worth waiting for
Behaviour = conformance.Behaviour


async def capabilities_are_what_the_module_says(on: stage.Stage) -> None:
    """METHODS and capabilities agree, and the fixture's method is among them."""
    stage.expect(on.driver.capabilities().methods == on.module.METHODS, "capabilities are not METHODS")
    stage.expect(on.fixture.method in on.module.METHODS, f"METHODS lacks {on.fixture.method.value}")


async def a_method_that_it_does_not_have_is_refused(on: stage.Stage) -> None:
    """Plan refuses what METHODS lacks, before anything has happened."""
    others = sorted(set(model.Method) - on.module.METHODS, key=lambda each: each.value)
    if not others:
        raise stage.SkippedError("the driver has every method")
    change = replace(on.change(on.launch(FIRST), None), method=others[0])
    await _refused(on.driver.plan(change), {model.Fault.COMMAND})


async def planning_and_staging_change_nothing(on: stage.Stage) -> None:
    """Plan and stage leave every instance as it was."""
    old = await on.installed(FIRST)
    before = await on.look(old.manifest.name)
    change = on.change(on.launch(SECOND), old)
    for verb in ("plan", "stage"):
        await on.call(verb, change)
    after = await on.look(old.manifest.name)
    stage.expect([_gist(each) for each in after] == [_gist(each) for each in before], f"{before} became {after}")


async def an_upgrade_works_with_every_verb_called_twice(on: stage.Stage) -> None:
    """Each verb is idempotent, and in the end the new version serves alone and is kept."""
    old = await on.installed(FIRST)
    change = on.change(new := on.launch(SECOND), old)
    await on.switch(change, times=2)
    for _ in range(2):
        await on.committed(change)
    for _ in range(2):
        await on.call("drain", change)
    await on.serves(SECOND)
    [only] = [each for each in await on.look(new.manifest.name) if each.pid]
    stage.expect((only.digest, only.is_kept) == (new.digest, True), f"{only} is not the kept one of {new.digest}")


async def an_abort_at_any_point_leaves_the_old_version_serving(on: stage.Stage) -> None:
    """Abort, twice, after each verb before COMMIT, and before the first; then a commit cannot succeed."""
    old = await on.installed(FIRST)
    for count in range(len(stage.BEFORE_COMMIT) + 1):
        change = on.change(on.launch(SECOND), old)
        for verb in stage.BEFORE_COMMIT[:count]:
            await on.call(verb, change)
        for _ in range(2):
            await on.call("abort", change)
        await _only_old(on, old, f"an abort after {stage.BEFORE_COMMIT[:count]}")


async def a_change_that_was_aborted_cannot_be_committed(on: stage.Stage) -> None:
    """After an abort the decision stands."""
    old = await on.installed(FIRST)
    change = on.change(on.launch(SECOND), old)
    await on.switch(change)
    await on.call("abort", change)
    verdict = await on.driver.commit(change)
    stage.expect(verdict.outcome is drivers.Outcome.ROLLED_BACK, "commit succeeds after an abort")
    await on.serves(FIRST)


async def verbs_out_of_their_order_do_no_harm(on: stage.Stage) -> None:
    """Resume, pause and abort where there is nothing to do leave the old version serving."""
    old = await on.installed(FIRST)
    change = on.change(on.launch(SECOND), old)
    for verb in ("resume_old", "abort", "resume_old", "plan"):
        await on.call(verb, change)
    await _only_old(on, old, "verbs out of their order")


async def an_upgrade_succeeds_after_one_that_was_aborted(on: stage.Stage) -> None:
    """An abort leaves nothing behind that stands in the way of the next operation."""
    old = await on.installed(FIRST)
    aborted = on.change(on.launch(SECOND), old)
    await on.switch(aborted)
    await on.call("abort", aborted)
    change = on.change(on.launch(SECOND), old)
    await on.switch(change)
    await on.committed(change)
    await on.call("drain", change)
    await on.serves(SECOND)


async def a_version_that_crashes_at_start_is_blamed_and_undone(on: stage.Stage) -> None:
    """The version is to blame, and the old one goes on."""
    await _fails(on, Behaviour.CRASHES_AT_START)


async def a_version_that_is_never_ready_is_blamed_within_its_deadline(on: stage.Stage) -> None:
    """prepare_timeout bounds the wait."""
    await _fails(on, Behaviour.NEVER_READY)


async def a_version_that_dies_after_it_was_activated_is_undone(on: stage.Stage) -> None:
    """Observe tells that it is gone; whatever commit says then, the old version serves after the abort."""
    old = await on.installed(FIRST)
    change = on.change(new := on.launch(SECOND), old)
    await on.switch(change)
    seen = (await on.driver.observe(change)).instance
    stage.expect(seen is not None and seen.digest == new.digest, f"observe shows {seen}, not the new instance")
    os.kill(seen.pid if seen else 0, signal.SIGKILL)

    async def is_gone() -> bool:
        now = (await on.driver.observe(change)).instance
        return now is None or now.pid != (seen.pid if seen else 0)

    stage.expect(await stage.until(is_gone), "observe does not tell that the new instance died")
    await on.call("abort", change)
    await _only_old(on, old, "an abort after the death of the new instance")


async def what_does_not_drain_is_named_and_ended_in_time(on: stage.Stage) -> None:
    """Drain ends within its deadlines, by force, and blockers name who was in the way."""
    stuck = await on.installed(FIRST, Behaviour.NEVER_DRAINS)
    change = on.change(on.launch(SECOND), stuck)
    await on.switch(change)
    await on.committed(change)
    is_running = any(each.pid and each.is_kept is False for each in await on.look(change.component))
    limit = stuck.manifest.drain_timeout + stuck.manifest.stop_timeout + SLACK
    named: set[str] = set()
    async with asyncio.timeout(limit.total_seconds()), asyncio.TaskGroup() as tasks:
        drained = tasks.create_task(on.driver.drain(change))
        while not drained.done():
            named.update(await on.driver.blockers(change.component))
            await asyncio.sleep(stage.POLL_SECONDS)
    await on.serves(SECOND)
    stage.expect(bool(named) or not is_running, "blockers named nobody")


async def inspect_tells_the_truth(on: stage.Stage) -> None:
    """What serves is shown with its process; a process that was killed is not shown any more."""
    launch = await on.installed(FIRST)
    [seen] = [each for each in await on.look(launch.manifest.name) if each.pid]
    stage.expect(seen.pid in on.living(), f"{seen} is shown, and its process does not live")
    stage.expect(seen.state is model.InstanceState.ACTIVE, f"{seen} serves and is not shown ACTIVE")
    os.kill(seen.pid, signal.SIGKILL)

    async def is_told() -> bool:
        return all(each.pid != seen.pid or not each.pid for each in await on.driver.inspect(launch.manifest.name))

    stage.expect(await stage.until(is_told), f"process {seen.pid} was killed and is still shown")


async def bring_up_leaves_what_serves_alone(on: stage.Stage) -> None:
    """The same process serves before and after, called twice."""
    launch = await on.installed(FIRST)
    before = {each.pid for each in await on.look(launch.manifest.name) if each.pid}
    for _ in range(2):
        await on.driver.bring_up(launch.manifest.name, replace(launch, instance_id=f"{launch.instance_id}b"))
    after = {each.pid for each in await on.look(launch.manifest.name) if each.pid}
    stage.expect(after == before, f"processes {before} became {after}")


async def bring_up_makes_a_release_serve_when_everything_was_killed(on: stage.Stage) -> None:
    """As after a power cut: from disk alone, twice."""
    launch = await on.installed(FIRST)
    await on.restart_keeper()
    again = replace(launch, instance_id=f"{launch.instance_id}b")
    for _ in range(2):
        await on.driver.bring_up(launch.manifest.name, again)
    await on.serves(FIRST)
    kept = [each for each in await on.look(launch.manifest.name) if each.is_kept and each.pid]
    stage.expect(len(kept) == 1, f"not one but {len(kept)} instances are kept")


async def what_was_left_half_way_is_put_right_by_bring_up(on: stage.Stage) -> None:
    """A switch that nobody decided, then bring_up of the old release: it serves, whatever became of the new one."""
    old = await on.installed(FIRST)
    await on.switch(on.change(on.launch(SECOND), old))
    await on.driver.bring_up(old.manifest.name, replace(old, instance_id=f"{old.instance_id}b"))
    kept = {each.id for each in await on.driver.inspect(old.manifest.name) if each.is_kept}
    await on.driver.gc(old.manifest.name, kept)
    await on.serves(FIRST)


async def gc_of_everything_leaves_nothing_running(on: stage.Stage) -> None:
    """Stop and remove are gc with none kept; twice."""
    launch = await on.installed(FIRST)
    for _ in range(2):
        await on.driver.gc(launch.manifest.name, ())
    shown = [each for each in await on.driver.inspect(launch.manifest.name) if each.pid]
    left = await on.left(launch.manifest.name)
    stage.expect(not shown and not left, f"{shown or left} is left")
    await on.serves()


async def a_removal_ends_everything(on: stage.Stage) -> None:
    """A change without a new side drains all there is."""
    old = await on.installed(FIRST)
    await on.call("drain", on.change(None, old))
    left = await on.left(old.manifest.name)
    stage.expect(not left, f"{left} is left")
    await on.serves()


async def a_restart_of_the_same_release_ends_with_another_process(on: stage.Stage) -> None:
    """Old and new have one digest; they are told apart all the same."""
    if model.Method.RESTART not in on.module.METHODS:
        raise stage.SkippedError("the driver cannot restart")
    old = await on.installed(FIRST)
    before = {each.pid for each in await on.look(old.manifest.name) if each.pid}
    change = on.change(on.launch(FIRST), old)
    await on.switch(change, times=2)
    await on.committed(change)
    await on.call("drain", change)
    await on.serves(FIRST)
    after = {each.pid for each in await on.look(old.manifest.name) if each.pid}
    stage.expect(len(after) == 1 and not after & before, f"processes {before} became {after}")


async def a_restart_that_is_aborted_leaves_one_instance(on: stage.Stage) -> None:
    """The same release on both sides, undone."""
    if model.Method.RESTART not in on.module.METHODS:
        raise stage.SkippedError("the driver cannot restart")
    old = await on.installed(FIRST)
    change = on.change(on.launch(FIRST), old)
    await on.switch(change)
    for _ in range(2):
        await on.call("abort", change)
    await _only_old(on, old, "an abort of a restart")


async def what_lies_between_is_done_when_nothing_runs(on: stage.Stage) -> None:
    """before_new comes after the end of the old, before_old after the end of the new instance."""
    if not on.fixture.is_exclusive:
        raise stage.SkippedError("old and new run beside each other")
    old = await on.installed(FIRST)
    seen: list[str] = []

    async def note(what: str) -> drivers.Evidence:
        seen.append(f"{what}, {len([each for each in await on.look(old.manifest.name) if each.pid])} run")
        return {what: "done"}

    change = replace(
        on.change(on.launch(SECOND), old), before_new=lambda: note("migrated"), before_old=lambda: note("restored")
    )
    await on.switch(change)
    stage.expect(seen[:1] == ["migrated, 0 run"], f"before_new was called as {seen}")
    await on.call("abort", change)
    stage.expect(seen[-1] == "restored, 0 run", f"before_old was called as {seen}")
    await on.serves(FIRST)


async def a_socket_without_an_address_is_refused(on: stage.Stage) -> None:
    """The node's configuration is to blame."""
    launch = on.launch(FIRST)
    if not launch.manifest.sockets:
        raise stage.SkippedError("the program has no socket")
    await _refused(on.driver.plan(on.change(replace(launch, addresses={}), None)), {model.Fault.COMMAND})


CHECKS: tuple[Check, ...] = (
    capabilities_are_what_the_module_says,
    a_method_that_it_does_not_have_is_refused,
    a_socket_without_an_address_is_refused,
    planning_and_staging_change_nothing,
    an_upgrade_works_with_every_verb_called_twice,
    an_abort_at_any_point_leaves_the_old_version_serving,
    a_change_that_was_aborted_cannot_be_committed,
    verbs_out_of_their_order_do_no_harm,
    an_upgrade_succeeds_after_one_that_was_aborted,
    a_version_that_crashes_at_start_is_blamed_and_undone,
    a_version_that_is_never_ready_is_blamed_within_its_deadline,
    a_version_that_dies_after_it_was_activated_is_undone,
    what_does_not_drain_is_named_and_ended_in_time,
    inspect_tells_the_truth,
    bring_up_leaves_what_serves_alone,
    bring_up_makes_a_release_serve_when_everything_was_killed,
    what_was_left_half_way_is_put_right_by_bring_up,
    gc_of_everything_leaves_nothing_running,
    a_removal_ends_everything,
    a_restart_of_the_same_release_ends_with_another_process,
    a_restart_that_is_aborted_leaves_one_instance,
    what_lies_between_is_done_when_nothing_runs,
)


async def _fails(on: stage.Stage, behaviour: conformance.Behaviour) -> None:
    old = await on.installed(FIRST)
    launch = on.launch(SECOND, behaviour)
    brisk = replace(launch, manifest=replace(launch.manifest, prepare_timeout=SHORT))
    change = on.change(brisk, old)
    limit = SHORT + launch.manifest.stop_timeout + old.manifest.stop_timeout + SLACK
    async with asyncio.timeout(limit.total_seconds()):
        await _refused(on.switch(change), {model.Fault.VERSION})
    await on.call("abort", change)
    await _only_old(on, old, f"an abort of a version that {behaviour.value}")


async def _refused(work: Awaitable[object], faults: set[model.Fault]) -> None:
    try:
        await work
    except drivers.DriverError as error:
        stage.expect(error.fault in faults, f"the fault is {error.fault.value}: {error}")
        stage.expect(REASON.fullmatch(error.reason) is not None, f"the reason {error.reason!r} is not in snake_case")
        stage.expect(str(error).startswith("cannot"), f'the message does not start with "cannot": {error}')
    else:
        raise stage.CheckError("nothing was refused")


async def _only_old(on: stage.Stage, old: drivers.Launch, after: str) -> None:
    await on.serves(FIRST)
    running = [each for each in await on.look(old.manifest.name) if each.pid]
    is_old = [each.digest == old.digest and each.is_kept for each in running] == [True]
    stage.expect(is_old, f"after {after} there is {running}")


def _gist(seen: model.Instance) -> tuple[object, ...]:
    return (seen.id, seen.pid, seen.state, seen.is_kept)
