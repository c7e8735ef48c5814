"""`instar store`, from outside: the real program beside a real controller, and without one."""

from __future__ import annotations

from pathlib import Path

from tests.controller.cli import house


async def test_a_store_is_copied_looked_at_and_put_back(tmp_path: Path) -> None:
    home = house.House(tmp_path)
    nothing = await home.instar("store", "check")
    assert (nothing.code, nothing.err.startswith("cannot find the store")) == (2, True)
    copy = tmp_path / "copy"
    async with home.serving():
        made = await home.instar("store", "backup", copy, "-o", "json")
        assert (made.code, made.document["file"]) == (0, str(copy)), made
        looked = await home.instar("store", "check", "--with-bundles", "-o", "json")
        assert (looked.code, looked.document["findings"]) == (0, []), looked
        assert looked.document["looked_at"]["audit_rows"] > 0
        again = await home.instar("store", "backup", copy)
        assert (again.code, "there already" in again.err) == (8, True)
        early = await home.instar("store", "restore", copy)
        assert (early.code, "another controller is using it" in early.err) == (8, True)
    put = await home.instar("store", "restore", copy)
    assert put.code == 0, put
    assert "open join tokens are void" in put.out
    wanted = await home.instar("store", "migrate", "--dry-run", "-o", "json")
    assert (wanted.code, wanted.document["steps"], wanted.document["done"]) == (0, [], False)
    assert (await home.instar("store", "migrate")).out.rstrip().endswith("as it should be")
    async with home.serving():
        (row,) = (await home.instar("audit", "list", "--action", "store.restore", "-o", "json")).document["rows"]
        assert row["actor"].startswith("local:")
    unknown = await home.instar("store", "journal", "nothing", tmp_path / "history")
    assert (unknown.code, (tmp_path / "history").exists()) == (2, False)
    nowhere = await home.instar("store", "backup", tmp_path / "no" / "folder")
    assert (nowhere.code, nowhere.err.startswith("cannot use file")) == (2, True)
    (tmp_path / "state" / "controller.db").write_bytes(b"\xff" * 4096)
    wrong = await home.instar("store", "check")
    assert (wrong.code, "file is not a database" in wrong.out) == (1, True), wrong
