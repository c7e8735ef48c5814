"""What a controller signs itself, hour by hour, and what it keeps: by a clock of the test's and real files."""

from __future__ import annotations

import asyncio
import json
import shutil
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from controller.cli import doctor
from controller.config import settings
from controller.core import errors, model
from controller.trust import files, folder, keeping, metadata, online, repository, succession
from tests.security import publishing

HOUR = timedelta(hours=1)
MOMENT = timedelta(seconds=1)
DEADLINE_SECONDS = 60.0


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.at = publishing.present()

    def now(self) -> datetime:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock()


def trust(tmp_path: Path, shop: publishing.Shop, clock: Clock) -> keeping.Trust:
    return keeping.Trust(tmp_path / "state", shop.folder / "online", clock)


@pytest.fixture
async def kept(tmp_path: Path, shop: publishing.Shop, clock: Clock) -> keeping.Trust:
    made = trust(tmp_path, shop, clock)
    await made.put(shop.files())
    return made


def versions(kept: keeping.Trust) -> tuple[int, int]:
    told = kept.versions()
    return told["snapshot_version"], told["timestamp_version"]


def expiry(file: metadata.File | None) -> datetime:
    assert file is not None
    return file.expires_at


async def test_snapshot_and_timestamp_are_signed_again_each_hour_and_not_before(
    kept: keeping.Trust, clock: Clock
) -> None:
    before, expires_at = versions(kept), expiry(kept.served.timestamp)
    clock.at += HOUR - MOMENT
    await kept.look()
    assert versions(kept) == before
    clock.at += MOMENT
    await kept.look()
    snapshot, timestamp = versions(kept)
    assert snapshot > before[0]
    assert timestamp > before[1]
    assert expiry(kept.served.timestamp) - expires_at == HOUR
    assert expiry(kept.served.snapshot) - clock.at > timedelta(days=6, hours=23)
    succession.check(kept.served)


async def test_the_deadline_stands_through_a_restart(
    tmp_path: Path, kept: keeping.Trust, shop: publishing.Shop, clock: Clock
) -> None:
    before = versions(kept)
    clock.at += HOUR / 2
    again = trust(tmp_path, shop, clock)
    await again.start()
    await again.stop()
    assert (versions(again), again.due_at) == (before, kept.due_at)
    clock.at += HOUR / 2
    again = trust(tmp_path, shop, clock)
    await again.start()  # due while nobody was there
    await again.stop()
    assert versions(again) > before
    assert again.due_at == clock.at + HOUR


async def test_the_stage_signs_by_itself_once_it_is_due(
    monkeypatch: pytest.MonkeyPatch, kept: keeping.Trust, clock: Clock
) -> None:
    monkeypatch.setattr(keeping, "LOOK_SECONDS", 0.05)
    await kept.start()
    before = versions(kept)
    clock.at += 3 * HOUR
    async with asyncio.timeout(DEADLINE_SECONDS):
        while versions(kept) == before:  # noqa: ASYNC110  # what is waited for has no event
            await asyncio.sleep(0.05)
    await kept.stop()
    await kept.stop()  # again, without harm


async def test_a_clock_that_was_set_back_does_not_put_the_signing_off(kept: keeping.Trust, clock: Clock) -> None:
    before = versions(kept)
    clock.at -= timedelta(days=3)
    await kept.look()
    assert versions(kept) > before  # upwards all the same
    assert kept.due_at == clock.at + HOUR


async def test_a_controller_that_lost_its_state_goes_on_above_what_nodes_have_seen(
    tmp_path: Path, kept: keeping.Trust, shop: publishing.Shop, clock: Clock
) -> None:
    for _ in range(5):
        clock.at += HOUR
        await kept.look()
    seen = versions(kept)
    shutil.rmtree(tmp_path / "state")
    clock.at += MOMENT
    again = trust(tmp_path, shop, clock)
    await again.put(shop.files())
    assert versions(again) > seen


async def test_a_fault_is_logged_and_signing_goes_on_once_it_is_mended(
    tmp_path: Path, kept: keeping.Trust, shop: publishing.Shop, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    before = versions(kept)
    away = tmp_path / "away"
    (shop.folder / "online").rename(away)
    clock.at += HOUR
    await kept.look()
    assert "cannot sign the metadata of releases: cannot sign the snapshot" in caplog.text
    assert (versions(kept), kept.due_at) == (before, clock.at + keeping.RETRY_PERIOD)
    away.rename(shop.folder / "online")
    clock.at += keeping.RETRY_PERIOD
    await kept.look()
    assert versions(kept) > before


async def test_a_key_that_others_can_read_signs_nothing(
    kept: keeping.Trust, shop: publishing.Shop, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    before = versions(kept)
    next((shop.folder / "online").glob("snapshot-*.pem")).chmod(0o640)
    clock.at += HOUR
    await kept.look()
    assert "only its owner can read" in caplog.text
    assert versions(kept) == before


async def test_a_put_that_nobody_waits_for_any_more_is_whole_all_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kept: keeping.Trust, shop: publishing.Shop, clock: Clock
) -> None:
    shop.release("1.1.0")
    begun, sign = asyncio.Event(), online.signed
    loop = asyncio.get_running_loop()

    def slowly(*about: object) -> repository.Repository:
        loop.call_soon_threadsafe(begun.set)
        return sign(*about)  # type: ignore[arg-type]  # as they came

    monkeypatch.setattr(online, "signed", slowly)
    putting = asyncio.ensure_future(kept.put(shop.files()))
    await begun.wait()
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting
    assert kept.served.components["web"].version == 2
    assert trust(tmp_path, shop, clock).served == kept.served


async def test_a_snapshot_forgets_a_component_only_with_its_keys(kept: keeping.Trust, shop: publishing.Shop) -> None:
    """The targets' keys were stolen, and what the thief added goes; nodes would hold a shorter snapshot against it."""
    honest = shop.signed()
    shop.release("6.6.6", component="evil")
    await kept.put(shop.files())
    shutil.rmtree(shop.folder / "metadata")
    (shop.folder / "metadata").mkdir()
    for file in honest.signed_offline():
        (shop.folder / "metadata" / file.name).write_bytes(file.content)
    shop.rotate("targets")
    shop.at().renew(["targets"], shop.signers)
    await kept.put(shop.files())
    assert kept.served.snapshot is not None
    assert set(kept.served.components) == {"web"}
    assert set(kept.served.snapshot.snapshot.meta) == {"targets.json", "web.json", "evil.json"}
    shop.rotate("online")
    await kept.put(shop.files())
    assert kept.served.snapshot is not None
    assert set(kept.served.snapshot.snapshot.meta) == {"targets.json", "web.json"}


async def test_a_crash_at_any_write_leaves_what_was_or_what_comes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kept: keeping.Trust, shop: publishing.Shop, clock: Clock
) -> None:
    before = kept.served
    for role in ("targets", "root", "online"):
        shop.rotate(role)
    write, held = files.write, tmp_path / "held"
    shutil.copytree(tmp_path / "state", held)
    writes_max, crashed = 20, 0
    for number in range(writes_max):
        left = [number]

        def crash(path: Path, content: bytes, mode: int = 0o644, left: list[int] = left) -> None:
            if not left[0]:
                path.with_name(f".{path.name}.1").write_bytes(content[:7])
                raise InterruptedError
            left[0] -= 1
            write(path, content, mode)

        monkeypatch.setattr(files, "write", crash)
        try:
            await trust(tmp_path, shop, clock).put(shop.files())
        except InterruptedError:
            crashed += 1
            monkeypatch.setattr(files, "write", write)
            assert trust(tmp_path, shop, clock).served == before
            await trust(tmp_path, shop, clock).put(shop.files())
        assert trust(tmp_path, shop, clock).served.roots[-1].version == 4
        shutil.rmtree(tmp_path / "state")
        shutil.copytree(held, tmp_path / "state")
    assert 5 < crashed < writes_max


async def test_files_that_were_changed_stop_the_start(
    tmp_path: Path, kept: keeping.Trust, shop: publishing.Shop, clock: Clock
) -> None:
    assert kept.served.targets is not None
    state = tmp_path / "state"
    for path in sorted(state.glob("*.json")):
        content = path.read_bytes()
        for changed in (content[:-9], b"", content.replace(b"web/1.0.0", b"web/6.0.0").replace(b"due_at", b"due")):
            path.write_bytes(changed)
            if changed == content:
                continue
            with pytest.raises(errors.UnavailableError) as caught:
                trust(tmp_path, shop, clock)
            assert caught.value.code == "trust_damaged"
        path.write_bytes(content)
    assert trust(tmp_path, shop, clock).served == kept.served


async def test_a_release_whose_metadata_have_expired_is_not_taken(kept: keeping.Trust, clock: Clock) -> None:
    named = publishing.named("1.0.0")
    about = (model.ComponentName("web"), "1.0.0", named.digest, named.size_bytes)
    kept.refuse_unsigned(*about)
    with pytest.raises(errors.RefusedError) as caught:
        kept.refuse_unsigned(*about[:3], named.size_bytes + 1)
    assert caught.value.code == "release_unsigned"
    clock.at += timedelta(days=91)
    with pytest.raises(errors.RefusedError) as caught:
        kept.refuse_unsigned(*about)
    assert caught.value.code == "metadata_expired"


async def test_doctor_says_what_expires_and_which_keys_are_missing(
    tmp_path: Path, shop: publishing.Shop, clock: Clock
) -> None:
    loaded = settings.Settings("", tmp_path / "all", timedelta(seconds=1), None, trust_dir=shop.folder / "online")
    loaded.state_dir.mkdir(mode=0o700)
    past = publishing.present() - timedelta(days=80)
    shop.at(past).renew(["web"], shop.signers)

    async def put() -> None:
        await keeping.Trust(loaded.metadata_dir, shop.folder / "online", clock).put(shop.files())

    def seen() -> dict[str, doctor.State]:
        return {check.message.split(" ")[0]: check.state for check in doctor.checks(loaded)}

    assert seen()["nothing"] is doctor.State.WARNING
    await put()
    assert seen()["1.root.json"] is doctor.State.OK
    assert seen()["2.web.json"] is doctor.State.WARNING
    clock.at -= timedelta(days=2)
    await keeping.Trust(loaded.metadata_dir, shop.folder / "online", clock).look()
    assert {check.state for check in doctor.checks(loaded) if "timestamp.json" in check.message} == {
        doctor.State.FAILED
    }
    next((shop.folder / "online").glob("snapshot-*.pem")).unlink()
    assert seen()["0"] is doctor.State.FAILED
    loaded.state_dir.chmod(0o755)
    assert seen()[str(loaded.state_dir)] is doctor.State.FAILED


async def test_only_what_counts_is_kept(tmp_path: Path, kept: keeping.Trust, clock: Clock) -> None:
    for _ in range(3):
        clock.at += HOUR
        await kept.look()
    state = tmp_path / "state"
    assert {path.name for path in state.iterdir()} == {file.name for file in kept.served.files()} | {
        folder.CURRENT_NAME
    }
    told = json.loads((state / folder.CURRENT_NAME).read_text())
    assert told["due_at"] == kept.due_at.isoformat()
