"""Probes and metrics of a manifest: what is asked of an instance, and at which of its sockets.

Rules kept here: what is asked can be asked: the socket is one of the manifest's, or the private one that only programs
of the hand-over protocol serve. Left out: asking (`agent.probes`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from agent.config import values
from agent.core import model
from instar.v1 import manifest_pb2

DEFAULT_PERIOD = timedelta(seconds=1)
DEFAULT_TIMEOUT = timedelta(seconds=1)
DEFAULT_FAILURE_THRESHOLD = 3
DEFAULT_SCRAPE_PERIOD = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class Sockets:
    """What can be asked.

    Args:
        names: Sockets of the manifest.
        has_private: The program serves the private probe socket of each instance.
    """

    names: Sequence[str]
    has_private: bool


def probe(name: str, message: manifest_pb2.Probe, sockets: Sockets) -> model.Probe:
    """Check a probe and fill its defaults."""
    check = _check(name, message)
    is_exec = isinstance(check, model.ExecCheck)
    if is_exec and message.socket:
        raise values.broken(f"{name}.socket", message.socket, "a command asks no socket")
    return model.Probe(
        check=check,
        period=values.duration(f"{name}.period", message, DEFAULT_PERIOD),
        timeout=values.duration(f"{name}.timeout", message, DEFAULT_TIMEOUT),
        failure_threshold=message.failure_threshold or DEFAULT_FAILURE_THRESHOLD,
        socket="" if is_exec else _socket(f"{name}.socket", message.socket, sockets),
    )


def metrics(message: manifest_pb2.Metrics, sockets: Sockets) -> model.MetricsSource:
    """Check where metrics come from and fill the defaults."""
    values.few("metrics.series", message.series)
    return model.MetricsSource(
        path=values.request_target("metrics.path", message.path),
        series=tuple(message.series),
        period=values.duration("metrics.period", message, DEFAULT_SCRAPE_PERIOD),
        socket=_socket("metrics.socket", message.socket, sockets),
    )


def _socket(name: str, chosen: str, sockets: Sockets) -> str:
    if chosen and chosen not in sockets.names:
        raise values.broken(name, chosen, "it is the name of one of the manifest's sockets")
    if not chosen and not sockets.has_private and not sockets.names:
        raise values.broken(name, chosen, "the manifest has a socket to ask")
    return chosen


def _check(name: str, message: manifest_pb2.Probe) -> model.Check:
    match message.WhichOneof("check"):
        case "http":
            return model.HttpCheck(values.request_target(f"{name}.http.path", message.http.path))
        case "tcp":
            return model.TcpCheck()
        case "grpc":
            return model.GrpcCheck(values.plain(f"{name}.grpc.service", message.grpc.service))
        case "exec":
            return model.ExecCheck(values.words(f"{name}.exec.command", message.exec.command))
        case None:
            raise values.broken(name, "", "it says what is asked: http, tcp, grpc or exec")
