"""Prometheus servers that the controller may ask, as its configuration file names them.

Rules kept: a server is asked by name, so that nobody who asks for an upgrade chooses where the controller sends its
questions and its token; an address holds no credentials. Left out: how it is asked (`controller.metrics.prometheus`).
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from controller.config import fields

SERVERS_MAX = 16  # more are better asked through one that federates them
TIME_OUT_DEFAULT = timedelta(seconds=10)
TIME_OUT_MIN = timedelta(milliseconds=100)
TIME_OUT_MAX = timedelta(minutes=1)  # an answer that comes later is of no use to a gate
STEP_DEFAULT = timedelta(seconds=30)
STEP_MIN = timedelta(milliseconds=500)
STEP_MAX = timedelta(minutes=10)
# A node is what the label says, less a port.
NODE_PATTERN_DEFAULT = r"(.+?)(?::\d+)?"
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]{0,127}")


@dataclass(frozen=True, slots=True)
class Server:
    """One Prometheus server, or what answers as one.

    Args:
        name: By which an analysis names it.
        url: Where it is; with a path in front of ``/api/v1`` where it has one.
        time_out: For one question, from the first byte sent to the last one read.
        step: Distance of the points asked for; at least the scrape interval. Longer where the past is long.
        node_label: The label that tells nodes apart.
        node_pattern: What of the label's value is the node id: its only group, of the whole value.
        nodes: Node ids by label value, where no pattern gives them.
        selector: Label matchers of the usual questions, such as ``job="{{component}}"``; empty for none.
        token_file: File with the bearer token, read anew for each question; None for none.
        ca_file: Certificates that an https server is checked against; None for those of the system.
    """

    name: str
    url: str
    time_out: timedelta = TIME_OUT_DEFAULT
    step: timedelta = STEP_DEFAULT
    node_label: str = "instance"
    node_pattern: str = NODE_PATTERN_DEFAULT
    nodes: Mapping[str, str] | None = None
    selector: str = ""
    token_file: Path | None = None
    ca_file: Path | None = None


def read(found: object) -> tuple[Server, ...]:
    """Read the servers of a configuration file.

    Raises:
        InvalidRequestError: A key is unknown, a value breaks its rule, or two servers have one name.
    """
    tables = fields.tables("prometheus", found)
    if len(tables) > SERVERS_MAX:
        fields.refuse("prometheus", len(tables), f"at most {SERVERS_MAX} servers")
    servers = [_server(table) for table in tables]
    names = [each.name for each in servers]
    for name in names:
        if names.count(name) > 1:
            fields.refuse("prometheus.name", name, "there once")
    return tuple(servers)


def _server(table: fields.Table) -> Server:
    found = Server(
        name=table.name("name"),
        url=_url(table),
        time_out=table.duration("time_out", TIME_OUT_DEFAULT, TIME_OUT_MIN, TIME_OUT_MAX),
        step=table.duration("step", STEP_DEFAULT, STEP_MIN, STEP_MAX),
        node_label=_label(table),
        node_pattern=_pattern(table),
        nodes=table.texts("nodes"),
        selector=table.text("selector", ""),
        token_file=table.file("token_file"),
        ca_file=table.file("ca_file"),
    )
    table.end()
    return found


def _url(table: fields.Table) -> str:
    url = table.text("url")
    rule = "http:// or https:// with a host, without credentials, question mark and fragment"
    try:
        parts = urllib.parse.urlsplit(url)
        is_plain = parts.port != 0 and not (parts.username or parts.password or parts.query or parts.fragment)
    except ValueError:
        fields.refuse(table.key("url"), "", rule)
    if parts.scheme not in ("http", "https") or not parts.hostname or not is_plain:
        fields.refuse(table.key("url"), parts.hostname or "", rule)  # without what may be a secret in it
    return url.rstrip("/")


def _label(table: fields.Table) -> str:
    label = table.text("node_label", "instance")
    if not _LABEL.fullmatch(label):
        fields.refuse(table.key("node_label"), label, "the name of a label")
    return label


def _pattern(table: fields.Table) -> str:
    pattern = table.text("node_pattern", NODE_PATTERN_DEFAULT)
    try:
        groups = re.compile(pattern).groups
    except re.error as fault:
        fields.refuse(table.key("node_pattern"), pattern, f"a regular expression ({fault})")
    if groups != 1:
        fields.refuse(table.key("node_pattern"), pattern, "a regular expression with one group, the node id")
    return pattern
