"""What people write for a node: every wrong key and value is named, and what passes is complete."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from agent.config import layout, manifest, semver, settings
from agent.config.errors import ConfigError
from agent.core import model
from tests.agent import bundles

CONFIG = """
node_id = "node-1"
state_dir = "/srv/instar"
controller = "127.0.0.1:7000"
token_file = "/srv/token"
[labels]
zone = "a"
"example.org/tier" = "front"
[sockets.web]
http = "127.0.0.1:8080"
[sockets."billing.rules"]
api = "unix:/run/billing"
v6 = "[::1]:80"
"""
LEAST = 'name = "web"\nversion = "1.0.0"\ndriver = "handover"\ncommand = ["python", "main.py"]\n'


def refusal(text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        manifest.parse_toml(text)
    assert str(caught.value).startswith("cannot ")
    return caught.value


def refused_setting(text: str, environment: dict[str, str] | None = None) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        settings.parse(text, environment or {})
    assert str(caught.value).startswith("cannot ")
    return caught.value


def test_a_whole_configuration_is_read() -> None:
    config = settings.parse(CONFIG, {})
    assert config == settings.Config(
        node_id="node-1",
        state_dir=Path("/srv/instar"),
        run_dir=Path("/srv/instar/run"),
        controller="127.0.0.1:7000",
        token_file=Path("/srv/token"),
        labels={"zone": "a", "example.org/tier": "front"},
        sockets={
            "web": {"http": "127.0.0.1:8080"},
            "billing.rules": {"api": "unix:/run/billing", "v6": "[::1]:80"},
        },
    )
    assert config.layout.keeper_socket == Path("/srv/instar/run/keeper.sock")
    assert layout.probe_socket(config.run_dir, "web-1") == Path("/srv/instar/run/web-1.probe")


def test_the_environment_outranks_the_file_and_the_file_outranks_defaults() -> None:
    environment = {"INSTAR_NODE_ID": "other", "INSTAR_RUN_DIR": "/run/i", "INSTAR_CONTROLLER": "", "HOME": "/x"}
    config = settings.parse(CONFIG, environment)
    assert (config.node_id, config.run_dir, config.controller) == ("other", Path("/run/i"), "127.0.0.1:7000")
    least = settings.parse('node_id = "n"', {"XDG_STATE_HOME": "/x"})
    assert least.controller == settings.DEFAULT_CONTROLLER
    assert least.token_file is None
    assert least.state_dir == settings.default_state_dir({"XDG_STATE_HOME": "/x"})


def test_a_socket_without_an_address_is_named() -> None:
    config = settings.parse(CONFIG, {})
    assert config.address("web", "http") == "127.0.0.1:8080"
    for component, name in (("web", "admin"), ("db", "http")):
        with pytest.raises(ConfigError) as caught:
            config.address(component, name)
        assert caught.value.field == f"sockets.{component}.{name}"


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ('colour = "red"', "colour"),
        ('node_id = "Node 1"', "node_id"),
        ("node_id = 1", "node_id"),
        ('state_dir = "relative"', "state_dir"),
        (f'run_dir = "/{"x" * 72}"', "run_dir"),
        ('controller = "nowhere"', "controller"),
        ('controller = "h:70000"', "controller"),
        ('token_file = "token"', "token_file"),
        ("labels = 1", "labels"),
        ('labels = {"a b" = "c"}', "labels"),
        ('labels = {a = "b c"}', "labels.a"),
        ("labels = {a = 1}", "labels.a"),
        ("sockets = 1", "sockets"),
        ("sockets = {web = 1}", "sockets.web"),
        ('sockets = {Web = {http = "h:1"}}', "sockets"),
        ('sockets = {web = {http = "8080"}}', "sockets.web.http"),
        ("sockets = {web = {http = 8080}}", "sockets.web.http"),
        ('sockets = {web = {http = "unix:relative"}}', "sockets.web.http"),
        ("node_id = ", "config"),
    ],
)
def test_a_wrong_line_of_the_configuration_is_named(line: str, field: str) -> None:
    text = line if "node_id" in line else f'node_id = "n"\n{line}'
    assert refused_setting(text).field == field


def test_a_wrong_variable_of_the_environment_is_named() -> None:
    assert refused_setting(CONFIG, {"INSTAR_STATE_DIR": "relative"}).field == "state_dir"
    assert refused_setting("", {}).field == "node_id"


def test_a_configuration_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(ConfigError, match="cannot read the configuration"):
            settings.load(path, {})
    path = tmp_path / "agent.toml"
    path.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="cannot read the configuration"):
        settings.load(path, {})
    path.write_text(CONFIG, encoding="utf-8")
    assert settings.load(path, {}).node_id == "node-1"


def test_a_token_is_read_only_where_nobody_else_can(tmp_path: Path) -> None:
    path = tmp_path / "token"
    with pytest.raises(ConfigError, match="token_file"):
        settings.read_token(path)
    path.write_text(" secret\n", encoding="ascii")
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="0640") as caught:
        settings.read_token(path)
    assert "secret" not in str(caught.value)
    path.chmod(0o600)
    assert settings.read_token(path) == "secret"
    path.write_text("\n", encoding="ascii")
    with pytest.raises(ConfigError, match="holds a token"):
        settings.read_token(path)


def test_the_defaults_of_a_manifest_are_those_of_its_message() -> None:
    read = manifest.parse_toml(
        LEAST + '[[sockets]]\nname = "http"\n[health.tcp]\n[metrics]\npath = "/m"\nseries = ["a"]\n'
    )
    assert read == model.Manifest(
        name="web",
        version="1.0.0",
        driver="handover",
        command=("python", "main.py"),
        environment={},
        sockets=(model.Socket("http", 1024),),
        readiness=None,
        health=model.Probe(model.TcpCheck(), timedelta(seconds=1), timedelta(seconds=1), 3),
        metrics=model.MetricsSource("/m", ("a",), timedelta(seconds=5)),
        prepare_timeout=timedelta(seconds=30),
        drain_timeout=timedelta(seconds=30),
        stop_timeout=timedelta(seconds=5),
    )


def test_every_value_of_a_manifest_is_taken() -> None:
    text = LEAST + (
        'prepare_timeout = "2.5s"\ndrain_timeout = "3s"\nstop_timeout = "4s"\nminimum_agent_version = "0.1.0-rc.1"\n'
        'environment = {MODE = "live"}\n[[sockets]]\nname = "a"\nbacklog = 7\n[[sockets]]\nname = "b"\n'
        '[readiness]\nperiod = "0.1s"\ntimeout = "0.2s"\nfailure_threshold = 9\n[readiness.http]\npath = "/ready?x=1"\n'
        '[metrics]\npath = "/m"\nperiod = "9s"\n'
    )
    read = manifest.parse_toml(text)
    assert read.readiness == model.Probe(
        model.HttpCheck("/ready?x=1"), timedelta(milliseconds=100), timedelta(milliseconds=200), 9
    )
    assert read.sockets == (model.Socket("a", 7), model.Socket("b", 1024))
    assert (read.prepare_timeout, read.stop_timeout) == (timedelta(seconds=2.5), timedelta(seconds=4))
    assert (dict(read.environment), read.minimum_agent_version) == ({"MODE": "live"}, "0.1.0-rc.1")
    assert bundles.manifest_of(manifest.json_of_toml(text)) == read


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (LEAST + "colour = 1", "colour"),
        (LEAST + "[health]\ncolour = 1", "health.colour"),
        (LEAST + "[health.http]\ncolour = 1", "health.http.colour"),
        (LEAST + '[[sockets]]\nname = "a"\ncolour = 1', "sockets[0].colour"),
        (LEAST + 'prepare_timeout = "abc"', "prepare_timeout"),
        (LEAST + "prepare_timeout = 5", "prepare_timeout"),
        (LEAST + 'prepare_timeout = "0s"', "prepare_timeout"),
        (LEAST + 'drain_timeout = "-1s"', "drain_timeout"),
        (LEAST + 'stop_timeout = "86401s"', "stop_timeout"),
        (LEAST + '[health]\nperiod = "0s"\n[health.tcp]', "health.period"),
        (LEAST + '[readiness]\ntimeout = "0s"\n[readiness.tcp]', "readiness.timeout"),
        (LEAST + '[health]\nperiod = "1s"', "health"),
        (LEAST + '[health.http]\npath = "/"\n[health.tcp]', "health"),
        (LEAST + "[health]\nfailure_threshold = -1", "health.failure_threshold"),
        (LEAST + '[health.http]\npath = "healthz"', "health.http.path"),
        (LEAST + '[health.http]\npath = "/a\\r\\nX: y"', "health.http.path"),
        (LEAST + '[metrics]\npath = "/m"\nperiod = "0s"', "metrics.period"),
        (LEAST + "[metrics]\n", "metrics.path"),
        (LEAST + f"[metrics]\npath = '/'\nseries = {['x'] * 65}", "metrics.series"),
        (LEAST + '[[sockets]]\nname = "a"\n[[sockets]]\nname = "a"', "sockets.name"),
        (LEAST + '[[sockets]]\nname = "A"', "sockets[0].name"),
        (LEAST + '[[sockets]]\nname = "instar-probe"', "sockets[0].name"),
        (LEAST + '[[sockets]]\nname = "a"\nbacklog = 65536', "sockets[0].backlog"),
        (LEAST + 'environment = {"A-B" = "x"}', "environment"),
        (LEAST + 'environment = {INSTAR_DIGEST = "x"}', "environment"),
        (LEAST + 'environment = {LISTEN_FDS = "3"}', "environment"),
        (LEAST + 'environment = {A = "\\u0000"}', "environment.A"),
        (LEAST + 'minimum_agent_version = "1"', "minimum_agent_version"),
        (LEAST.replace("1.0.0", "1.0"), "version"),
        (LEAST.replace("1.0.0", "01.0.0"), "version"),
        (LEAST.replace('"web"', '"Web"'), "name"),
        (LEAST.replace('"web"', "5"), "name"),
        (LEAST.replace('"handover"', '""'), "driver"),
        (LEAST.replace('"python", "main.py"', ""), "command"),
        (LEAST.replace('"python", "main.py"', '""'), "command"),
        (LEAST.replace("main.py", "\\u0000"), "command"),
        ("name = ", "manifest"),
    ],
)
def test_a_wrong_line_of_a_manifest_is_named(text: str, field: str) -> None:
    assert refusal(text).field == field


def test_the_manifest_of_a_release_is_read_from_its_directory(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the manifest"):
        manifest.read(tmp_path)
    (tmp_path / "instar.toml").write_bytes(bundles.MANIFEST)
    assert manifest.read(tmp_path) == manifest.parse_toml(bundles.MANIFEST.decode())


def test_versions_stand_in_the_order_that_semver_gives_them() -> None:
    order = (
        "1.0.0-alpha 1.0.0-alpha.1 1.0.0-alpha.beta 1.0.0-beta 1.0.0-beta.2 1.0.0-beta.11 1.0.0-rc.1 1.0.0 1.0.1 1.10.0"
    )
    versions = [semver.parse(text) for text in order.split()]
    known = [version for version in versions if version is not None]
    assert len(known) == len(versions)
    mixed = known[::2] + known[1::2]
    assert sorted(mixed) == known
    assert semver.parse("1.0.0+build") == semver.parse("1.0.0+other")


@pytest.mark.parametrize(
    "text", ["", "1", "1.0", "v1.0.0", "1.0.0-", "1.0.0-01", "1.0.0+", "1.0.0 ", "\N{ARABIC-INDIC DIGIT ONE}.0.0"]
)
def test_what_is_not_semver_is_no_version(text: str) -> None:
    assert semver.parse(text) is None


def test_digests_and_their_files_name_each_other() -> None:
    digest = layout.digest_of("a" * 64)
    assert layout.hex_of(digest) == "a" * 64
    places = layout.Layout(Path("/s"), Path("/r"))
    assert places.bundle(digest) == Path("/s/incoming") / ("a" * 64)
    assert places.partial_bundle(digest).name == "a" * 64 + ".part"
    with pytest.raises(ConfigError, match="64 hexadecimal"):
        layout.digest_of("a")


def test_the_agent_knows_its_own_version() -> None:
    assert semver.parse(settings.agent_version()) is not None
