"""The harness of the faults itself, and a handful of its cases; all of them are `python -m tests.faults`."""

import asyncio
from pathlib import Path

import pytest

from tests.faults import cases, judgement, points, scenarios, stage

PLACES = points.Places(Path("/n/s"), Path("/n/r"))
PHASE = '"{\\"operation\\":{\\"phase\\":\\"%s\\"}}"'
TRACE = f"""\
10.0 openat(AT_FDCWD</w>, "/n/s/journal", O_RDONLY) = 3</n/s/journal>
11.0 pwrite64(3</n/s/journal>, {PHASE % "SWITCH"}, 4096, 0) = 4096
11.1 fdatasync(3</n/s/journal>) = 0
11.2 mkdir("/n/s/components", 0700) = -1 EEXIST (File exists)
11.3 openat(AT_FDCWD</w>, "/n/s/incoming/ab.part", O_WRONLY|O_CREAT, 0600) = 4</n/s/incoming/ab.part>
77 11.4 write(4</n/s/incoming/ab.part>, "/n/s/journal", 4) = 4
11.5 write(4</n/s/incoming/ab.part>, "abcd", 4) = 4
11.6 write(1</dev/null>, "said", 4) = 4
12.0 pwrite64(3</n/s/journal>, {PHASE % "COMMIT"}, 4096, 4096) = 4096
12.1 symlink("../../releases/ab", "/n/s/components/web/.current") = 0
12.2 rename("/n/s/components/web/.current", "/n/s/components/web/current") = 0
12.3 renameat2(AT_FDCWD</w>, "/n/s/data/web", AT_FDCWD</w>, "/n/s/data/.next-web", RENAME_EXCHANGE) = 0
12.4 unlinkat(5</n/s/data/.gone-next-web/state>, "lines.txt", 0) = 0
12.5 mkdir("/n/s/releases/.staging-ab-77", 0700) = 0
12.6 rename("/n/s/x", <unfinished ...>
12.7 <... rename resumed>"/n/s/y") = 0
"""


def _calls() -> list[points.Call]:
    return list(points.read("agent", TRACE))


def test_of_a_trace_only_what_changed_something_counts() -> None:
    assert [(call.name, call.path) for call in _calls()] == [
        ("pwrite64", "/n/s/journal"),
        ("fdatasync", "/n/s/journal"),
        ("openat", "/n/s/incoming/ab.part"),
        ("write", "/n/s/incoming/ab.part"),
        ("write", "/n/s/incoming/ab.part"),
        ("write", "/dev/null"),
        ("pwrite64", "/n/s/journal"),
        ("symlink", "/n/s/components/web/.current"),
        ("rename", "/n/s/components/web/current"),
        ("renameat2", "/n/s/data/.next-web"),
        ("unlinkat", "/n/s/data/.gone-next-web/state/lines.txt"),
        ("mkdir", "/n/s/releases/.staging-ab-77"),
        ("rename", "/n/s/x"),
    ]


def test_calls_are_numbered_as_strace_will_count_them_by_thread_and_path() -> None:
    calls = _calls()
    writes = [call for call in calls if call.name == "write"]
    assert [(call.number, call.number_on_path) for call in writes] == [(1, 1), (1, 1), (2, 1)]
    [made] = [call for call in calls if call.name == "mkdir"]
    assert made.number == 2  # one that failed was counted too
    [moved] = [call for call in calls if call.name == "renameat2"]
    assert moved.source == "/n/s/data/web"
    [removed] = [call for call in calls if call.name == "unlinkat"]
    assert removed.source == "/n/s/data/.gone-next-web/state"  # by its own path strace does not find it


def test_a_point_is_a_distinct_process_step_call_and_class_of_path() -> None:
    found = points.enumerate_points(_calls(), PLACES, since_seconds=10.5, instance="x")
    assert [each.title for each in found] == [
        "agent / SWITCH / pwrite64 / journal",
        "agent / SWITCH / fdatasync / journal",
        "agent / SWITCH / openat / incoming",
        "agent / SWITCH / write / incoming",
        "agent / COMMIT / pwrite64 / journal",
        "agent / COMMIT / symlink / pointers",
        "agent / COMMIT / rename / pointers",
        "agent / COMMIT / renameat2 / schema of the copy",
        "agent / COMMIT / unlinkat / state in removal",
        "agent / COMMIT / mkdir / staging tree",
    ]
    assert points.enumerate_points(_calls(), PLACES, since_seconds=20.0, instance="x") == ()


def test_what_other_processes_do_belongs_to_the_step_that_the_agent_is_in() -> None:
    keepers = points.read("keeper", '12.05 rename("/n/r/.keeper.marks", "/n/r/keeper.marks") = 0\n')
    found = points.enumerate_points([*keepers, *_calls()], PLACES, since_seconds=10.5, instance="x")
    assert "keeper / COMMIT / rename / marks" in [each.title for each in found]


def test_a_point_is_hit_on_its_own_path_and_by_its_number_where_the_path_differs_in_each_run() -> None:
    found = points.enumerate_points(_calls(), PLACES, since_seconds=10.5, instance="x")
    here = points.Places(Path("/m/s"), Path("/m/r"))
    by_title = {each.title: points.arguments(each, "signal=KILL", PLACES, here, Path("/o")) for each in found}
    moved = by_title["agent / COMMIT / renameat2 / schema of the copy"]
    assert "/m/s/data/web" in moved
    assert moved[-1] == "inject=renameat2:signal=KILL:when=1"
    staging = by_title["agent / COMMIT / mkdir / staging tree"]
    assert "-P" not in staging
    assert staging[-1] == "inject=mkdir:signal=KILL:when=2"


@pytest.mark.parametrize(
    ("text", "is_hit"),
    [
        ("1.0 write(3</x>, ...) = -1 ENOSPC (No space left on device) (INJECTED)", True),
        ("1.0 +++ killed by SIGKILL +++", True),
        ("1.0 write(3</x>, ...) = 4\n1.1 +++ exited with 0 +++", False),
    ],
)
def test_a_case_counts_only_when_the_fault_happened(text: str, *, is_hit: bool) -> None:
    assert points.has_fired(text) is is_hit


# Real ones.

OBSTACLE = stage.obstacle()
real = pytest.mark.skipif(bool(OBSTACLE), reason=OBSTACLE or "nothing is in the way")


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> cases.Recording:
    return asyncio.run(_record(scenarios.SCENARIOS[scenarios.BASE], tmp_path_factory.mktemp("saved")))


async def _record(scenario: scenarios.Scenario, folder: Path) -> cases.Recording:
    return await cases.record(scenario, await cases.save(scenario.make, folder))


@real
@pytest.mark.slow
@pytest.mark.parametrize(
    ("title", "fault"),
    [
        ("verifier / VERIFY / write / staging tree", cases.DISK_FULL),
        ("agent / SWITCH / fdatasync / journal", cases.DISK_FAILED),
        ("agent / COMMIT / rename / pointers", cases.KILLED),
        ("keeper / COMMIT / rename / marks", cases.KILLED),
        ("keeper / COMMIT / rename / marks", cases.HOST_DIED),
    ],
)
async def test_a_node_that_is_hit_comes_through(recording: cases.Recording, title: str, fault: cases.Fault) -> None:
    [point] = [each for each in recording.points if each.title == title]
    assert await cases.play(recording, point, fault) == cases.Outcome(f"{scenarios.BASE}: {title}: {fault.name}")


@real
@pytest.mark.slow
async def test_the_judgement_finds_a_pointer_that_leads_nowhere_and_requests_that_failed(
    recording: cases.Recording,
) -> None:
    scenario, seen = recording.scenario, judgement.Seen(pid=1, total=9, failed=1)
    async with stage.node() as made:
        made.load(recording.saved)
        made.start()
        await made.settle()
        with pytest.raises(stage.Violation, match="1 of 9 requests failed"):
            await cases.judge(made, scenario, seen, is_lossy=False)
        (made.keeper.state / "components" / "web" / "permanent").unlink()
        with pytest.raises(stage.Violation, match="permanent of web does not lead to a whole release"):
            await cases.judge(made, scenario, seen, is_lossy=True)
