"""`instar ca`, from outside: the real program on a real folder."""

from __future__ import annotations

from pathlib import Path

from tests.controller.cli import house


async def test_authorities_are_made_shown_rotated_and_give_certificates(tmp_path: Path) -> None:
    home = house.House(tmp_path)
    missing = await home.instar("ca", "show")
    assert (missing.code, missing.err.startswith("cannot find the authorities")) == (2, True)

    made = await home.instar("ca", "init", "--domain", "fleet.example", "-o", "json")
    assert made.code == 0, made
    assert made.document["domain"] == "fleet.example"
    assert [(one["kind"], one["role"]) for one in made.document["authorities"]] == [
        ("agents", "signing"),
        ("servers", "signing"),
        ("clients", "signing"),
    ]
    again = await home.instar("ca", "init")
    assert (again.code, again.err.startswith("cannot make authorities: there are some")) == (8, True)

    early = await home.instar("ca", "rotate", "servers", "sign")
    assert (early.code, "there is no new authority" in early.err) == (8, True)
    for step, roles in (
        (("trust",), ["signing", "next"]),
        (("sign", "--force"), ["signing", "retired"]),
        (("drop", "--force"), ["signing"]),
    ):
        rotated = await home.instar("ca", "rotate", "servers", *step, "-o", "json")
        assert rotated.code == 0, rotated
        found = [one["role"] for one in rotated.document["authorities"] if one["kind"] == "servers"]
        assert found == roles
    assert (await home.instar("ca", "show")).out.count("signing") == 3

    given = await home.instar("ca", "client", "ci", "--out", tmp_path / "ci", "-o", "json")
    assert (given.code, given.document["name"]) == (0, "spiffe://fleet.example/client/ci")
    assert sorted(one.name for one in (tmp_path / "ci").iterdir()) == ["ca.pem", "client.key", "client.pem"]

    async def granted(*arguments: str) -> list[tuple[str, str]]:
        assert (await home.instar("ca", "client", *arguments, "--out", tmp_path / arguments[0])).code == 0
        shown = await home.instar("principal", "show", arguments[0], "-o", "json")
        return [(each["role"], each["scope"]) for each in shown.document["grants"]]

    assert await granted("ci") == [("admin", "")]
    assert await granted("ann", "--role", "operator:team=web", "--role", "viewer") == [
        ("operator", "team=web"),
        ("viewer", ""),
    ]
    assert len(await granted("ann")) == 2
    assert await granted("ci", "--role", "viewer") == [("viewer", "")]
    wrong = await home.instar("ca", "client", "eve", "--role", "king", "--out", tmp_path / "eve")
    assert (wrong.code, (tmp_path / "eve").exists()) == (2, False)
