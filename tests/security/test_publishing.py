"""What publishers put into a controller: what it takes, keeps, serves and writes down of it."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from controller.core import errors
from controller.rpc import trust_pieces
from controller.store import database, executor, reading
from controller.trust import metadata
from instar.v1 import release_service_pb2
from tests.security import judged, publishing

FIRST, SECOND = judged.bundle(version="1.0.0"), judged.bundle(version="1.1.0")


async def test_a_bundle_is_taken_only_where_signed_metadata_name_its_very_bytes(
    house: publishing.House, shop: publishing.Shop
) -> None:
    assert (await house.publish(FIRST)).created
    other = judged.bundle(version="1.0.0") + bytes(10240)
    for data in (SECOND, judged.bundle("db", "1.0.0")):
        with pytest.raises(errors.RefusedError) as caught:
            await house.publish(data)
        assert caught.value.code == "release_unsigned"
    with pytest.raises(errors.InstarError):
        await house.publish(other)
    shop.release("1.1.0")
    await house.put(shop.files())
    assert (await house.publish(SECOND)).created


async def test_a_release_that_was_withdrawn_cannot_be_published(house: publishing.House, shop: publishing.Shop) -> None:
    shop.release("1.1.0")
    assert shop.at().withdraw("web", "1.1.0", shop.signers).stored
    await house.put(shop.files())
    with pytest.raises(errors.RefusedError) as caught:
        await house.publish(SECOND)
    assert caught.value.code == "release_unsigned"


async def test_what_a_node_reads_is_what_its_verifier_believes(
    house: publishing.House, shop: publishing.Shop, believer: judged.Node
) -> None:
    """Publisher, controller and node: the real verifier over what came over the wire, through all kinds of rotation."""
    assert believer.told(await house.read(), FIRST) == ""
    for number, role in enumerate(("root", "online", "targets", "web"), start=1):
        version = f"1.{number}.0"
        shop.rotate(role)
        shop.release(version)
        await house.put(shop.files())
        assert believer.told(await house.read(), judged.bundle(version=version), version) == "", role
    for version, floor in (("1.3.5", None), ("2.0.0", "1.4.0")):
        shop.release(version, floor=floor)
    await house.put(shop.files())
    assert believer.told(await house.read(), judged.bundle(version="1.4.0"), "1.4.0") == ""
    assert believer.told(await house.read(), judged.bundle(version="1.3.5"), "1.3.5") == "release_below_floor"
    shop.at().withdraw("web", "2.0.0", shop.signers)
    await house.put(shop.files())
    assert believer.told(await house.read(), judged.bundle(version="2.0.0"), "2.0.0") == "release_unsigned"
    assert believer.told(await house.read(), judged.bundle(version="1.3.5"), "1.3.5") == "release_below_floor"


async def test_nodes_read_roots_in_order_and_then_one_state_of_the_rest(
    house: publishing.House, shop: publishing.Shop
) -> None:
    shop.release("1.0.0", component="db")
    for _ in range(3):
        shop.rotate("root")
    await house.put(shop.files())
    names = list(await house.read(1, "web"))
    assert names[:4] == ["2.root.json", "3.root.json", "4.root.json", "timestamp.json"]
    assert [name.split(".")[1] for name in names[4:]] == ["snapshot", "targets", "web"]
    assert next(iter(await house.read(3, "web"))) == "4.root.json"
    assert next(iter(await house.read(4, "nothing"))) == "timestamp.json"
    assert len(await house.read(4, "nothing")) == 3


async def test_the_same_again_changes_nothing_not_even_the_timestamp(
    house: publishing.House, shop: publishing.Shop
) -> None:
    before = await house.served()
    answer = await house.put(shop.files())
    assert (list(answer.stored), await house.served()) == ([], before)
    assert answer.timestamp_version >= answer.root_version == 1


async def test_metadata_that_come_again_under_their_identity_are_answered_as_the_first_time(
    tmp_path: Path, shop: publishing.Shop
) -> None:
    async with publishing.serving(tmp_path / "controller", shop.folder / "online") as house:
        first = await house.put(shop.files(), request_id="one")
        assert first.stored
        assert await house.put(shop.files(), request_id="one") == first
        assert not (await house.put(shop.files(), request_id="two")).stored
        with pytest.raises(errors.RefusedError, match="another content"):
            await house.put([("2.web.json", b"{}")], request_id="one")


async def test_a_root_whose_online_keys_are_elsewhere_is_refused_until_they_come(
    tmp_path: Path, shop: publishing.Shop, believer: judged.Node
) -> None:
    online = tmp_path / "online"
    online.mkdir()
    for path in (shop.folder / "online").iterdir():
        (online / path.name).write_bytes(path.read_bytes())
        (online / path.name).chmod(0o600)
    async with publishing.serving(tmp_path / "controller", online) as house:
        await house.put(shop.files())
        shop.rotate("online")
        assert await house.refused(shop.files()) == "online_key_missing"
        for path in (shop.folder / "online").glob("*.pem"):
            (online / path.name).write_bytes(path.read_bytes())
            (online / path.name).chmod(0o600)
        await house.put(shop.files())  # without a restart
        assert believer.told(await house.read(), FIRST) == ""


async def test_what_was_put_is_served_after_a_restart(tmp_path: Path, shop: publishing.Shop) -> None:
    places = tmp_path / "controller", shop.folder / "online"
    async with publishing.serving(*places) as house:
        await house.put(shop.files())
        before = await house.served()
    async with publishing.serving(*places) as house:
        assert await house.served() == before
        assert (await house.publish(FIRST)).created


async def test_another_root_than_that_of_what_is_kept_stops_the_start(tmp_path: Path, shop: publishing.Shop) -> None:
    async with publishing.serving(tmp_path / "controller", shop.folder / "online") as house:
        await house.put(shop.files())
    stranger = publishing.Shop(tmp_path / "stranger")
    with pytest.raises(errors.RefusedError) as caught:
        async with publishing.serving(tmp_path / "controller", stranger.folder / "online"):
            pass
    assert caught.value.code == "trust_root_changed"


async def test_before_anything_was_put_nothing_can_be_published(tmp_path: Path, shop: publishing.Shop) -> None:
    async with publishing.serving(tmp_path / "controller", shop.folder / "online") as house:
        assert [name for name, _ in await house.served()] == ["1.root.json"]
        with pytest.raises(errors.RefusedError) as caught:
            await house.publish(FIRST)
        assert caught.value.code == "release_unsigned"


async def test_without_trust_dir_releases_are_taken_unsigned_and_whoever_asks_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, shop: publishing.Shop
) -> None:
    async with publishing.serving(tmp_path / "controller", None) as house:
        assert "releases are not signed" in caplog.text
        assert (await house.publish(FIRST)).created
        for asked in (house.served(), house.read(), house.put(shop.files())):
            with pytest.raises(errors.RefusedError) as caught:
                await asked
            assert caught.value.code == "trust_not_configured"


async def test_what_is_put_and_what_is_refused_is_on_record(tmp_path: Path, shop: publishing.Shop) -> None:
    async with publishing.serving(tmp_path / "controller", shop.folder / "online") as house:
        await house.put(shop.files())
        await house.refused([("2.web.json", b"{}")])
        file = house.loaded.state_dir / "controller.db"
    with contextlib.closing(database.Store(file, executor.WriterThread())) as store:
        [put] = store.read(lambda connection: reading.audit(connection, "1.web.json"))
        [refused] = store.read(lambda connection: reading.refusals(connection, 10))
    assert (put.actor, put.action, put.reason) == ("operator", "trust.put", "2.targets.json 1.web.json")
    assert (refused.actor, refused.code) == ("operator", "metadata_invalid")


async def test_what_is_no_metadata_is_refused(house: publishing.House) -> None:
    names = [
        "web.json",
        "../2.web.json",
        "0.web.json",
        "02.web.json",
        "timestamp.json",
        "2.web.json.json/",
        "2.we b.json",
    ]
    contents = [b"", b"{}", b"[" * 100_000, b"x" * (metadata.TARGETS_BYTES_MAX + 1), b"\xff", b'{"signed": {}}']
    put = [(name, b"{}") for name in names] + [("2.web.json", content) for content in contents]
    for name, content in put:
        assert await house.refused([(name, content)]) == "metadata_invalid", (name, content[:20])


async def test_pieces_that_make_no_whole_files_are_refused(house: publishing.House) -> None:
    piece = release_service_pb2.PutTrustRequest
    for pieces in (
        [],
        [piece(name="2.web.json", content=b"{", is_last_piece=False)],
        [piece(name="2.web.json", content=b"{"), piece(name="2.db.json", content=b"}", is_last_piece=True)],
        [piece(name=f"{number}.web.json", is_last_piece=True) for number in range(trust_pieces.FILES_MAX + 1)],
        [piece(name="2.web.json", content=bytes(1 << 20)) for _ in range((trust_pieces.BYTES_MAX >> 20) + 1)],
    ):
        with pytest.raises(errors.InvalidRequestError) as caught:
            await house.put_pieces(pieces)
        assert caught.value.code == "metadata_invalid"


async def test_a_timestamp_is_nobodys_to_put(house: publishing.House) -> None:
    served = dict(await house.served())
    told = metadata.read_root(served["1.root.json"]).root
    assert told.version == 1
    snapshot = next(name for name in served if "snapshot" in name)
    assert await house.refused([(snapshot, served[snapshot])]) == "metadata_invalid"
