"""What people write for a node: every wrong key and value is named, and what passes is complete."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from agent.config import bounds, layout, manifest, semver, settings
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
MORE = """
drivers = ["acme.thing"]
uv = "/usr/bin/uv"
python_index = "https://example.org/simple"
agent_user = "instar"
disk_quota = "20 GiB"
[secrets.web]
"api.key" = "/etc/key"
[users]
web = "www-data"
[rollback_points]
max_count = 2
max_bytes = 1000
max_age = "7d"
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


def test_what_a_node_lets_components_have_is_read() -> None:
    config = settings.parse(f'node_id = "n"\n{MORE}', {})
    assert (config.drivers, config.uv, config.agent_user) == (("acme.thing",), Path("/usr/bin/uv"), "instar")
    assert config.python_index == "https://example.org/simple"
    assert (config.secrets, config.users) == ({"web": {"api.key": Path("/etc/key")}}, {"web": "www-data"})
    assert config.disk_quota_bytes == 20 * 1024**3
    assert config.rollback_points == bounds.RollbackPoints(2, 1000, timedelta(days=7))
    assert config.agent_socket == config.state_dir / "agent.sock"
    least = settings.parse('node_id = "n"\nstate_dir = "/s"', {})
    assert (least.drivers, least.uv, least.disk_quota_bytes, least.secrets) == ((), None, None, {})
    assert (least.rollback_points, least.agent_socket) == (bounds.RollbackPoints(), Path("/s/run/agent.sock"))


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
        ('drivers = "acme"', "drivers"),
        ('drivers = ["a", "a"]', "drivers"),
        ('drivers = ["A"]', "drivers"),
        ("drivers = [1]", "drivers"),
        ('uv = "uv"', "uv"),
        ('python_index = "http://example.org/simple"', "python_index"),
        ('agent_user = "a b"', "agent_user"),
        ("disk_quota = 0", "disk_quota"),
        ("disk_quota = true", "disk_quota"),
        ('disk_quota = "20 GB"', "disk_quota"),
        ("secrets = 1", "secrets"),
        ("secrets = {web = 1}", "secrets.web"),
        ('secrets = {web = {"a/b" = "/x"}}', "secrets.web"),
        ('secrets = {web = {key = "x"}}', "secrets.web.key"),
        ("secrets = {web = {key = 1}}", "secrets.web.key"),
        ('users = {Web = "x"}', "users"),
        ("users = {web = 0}", "users.web"),
        ("rollback_points = {max = 1}", "rollback_points.max"),
        ("rollback_points = {max_count = 0}", "rollback_points.max_count"),
        ("rollback_points = {max_count = 101}", "rollback_points.max_count"),
        ("rollback_points = {max_bytes = -1}", "rollback_points.max_bytes"),
        ('rollback_points = {max_age = "7 weeks"}', "rollback_points.max_age"),
        ('rollback_points = {max_age = "0d"}', "rollback_points.max_age"),
        ('rollback_points = {max_age = "99999d"}', "rollback_points.max_age"),
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
    assert settings.read_token(path).reveal() == "secret"
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


FULL = """
name = "web"
version = "2.0.0"
driver = "{driver}"
{command}
on_agent_stop = "ON_AGENT_STOP_STOP"
secrets = ["api.key", "cert"]
check_command = ["python", "check.py"]
hot_swap_from = ">=1.2.0,<2.0.0"
[state]
schema = 3
reads = [1, 2]
snapshot = true
[[state.migrations]]
from_schema = 2
to_schema = 3
command = ["python", "up.py"]
[resources]
memory_bytes = 1000
disk_bytes = 2000
descriptors = 30
[[requirements]]
component = "db"
versions = ">=1.0.0"
[[requirements]]
component = "cache"
[python]
requirements = "requirements.txt"
wheelhouse = "wheels"
[[sockets]]
name = "http"
[[sockets]]
name = "admin"
[readiness.exec]
command = ["sh", "ready.sh"]
[health]
socket = "admin"
[health.grpc]
service = "web.Web"
[metrics]
path = "/m"
socket = "admin"
"""
COMMAND = 'command = ["main"]'


def test_what_a_version_needs_and_keeps_is_read() -> None:
    text = FULL.format(driver="process", command=COMMAND)
    seen = manifest.parse_toml(text)
    assert seen.on_agent_stop is model.OnAgentStop.STOP
    assert (seen.secrets, seen.check_command) == (("api.key", "cert"), ("python", "check.py"))
    migration = model.Migration(2, 3, ("python", "up.py"), timedelta(seconds=60))
    assert seen.state == model.StateSchema(3, (1, 2), has_snapshot=True, migrations=(migration,))
    assert seen.resources == model.Resources(1000, 2000, 30)
    assert seen.requirements == (model.Requirement("db", ">=1.0.0"), model.Requirement("cache"))
    assert seen.python == model.PythonEnvironment("requirements.txt", "wheels")
    assert seen.readiness is not None
    assert seen.readiness.check == model.ExecCheck(("sh", "ready.sh"))
    assert seen.health is not None
    assert (seen.health.check, seen.health.socket) == (model.GrpcCheck("web.Web"), "admin")
    assert seen.metrics is not None
    assert (seen.metrics.socket, seen.hot_swap_from) == ("admin", ">=1.2.0,<2.0.0")
    assert bundles.manifest_of(manifest.json_of_toml(text)) == seen


def of(driver: str, options: str = "", command: str = COMMAND) -> model.Options:
    name = "instar-agent" if driver == "agent" else "web"
    return manifest.parse_toml(f'name = "{name}"\nversion = "1.0.0"\ndriver = "{driver}"\n{command}\n{options}').options


def test_the_options_of_each_driver_have_the_defaults_of_its_message() -> None:
    assert of("handover") == of("agent") == model.HandoverOptions()
    assert of("held") == model.HeldOptions(timedelta(seconds=30))
    assert of("process") == model.ProcessOptions(has_overlap=False, settle_duration=timedelta(seconds=1))
    assert of("systemd") == model.SystemdOptions()
    assert of("exec", command="") == model.ExecOptions({}, timedelta(seconds=60))
    module = of("module", '[module]\nhost = "app"\nfile = "a.py"\n', command="")
    assert module == model.ModuleOptions("app", "a.py", timedelta(milliseconds=50))
    assert of("acme.own") == model.OtherOptions({})


def test_the_options_of_each_driver_are_taken() -> None:
    assert of("handover", "handover.listen_fds_only = true") == model.HandoverOptions(is_listen_fds_only=True)
    assert of("held", 'held.hold_timeout = "2s"') == model.HeldOptions(timedelta(seconds=2))
    process = of("process", 'process = {overlap = true, settle_duration = "2s"}')
    assert process == model.ProcessOptions(has_overlap=True, settle_duration=timedelta(seconds=2))
    for program in model.ReloadProgram:
        text = f'reload.program = "RELOAD_PROGRAM_{program.value}"'
        assert of("reload", text) == model.ReloadOptions(program)
    assert of("systemd", "systemd.notify = true") == model.SystemdOptions(is_notifying=True)
    seen = of("exec", '[exec]\nprepare = ["a", "b"]\ntimeout = "2s"\nhot_swap = true\n', command="")
    assert seen == model.ExecOptions({"prepare": ("a", "b")}, timedelta(seconds=2), is_hot_swap=True)
    assert of("acme.own", 'options = {b = "2", a = "1"}') == model.OtherOptions({"a": "1", "b": "2"})


@pytest.mark.parametrize(
    ("driver", "options", "command", "field"),
    [
        ("handover", "held = {}", COMMAND, "held"),
        ("process", "handover.listen_fds_only = true", COMMAND, "handover"),
        ("acme.own", "process.overlap = true", COMMAND, "process"),
        ("handover", 'options = {a = "1"}', COMMAND, "options"),
        ("reload", "", COMMAND, "reload.program"),
        ("module", "", "", "module.host"),
        ("module", 'module = {host = "web", file = "a.py"}', "", "module.host"),
        ("module", 'module = {host = "app", file = "../a.py"}', "", "module.file"),
        ("module", 'module = {host = "app", file = "/a.py"}', "", "module.file"),
        ("module", 'module = {host = "app", file = "a.py"}', COMMAND, "command"),
        ("module", 'module = {host = "app", file = "a.py"}\n[[sockets]]\nname = "a"', "", "sockets"),
        ("exec", "", COMMAND, "command"),
        ("exec", 'exec.prepare = [""]', "", "exec.prepare"),
        ("held", 'held.hold_timeout = "0s"', COMMAND, "held.hold_timeout"),
        ("process", "", "", "command"),
    ],
)
def test_a_wrong_option_of_a_driver_is_named(driver: str, options: str, command: str, field: str) -> None:
    assert refusal(f'name = "web"\nversion = "1.0.0"\ndriver = "{driver}"\n{command}\n{options}').field == field


MIGRATION = "[[state.migrations]]\nfrom_schema = {0}\nto_schema = {1}\ncommand = ['a']\n"


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ("[state]", "state.schema"),
        ("state = {schema = 2, reads = [2]}", "state.reads"),
        ("state = {schema = 2, reads = [0]}", "state.reads"),
        ("state = {schema = 3, reads = [1, 1]}", "state.reads"),
        ("state.schema = 2\n" + MIGRATION.format(1, 1), "state.migrations[0].to_schema"),
        ("state.schema = 2\n" + MIGRATION.format(0, 1), "state.migrations[0].from_schema"),
        ("state.schema = 2\n" + MIGRATION.format(1, 2) * 2, "state.migrations"),
        ("state.schema = 2\n" + MIGRATION.format(1, 2).replace("'a'", ""), "state.migrations[0].command"),
        ("state.schema = 2\n" + MIGRATION.format(1, 2) + "timeout = '0s'", "state.migrations[0].timeout"),
        ('secrets = ["a/b"]', "secrets"),
        ('secrets = ["a", "a"]', "secrets"),
        ("on_agent_stop = 7", "on_agent_stop"),
        ('check_command = ["a", "\\u0000"]', "check_command"),
        ('hot_swap_from = "^1.0.0"', "hot_swap_from"),
        ('requirements = [{component = "web"}]', "requirements.component"),
        ('requirements = [{component = "a"}, {component = "a"}]', "requirements.component"),
        ('requirements = [{component = "A"}]', "requirements[0].component"),
        ('requirements = [{component = "a", versions = "1"}]', "requirements[0].versions"),
        ("[python]", "python.requirements"),
        ('python = {requirements = "a/../b"}', "python.requirements"),
        ('python = {requirements = "a", wheelhouse = "/w"}', "python.wheelhouse"),
        ('health = {socket = "none", tcp = {}}', "health.socket"),
        ('health = {socket = "a", exec = {command = ["a"]}}', "health.socket"),
        ("health.exec = {}", "health.exec.command"),
        ('metrics = {path = "/", socket = "none"}', "metrics.socket"),
        ('environment = {STATE_DIRECTORY = "/"}', "environment"),
    ],
)
def test_a_wrong_line_of_what_a_version_needs_is_named(more: str, field: str) -> None:
    assert refusal(LEAST + more).field == field


def test_a_program_without_sockets_cannot_be_asked_over_one() -> None:
    text = LEAST.replace("handover", "process")
    for line, field in (("health.tcp = {}", "health.socket"), ('metrics.path = "/"', "metrics.socket")):
        assert refusal(text + line).field == field
    assert manifest.parse_toml(text + 'health.exec.command = ["a"]').health is not None


def test_the_name_of_the_agent_belongs_to_the_agent() -> None:
    assert refusal(LEAST.replace('"web"', '"instar-agent"')).field == "name"
    assert refusal(LEAST.replace("handover", "agent")).field == "driver"


@pytest.mark.parametrize(
    ("version", "comparators", "is_match"),
    [
        ("1.5.0", "", True),
        ("1.5.0", ">=1.2.0,<2.0.0", True),
        ("2.0.0", ">=1.2.0,<2.0.0", False),
        ("1.1.9", " >= 1.2.0 , < 2.0.0 ", False),
        ("2.0.0-rc.1", "<2.0.0", True),
        ("1.2.0", "1.2.0", True),
        ("1.2.0", "=1.2.0", True),
        ("1.2.1", "!=1.2.0", True),
        ("1.2.0", "!=1.2.0", False),
        ("1.2.0", "<=1.2.0", True),
        ("1.2.0", ">1.2.0", False),
        ("1.2", ">=1.0.0", False),
        ("1.2.0", "~1.2.0", False),
    ],
)
def test_comparators_let_versions_pass_by_precedence(version: str, comparators: str, is_match: bool) -> None:  # noqa: FBT001  # a column
    assert semver.matches(version, comparators) is is_match


@pytest.mark.parametrize(
    "text", ["^1.0.0", "==1.0.0", "1.0", ">=1.0.0,", ">=", "*", ">=1.0.0 <2.0.0", ",".join(["1.0.0"] * 17)]
)
def test_what_breaks_the_rule_of_comparators_is_none(text: str) -> None:
    assert semver.parse_comparators(text) is None


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
