"""A store that was put back from a copy, and nodes that know more than it does: the real controller over real gRPC."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import sqlalchemy as sa

from controller.store import copies, database, tables
from tests.controller.store.test_copies import silent
from tests.security import house, nodes
from tests.security.test_enrolment import serving


async def test_62_nodes_that_renewed_or_came_in_since_the_copy_are_no_doubles_of_themselves(tmp_path: Path) -> None:
    """What was given out in the span that the store knows nothing of counts, and a double of an older key does not."""
    async with serving(tmp_path, timedelta(hours=24)) as home:
        kept, late, gone = (nodes.Host(home, name) for name in ("kept", "late", "gone"))
        for host in (kept, gone):
            await host.enrol(await nodes.token(home, host.node_id))
        for _ in range(2):
            await kept.renew()
        double = kept.copy()
        copies.backup(home.settings.state_dir / "controller.db", tmp_path / "copy", silent)
        for _ in range(2):
            await kept.renew()
        await late.enrol(await nodes.token(home, "late"))
        unused = await nodes.token(home, "thief")

    copies.restore(
        tmp_path / "copy", home.settings.state_dir / "controller.db", actor="ann", at=house.now(), progress=silent
    )

    async with home.serving():
        assert await kept.connect() == "welcome"
        assert await late.connect() == "welcome"
        assert await gone.connect() == "welcome"
        assert "nobody has made it" in await nodes.refusal(nodes.Host(home, "thief").enrol(unused))
        await kept.renew()
        await late.renew()
        assert await kept.connect() == "welcome"
        assert set(_subjects(home, "node.adopt")) == {"kept", "late"}
        assert "two hosts have one key" in await double.connect()
        assert "two hosts have one key" in await kept.connect()  # nobody can tell who is who: both are locked out


def _subjects(home: house.House, action: str) -> list[str]:
    with database.looked_at(home.settings.state_dir / "controller.db") as connection:
        return list(connection.scalars(sa.select(tables.audit.c.subject).where(tables.audit.c.action == action)))
