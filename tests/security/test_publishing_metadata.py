"""Which metadata a controller takes from publishers: lines of the fault matrix by their numbers."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.metadata import DelegatedRole, Delegations, Root, Signed, Targets

from controller.trust import metadata
from tests.security import judged, publishing

FIRST, SECOND = judged.bundle(version="1.0.0"), judged.bundle(version="1.1.0")


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
    house: publishing.House, shop: publishing.Shop, believer: judged.Node
) -> None:
    for _ in range(4):
        shop.rotate("root")
    roots = {file.version: (file.name, file.content) for file in shop.signed().roots}
    assert await house.refused([roots[5]]) == "metadata_missing"
    assert await house.refused([roots[2], roots[4], roots[5]]) == "metadata_missing"
    stored = (await house.put([roots[5], roots[3], roots[2], roots[4]])).stored
    assert stored == [roots[number][0] for number in (2, 3, 4, 5)]
    assert believer.told(await house.read(1), FIRST) == ""


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
    house: publishing.House, shop: publishing.Shop, believer: judged.Node
) -> None:
    def far(targets: Targets) -> None:
        targets.version = 1_000_000

    web = shop.signed().components["web"]
    await house.put([publishing.forged(web, far, shop.signers.values())])
    assert believer.told(await house.read(), FIRST) == ""
    shop.rotate("targets")
    assert await house.refused(shop.files()) == "metadata_rolled_back"  # nodes hold the snapshot against it
    shop.rotate("online")
    await house.put(shop.files())
    assert believer.told(await house.read(), FIRST) == ""


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
