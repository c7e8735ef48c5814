"""Ports for what is started later."""

import contextlib
import socket
from pathlib import Path

import pytest

from controller.cli.demo import ports


def test_ports_differ_and_none_is_one_that_a_client_may_get(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_given", set())
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split())
    found = [*ports.free(30), *ports.free(30)]
    assert len(set(found)) == 60
    assert not [port for port in found if first <= port <= last]


def test_a_port_that_somebody_has_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_given", set())
    two = ports.free(2)
    with contextlib.closing(socket.create_server((ports.HOST, two[0]))):
        monkeypatch.setattr(ports, "_ALL", range(two[0], two[0] + 1))
        monkeypatch.setattr(ports, "_given", set())
        with pytest.raises(OSError, match="cannot find 1 free ports"):
            ports.free(1)
    assert ports.free(1) == [two[0]]


def test_where_clients_get_all_ports_one_of_those_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "range").write_text("1024\t65535\n", encoding="ascii")
    monkeypatch.setattr(ports, "_OF_CLIENTS", tmp_path / "range")
    assert ports.free(1)[0] in range(15_000, 65_536)
