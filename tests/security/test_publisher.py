"""A publisher's folder: who signs where, what is refused before it is signed, and what a crash leaves."""

from __future__ import annotations

import shutil
import stat
from datetime import timedelta
from pathlib import Path

import pytest

from controller.core import errors
from controller.trust import files, keys, metadata, publisher
from tests.security import publishing

WORD = b"a passphrase"


@pytest.fixture
def shop(tmp_path: Path) -> publishing.Shop:
    return publishing.Shop(tmp_path / "publisher")


def holders(shop: publishing.Shop, role: str) -> list[Path]:
    return sorted((shop.folder / "keys").glob(f"{role}-*.pem"))


def code(work: object) -> str:
    assert callable(work)
    with pytest.raises(errors.InstarError, match=r"^cannot ") as caught:
        work()
    return caught.value.code


def test_keys_are_their_owners_alone_and_metadata_are_signed_from_the_beginning(shop: publishing.Shop) -> None:
    assert len(holders(shop, "root")) == len(holders(shop, "targets")) == 3
    for path in [*(shop.folder / "keys").iterdir(), *(shop.folder / "online").glob("*.pem")]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    signed = shop.signed()
    assert [file.name for file in signed.signed_offline()] == ["1.root.json", "1.targets.json"]
    assert {role: found.threshold for role, found in signed.root.roles.items()} == {
        "root": 2,
        "targets": 2,
        "snapshot": 1,
        "timestamp": 1,
    }
    left = signed.roots[0].expires_at - publishing.present()
    assert timedelta(days=364) < left < timedelta(days=366)


def test_holders_sign_one_after_another_each_in_a_place_of_its_own(tmp_path: Path, shop: publishing.Shop) -> None:
    away = tmp_path / "away"
    (shop.folder / "keys").rename(away)
    (shop.folder / "keys").mkdir()
    first, second = (keys.by_id([keys.read(path)]) for path in sorted(away.glob("targets-*.pem"))[:2])
    begun = shop.at().release(publishing.named("1.0.0"), {})  # whoever built it needs no key
    assert [(one.name, one.signatures, one.threshold) for one in begun.standings] == [
        ("2.targets.json", 0, 2),
        ("1.web.json", 0, 2),
    ]
    assert {one.signatures for one in shop.at().sign(first).standings} == {1}
    assert shop.signed().components == {}
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(shop.folder, elsewhere)
    made = publisher.Publisher(elsewhere, publishing.present()).release(publishing.named("1.0.0"), second)
    assert set(made.stored) == {"2.targets.json", "1.web.json"}
    assert publisher.Publisher(elsewhere, publishing.present()).drafts() == ()


def test_keys_that_have_no_say_are_refused(shop: publishing.Shop) -> None:
    root, target = keys.by_id([shop.key("root")]), keys.by_id([shop.key("targets")])
    assert code(lambda: shop.at().release(publishing.named("1.0.0"), root)) == "key_unknown"
    assert shop.at().release(publishing.named("1.0.0"), target).standings
    assert code(lambda: shop.at().sign(target)) == "key_unknown"  # it has signed
    assert code(lambda: publishing.Shop(shop.folder.with_name("new")).at().sign(target)) == "draft_not_found"


def test_one_change_at_a_time(shop: publishing.Shop) -> None:
    one = keys.by_id([shop.key("targets")])
    shop.at().release(publishing.named("1.0.0"), one)
    numbers = publisher.Numbers(1, 1)
    before = len(holders(shop, "root"))
    for change in (
        lambda: shop.at().release(publishing.named("1.1.0"), one),
        lambda: shop.at().release(publishing.named("1.0.0", b"other bytes"), one),
        lambda: shop.at().renew([], one),
        lambda: shop.at().rotate("root", numbers, one, None),
        lambda: shop.at().rotate("online", numbers, one, None),
    ):
        assert code(change) == "draft_open"
    assert len(holders(shop, "root")) == before  # no key was made in vain


def test_a_release_is_named_once_and_for_ever(shop: publishing.Shop) -> None:
    shop.release("1.0.0", floor="1.0.0")
    again = shop.at().release(publishing.named("1.0.0"), shop.signers)
    assert (again.stored, again.standings) == ((), ())
    assert code(lambda: shop.at().release(publishing.named("1.0.0", b"other"), shop.signers)) == "release_exists"


def test_floors_bind_who_signs(shop: publishing.Shop) -> None:
    shop.release("1.0.0")
    assert code(lambda: shop.release("1.1.0", floor="1.2.0")) == "floor_invalid"
    shop.release("1.2.0", floor="1.1.0")
    shop.release("1.10.0", floor="1.9.0")
    assert metadata.floor_of(shop.signed().components["web"].targets) == "1.9.0"
    shop.release("1.10.0", floor="1.9.1")  # a floor may also be set later
    assert metadata.floor_of(shop.signed().components["web"].targets) == "1.9.1"
    shop.release("1.10.0", floor="1.9.0")
    assert code(lambda: shop.release("1.3.0")) == "release_below_floor"
    assert shop.at().withdraw("web", "1.10.0", shop.signers).stored  # the floor outlives who set it
    assert metadata.floor_of(shop.signed().components["web"].targets) == "1.9.0"
    assert code(lambda: shop.at().withdraw("web", "1.10.0", shop.signers)) == "release_not_found"


def test_new_keys_sign_and_old_ones_do_not(shop: publishing.Shop) -> None:
    shop.release("1.0.0")
    shop.release("1.0.0", component="db")
    shop.rotate("db", keys=1, threshold=1)
    old = {
        key: signer for key, signer in shop.signers.items() if key in metadata.key_ids(shop.signed().root, "targets")
    }
    shop.rotate("targets")
    signed = shop.signed()
    assert signed.top is not None
    followed, own = (metadata.key_ids(signed.top, name) for name in ("web", "db"))
    assert followed == metadata.key_ids(signed.root, "targets")
    assert len(own) == 1
    assert not own & followed
    assert not old.keys() & signed.root.keys.keys()  # nothing of theirs is left
    assert code(lambda: shop.at().release(publishing.named("1.1.0"), old)) == "key_unknown"
    before = len(holders(shop, "nothing"))
    assert code(lambda: shop.rotate("nothing", keys=1, threshold=1)) == "role_not_found"
    assert len(holders(shop, "nothing")) == before
    shop.rotate("db")  # as many as it had
    shop.rotate("web")
    top = shop.signed().top
    assert top is not None
    told = [top.get_delegated_role(name) for name in ("db", "web")]
    assert [(len(role.keyids), role.threshold) for role in told] == [(1, 1), (3, 2)]
    assert code(lambda: shop.rotate("web", keys=1, threshold=2)) == "threshold_invalid"


def test_a_root_is_signed_by_enough_of_those_who_go_and_of_those_who_come(shop: publishing.Shop) -> None:
    old = [keys.by_id([keys.read(path)]) for path in holders(shop, "root")]
    begun = shop.at().rotate("root", publisher.Numbers(3, 2), old[0], None)
    assert [(one.signatures, one.threshold) for one in begun.standings] == [(1, 2)]  # the new ones have signed
    assert shop.at().sign(old[1]).stored == ("2.root.json",)


def test_metadata_are_renewed_before_they_expire(shop: publishing.Shop) -> None:
    shop.release("1.0.0")
    later = publishing.present() + timedelta(days=60)
    assert set(shop.at(later).renew(["web"], shop.signers).stored) == {"2.web.json"}
    assert len(shop.at(later).renew([], shop.signers).stored) == 3
    for file in shop.signed().signed_offline():
        assert file.expires_at > later + timedelta(days=89) or file.name == "1.root.json"
    assert list(shop.signed().components["web"].targets.targets) == ["web/1.0.0"]
    assert code(lambda: shop.at().renew(["nothing"], shop.signers)) == "role_not_found"


def test_keys_are_encrypted_where_there_is_a_passphrase(tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    place = publisher.Publisher(folder, publishing.present())
    place.init(publisher.Numbers(1, 1), publisher.Numbers(1, 1), WORD)
    for path in (folder / "keys").iterdir():
        assert b"ENCRYPTED" in path.read_bytes()
    assert code(place.signers) == "key_invalid"
    assert code(lambda: place.signers(b"another")) == "key_invalid"
    assert place.release(publishing.named("1.0.0"), place.signers(WORD)).stored
    assert place.rotate("targets", publisher.Numbers(1, 1), place.signers(WORD), WORD).stored


def test_a_key_that_others_can_read_is_refused(tmp_path: Path, shop: publishing.Shop) -> None:
    path = holders(shop, "root")[0]
    path.chmod(0o604)
    assert code(lambda: keys.read(path)) == "key_invalid"
    assert code(lambda: keys.read(tmp_path / "none.pem")) == "key_invalid"
    path.write_bytes(b"no key")
    path.chmod(0o600)
    assert code(lambda: keys.read(path)) == "key_invalid"


def test_a_folder_that_holds_something_is_not_made_anew(tmp_path: Path, shop: publishing.Shop) -> None:
    numbers = publisher.Numbers(1, 1)
    assert code(lambda: shop.at().init(numbers, numbers)) == "folder_used"
    new = publisher.Publisher(tmp_path / "new", publishing.present())
    for wrong in (publisher.Numbers(0, 0), publisher.Numbers(1, 2), publisher.Numbers(17, 1)):
        assert code(lambda wrong=wrong: new.init(wrong, numbers)) == "threshold_invalid"
    assert not (tmp_path / "new" / "keys").exists()


def test_another_publisher_takes_what_is_signed_and_believes_nobody(tmp_path: Path, shop: publishing.Shop) -> None:
    shop.release("1.0.0")
    older = shop.files()
    shop.rotate("root")
    shop.release("1.1.0")
    other = tmp_path / "other"
    other.mkdir()
    (other / "root.json").write_bytes(shop.root)
    taken = publisher.Publisher(other, publishing.present()).take(shop.files())
    assert taken == ("2.root.json", "2.targets.json", "2.web.json")
    place = publisher.Publisher(other, publishing.present())
    assert place.signed() == shop.signed()
    assert place.take(shop.files()) == ()
    assert code(lambda: place.take(older)) == "metadata_rolled_back"
    stranger = publishing.Shop(tmp_path / "stranger")
    assert code(lambda: place.take(stranger.files())) == "metadata_mixed"
    assert place.signed() == shop.signed()


@pytest.mark.parametrize("place", ["_store", "_finish", "rmtree"])
def test_a_crash_between_two_steps_leaves_what_was_or_what_comes(
    monkeypatch: pytest.MonkeyPatch, shop: publishing.Shop, place: str
) -> None:
    def crash(*_: object, **__: object) -> None:
        raise InterruptedError

    shop.release("1.0.0")
    before, signers = shop.signed(), shop.signers
    begun = shop.at()
    with monkeypatch.context() as patch:
        match place:
            case "_store":
                patch.setattr(files, "write", crash)
            case "_finish":
                patch.setattr(begun, "_finish", crash)
            case _:
                patch.setattr(begun, "_refuse_open", lambda: patch.setattr(shutil, "rmtree", crash))
        with pytest.raises(InterruptedError):
            begun.release(publishing.named("1.1.0"), signers)
    if place == "_store":
        assert shop.at().signed() == before
        shop.release("1.1.0")
    else:
        shop.at()
    assert "web/1.1.0" in shop.signed().components["web"].targets.targets or place == "rmtree"
    shop.release("1.2.0")
    assert not [path for path in shop.folder.iterdir() if path.name.startswith(".metadata")]


def test_what_is_not_ours_to_know_stays_as_it_was(shop: publishing.Shop) -> None:
    """Unknown fields of a file that is changed go on into the next one."""
    shop.release("1.0.0")
    path = shop.folder / "metadata" / "1.web.json"

    def mark(signed: object) -> None:
        signed.unrecognized_fields["x-note"] = {"by": "another tool"}  # type: ignore[attr-defined]  # of any file

    name, content = publishing.forged(shop.signed().components["web"], mark, shop.signers.values())
    assert name == path.name
    path.write_bytes(content)
    shop.release("1.1.0")
    assert shop.signed().components["web"].targets.unrecognized_fields == {"x-note": {"by": "another tool"}}


def test_targets_say_what_nodes_read(shop: publishing.Shop) -> None:
    shop.release("1.0.0", floor="1.0.0")
    target = shop.signed().components["web"].targets.targets["web/1.0.0"]
    assert target.custom == {"instar": {"v": 1, "floor": "1.0.0"}}
