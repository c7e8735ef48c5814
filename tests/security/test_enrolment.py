"""How nodes come in, stay, and are found out: the real controller over real gRPC, and for renewal the real agent.

Tests whose names begin with a number show that line of the matrix of faults.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import stat
import sysconfig
import zlib
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from cryptography.x509 import oid

from agent import identity
from agent.config.errors import ConfigError
from controller.cli.demo import ports
from controller.rpc import principals, register
from controller.store import tables
from controller.trust import authorities, spiffe
from instar.v1 import fleet_service_pb2, fleet_service_pb2_grpc
from tests.security import house, nodes, posts, test_live_streams

AGENT = str(Path(sysconfig.get_path("scripts")) / "instar-agent")


@contextlib.asynccontextmanager
async def serving(folder: Path, lifetime: timedelta, **changes: Any) -> AsyncIterator[house.House]:  # noqa: ANN401  # of the settings
    (port,) = ports.free(1)
    found = house.House(folder, enrol_listen=f"127.0.0.1:{port}", agent_lifetime=lifetime)
    found.settings = dataclasses.replace(found.settings, **changes)
    async with found.serving():
        yield found


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[house.House]:
    async with serving(tmp_path, timedelta(hours=24)) as found:
        yield found


async def test_33_a_join_token_is_good_for_one_key(home: house.House) -> None:
    thief, host, token = nodes.Host(home, "web-1"), nodes.Host(home, "web-1"), await nodes.token(home, "web-1")
    await host.enrol(token)
    assert await host.connect() == "welcome"
    refused = await nodes.refusal(thief.enrol(token))
    assert refused.startswith("UNAUTHENTICATED: ")
    assert refused.endswith("it has been used, with another key")
    parts = token.split(".")
    forged = ".".join([*parts[:2], "A" * 43, parts[3]])
    assert "nobody has made it" in await nodes.refusal(thief.enrol(forged))
    for seconds in (3601, 2**62):
        assert "lifetime" in await nodes.refusal(nodes.token(home, "web-3", seconds=seconds))
    told = [(each.actor, each.reason) for each in _audit(home, "node.enrol")]
    assert told[0] == ("agent:web-1", f"token {parts[1]}, certificate 1")
    assert told[1][1].endswith("it has been used, with another key")
    assert parts[2] not in _everything_stored(home)


async def test_a_join_token_that_is_asked_for_again_is_neither_told_again_nor_made_twice(home: house.House) -> None:
    _, token_id, secret, *_ = (await nodes.token(home, "web-4", request_id="one")).split(".")
    again = await nodes.refusal(nodes.token(home, "web-4", request_id="one"))
    assert f"it made join token {token_id} of node web-4, which is stored nowhere" in again
    assert secret not in again
    assert secret not in _everything_stored(home)
    with _engine(home).connect() as connection:
        assert len(connection.execute(sa.select(tables.join_tokens)).all()) == 1
        assert [zlib.decompress(each) for each in connection.scalars(sa.select(tables.answers.c.body))] == [b""]
    assert "another content" in await nodes.refusal(nodes.token(home, "web-5", request_id="one"))


async def test_34_whoever_lost_the_answer_asks_again_with_its_key_and_gets_the_same_certificate(
    home: house.House,
) -> None:
    host, token, key = nodes.Host(home, "web-1"), await nodes.token(home, "web-1"), nodes.key()
    for _ in range(2):
        await host.enrol(token, key)
    assert host.had[0] == host.had[1]
    key = nodes.key()
    shown = host.pair
    for _ in range(2):
        await host.renew(key, shown)
    assert host.had[2] == host.had[3]
    assert len(_audit(home, "node.enrol")) == len(_audit(home, "node.renew")) == 1


async def test_35_who_comes_back_after_its_certificate_ran_out_is_let_in_once_and_then_by_somebodys_word(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, timedelta(seconds=2)) as home:
        host = nodes.Host(home, "web-1")
        await host.enrol(await nodes.token(home, "web-1"))
        assert "its certificate is still good" in await nodes.refusal(host.recover())
        await _run_out(host)
        assert "UNAVAILABLE" in await nodes.refusal(host.renew())
        key, old = nodes.key(), host.pair
        await host.recover(key)
        await host.recover(key, old)  # its answer was lost
        assert host.had[-1] == host.had[-2]
        stranger = house.Pair(b"", house.forged(home.known.signing(house.K.AGENTS), [], []).key)
        await _run_out(host)
        assert "the signature is not of the key" in await nodes.refusal(host.recover(shown=stranger))
        assert "as often as it may" in await nodes.refusal(host.recover())
        assert [await nodes.permit(home, "web-1", request_id="one") for _ in range(2)] == [1, 1]
        told = [(each.actor, each.reason) for each in _audit(home, "node.permit_recovery")]
        assert told == [("ci", "it was in the cellar")]
        await host.recover()
        assert "the signature is not of the key" in await nodes.refusal(host.recover(shown=old))
        assert "has had no certificate" in await nodes.refusal(nodes.permit(home, "web-9"))
        assert "challenge" in await nodes.refusal(nodes.recover_with(host, "1.00"))


async def test_36_of_two_hosts_with_one_key_the_second_is_found_out_and_both_are_locked_out(home: house.House) -> None:
    host = nodes.Host(home, "web-1")
    await host.enrol(await nodes.token(home, "web-1"))
    clone = host.copy()
    assert await host.connect() == "welcome"
    await clone.renew()  # the thief is first
    assert "two hosts have one key" in await nodes.refusal(host.renew())
    for each in (host, clone):
        assert "two hosts have one key" in await nodes.refusal(each.renew())
        assert "two hosts have one key" in await each.connect()
    async with home.channel(home.client()) as channel:
        stub = fleet_service_pb2_grpc.FleetServiceStub(channel)
        answer = await stub.GetNode(fleet_service_pb2.GetNodeRequest(node_id="web-1"), timeout=nodes.SECONDS)
    assert "two hosts have one key" in answer.node.quarantine_reason
    assert [each.actor for each in _audit(home, "node.clone")] == ["controller"]
    assert len(_audit(home, "node.quarantine")) == 1
    await host.enrol(await nodes.token(home, "web-1"))  # somebody has looked, and lets it in again
    assert "quarantined" in await host.connect()
    async with home.channel(home.client()) as channel:
        stub = fleet_service_pb2_grpc.FleetServiceStub(channel)
        await stub.UncordonNode(fleet_service_pb2.UncordonNodeRequest(node_id="web-1"), timeout=nodes.SECONDS)
    assert await host.connect() == "welcome"
    assert "two hosts have one key" in await nodes.refusal(clone.renew())


async def test_36_a_copied_certificate_that_was_replaced_twice_opens_no_stream(home: house.House) -> None:
    host = nodes.Host(home, "web-1")
    await host.enrol(await nodes.token(home, "web-1"))
    clone = host.copy()
    await host.renew()
    assert await clone.connect() == "welcome"  # as an agent that has not had its answer yet
    await host.renew()
    assert "two hosts have one key" in await clone.connect()
    assert "two hosts have one key" in await host.connect()


async def test_a_certificate_says_which_node_and_the_how_manieth_it_is(home: house.House) -> None:
    host = nodes.Host(home, "web-1")
    await host.enrol(await nodes.token(home, "web-1"))
    await host.renew()
    serials = host.certificate.subject.get_attributes_for_oid(oid.NameOID.SERIAL_NUMBER)
    assert [each.value for each in serials] == ["2"]
    assert await home.call(host.pair) is not None  # it is for no method of the API


async def test_a_node_that_was_removed_has_no_identity_any_more(home: house.House) -> None:
    host = nodes.Host(home, "web-1")
    await host.enrol(await nodes.token(home, "web-1"))
    assert await host.connect() == "welcome"
    async with home.channel(home.client()) as channel:
        stub = fleet_service_pb2_grpc.FleetServiceStub(channel)
        asked = fleet_service_pb2.RemoveNodeRequest(node_id="web-1", reason="scrapped")
        await stub.RemoveNode(asked, timeout=nodes.SECONDS)
    assert "was removed" in await nodes.refusal(host.renew())
    assert "was removed" in await host.connect()


async def test_the_real_agent_enrols_and_renews_and_its_session_goes_over(short_path: Path) -> None:
    async with serving(short_path, timedelta(seconds=20)) as home:
        config = _config(short_path, home, "web-1")
        token = await nodes.token(home, "web-1")
        code, said = await _agent(config, "enroll", token, "--controller", home.enrol_address, "-o", "json")
        assert (code, json.loads(said)["name"]) == (0, house.uri(spiffe.Kind.AGENT, "web-1"))
        file = identity.folder(short_path / "web-1") / identity.FILE_NAME
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert sorted(each.name for each in file.parent.iterdir()) == [identity.FILE_NAME]
        first = identity.load(short_path / "web-1")
        other = _config(short_path, home, "web-2")
        code, said = await _agent(other, "enroll", await nodes.token(home, "web-3"), "--controller", home.enrol_address)
        assert (code, "knows this one as 'web-3'" in said) == (8, True)
        async with _running(config) as log:
            await _until(lambda: "the session is open" in log.read_text())
            await _until(lambda: identity.load(short_path / "web-1").serial > first.serial)
            await _until(lambda: log.read_text().count("the session is open") > 1)
            code, said = await _agent(config, "doctor")
            assert f"of {first.name} is good until" in said
            assert "ok   controller_certificate" in said


async def test_doctor_says_which_certificate_which_time_and_which_name(short_path: Path) -> None:
    async with serving(short_path, timedelta(seconds=3)) as home:
        config = _config(short_path, home, "web-1")
        token = await nodes.token(home, "web-1")
        elsewhere = token[:-64] + "0" * 64
        code, said = await _agent(config, "enroll", elsewhere, "--controller", home.enrol_address)
        assert (code, "is not the one that made the token" in said) == (1, True)
        assert (await _agent(config, "enroll", token, "--controller", home.enrol_address))[0] == 0
        known = identity.load(short_path / "web-1")
        await _until(lambda: house.now() > known.not_after)
        port = home.address.rpartition(":")[2]
        config.write_text(config.read_text().replace(home.address, f"localhost.localdomain:{port}"), encoding="utf-8")
        code, said = await _agent(config, "doctor")
        assert code == 1
        assert f"FAIL certificate: the certificate of {known.name} ran out at" in said
        assert "FAIL controller_certificate" in said
    file = identity.folder(short_path / "web-1") / identity.FILE_NAME
    file.chmod(0o644)
    with pytest.raises(ConfigError, match="nobody but its owner"):
        identity.load(short_path / "web-1")
    file.write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match="cannot read the identity"):
        identity.load(short_path / "web-1")


def _config(folder: Path, home: house.House, node_id: str) -> Path:
    path = folder / f"{node_id}.toml"
    path.write_text(
        f'node_id = "{node_id}"\ncontroller = "{home.address}"\n'
        f'state_dir = "{folder / node_id}"\nrun_dir = "{folder / node_id / "run"}"\n',
        encoding="utf-8",
    )
    return path


async def _agent(config: Path, command: str, *arguments: str) -> tuple[int, str]:
    pipe = asyncio.subprocess.PIPE
    words = (AGENT, command, *arguments, "--config", str(config))
    child = await asyncio.create_subprocess_exec(*words, stdout=pipe, stderr=asyncio.subprocess.STDOUT)
    async with asyncio.timeout(nodes.SECONDS):
        out, _ = await child.communicate()
    return child.returncode or 0, out.decode()


@contextlib.asynccontextmanager
async def _running(config: Path) -> AsyncIterator[Path]:
    path = config.with_suffix(".log")
    with path.open("wb") as log:
        words = (AGENT, "run", "--config", str(config))
        keeper = await asyncio.create_subprocess_exec(*words, stdout=log, stderr=log, env=dict(os.environ))
    try:
        yield path
    finally:
        keeper.send_signal(signal.SIGTERM)
        await keeper.wait()


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(nodes.SECONDS):
        while not condition():  # noqa: ASYNC110  # what is waited for is another process, or the clock
            await asyncio.sleep(0.1)


async def _run_out(host: nodes.Host) -> None:
    await _until(lambda: house.now() > host.certificate.not_valid_after_utc)


def _audit(home: house.House, action: str) -> list[sa.Row[tuple[object, ...]]]:
    with _engine(home).connect() as connection:
        return list(connection.execute(sa.select(tables.audit).where(tables.audit.c.action == action)))


def _everything_stored(home: house.House) -> str:
    with _engine(home).connect() as connection:
        found = [connection.execute(sa.select(each)).all() for each in tables.metadata.sorted_tables]
    return repr(found)


def _engine(home: house.House) -> sa.Engine:
    return sa.create_engine(
        f"sqlite:///file:{home.state_dir / 'controller.db'}?mode=ro&uri=true", poolclass=sa.NullPool
    )


async def test_a_node_that_was_removed_is_let_in_again_by_a_join_token_alone(home: house.House) -> None:
    host = nodes.Host(home, "web-1")
    await host.enrol(await nodes.token(home, "web-1"))
    assert await host.connect() == "welcome"
    async with home.channel(home.client()) as channel:
        asked = fleet_service_pb2.RemoveNodeRequest(node_id="web-1", reason="scrapped")
        await fleet_service_pb2_grpc.FleetServiceStub(channel).RemoveNode(asked, timeout=nodes.SECONDS)
    assert "the node was removed: scrapped" in await host.connect()
    token = await nodes.token(home, "web-1")
    assert await host.connect() != "welcome"  # the old certificate stays nobody's
    await host.enrol(token)
    assert await host.connect() == "welcome"
    made = [each for each in _audit(home, "node.token") if each.reason.startswith(token.split(".")[1])]
    assert [(each.actor, each.subject) for each in made] == [("ci", "web-1")]
    enrolled = register.Register(home.settings.principals_file)
    enrolled.deny(principals.Kind.AGENT, "web-1", "its disk was stolen")
    await nodes.token(home, "web-1")
    assert "its disk was stolen" in await host.connect()


@pytest.mark.parametrize("cause", ["denied", "authority dropped", "run out"])
async def test_38_a_session_by_certificate_is_cut_off_and_told_why(tmp_path: Path, cause: str) -> None:
    lifetime = timedelta(seconds=10) if cause == "run out" else timedelta(hours=24)
    async with serving(tmp_path, lifetime, heartbeat_period=timedelta(minutes=5)) as home:
        host = nodes.Host(home, "web-1")
        await host.enrol(await nodes.token(home, "web-1"))
        async with home.channel(host.pair) as channel, posts.session(channel, "web-1", ()) as call:
            await call.write(test_live_streams.heartbeat(2))
            assert (await call.read()).acknowledgement.sequence == 2  # and nothing more comes down by itself
            if cause == "denied":
                register.Register(home.settings.principals_file).deny(principals.Kind.AGENT, "web-1", "stolen")
            if cause == "authority dropped":
                folder = home.settings.authorities_dir
                authorities.begin_rotation(folder, house.K.AGENTS, house.now())
                authorities.sign_with_new(folder, house.K.AGENTS, house.now(), is_forced=True)
                authorities.drop_old(folder, house.K.AGENTS, house.now(), is_forced=True)
            error = await posts.ended(call)
    assert error.code == ("principal_denied" if cause == "denied" else "certificate_refused")
