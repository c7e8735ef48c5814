"""Which metadata may follow which, whoever asks: by files of a publisher and of a thief, and any instant."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from controller.core import errors
from controller.trust import keys, metadata, online, repository, succession
from tests.security import publishing

MOMENT = timedelta(seconds=1)
NOW = publishing.present()


def changed(
    file: metadata.File | None, signers: Iterable[Any], change: Callable[[Any], None] = lambda _: None, by: int = 1
) -> metadata.File:
    """A file some versions further on."""
    assert file is not None

    def moved(signed: Any) -> None:  # noqa: ANN401  # of any role
        signed.version += by
        change(signed)

    return metadata.read(*publishing.forged(file, moved, signers))


def refused(before: repository.Repository, *put: metadata.File | None, at: timedelta = timedelta()) -> tuple[str, str]:
    """Code, and the file that is named."""
    with pytest.raises(errors.InstarError) as caught:
        succession.succeed(before, [file for file in put if file is not None], NOW + at)
    return caught.value.code, str(caught.value.value)


def sealed(found: repository.Repository, shop: publishing.Shop) -> repository.Repository:
    return online.signed(found, keys.read_folder(shop.folder / "online"), NOW)


# Times.


def test_what_is_newly_taken_has_not_expired_and_what_was_taken_may(shop: publishing.Shop) -> None:
    shop.release("1.0.0", component="db")
    before = shop.signed()
    web = before.components["web"]
    after_all = web.expires_at + timedelta(days=1)
    later = shop.at(after_all)
    later.renew(["web"], shop.signers)
    renewed = shop.signed().components["web"]
    assert before.components["db"].expires_at < after_all < before.roots[-1].expires_at
    assert succession.succeed(before, [renewed], after_all).components["web"] == renewed
    assert succession.succeed(before, [renewed], renewed.expires_at - MOMENT).components["web"] == renewed
    with pytest.raises(errors.RefusedError) as caught:
        succession.succeed(before, [renewed], renewed.expires_at)
    assert (caught.value.code, caught.value.value) == ("metadata_expired", renewed.name)


def test_nothing_follows_while_the_newest_root_has_expired_and_a_newer_root_mends_it(shop: publishing.Shop) -> None:
    before, signers = shop.signed(), list(shop.signers.values())
    ends = before.roots[-1].expires_at - NOW

    def lasting(signed: Any) -> None:  # noqa: ANN401  # of any role
        signed.expires += timedelta(days=800)

    web, root = (changed(file, signers, lasting) for file in (before.components["web"], before.roots[-1]))
    assert refused(before, web, at=ends) == ("metadata_expired", "1.root.json")
    assert succession.succeed(before, [web, root], NOW + ends).roots[-1] == root


# Roots.


def test_roots_come_in_any_order_and_those_from_before_the_first_that_is_trusted_say_nothing(
    shop: publishing.Shop,
) -> None:
    for _ in range(3):
        shop.rotate("root")
    signed = shop.signed()
    first, second, third, fourth = signed.roots
    before = replace(signed, roots=(second,))
    assert succession.succeed(before, [fourth, first, third, second], NOW).roots == (second, third, fourth)
    after = replace(signed, roots=(second, third, fourth))
    assert succession.succeed(after, [third], NOW).roots == after.roots
    other = metadata.read(*publishing.forged(third, lambda _: None, []))
    assert refused(after, other) == ("metadata_mixed", "3.root.json")
    assert refused(replace(signed, roots=(first,)), third) == ("metadata_missing", "3.root.json")


# What is put.


def test_nobody_puts_what_the_controller_signs_or_two_files_of_one_role(shop: publishing.Shop) -> None:
    before = sealed(shop.signed(), shop)
    for file in (before.snapshot, before.timestamp):
        assert refused(before, file)[0] == "metadata_invalid"
    web = before.components["web"]
    for pair in ((web, web), (web, changed(web, shop.signers.values()))):
        assert refused(before, *pair)[0] == "metadata_invalid"


# Versions that go down.


@pytest.mark.parametrize("rekeyed", [(), ("targets",), ("snapshot",), ("targets", "snapshot")])
@pytest.mark.parametrize("role", ["targets", "web"])
def test_26_a_version_goes_down_only_with_the_keys_of_its_role_and_of_the_snapshot(
    shop: publishing.Shop, role: str, rekeyed: tuple[str, ...]
) -> None:
    signers, first = list(shop.signers.values()), shop.signed()
    for each in rekeyed:
        shop.rotate("online" if each == "snapshot" else each)
    honest = shop.signed()
    ahead = changed(of(first, role), signers, by=1000)
    before = replace(first, targets=ahead) if role == "targets" else replace(first, components={role: ahead})
    if set(rekeyed) == {"targets", "snapshot"}:
        assert of(succession.succeed(before, honest.signed_offline(), NOW), role) == of(honest, role)
    else:
        assert refused(before, *honest.signed_offline()) == ("metadata_rolled_back", of(honest, role).name)


def of(found: repository.Repository, role: str) -> metadata.File:
    file = found.targets if role == "targets" else found.components[role]
    assert file is not None
    return file


def test_18_a_component_that_was_gone_comes_back_no_older_than_nodes_have_seen_it(shop: publishing.Shop) -> None:
    signers = list(shop.signers.values())
    first = shop.signed()
    newer = changed(of(first, "web"), signers)
    without = changed(first.targets, signers, lambda targets: targets.delegations.roles.pop("web"))
    again = changed(first.targets, signers, by=2)
    gone = sealed(succession.succeed(sealed(replace(first, components={"web": newer}), shop), [without], NOW), shop)
    assert not gone.components
    assert refused(gone, again, of(first, "web")) == ("metadata_rolled_back", of(first, "web").name)
    assert refused(gone, again)[0] == "metadata_missing"
    assert succession.succeed(gone, [again, newer], NOW).components == {"web": newer}


def test_a_version_that_is_there_is_one_file_and_the_same_file_again_is_no_news(shop: publishing.Shop) -> None:
    before = shop.signed()
    others = list(reversed(shop.signers.values()))
    for role in ("targets", "web"):
        assert refused(before, changed(of(before, role), others, by=0))[0] == "metadata_mixed"
    assert succession.succeed(before, before.signed_offline(), NOW) == before


# What is kept.


def test_what_is_kept_is_signed_throughout_by_whom_the_newest_root_names(shop: publishing.Shop) -> None:
    shop.rotate("root")
    good = shop.signed()
    succession.check(good)
    stranger = [shop.key("snapshot")]
    first, second = good.roots
    for bad in (
        replace(good, targets=changed(good.targets, stranger, by=0)),
        replace(good, components={"web": changed(of(good, "web"), stranger, by=0)}),
        replace(good, targets=None),
        replace(good, roots=(first, changed(second, stranger, by=0))),
        replace(good, roots=(first, changed(second, shop.signers.values()))),
    ):
        with pytest.raises(errors.RefusedError):
            succession.check(bad)
