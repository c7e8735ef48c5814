"""The state of components: real files, real commands; whatever is killed, there is one whole state of one schema."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import drivers
from agent.config import bounds, layout
from agent.core import model
from agent.state import copies, directories, points, schemas, states
from tests.agent import launches
from tests.agent.test_depot import killed_at_each_call

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BASE = 'name = "web"\nversion = "{version}"\ndriver = "process"\ncommand = ["main.sh"]\n[state]\nschema = {schema}\n'
MIGRATION = (
    '[[state.migrations]]\nfrom_schema = {0}\nto_schema = {1}\ntimeout = "20s"\ncommand = ["sh", "{0}-{1}.sh"]\n'
)
STEP = 'test "$(cat "$STATE_DIRECTORY/schema")" = {0} && echo {1} > "$STATE_DIRECTORY/schema"\n'


def text(version: str, schema: int, *ways: tuple[int, int], more: str = "") -> str:
    head = BASE.format(version=version, schema=schema) + more
    return head + "".join(MIGRATION.format(*way) for way in ways)


def release(root: Path, version: str, schema: int, *ways: tuple[int, int], more: str = "") -> drivers.Launch:
    files = {f"{start}-{end}.sh": STEP.format(start, end) for start, end in ways}
    return launches.launch(root, text(version, schema, *ways, more=more), files)


def made(root: Path, limits: bounds.RollbackPoints | None = None, now: datetime = NOW) -> states.States:
    room = states.States(
        layout.Layout(root, root / "run"), limits or bounds.RollbackPoints(), {}, launches.Commands(), lambda: now
    )
    room.prepare()
    return room


def state_dir(root: Path) -> Path:
    return layout.Layout(root, root).data("web")


def seed(root: Path, schema: int, words: str = "first") -> None:
    """A component that has run: its state says its schema and has something in it."""
    room = layout.Layout(root, root)
    directories.sweep(room)
    directories.create(room, "web", schema, None)
    write(root, schema, words)


def write(root: Path, schema: int, words: str) -> None:
    (state_dir(root) / "schema").write_text(f"{schema}\n")
    (state_dir(root) / "words").write_text(words)


def seen(root: Path) -> tuple[int | None, int, str]:
    """The schema that is told, the one that the files have, and what else is in them."""
    told = directories.running(layout.Layout(root, root), "web").told()
    inside = int((state_dir(root) / "schema").read_text())
    return told.schema if told else None, inside, (state_dir(root) / "words").read_text()


def refusal(change: drivers.Change, room: states.States, *, is_discarding: bool = False) -> drivers.DriverError:
    with pytest.raises(drivers.DriverError) as caught:
        room.plan(change, is_discarding=is_discarding)
    assert str(caught.value).startswith("cannot ")
    return caught.value


async def test_a_first_version_gets_an_empty_directory(tmp_path: Path) -> None:
    room, change = made(tmp_path), launches.change(release(tmp_path, "1.0.0", 3), None)
    assert room.plan(change, is_discarding=False) == schemas.Plan(schemas.Kind.CREATE, 3)
    assert await room.make_point(change) == {"point": "none"}
    assert (room.schema("web"), list(state_dir(tmp_path).iterdir())) == (3, [])
    assert await room.before_new(change, is_discarding=False) == {"state": "kept"}


async def test_a_component_without_state_keeps_nothing(tmp_path: Path) -> None:
    room = made(tmp_path)
    plain = launches.launch(tmp_path, BASE.format(version="1.0.0", schema=1).partition("[state]")[0])
    change = launches.change(plain, plain)
    assert room.plan(change, is_discarding=False).kind is schemas.Kind.NONE
    evidence = await room.make_point(change)
    assert (evidence["version"], room.schema("web")) == ("1.0.0", None)
    assert room.points.of("web")[0].state_digest == ""


async def test_a_migration_leads_a_copy_to_the_new_schema_and_takes_its_place(tmp_path: Path) -> None:
    seed(tmp_path, 1)
    room = made(tmp_path)
    change = launches.change(release(tmp_path, "3.0.0", 3, (1, 2), (2, 3)), release(tmp_path, "1.0.0", 1))
    assert len(room.plan(change, is_discarding=False).hops) == 2
    await room.make_point(change)
    evidence = await room.before_new(change, is_discarding=False)
    assert evidence == {"state": "migrated", "schema": "3", "migrations": "2"}
    assert seen(tmp_path) == (3, 3, "first")
    assert await room.before_new(change, is_discarding=False) == {"state": "kept"}
    await room.forget("web")
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["web"]
    assert [point.is_set_aside for point in room.points.of("web")] == [False]


async def test_a_schema_that_the_version_reads_is_left_as_it_is(tmp_path: Path) -> None:
    seed(tmp_path, 1)
    room = made(tmp_path)
    new = release(tmp_path, "2.0.0", 2, (1, 2), more="reads = [1]\n")
    for method in model.Method:
        change = launches.change(new, release(tmp_path, "1.0.0", 1), method)
        assert room.plan(change, is_discarding=False) == schemas.Plan(schemas.Kind.KEEP, 1)


async def test_a_migration_needs_a_moment_in_which_nothing_runs(tmp_path: Path) -> None:
    seed(tmp_path, 1)
    old, new = release(tmp_path, "1.0.0", 1), release(tmp_path, "2.0.0", 2, (1, 2))
    room = made(tmp_path)
    error = refusal(launches.change(new, old, model.Method.HOT_SWAP), room)
    assert (error.reason, error.fault) == ("state_needs_restart", model.Fault.COMMAND)
    options = model.ProcessOptions(has_overlap=True, settle_duration=timedelta(seconds=1))
    overlapping = replace(new, manifest=replace(new.manifest, options=options))
    assert refusal(launches.change(overlapping, old), room).reason == "state_needs_restart"


async def test_older_code_is_never_given_a_newer_schema(tmp_path: Path) -> None:
    seed(tmp_path, 2)
    old, new = release(tmp_path, "1.0.0", 1), release(tmp_path, "2.0.0", 2, (1, 2))
    error = refusal(launches.change(old, new), made(tmp_path))
    assert (error.reason, error.fault) == ("state_schema_newer", model.Fault.COMMAND)
    assert seen(tmp_path) == (2, 2, "first")


async def test_a_schema_that_no_migration_leads_from_is_refused(tmp_path: Path) -> None:
    seed(tmp_path, 1)
    change = launches.change(release(tmp_path, "3.0.0", 3, (2, 3)), release(tmp_path, "1.0.0", 1))
    assert refusal(change, made(tmp_path)).reason == "state_migration_missing"


async def test_the_newer_release_leads_back_to_what_the_older_one_can_use(tmp_path: Path) -> None:
    seed(tmp_path, 2, "written by two")
    old, new = release(tmp_path, "1.0.0", 1), release(tmp_path, "2.0.0", 2, (1, 2), (2, 1))
    room, change = made(tmp_path), launches.change(old, new)
    assert room.plan(change, is_discarding=False).hops[0].digest == new.digest
    await room.before_new(change, is_discarding=False)
    assert seen(tmp_path) == (1, 1, "written by two")


@pytest.mark.parametrize(
    ("script", "reason"), [("echo broken; exit 3", "migration_failed"), ("exec sleep 30", "migration_timeout")]
)
async def test_a_migration_that_fails_leaves_the_state_as_it_was(tmp_path: Path, script: str, reason: str) -> None:
    seed(tmp_path, 1)
    new = release(tmp_path, "2.0.0", 2, (1, 2))
    state = new.manifest.state
    assert state is not None
    hurried = replace(state, migrations=(replace(state.migrations[0], timeout=timedelta(seconds=0.2)),))
    new = replace(new, manifest=replace(new.manifest, state=hurried))
    (new.release_dir / "1-2.sh").write_text(f'echo 9 > "$STATE_DIRECTORY/schema"\n{script}\n')
    change = launches.change(new, release(tmp_path, "1.0.0", 1))
    with pytest.raises(drivers.DriverError) as caught:
        await made(tmp_path).before_new(change, is_discarding=False)
    if reason == "migration_failed" and caught.value.reason == "migration_timeout":
        pytest.skip("the machine was too slow to see it fail")
    assert (caught.value.reason, caught.value.fault) == (reason, model.Fault.VERSION)
    assert seen(tmp_path) == (1, 1, "first")
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["web"]


async def test_an_abort_puts_the_old_state_back_where_nothing_was_written(tmp_path: Path) -> None:
    seed(tmp_path, 1)
    room = made(tmp_path)
    change = launches.change(release(tmp_path, "2.0.0", 2, (1, 2), (2, 1)), release(tmp_path, "1.0.0", 1))
    assert await room.before_old(change, is_discarding=False) == {"state": "kept"}
    await room.before_new(change, is_discarding=False)
    assert await room.before_old(change, is_discarding=False) == {"state": "put_back"}
    assert seen(tmp_path) == (1, 1, "first")
    assert await room.before_old(change, is_discarding=False) == {"state": "kept"}
    await room.forget("web")
    assert (room.points.all(), sorted(path.name for path in (tmp_path / "data").iterdir())) == ((), ["web"])


async def test_an_abort_leads_newer_writes_back_where_a_way_is_declared(tmp_path: Path) -> None:
    seed(tmp_path, 1)
    room = made(tmp_path)
    change = launches.change(release(tmp_path, "2.0.0", 2, (1, 2), (2, 1)), release(tmp_path, "1.0.0", 1))
    await room.before_new(change, is_discarding=False)
    write(tmp_path, 2, "written in the soak")
    assert await room.before_old(change, is_discarding=False) == {"state": "migrated_back", "schema": "1"}
    assert seen(tmp_path) == (1, 1, "written in the soak")
    await room.forget("web")
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["web"]


@pytest.mark.parametrize("is_discarding", [False, True])
async def test_an_abort_without_a_way_back_sets_newer_writes_aside_unless_they_may_go(
    tmp_path: Path, *, is_discarding: bool
) -> None:
    seed(tmp_path, 1)
    room = made(tmp_path)
    change = launches.change(release(tmp_path, "2.0.0", 2, (1, 2)), release(tmp_path, "1.0.0", 1))
    await room.before_new(change, is_discarding=is_discarding)
    write(tmp_path, 2, "written in the soak")
    evidence = await room.before_old(change, is_discarding=is_discarding)
    assert seen(tmp_path) == (1, 1, "first")
    kept = room.points.of("web")
    assert [point.id for point in kept] == ([] if is_discarding else [evidence["set_aside"]])
    for point in kept:
        assert (point.is_set_aside, point.schema, room.points.is_whole(point)) == (True, 2, True)
        assert (room.points.state_of(point) / "words").read_text() == "written in the soak"


async def test_a_way_back_that_fails_puts_the_old_state_back_and_sets_the_writes_aside(tmp_path: Path) -> None:
    seed(tmp_path, 1)
    room = made(tmp_path)
    new = release(tmp_path, "2.0.0", 2, (1, 2), (2, 1))
    change = launches.change(new, release(tmp_path, "1.0.0", 1))
    await room.before_new(change, is_discarding=False)
    write(tmp_path, 2, "written in the soak")
    (new.release_dir / "2-1.sh").write_text("exit 1")
    assert "set_aside" in await room.before_old(change, is_discarding=False)
    assert seen(tmp_path) == (1, 1, "first")


async def test_a_snapshot_is_restored_over_newer_writes_only_where_the_policy_says_so(tmp_path: Path) -> None:
    seed(tmp_path, 1)
    room = made(tmp_path)
    old, new = release(tmp_path, "1.0.0", 1, more="snapshot = true\n"), release(tmp_path, "2.0.0", 2, (1, 2))
    there = launches.change(new, old, operation_id="there")
    evidence = await room.make_point(there)
    assert int(evidence["snapshot_bytes"]) > 0
    await room.before_new(there, is_discarding=False)
    await room.forget("web")
    write(tmp_path, 2, "written since")
    back = launches.change(old, new, operation_id="back")
    assert refusal(back, room).reason == "state_schema_newer"
    assert room.plan(back, is_discarding=True).point_id == evidence["point"]
    assert (await room.before_new(back, is_discarding=True))["state"] == "restored"
    assert seen(tmp_path) == (1, 1, "first")
    assert (await room.before_old(back, is_discarding=True))["state"] == "put_back"
    assert seen(tmp_path) == (2, 2, "written since")


async def test_a_damaged_snapshot_is_not_restored(tmp_path: Path) -> None:
    seed(tmp_path, 1)
    room = made(tmp_path)
    old, new = release(tmp_path, "1.0.0", 1, more="snapshot = true\n"), release(tmp_path, "2.0.0", 2, (1, 2))
    await room.make_point(launches.change(new, old, operation_id="there"))
    [point] = room.points.of("web")
    shutil.rmtree(state_dir(tmp_path).parent)
    seed(tmp_path, 2)
    (room.points.state_of(point) / "words").write_text("changed")
    with pytest.raises(drivers.DriverError, match="damaged"):
        await room.before_new(launches.change(old, new), is_discarding=True)
    assert seen(tmp_path) == (2, 2, "first")


async def test_a_point_is_made_once_and_compared_with_what_it_was_made_from(tmp_path: Path) -> None:
    seed(tmp_path, 1)
    old = release(tmp_path, "1.0.0", 1, more="snapshot = true\n")
    room, change = made(tmp_path), launches.change(release(tmp_path, "2.0.0", 2, (1, 2)), old)
    first = await room.make_point(change)
    write(tmp_path, 1, "later")
    assert await room.make_point(change) == first
    [point] = room.points.of("web")
    assert point.digest == old.digest
    assert (point.version, point.schema, point.is_quiet) == ("1.0.0", 1, True)
    assert (room.points.state_of(point) / "words").read_text() == "first"


async def test_a_snapshot_that_was_made_while_somebody_wrote_is_made_again_when_nobody_does(tmp_path: Path) -> None:
    seed(tmp_path, 1)
    old = release(tmp_path, "1.0.0", 1, more="snapshot = true\n")
    room, change = made(tmp_path), launches.change(release(tmp_path, "2.0.0", 2, (1, 2)), old)
    await room.make_point(change)
    [quiet] = room.points.of("web")
    path = room.points.state_of(quiet).with_name("point.json")
    path.write_text(path.read_text().replace('"is_quiet": true', '"is_quiet": false'))
    write(tmp_path, 1, "the last words")
    await room.before_new(change, is_discarding=False)
    [point] = room.points.of("web")
    assert (point.is_quiet, (room.points.state_of(point) / "words").read_text()) == (True, "the last words")


async def test_a_state_larger_than_all_points_may_be_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    seed(tmp_path, 1, "x" * 5000)
    room = made(tmp_path, bounds.RollbackPoints(max_bytes=4000))
    old = release(tmp_path, "1.0.0", 1, more="snapshot = true\n")
    with pytest.raises(drivers.DriverError) as caught:
        await room.make_point(launches.change(release(tmp_path, "2.0.0", 2, (1, 2)), old))
    assert (caught.value.reason, caught.value.fault) == ("rollback_points_full", model.Fault.INFRASTRUCTURE)
    assert room.points.all() == ()


def point(operation_id: str, age: timedelta, component: str = "web") -> points.Point:
    return points.Point(points.id_of(operation_id), component, operation_id, "sha256:x", "1.0.0", NOW - age)


def test_points_are_bounded_by_count_bytes_and_age_and_the_newest_stays(tmp_path: Path) -> None:
    seed(tmp_path, 1, "x" * 1000)
    limits = bounds.RollbackPoints(max_count=3, max_bytes=4500, max_age=timedelta(days=3))
    room = points.Points(layout.Layout(tmp_path, tmp_path), limits)
    for days in (9, 8, 2, 1, 0):
        room.make(point(f"web-{days}", timedelta(days=days)), state_dir(tmp_path))
    room.make(point("db", timedelta(days=99), "db"), None)
    removed = room.expire(NOW)
    assert removed == (points.id_of("web-8"), points.id_of("web-9"))
    assert [each.operation_id for each in room.all()] == ["web-0", "web-1", "web-2", "db"]
    small = points.Points(layout.Layout(tmp_path, tmp_path), replace(limits, max_bytes=1500))
    small.expire(NOW)
    assert [each.operation_id for each in small.all()] == ["web-0", "db"]
    small.forget("web")
    assert [each.operation_id for each in small.all()] == ["db"]


def test_what_is_no_point_is_none(tmp_path: Path) -> None:
    room = points.Points(layout.Layout(tmp_path, tmp_path), bounds.RollbackPoints())
    room.sweep()
    for name, content in (("bad", "{"), ("odd", "[]"), ("less", "{}")):
        (tmp_path / "rollback_points/web" / name).mkdir(parents=True)
        (tmp_path / "rollback_points/web" / name / "point.json").write_text(content)
    assert (room.of("web"), room.all(), room.of("none")) == ((), (), ())


def test_a_copy_has_owners_modes_times_and_links(tmp_path: Path) -> None:
    source = tmp_path / "a"
    (source / "deep" / "empty").mkdir(parents=True)
    (source / "deep" / "data").write_bytes(b"x" * 100_000)
    (source / "deep" / "data").chmod(0o750)
    (source / "link").symlink_to("deep/data")
    os.utime(source / "deep" / "data", (1, 2))
    os.mkfifo(source / "deep" / "empty" / "pipe")
    copied = copies.make(source, tmp_path / "b")
    (source / "deep" / "empty" / "pipe").unlink()
    assert copied == copies.Copied(copies.digest(source), 100_000 + len("deep/data"), is_quiet=True)
    status = (tmp_path / "b/deep/data").stat()
    assert (status.st_mode & 0o777, status.st_mtime) == (0o750, 2)
    assert (tmp_path / "b/link").readlink() == Path("deep/data")


CUTS = {
    "there": lambda room, change: room.before_new(change, is_discarding=False),
    "back": lambda room, change: room.before_old(change, is_discarding=False),
}


@pytest.mark.slow
@pytest.mark.parametrize("has_writes", [False, True])
@pytest.mark.parametrize("way", CUTS)
def test_any_prefix_of_the_steps_leaves_one_whole_state_of_one_schema(way: str, *, has_writes: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        _prepare(root, way, has_writes=has_writes)
        pristine = root.with_name(f"{root.name}-pristine")
        shutil.copytree(root, pristine, symlinks=True)

        def work() -> None:
            room = made(root)
            asyncio.run(CUTS[way](room, _change(root)))

        def check(number: int) -> None:
            told, inside, words = seen(root)
            assert told == inside, f"a mixture after {number} calls"
            assert words == ("in the soak" if has_writes and way == "back" and told == 2 else "first")
            shutil.rmtree(root)
            shutil.copytree(pristine, root, symlinks=True)

        try:
            assert killed_at_each_call(work, check) > 20
        finally:
            shutil.rmtree(pristine, ignore_errors=True)


def _change(root: Path) -> drivers.Change:
    return launches.change(release(root, "2.0.0", 2, (1, 2)), release(root, "1.0.0", 1))


def _prepare(root: Path, way: str, *, has_writes: bool) -> None:
    seed(root, 1)
    room = made(root)
    if way == "back":
        asyncio.run(room.before_new(_change(root), is_discarding=False))
        if has_writes:
            write(root, 2, "in the soak")


@contextlib.contextmanager
def fresh_root() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


MOVES = st.lists(st.sampled_from(["new", "old", "forget", "write", "restart"]), max_size=8)


@settings(max_examples=25, deadline=None)
@given(moves=MOVES)
def test_whatever_is_repeated_in_whatever_order_the_schema_told_is_the_schema_there(moves: list[str]) -> None:
    with fresh_root() as root:
        seed(root, 1)
        room = made(root)
        written: set[str] = {"first"}
        for number, move in enumerate(moves):
            match move:
                case "write":
                    told = room.schema("web")
                    assert told is not None
                    write(root, told, f"words {number}")
                    written.add(f"words {number}")
                case "restart":
                    room.prepare()
                case "forget":
                    asyncio.run(room.forget("web"))
                case _:
                    _move(room, root, move)
            told_schema, inside, words = seen(root)
            assert told_schema == inside
            assert words in written


def _move(room: states.States, root: Path, move: str) -> None:
    act = room.before_new if move == "new" else room.before_old
    with contextlib.suppress(drivers.DriverError):  # no older state is kept: refused, and nothing changed
        asyncio.run(act(_change(root), is_discarding=False))
