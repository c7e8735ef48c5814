"""What a controller believes of publishers: lines of the fault matrix by their numbers, and what else is asked."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.metadata import DelegatedRole, Delegations, Root, Signed, Targets

from controller.core import errors
from controller.rpc import trust_pieces
from controller.store import database, executor, reading
from controller.trust import metadata
from instar.v1 import release_service_pb2
from tests.security import judged, publishing

FIRST, SECOND = judged.bundle(version="1.0.0"), judged.bundle(version="1.1.0")


@pytest.fixture
def shop(tmp_path: Path) -> publishing.Shop:
    made = publishing.Shop(tmp_path / "publisher")
    made.release("1.0.0")
    return made


@pytest.fixture
async def house(tmp_path: Path, shop: publishing.Shop) -> AsyncIterator[publishing.House]:
    async with publishing.serving(tmp_path / "controller", shop.folder / "online") as serving:
        await serving.put(shop.files())
        yield serving


@pytest.fixture
def node(shop: publishing.Shop) -> Iterator[judged.Node]:
    with publishing.believing(shop.root) as believing:
        yield believing


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
    house: publishing.House, shop: publishing.Shop, node: judged.Node
) -> None:
    """Publisher, controller and node: the real verifier over what came over the wire, through all kinds of rotation."""
    assert node.told(await house.read(), FIRST) == ""
    for number, role in enumerate(("root", "online", "targets", "web"), start=1):
        version = f"1.{number}.0"
        shop.rotate(role)
        shop.release(version)
        await house.put(shop.files())
        assert node.told(await house.read(), judged.bundle(version=version), version) == "", role
    for version, floor in (("1.3.5", None), ("2.0.0", "1.4.0")):
        shop.release(version, floor=floor)
    await house.put(shop.files())
    assert node.told(await house.read(), judged.bundle(version="1.4.0"), "1.4.0") == ""
    assert node.told(await house.read(), judged.bundle(version="1.3.5"), "1.3.5") == "release_below_floor"
    shop.at().withdraw("web", "2.0.0", shop.signers)
    await house.put(shop.files())
    assert node.told(await house.read(), judged.bundle(version="2.0.0"), "2.0.0") == "release_unsigned"
    assert node.told(await house.read(), judged.bundle(version="1.3.5"), "1.3.5") == "release_below_floor"


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


async def test_21_a_root_that_lacks_a_signature_of_the_old_or_the_new_keys_is_refused(
    house: publishing.House, shop: publishing.Shop
) -> None:
    shop.rotate("root")
    old, new = shop.signed().roots
    by_id = shop.signers
    olds, news = ([by_id[key] for key in sorted(metadata.key_ids(file.root, "root"))] for file in (old, new))
    for signers in (olds, news, [*olds[:1], *news], [*olds, *news[:1]], []):
        assert await house.refused([forged_same(new, signers)]) == "metadata_unsigned"
    await house.put([forged_same(new, [*olds[:2], *news[:2]])])


async def test_22_roots_are_followed_one_by_one_and_none_is_skipped(
    house: publishing.House, shop: publishing.Shop, node: judged.Node
) -> None:
    for _ in range(4):
        shop.rotate("root")
    roots = {file.version: (file.name, file.content) for file in shop.signed().roots}
    assert await house.refused([roots[5]]) == "metadata_missing"
    assert await house.refused([roots[2], roots[4], roots[5]]) == "metadata_missing"
    stored = (await house.put([roots[5], roots[3], roots[2], roots[4]])).stored
    assert stored == [roots[number][0] for number in (2, 3, 4, 5)]
    assert node.told(await house.read(1), FIRST) == ""


async def test_23_targets_that_the_online_keys_signed_are_refused(
    house: publishing.House, shop: publishing.Shop
) -> None:
    online = [shop.key("snapshot"), shop.key("timestamp")]
    signed = shop.signed()
    assert signed.targets is not None
    for file in (signed.targets, signed.components["web"]):
        assert await house.refused([publishing.forged(file, later, online)]) == "metadata_unsigned"


async def test_24_one_signature_counts_once_however_often_it_stands_there(
    house: publishing.House, shop: publishing.Shop
) -> None:
    web = shop.signed().components["web"]
    name, content = publishing.forged(web, later, [shop.key("targets")])
    assert await house.refused([(name, content)]) == "metadata_unsigned"
    start = content.index(b'"signatures":[') + len(b'"signatures":[')
    one = content[start : content.index(b"]", start)]
    twice = content.replace(one, one + b"," + one)
    assert await house.refused([(name, twice)]) == "metadata_invalid"


async def test_24_one_key_counts_once_whatever_it_is_called(house: publishing.House, shop: publishing.Shop) -> None:
    signed = shop.signed()
    thief = shop.key("targets")
    again = SSlibKey("other", "ed25519", "ed25519", {"public": thief.public_key.keyval["public"].upper()})

    def twice(root: Root) -> None:
        later(root)
        root.keys["other"] = again
        root.roles["targets"].keyids = [thief.public_key.keyid, "other"]

    holders = [signer for key, signer in shop.signers.items() if key in metadata.key_ids(signed.root, "root")]
    root = publishing.forged(signed.roots[0], twice, holders)
    assert signed.targets is not None
    targets = publishing.forged(signed.targets, later, [thief, CryptoSigner(thief._private_key, again)])
    assert await house.refused([root, targets]) == "metadata_unsigned"


async def test_a_role_has_one_parent_and_names_what_is_its_own(house: publishing.House, shop: publishing.Shop) -> None:
    signed = shop.signed()
    assert signed.targets is not None
    for change in (delegating, naming_others):
        forged = publishing.forged(signed.components["web"], change, shop.signers.values())
        assert await house.refused([forged]) == "metadata_invalid", change
    for change in (wide, running_on, by_hash, called_root, naming_bundles):
        forged = publishing.forged(signed.targets, change, shop.signers.values())
        assert await house.refused([forged]) == "metadata_invalid", change


async def test_25_files_that_do_not_belong_together_are_refused(
    tmp_path: Path, house: publishing.House, shop: publishing.Shop
) -> None:
    shop.rotate("targets")
    by_role = {name.split(".")[1]: (name, content) for name, content in shop.files()}
    assert await house.refused([by_role["root"]]) == "metadata_unsigned"  # the targets of before hang on keys that went
    assert await house.refused([by_role["root"], by_role["targets"]]) == "metadata_unsigned"
    assert await house.refused([by_role["web"]]) == "metadata_unsigned"
    stranger = publishing.Shop(tmp_path / "stranger")
    stranger.release("1.0.0")
    assert await house.refused(stranger.files()) == "metadata_mixed"
    assert await house.refused(stranger.files()[1:]) == "metadata_unsigned"


async def test_25_a_version_that_is_there_is_no_other_file(house: publishing.House, shop: publishing.Shop) -> None:
    web = shop.signed().components["web"]
    others = reversed(shop.signers.values())
    assert await house.refused([forged_same(web, others)]) == "metadata_mixed"


async def test_25_targets_without_the_metadata_of_their_components_are_refused(
    house: publishing.House, shop: publishing.Shop
) -> None:
    shop.release("1.0.0", component="db")
    assert await house.refused([one for one in shop.files() if ".db." not in one[0]]) == "metadata_missing"
    assert await house.refused([one for one in shop.files() if "targets" not in one[0]]) == "metadata_unsigned"


async def test_18_older_metadata_are_refused(house: publishing.House, shop: publishing.Shop) -> None:
    older = shop.files()
    shop.release("1.1.0", floor="1.1.0")
    await house.put(shop.files())
    assert await house.refused(older) == "metadata_rolled_back"


async def test_20_expired_metadata_are_refused(house: publishing.House, shop: publishing.Shop) -> None:
    past = publishing.present() - timedelta(days=91)
    assert shop.at(past).release(publishing.named("1.1.0"), shop.signers).stored == ("2.web.json",)
    assert await house.refused(shop.files()) == "metadata_expired"


async def test_26_versions_that_a_thief_ran_up_are_forgotten_with_the_keys(
    house: publishing.House, shop: publishing.Shop, node: judged.Node
) -> None:
    def far(targets: Targets) -> None:
        targets.version = 1_000_000

    web = shop.signed().components["web"]
    await house.put([publishing.forged(web, far, shop.signers.values())])
    assert node.told(await house.read(), FIRST) == ""
    shop.rotate("targets")
    assert await house.refused(shop.files()) == "metadata_rolled_back"  # nodes hold the snapshot against it
    shop.rotate("online")
    await house.put(shop.files())
    assert node.told(await house.read(), FIRST) == ""


async def test_the_same_again_changes_nothing_not_even_the_timestamp(
    house: publishing.House, shop: publishing.Shop
) -> None:
    before = await house.served()
    answer = await house.put(shop.files())
    assert (list(answer.stored), await house.served()) == ([], before)
    assert answer.timestamp_version >= answer.root_version == 1


async def test_a_root_whose_online_keys_are_elsewhere_is_refused_until_they_come(
    tmp_path: Path, shop: publishing.Shop, node: judged.Node
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
        assert node.told(await house.read(), FIRST) == ""


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


def later(signed: Signed) -> None:
    signed.version += 1


def delegating(targets: Targets) -> None:
    later(targets)
    key = SSlibKey("k", "ed25519", "ed25519", {"public": "00" * 32})
    targets.delegations = Delegations(
        {"k": key}, {"db": DelegatedRole("db", ["k"], 1, terminating=True, paths=["db/*"])}
    )


def naming_others(targets: Targets) -> None:
    later(targets)
    targets.targets["db/1.0.0"] = publishing.named("1.0.0", component="db").target()


def naming_bundles(targets: Targets) -> None:
    later(targets)
    targets.targets["web/1.0.0"] = publishing.named("1.0.0").target()


def wide(targets: Targets) -> None:
    later(targets)
    role_of_web(targets).paths = ["*/*"]


def running_on(targets: Targets) -> None:
    later(targets)
    role_of_web(targets).terminating = False


def by_hash(targets: Targets) -> None:
    later(targets)
    role_of_web(targets).paths, role_of_web(targets).path_hash_prefixes = None, ["00"]


def called_root(targets: Targets) -> None:
    later(targets)
    keys = role_of_web(targets).keyids
    roles_of(targets)["snapshot"] = DelegatedRole("snapshot", keys, 2, terminating=True, paths=["snapshot/*"])


def role_of_web(targets: Targets) -> DelegatedRole:
    return roles_of(targets)["web"]


def roles_of(targets: Targets) -> dict[str, DelegatedRole]:
    assert targets.delegations is not None
    assert targets.delegations.roles is not None
    return targets.delegations.roles


def forged_same(file: metadata.File, signers: Iterable[CryptoSigner]) -> tuple[str, bytes]:
    """The same file with other signatures."""
    return publishing.forged(file, lambda _: None, signers)
