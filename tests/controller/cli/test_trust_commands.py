"""Signed releases from the command line: a publisher, two holders of keys, a controller, and another publisher."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.controller.cli import house


async def done(home: house.House, *arguments: str | Path) -> house.Outcome:
    """Run a command that must do what it says."""
    found = await home.instar(*arguments)
    assert found.code == 0, (arguments, found)
    return found


async def test_a_release_is_signed_in_two_places_and_published_with_what_names_it(tmp_path: Path) -> None:
    home, shop = house.House(tmp_path), tmp_path / "publisher"
    word = tmp_path / "word"
    word.write_text("a passphrase\n")
    made = (await done(home, "trust", "init", shop, "--passphrase-file", word, "-o", "json")).document
    assert made["stored"] == ["1.root.json", "1.targets.json"]
    bundle = tmp_path / "web.tar"
    await done(home, "release", "build", home.tree("1.0.0"), "-o", bundle)
    holders = sorted((shop / "keys").glob("targets-*.pem"))
    one, two = (("--key", holder, "--passphrase-file", word) for holder in holders[:2])
    first = (
        await done(home, "release", "sign", bundle, "--trust", shop, "--floor", "1.0.0", *one, "-o", "json")
    ).document
    assert (first["component"], first["version"], first["complete"]) == ("web", "1.0.0", False)
    assert first["drafts"][0] == {"name": "2.targets.json", "signatures": 1, "threshold": 2}
    async with home.serving("127.0.0.1:0", "--trust-dir", made["trust_dir"]):
        early = await home.instar("release", "publish", bundle, "--trust", shop)
        assert (early.code, "signed by everybody first" in early.err) == (2, True)
        shown = await done(home, "trust", "sign", "--trust", shop, *two)
        assert shown.out == "signed: 1.web.json, 2.targets.json\n"
        unsigned = await home.instar("release", "publish", bundle)
        assert (unsigned.code, "no signed metadata name" in unsigned.err) == (8, True)
        await done(home, "release", "publish", bundle, "--trust", shop)
        await other_publisher(home, shop)
    seen = await done(home, "controller", "doctor", "--trust-dir", made["trust_dir"], "-o", "json")
    assert {check["state"] for check in seen.document["checks"]} == {"ok"}
    shutil.rmtree(made["trust_dir"])
    failed = await home.instar("controller", "doctor", "--trust-dir", made["trust_dir"])
    assert (failed.code, "failed" in failed.out) == (1, True)


async def other_publisher(home: house.House, shop: Path) -> None:
    other = home.folder / "other"
    other.mkdir()
    shutil.copy(shop / "root.json", other)
    assert (await done(home, "trust", "pull", "--trust", other, "-o", "json")).document == {
        "stored": ["2.targets.json", "1.web.json"]
    }
    here = (await done(home, "trust", "show", "-o", "json")).document
    there = (await done(home, "trust", "show", "--trust", other, "-o", "json")).document
    assert here["components"] == there["components"]
    assert (here["components"][0]["component"], here["components"][0]["floor"]) == ("web", "1.0.0")
    assert {role["role"] for role in here["roles"]} == {"root", "timestamp", "snapshot", "targets", "web"}
    assert {role["role"] for role in there["roles"]} == {"root", "targets", "web"}


async def test_keys_are_rotated_and_releases_withdrawn(tmp_path: Path) -> None:
    home, shop = house.House(tmp_path), tmp_path / "publisher"
    few = ("--root-keys", "1", "--root-threshold", "1", "--targets-keys", "1", "--targets-threshold", "1")
    await done(home, "trust", "init", shop, *few)
    bundle = tmp_path / "web.tar"
    await done(home, "release", "build", home.tree("1.0.0"), "-o", bundle)
    await done(home, "release", "sign", bundle, "--trust", shop)
    for role in ("online", "web"):
        await done(home, "trust", "rotate", role, "--trust", shop, "--keys", "1", "--threshold", "1")
    await done(home, "trust", "renew", "targets", "--trust", shop)
    await done(home, "release", "withdraw", "web", "1.0.0", "--trust", shop)
    async with home.serving("127.0.0.1:0", "--trust-dir", str(shop / "online")):
        put = (await done(home, "trust", "push", "--trust", shop, "-o", "json")).document
        assert put["stored"] == ["2.root.json", "4.targets.json", "3.web.json"]
        refused = await home.instar("release", "publish", bundle)
        assert (refused.code, "no signed metadata name" in refused.err) == (8, True)


async def test_a_controller_without_trust_says_so(tmp_path: Path) -> None:
    home = house.House(tmp_path)
    async with home.serving():
        shown = await home.instar("trust", "show")
        assert (shown.code, "takes releases unsigned" in shown.err) == (8, True)
        seen = await done(home, "controller", "doctor")
        assert "releases are not signed" in seen.out
    log = (tmp_path / "controller.log").read_text()
    assert "releases are NOT signed" in log
    assert "releases are not signed: trust_dir is not set" in log


async def test_local_files_that_cannot_be_used_are_told_with_exit_code_2(tmp_path: Path) -> None:
    home = house.House(tmp_path)
    nothing = tmp_path / "nothing"
    for arguments in (
        ("trust", "show", "--trust", nothing),
        ("trust", "sign", "--trust", nothing),
        ("trust", "init", tmp_path / "new", "--root-threshold", "4"),
        ("trust", "init", tmp_path / "new", "--passphrase-file", nothing),
        ("release", "sign", nothing, "--trust", tmp_path),
    ):
        found = await home.instar(*arguments)
        assert (found.code, found.err.startswith("cannot ")) == (2, True), (arguments, found)
    assert not nothing.exists()
