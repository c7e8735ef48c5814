"""One release, in words."""

from __future__ import annotations

from datetime import timedelta

import pytest
from google.protobuf import timestamp_pb2

from instar.v1 import manifest_pb2, operation_pb2, release_pb2, release_service_pb2
from tests.controller.cli import scripted

MANIFEST = manifest_pb2.Manifest(
    name="web",
    version="2.0.0",
    driver="handover",
    command=["python", "main.py"],
    environment={"B": "2", "A": "1"},
    sockets=[manifest_pb2.Socket(name="http"), manifest_pb2.Socket(name="admin", backlog=8)],
    readiness=manifest_pb2.Probe(tcp=manifest_pb2.TcpCheck()),
    on_agent_stop=manifest_pb2.ON_AGENT_STOP_STOP,
    requirements=[manifest_pb2.Requirement(component="db", versions=">=2.0.0")],
    handover=manifest_pb2.HandoverOptions(listen_fds_only=True),
)
MANIFEST.drain_timeout.FromTimedelta(timedelta(seconds=90))
NOON = timestamp_pb2.Timestamp(seconds=43_200)
FOUND = release_service_pb2.GetReleaseResponse(
    release=release_pb2.Release(
        component="web",
        version="2.0.0",
        digest="sha256:" + "d" * 64,
        size_bytes=10_240,
        manifest=MANIFEST,
        publish_time=NOON,
        publisher="ci",
    ),
    channels=[release_pb2.Channel(name="stable", version="2.0.0", change_time=NOON, actor="ann")],
    edges_to=[release_pb2.Edge(from_versions="<2.0.0", to_version="2.0.0", cost=7)],
    edges_from=[release_pb2.Edge(to_version="2.1.0", methods=[operation_pb2.METHOD_RESTART])],
    barrier=release_pb2.Barrier(version="2.0.0"),
    block=release_pb2.Block(reason="it eats disks", actor="ann", block_time=NOON),
    leavers=[release_pb2.Leaver(node_id="n-1", reason="crashed")],
    left_by=3,
)
FOUND.barrier.bake_duration.FromTimedelta(timedelta(hours=1))


def shown(answer: release_service_pb2.GetReleaseResponse, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines on stdout, each with single blanks."""
    with scripted.controller(releases_GetRelease=answer) as controller:
        assert scripted.instar("release", "show", "web", "2.0.0") == 0
        assert controller.last == release_service_pb2.GetReleaseRequest(component="web", version="2.0.0")
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def test_a_release_is_shown_with_all_that_its_manifest_says(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(FOUND, capsys)
    for line in (f"digest sha256:{'d' * 64}", "bytes 10240", "published 1970-01-01 12:00:00", "by ci"):
        assert line in lines, lines
    begin = next(number for number, line in enumerate(lines) if line.startswith("MANIFEST")) + 2
    assert lines[begin : begin + 12] == [
        "driver handover",
        "command python main.py",
        "environment.A 1",
        "environment.B 2",
        "sockets[0].name http",
        "sockets[1].name admin",
        "sockets[1].backlog 8",
        "readiness.tcp yes",
        "drain_timeout 1m 30s",
        "on_agent_stop STOP",
        "requirements[0].component db",
        "requirements[0].versions >=2.0.0",
    ]
    assert lines[begin + 12] == "handover.listen_fds_only yes"


def test_where_a_release_stands_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(FOUND, capsys)
    for line in (
        "stable 2.0.0 1970-01-01 12:00:00 ann",
        "a barrier: nodes stay on it for 1h at least",
        "blocked since 1970-01-01 12:00:00 by ann: it eats disks",
        "left for cause by 3 nodes, of which 2 are not named",
        "n-1 crashed",
    ):
        assert line in lines, lines
    to, away = lines.index("ways that lead to it:"), lines.index("ways that lead away from it:")
    assert any(line.startswith("<2.0.0 2.0.0") for line in lines[to:away])
    assert any(line.startswith("any 2.1.0 RESTART") for line in lines[away:])


def test_of_what_is_not_there_nothing_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(release_service_pb2.GetReleaseResponse(release=FOUND.release), capsys)
    assert "no edge leads to it: it is reached from every lower version" in lines
    assert not [line for line in lines if line.startswith(("ways", "CHANNEL", "blocked", "a barrier", "left", "LEFT"))]
