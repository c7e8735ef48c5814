"""The depot: fetches resume, pointers are always whole, and nothing that is referred to goes away."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest

from agent import depot
from agent.config import layout
from agent.config.errors import ConfigError
from tests.agent import bundles

OLD, NEW, NEWER = (f"sha256:{letter * 64}" for letter in "abc")
KILLED = 77  # exit code of a child that ended in the middle
BUNDLE = bundles.bundle()
DIGEST = bundles.digest_of(BUNDLE)


def made(state_dir: Path, *digests: str) -> depot.Depot:
    """A depot with releases of these digests."""
    store = depot.Depot(layout.Layout(state_dir, state_dir / "run"))
    store.prepare()
    for digest in digests:
        store.release_dir(digest).mkdir()
        (store.release_dir(digest) / "instar.toml").write_text(digest, encoding="ascii")
    return store


def fetched(store: depot.Depot, data: bytes) -> Path:
    incoming = store.receive(bundles.digest_of(data), layout.BUNDLE_BYTES_MAX)
    incoming.write(data[incoming.offset :])
    return incoming.complete()


def killed_at_each_call(work: Callable[[], None], check: Callable[[int], None]) -> int:
    """Run work in children, each killed before another call of the system; returns how many there were."""
    for number in range(1, 1000):
        child = os.fork()
        if child == 0:
            _die_at(number, work)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) in {0, KILLED}
        check(number)
        if os.waitstatus_to_exitcode(status) == 0:
            return number
    raise AssertionError("the work never ended")


def _die_at(number: int, work: Callable[[], None]) -> None:
    left = number

    def count(_frame: FrameType, event: str, called: object) -> None:
        nonlocal left
        if event == "c_call" and getattr(called, "__module__", "") == "posix":
            left -= 1
            if left == 0:
                os._exit(KILLED)

    code = 1
    with contextlib.suppress(BaseException):
        sys.setprofile(count)
        work()
        code = 0
    sys.setprofile(None)
    os._exit(code)


def test_a_new_component_gets_both_pointers_at_once(tmp_path: Path) -> None:
    store = made(tmp_path, OLD)
    assert store.pointers("web") is None
    store.point_current("web", OLD)
    assert store.pointers("web") == depot.Pointers(OLD, OLD)
    assert (tmp_path / "components/web/current/instar.toml").read_text(encoding="ascii") == OLD
    assert (tmp_path / "components/web/permanent").readlink() == Path(f"../../releases/{'a' * 64}")


def test_pointers_move_one_by_one(tmp_path: Path) -> None:
    store = made(tmp_path, OLD, NEW)
    store.point_current("web", OLD)
    store.point_current("web", NEW)
    assert store.pointers("web") == depot.Pointers(current=NEW, permanent=OLD)
    store.point_permanent("web", NEW)
    assert store.components() == {"web": depot.Pointers(NEW, NEW)}


def test_a_pointer_never_moves_to_a_release_that_is_not_there(tmp_path: Path) -> None:
    store = made(tmp_path, OLD)
    store.point_current("web", OLD)
    with pytest.raises(depot.DepotError, match="not here") as refusal:
        store.point_current("web", NEW)
    assert refusal.value.code == "release_missing"
    assert store.pointers("web") == depot.Pointers(OLD, OLD)


def test_whenever_it_is_killed_each_component_has_both_pointers_whole(tmp_path: Path) -> None:
    store = made(tmp_path, OLD, NEW)
    store.point_current("web", OLD)

    def work() -> None:
        store.point_current("web", NEW)
        store.point_permanent("web", NEW)
        store.point_current("api", NEW)

    def check(_number: int) -> None:
        again = made(tmp_path)
        for name, pointers in again.components().items():
            for digest in (pointers.current, pointers.permanent):
                assert (again.release_dir(digest) / "instar.toml").is_file()
            assert name in {"web", "api"}
        assert "web" in again.components()
        again.remove_component("api")
        again.point_current("web", OLD)
        again.point_permanent("web", OLD)

    assert killed_at_each_call(work, check) > 15


def test_whenever_a_removal_is_killed_a_component_is_whole_or_gone(tmp_path: Path) -> None:
    store = made(tmp_path, OLD)

    def check(_number: int) -> None:
        again = made(tmp_path)
        assert again.components() in ({}, {"web": depot.Pointers(OLD, OLD)})
        assert [path.name for path in (tmp_path / "components").iterdir()] == list(again.components())
        again.point_current("web", OLD)

    store.point_current("web", OLD)
    assert killed_at_each_call(lambda: store.remove_component("web"), check) > 5
    store.remove_component("web")
    store.remove_component("web")
    assert store.components() == {}


def test_a_pointer_is_durable_before_it_is_told(tmp_path: Path) -> None:
    store = made(tmp_path, OLD, NEW)
    store.point_current("web", OLD)
    calls: list[str] = []

    def note(_frame: FrameType, event: str, called: object) -> None:
        name = getattr(called, "__name__", "")
        if event == "c_call" and name in {"symlink", "rename", "fsync"}:
            calls.append(name)

    sys.setprofile(note)
    store.point_current("web", NEW)
    sys.setprofile(None)
    assert calls == ["symlink", "rename", "fsync"]


def test_a_fetch_goes_on_where_it_ended(tmp_path: Path) -> None:
    store = made(tmp_path)
    first = store.receive(DIGEST, layout.BUNDLE_BYTES_MAX)
    first.write(BUNDLE[:5000])
    first.close()
    assert not store.has_bundle(DIGEST)

    second = store.receive(DIGEST, layout.BUNDLE_BYTES_MAX)
    assert second.offset == 5000
    second.write(BUNDLE[5000:])
    path = second.complete()
    assert path.read_bytes() == BUNDLE
    assert store.has_bundle(DIGEST)
    assert [entry.name for entry in path.parent.iterdir()] == [bundles.hex_of(BUNDLE)]


def test_a_bundle_with_other_bytes_is_not_accepted_and_leaves_nothing(tmp_path: Path) -> None:
    store = made(tmp_path)
    incoming = store.receive(DIGEST, layout.BUNDLE_BYTES_MAX)
    incoming.write(BUNDLE[:-1] + b"\x01")
    with pytest.raises(depot.DepotError) as refusal:
        incoming.complete()
    assert refusal.value.code == "digest_mismatch"
    assert not store.has_bundle(DIGEST)
    assert list((tmp_path / "incoming").iterdir()) == []


def test_a_bundle_beyond_the_limit_is_not_written(tmp_path: Path) -> None:
    store = made(tmp_path)
    incoming = store.receive(DIGEST, 100)
    incoming.write(bytes(100))
    with pytest.raises(depot.DepotError) as refusal:
        incoming.write(b"x")
    assert refusal.value.code == "bundle_too_large"
    assert list((tmp_path / "incoming").iterdir()) == []


def test_a_partial_bundle_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    store = made(tmp_path)
    target = tmp_path / "precious"
    (tmp_path / "incoming" / f"{bundles.hex_of(BUNDLE)}.part").symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"):
        store.receive(DIGEST, layout.BUNDLE_BYTES_MAX)
    assert not target.exists()


def test_what_nothing_refers_to_is_collected_and_nothing_else(tmp_path: Path) -> None:
    store = made(tmp_path, OLD, NEW, NEWER)
    store.point_current("web", OLD)
    store.point_current("web", NEW)
    fetched(store, BUNDLE)
    other = store.receive(f"sha256:{'d' * 64}", layout.BUNDLE_BYTES_MAX)
    other.write(b"part")
    other.close()

    assert store.collect({DIGEST}) == (NEWER,)
    assert store.has_release(OLD)
    assert store.has_release(NEW)
    assert [path.name for path in (tmp_path / "incoming").iterdir()] == [bundles.hex_of(BUNDLE)]
    store.point_permanent("web", NEW)
    assert store.collect({OLD}) == ()
    assert store.collect(()) == (OLD,)
    assert list((tmp_path / "incoming").iterdir()) == []


def test_whenever_collecting_is_killed_what_is_left_is_whole(tmp_path: Path) -> None:
    store = made(tmp_path, OLD, NEW)
    store.point_current("web", OLD)

    def work() -> None:
        store.collect(())

    def check(_number: int) -> None:
        again = made(tmp_path)
        for path in (tmp_path / "releases").iterdir():
            assert (path / "instar.toml").is_file()
        if not again.has_release(NEW):
            made(tmp_path, NEW)

    assert killed_at_each_call(work, check) > 5


def test_what_an_earlier_life_left_half_made_is_swept(tmp_path: Path) -> None:
    store = made(tmp_path, OLD)
    store.point_current("web", OLD)
    (tmp_path / "releases/.staging-x").mkdir()
    (tmp_path / "releases/.staging-x/file").write_bytes(b"half")
    (tmp_path / "components/.new-api").mkdir()
    (tmp_path / "components/web/.current").symlink_to("nowhere")
    made(tmp_path)
    assert not list(tmp_path.rglob(".*"))
    assert store.pointers("web") == depot.Pointers(OLD, OLD)


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "Web", "-a", "a.", "x" * 41, "a\n"])
def test_no_name_leads_out_of_the_state_directory(tmp_path: Path, name: str) -> None:
    store = made(tmp_path, OLD)
    with pytest.raises(ConfigError, match="cannot use"):
        store.point_current(name, OLD)


@pytest.mark.parametrize(
    "digest", ["", "a" * 64, "sha256:../../etc", "sha256:" + "A" * 64, f"sha512:{'a' * 64}", f"{OLD}\n"]
)
def test_no_digest_leads_out_of_the_state_directory(tmp_path: Path, digest: str) -> None:
    with pytest.raises(ConfigError, match="as a digest"):
        made(tmp_path).release_dir(digest)


def test_free_room_is_what_the_file_system_says(tmp_path: Path) -> None:
    assert 0 < made(tmp_path).free_bytes() <= os.statvfs(tmp_path).f_blocks * os.statvfs(tmp_path).f_frsize


def with_environment(store: depot.Depot, state_dir: Path, digest: str, size_bytes: int, age: int = 0) -> None:
    """Give a release bytes, an environment, and an age."""
    hex_digits = layout.hex_of(digest)
    (store.release_dir(digest) / "data").write_bytes(b"x" * size_bytes)
    (state_dir / "environments" / hex_digits / "bin").mkdir(parents=True)
    (state_dir / "environments" / f"{hex_digits}.digest").write_text("sha256:x")
    os.utime(store.release_dir(digest), (1000 - age, 1000 - age))


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_an_environment_goes_with_its_release(tmp_path: Path) -> None:
    store = made(tmp_path, OLD, NEW)
    for digest in (OLD, NEW):
        with_environment(store, tmp_path, digest, 10)
    (tmp_path / "environments" / ("d" * 64)).mkdir()
    (tmp_path / "environments" / ".staging-x").mkdir()
    store.point_current("web", NEW)
    assert store.collect(()) == (OLD,)
    assert names(tmp_path / "environments") == [".staging-x", "b" * 64, "b" * 64 + ".digest"]
    store.prepare()
    assert names(tmp_path / "environments") == ["b" * 64, "b" * 64 + ".digest"]


def test_what_a_rollback_point_refers_to_stays_until_the_quota_asks_for_it(tmp_path: Path) -> None:
    made(tmp_path, OLD, NEW, NEWER)
    free = depot.Depot(layout.Layout(tmp_path, tmp_path))
    for digest, age in ((OLD, 3), (NEW, 2), (NEWER, 1)):
        with_environment(free, tmp_path, digest, 100_000, age)
    free.point_current("web", NEWER)
    assert free.collect((), [NEW, OLD]) == ()
    assert list(free.releases()) == [OLD, NEW, NEWER]
    narrow = depot.Depot(layout.Layout(tmp_path, tmp_path), quota_bytes=250_000)
    assert narrow.collect((), [NEW, OLD]) == (OLD,)
    assert list(narrow.releases()) == [NEW, NEWER]


def test_room_is_made_from_the_oldest_that_nothing_refers_to(tmp_path: Path) -> None:
    made(tmp_path, OLD, NEW, NEWER)
    store = depot.Depot(layout.Layout(tmp_path, tmp_path), quota_bytes=350_000)
    for digest, age in ((OLD, 3), (NEW, 2), (NEWER, 1)):
        with_environment(store, tmp_path, digest, 100_000, age)
    store.point_current("web", NEWER)
    assert store.make_room(10_000, (), [NEW, OLD]) == ()
    assert store.make_room(100_000, (), [NEW, OLD]) == (OLD,)
    assert list(store.releases()) == [NEW, NEWER]
    with pytest.raises(depot.DepotError) as caught:
        store.make_room(300_000, (), [NEW])
    assert caught.value.code == "disk_quota"
    assert list(store.releases()) == [NEW, NEWER]
    with pytest.raises(depot.DepotError) as caught:
        store.make_room(200_000, {NEW}, ())
    assert caught.value.code == "disk_quota"


def test_a_release_that_the_disk_has_no_room_for_is_refused(tmp_path: Path) -> None:
    store = made(tmp_path, OLD)
    with pytest.raises(depot.DepotError) as caught:
        store.make_room(1 << 60, ())
    assert caught.value.code == "disk_full"
    assert store.has_release(OLD)


def test_that_a_component_is_stopped_is_remembered_with_it(tmp_path: Path) -> None:
    store = made(tmp_path, OLD, NEW)
    store.point_current("web", OLD)
    assert not store.is_stopped("web")
    store.mark_stopped("web")
    store.mark_stopped("web")
    store.point_current("web", NEW)
    assert depot.Depot(layout.Layout(tmp_path, tmp_path)).is_stopped("web")
    store.clear_stopped("web")
    store.clear_stopped("web")
    assert not store.is_stopped("web")
    store.mark_stopped("web")
    store.remove_component("web")
    assert not store.is_stopped("web")


def test_others_pass_through_to_releases_and_into_nothing_else(tmp_path: Path) -> None:
    made(tmp_path)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    private = dict.fromkeys(("components", "incoming", "trust"), 0o700)
    assert modes == {**private, "environments": 0o711, "releases": 0o711}
