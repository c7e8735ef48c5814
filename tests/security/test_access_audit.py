"""Whoever changes who may do what leaves a row in the audit log: register, authorities and configuration."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from grpc import aio

from controller.config import settings
from controller.core import access as facts
from controller.core import errors, roles
from controller.rpc import access, principals, register
from controller.trust import authorities
from instar.v1 import audit_pb2, audit_service_pb2, audit_service_pb2_grpc, fleet_service_pb2
from tests.security import house, oidc, posts

API, AGENT = principals.Kind.API, principals.Kind.AGENT
Row = audit_pb2.AuditRow


async def exported(channel: aio.Channel, shown: posts.Metadata, subject: str) -> list[Row]:
    """The rows of `instar audit export` about changes of one subject."""
    stub = audit_service_pb2_grpc.AuditServiceStub(channel)
    request = audit_service_pb2.ExportAuditRequest()
    rows = [
        record.row
        async for response in stub.ExportAudit(request, metadata=shown)
        for record in response.records
        if record.HasField("row")
    ]
    return [row for row in rows if (row.action, row.subject) == ("access.change", subject)]


async def once(
    channel: aio.Channel, shown: posts.Metadata, subject: str, holds: Callable[[list[Row]], bool]
) -> list[Row]:
    """The rows about one subject, once something holds of them."""
    async with asyncio.timeout(posts.DEADLINE_SECONDS):
        while not holds(rows := await exported(channel, shown, subject)):  # noqa: ASYNC110 # the log has no event
            await asyncio.sleep(0.02)
        return rows


async def register_rows(post: posts.Post, wanted: int) -> list[Row]:
    """The rows about the register, once there are as many as are wanted."""
    return await once(post.channel, post.operator, access.REGISTER, lambda rows: len(rows) >= wanted)


async def test_each_change_of_the_register_leaves_a_row_that_says_what_was_changed(tmp_path: Path) -> None:
    async with posts.serving(tmp_path) as post:
        known, ann = post.register, principals.Principal(API, "ann", (posts.grant(roles.Role.VIEWER, "team=web"),))
        changes: tuple[tuple[Callable[[], None], str], ...] = (
            (lambda: known.put(ann), "; added api ann: viewer:team=web"),
            (lambda: known.deny(API, "ann", "she left"), "viewer:team=web to viewer:team=web, denied (she left)"),
            (lambda: known.allow(API, "ann"), ", denied (she left) to viewer:team=web"),
            (lambda: known.put(principals.Principal(API, "ann", roles.WHOLE_FLEET_ADMIN)), "team=web to admin"),
            (lambda: known.deny(AGENT, "web-1", "its disk was stolen"), "; added agent web-1: denied (its disk was"),
            (lambda: known.remove(API, "ann"), "; removed api ann: admin"),
        )
        for number, (change, told) in enumerate(changes, 2):  # the first row is of the start
            change()
            row = (await register_rows(post, number))[-1]
            assert told in row.reason, row
            assert (row.actor, row.result) == ("controller", "done")
        token = known.make_token(ann)
        row = (await register_rows(post, len(changes) + 2))[-1]
        assert "added api ann: viewer:team=web, token " in row.reason
        for secret in (token.reveal(), register.hash_of(token), hashlib.sha256(token.reveal().encode()).hexdigest()):
            assert secret not in row.reason


async def test_the_digests_of_the_rows_make_a_chain_of_their_own(tmp_path: Path) -> None:
    rows: list[Row] = []
    async with posts.serving(tmp_path) as post:
        for number in range(3):
            post.somebody(f"p-{number}")
            rows = await register_rows(post, number + 2)
        now = facts.digest(access.of_register(post.register.entries()))
    assert rows[0].reason.startswith("first seen to sha256:")
    assert rows[-1].reason.partition(" to sha256:")[2].startswith(now)
    assert _digests(rows)[0][1:] == _digests(rows)[1][:-1]


def _digests(rows: Sequence[Row]) -> tuple[list[str], list[str]]:
    """The digest that each row goes from, and to, as they follow each other."""
    begins = [row.reason.partition("from sha256:")[2].partition(" ")[0] for row in rows]
    ends = [row.reason.partition("to sha256:")[2].partition(";")[0] for row in rows]
    return begins, ends


async def test_a_change_by_a_call_is_in_the_register_too_and_has_both_rows(tmp_path: Path) -> None:
    async with posts.serving(tmp_path) as post:
        async with post.nodes({"n-1": {}}):
            gone = fleet_service_pb2.RemoveNodeRequest(node_id="n-1", reason="scrapped")
            await post.ask("RemoveNode", gone, post.operator)
        await once(post.channel, post.operator, access.REGISTER, lambda rows: "denied" in rows[-1].reason)
        listed = await post.ask("ListAudit", audit_service_pb2.ListAuditRequest(), post.operator)
    assert "node.remove" in {row.action for row in listed.rows}


async def test_what_was_changed_while_no_controller_ran_is_told_at_the_next_start_and_nothing_twice(
    tmp_path: Path,
) -> None:
    async with posts.serving(tmp_path) as post:
        before = len(await register_rows(post, 1))
    async with posts.serving(tmp_path) as post:  # nothing was changed
        assert len(await register_rows(post, before)) == before
    post.register.put(principals.Principal(API, "mallory", roles.WHOLE_FLEET_ADMIN))
    async with posts.serving(tmp_path) as post:
        rows = await exported(
            post.channel, post.operator, access.REGISTER
        )  # at once: it is told before anybody is let in
        assert len(rows) == before + 1
        assert "; added api mallory: admin" in rows[-1].reason


async def test_the_configuration_of_who_may_do_what_leaves_a_row_where_it_is_another_one(tmp_path: Path) -> None:
    file = tmp_path / "controller.toml"
    file.write_text(oidc.settings_text('jwks_file = "/keys"'))
    issuers = settings.load({}, {}, file).issuers
    reasons = []
    for changes in ({}, {}, {"self_approval": True}, {"self_approval": True, "issuers": issuers}):
        async with posts.serving(tmp_path, **changes) as post:
            reasons = [row.reason for row in await exported(post.channel, post.operator, access.CONFIGURATION)]
    first, allowed, issued = reasons
    assert "added self_approval: refuse" in first
    assert "changed self_approval: from refuse to allow" in allowed
    assert "added issuer corp grant 'web': viewer:team=web" in issued
    assert "added issuer corp: https://id.example, audience instar, ES256 RS256, keys /keys" in issued


async def test_each_step_of_a_rotation_of_an_authority_leaves_a_row(tmp_path: Path) -> None:
    home = house.House(tmp_path)
    folder = home.state_dir / "ca"
    async with home.serving(), home.channel(home.client()) as channel:
        authorities.begin_rotation(folder, house.K.CLIENTS, house.now())
        first, begun = await once(channel, (), access.AUTHORITIES, lambda rows: len(rows) >= 2)
    assert "added agents " in first.reason
    assert first.reason.count("added ") == 4  # and the domain
    assert "added clients " in begun.reason


async def test_a_register_that_was_soon_another_one_is_told_as_well(tmp_path: Path) -> None:
    noted: list[tuple[str, access.Facts]] = []

    async def note(subject: str, seen: access.Facts) -> None:
        noted.append((subject, seen))

    known = register.Register(tmp_path / "principals")
    watch = access.Watch(note, known, None)
    ann = principals.Principal(API, "ann", roles.WHOLE_FLEET_ADMIN)
    known.put(ann)
    assert known.checked(principals.Principal(API, "ann")) == ann  # somebody was let in by it
    known.remove(API, "ann")
    await watch.start(settings.load({}, {}, None))
    known.refresh()
    await watch._look()
    assert [seen for subject, seen in noted if subject == access.REGISTER] == [{"api ann": "admin"}, {}]


async def test_what_could_not_be_stored_is_told_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    noted: list[str] = []

    async def note(subject: str, _: access.Facts) -> None:
        noted.append(subject)
        if len(noted) == 3:  # the first one that is no part of the start
            raise errors.UnavailableError("cannot store", code="disk_full", field="store", rule="room")

    known = register.Register(tmp_path / "principals")
    watch = access.Watch(note, known, None)
    await watch.start(settings.load({}, {}, None))
    async with asyncio.TaskGroup() as group, asyncio.timeout(posts.DEADLINE_SECONDS):
        running = group.create_task(watch.run())
        known.put(principals.Principal(API, "ann", roles.WHOLE_FLEET_ADMIN))
        while len(noted) < 4:  # noqa: ASYNC110 # the watch has no event either
            await asyncio.sleep(0.02)
        running.cancel()
    assert noted[1:] == [access.REGISTER] * 3
    assert "cannot tell who may do what: cannot store" in caplog.text
