"""Prometheus servers in the configuration file: what is read, and what is refused by the name of its key."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from controller.config import settings, sources
from controller.core import errors

SERVER = '[[prometheus]]\nname = "main"\nurl = "http://prometheus.example:9090/"\n'


def load(tmp_path: Path, text: str) -> settings.Settings:
    path = tmp_path / "controller.toml"
    path.write_text(text)
    return settings.load({}, {}, path)


def test_a_server_has_a_name_an_address_and_defaults(tmp_path: Path) -> None:
    (found,) = load(tmp_path, f'listen = "127.0.0.1:1"\n{SERVER}').prometheus
    assert found == sources.Server("main", "http://prometheus.example:9090", nodes={})


def test_everything_of_a_server_is_read(tmp_path: Path) -> None:
    more = """time_out = "500ms"
step = "2m"
node_label = "node"
node_pattern = "node-(.*)"
nodes = { a = "web-1" }
selector = 'job="x"'
token_file = "/token"
ca_file = "/ca"
"""
    (found,) = load(tmp_path, SERVER + more).prometheus
    assert (found.time_out, found.step) == (timedelta(milliseconds=500), timedelta(minutes=2))
    assert (found.node_label, found.node_pattern, found.nodes) == ("node", "node-(.*)", {"a": "web-1"})
    assert (found.selector, found.token_file, found.ca_file) == ('job="x"', Path("/token"), Path("/ca"))


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("prometheus = 7", "prometheus"),
        ("prometheus = [7]", "prometheus[0]"),
        ('[[prometheus]]\nname = "main"', "prometheus[0].url"),
        ('[[prometheus]]\nurl = "http://a"', "prometheus[0].name"),
        (SERVER + SERVER, "prometheus.name"),
        ("".join(SERVER.replace("main", f"m{number}") for number in range(17)), "prometheus"),
        (SERVER + 'colour = "red"', "prometheus[0].colour"),
        (SERVER.replace("main", "Main!"), "prometheus[0].name"),
        (SERVER + 'time_out = "10"', "prometheus[0].time_out"),
        (SERVER + 'time_out = "2m"', "prometheus[0].time_out"),
        (SERVER + "time_out = 10", "prometheus[0].time_out"),
        (SERVER + 'step = "0s"', "prometheus[0].step"),
        (SERVER + 'node_label = "a-b"', "prometheus[0].node_label"),
        (SERVER + 'node_pattern = "("', "prometheus[0].node_pattern"),
        (SERVER + 'node_pattern = "a"', "prometheus[0].node_pattern"),
        (SERVER + "nodes = 1", "prometheus[0].nodes"),
        (SERVER + "nodes = { a = 1 }", "prometheus[0].nodes.a"),
        (SERVER + 'token_file = "token"', "prometheus[0].token_file"),
        (SERVER + 'selector = "a\\nb"', "prometheus[0].selector"),
    ],
)
def test_what_breaks_a_rule_is_refused_by_the_name_of_the_key(tmp_path: Path, text: str, field: str) -> None:
    with pytest.raises(errors.InvalidRequestError, match=r"^cannot use ") as caught:
        load(tmp_path, text)
    assert (caught.value.field, caught.value.code) == (field, "setting_invalid")


@pytest.mark.parametrize(
    "url",
    ["ftp://a", "a:9090", "http://", "http://a:99999", "http://u:secret@a", "http://a?secret", "http://[a#secret"],
)
def test_an_address_that_may_hold_secrets_or_is_none_is_refused_without_them(tmp_path: Path, url: str) -> None:
    with pytest.raises(errors.InvalidRequestError, match=r"^cannot use prometheus\[0\].url") as caught:
        load(tmp_path, SERVER.replace("http://prometheus.example:9090/", url))
    assert "secret" not in str(caught.value)
