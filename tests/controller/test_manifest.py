"""The manifest edge: what a release may say of itself."""

from __future__ import annotations

import json
import re

import pytest

from agent.config import errors as agent_errors
from agent.config import manifest as agent_manifest
from controller.config import manifest
from controller.core import errors, methods, model

GOOD = """
name = "billing.rules"
version = "1.2.0-rc.1"
driver = "handover"
command = ["python", "main.py", "--port"]
prepare_timeout = "2.5s"

[environment]
MODE = "prod"

[[sockets]]
name = "http"
backlog = 128

[health]
http = { path = "/healthz?deep=1" }
period = "0.2s"
failure_threshold = 2

[readiness]
tcp = {}

[metrics]
path = "/metrics"
series = ["requests_total"]
"""


def test_a_good_manifest_becomes_what_a_release_keeps() -> None:
    found = manifest.parse(GOOD)
    assert (found.name, found.version, found.driver) == ("billing.rules", "1.2.0-rc.1", "handover")
    kept = json.loads(found.json)
    assert kept["prepare_timeout"] == "2.500s"
    assert kept["sockets"] == [{"name": "http", "backlog": 128}]
    assert kept["readiness"] == {"tcp": {}}


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ('name = "billing.rules"', 'name = "billing.rules"\ncolour = "red"', "colour"),
        ("failure_threshold = 2", "failure_treshold = 2", "health.failure_treshold"),
        ('path = "/healthz?deep=1"', 'pth = "/healthz"', "health.http.pth"),
        ("backlog = 128", "backlogs = 128", "sockets.backlogs"),
        ('name = "billing.rules"', 'name = "billing.rules"\nprepareTimeout = "1s"', "prepareTimeout"),
    ],
)
def test_an_unknown_key_is_refused_by_its_whole_path(old: str, new: str, field: str) -> None:
    with pytest.raises(errors.InvalidRequestError, match=r"^cannot use the manifest") as caught:
        manifest.parse(GOOD.replace(old, new))
    assert (caught.value.code, caught.value.field) == ("manifest_key_unknown", field)


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ('name = "billing.rules"', 'name = "Billing"', "name"),
        ('name = "billing.rules"', 'name = ""', "name"),
        ('name = "billing.rules"', f'name = "{"a" * 41}"', "name"),
        ('MODE = "prod"', '"MO-DE" = "prod"', "environment.MO-DE"),
        ('MODE = "prod"', 'LISTEN_FDS = "9"', "environment.LISTEN_FDS"),
        ('name = "http"', 'name = "instar-probe"', "sockets.name"),
        ("backlog = 128", "backlog = 65536", "sockets.backlog"),
        ('["python", "main.py", "--port"]', str(["python"] * 65), "command"),
        ('["python", "main.py", "--port"]', '["python", "\\u0000"]', "command"),
        ('path = "/metrics"', 'path = "/métrics"', "metrics.path"),
        ('name = "billing.rules"', "name = 7", "name"),
        ('version = "1.2.0-rc.1"', 'version = "1.2"', "version"),
        ('driver = "handover"', "", "driver"),
        ('command = ["python", "main.py", "--port"]', "command = []", "command"),
        ('command = ["python", "main.py", "--port"]', 'command = "python"', "command"),
        ('prepare_timeout = "2.5s"', 'prepare_timeout = "2.5"', "prepare_timeout"),
        ('prepare_timeout = "2.5s"', 'prepare_timeout = "-1s"', "prepare_timeout"),
        ('prepare_timeout = "2.5s"', 'prepare_timeout = "86401s"', "prepare_timeout"),
        ('prepare_timeout = "2.5s"', 'minimum_agent_version = "x"', "minimum_agent_version"),
        ('period = "0.2s"', 'period = "0s"', "health.period"),
        ('period = "0.2s"', "period = 1", "health.period"),
        ('path = "/healthz?deep=1"', 'path = "healthz"', "health.http.path"),
        ("tcp = {}", "", "readiness"),
        ("tcp = {}", 'tcp = {}\nhttp = { path = "/" }', "readiness"),
        ('name = "http"\n', 'name = "http"\n[[sockets]]\nname = "http"\n', "sockets.name"),
        ('name = "http"\n', 'name = "HTTP"\n', "sockets.name"),
        ("backlog = 128", "backlog = -1", "sockets.backlog"),
        ('path = "/metrics"', 'path = ""', "metrics.path"),
        ('MODE = "prod"', "MODE = 1", "environment"),
        ('MODE = "prod"', '"A=B" = "prod"', "environment.A=B"),
        (GOOD, "name = ", "instar.toml"),
    ],
)
def test_what_breaks_a_rule_is_refused_by_the_name_of_the_field(old: str, new: str, field: str) -> None:
    assert old in GOOD
    with pytest.raises(errors.InvalidRequestError, match=r"^cannot") as caught:
        manifest.parse(GOOD.replace(old, new, 1))
    assert caught.value.field == field


FULL = """
name = "billing"
version = "2.0.0"
driver = "handover"
command = ["python", "main.py"]
on_agent_stop = "ON_AGENT_STOP_STOP"
secrets = ["db.password"]
check_command = ["python", "check.py"]
hot_swap_from = ">=1.2.0,<3.0.0"

[[sockets]]
name = "http"

[handover]
listen_fds_only = true

[readiness]
exec = { command = ["python", "ready.py"] }

[health]
grpc = { service = "billing.v1" }
socket = "http"

[metrics]
path = "/metrics"
socket = "http"

[state]
schema = 3
reads = [2]
snapshot = true

[[state.migrations]]
from_schema = 2
to_schema = 3
command = ["python", "up.py"]
timeout = "10s"

[[state.migrations]]
from_schema = 3
to_schema = 2
command = ["python", "down.py"]

[resources]
memory_bytes = 1000000

[[requirements]]
component = "db"
versions = ">=1.0.0"

[python]
requirements = "requirements.txt"
wheelhouse = "wheels"
"""
MODULE = """
name = "rules"
version = "1.0.0"
driver = "module"

[module]
host = "billing"
file = "rules.py"
"""
EXEC = """
name = "legacy"
version = "1.0.0"
driver = "exec"

[exec]
activate = ["./activate"]
"""
RELOAD = """
name = "edge"
version = "1.0.0"
driver = "reload"
command = ["nginx"]

[reload]
program = "RELOAD_PROGRAM_NGINX"
"""
OTHER = """
name = "odd"
version = "1.0.0"
driver = "acme.thing"
command = ["odd"]
health = { tcp = {} }

[options]
colour = "red"
"""
AGENT = """
name = "instar-agent"
version = "1.0.0"
driver = "agent"
command = ["python", "-m", "agent"]
"""


@pytest.mark.parametrize("text", [GOOD, FULL, MODULE, EXEC, RELOAD, OTHER, AGENT])
def test_what_the_controller_takes_the_agent_takes_too(text: str) -> None:
    assert manifest.parse(text).name == agent_manifest.parse_toml(text).name


def test_a_release_keeps_what_planning_needs() -> None:
    found = manifest.parse(FULL)
    assert found.state == model.StateSchema(
        3, (2,), has_snapshot=True, migrations=(model.Migration(2, 3), model.Migration(3, 2))
    )
    assert found.requirements == (model.Requirement(model.ComponentName("db"), ">=1.0.0"),)
    assert (found.hot_swap_from, found.methods) == (">=1.2.0,<3.0.0", methods.BOTH)


def test_the_host_of_a_module_is_a_requirement_unless_it_is_one_already() -> None:
    host = model.ComponentName("billing")
    assert manifest.parse(MODULE).requirements == (model.Requirement(host),)
    more = '[[requirements]]\ncomponent = "billing"\nversions = "1.0.0"\n'
    assert manifest.parse(MODULE + more).requirements == (model.Requirement(host, "1.0.0"),)


def test_commands_of_the_user_restart_unless_they_say_that_they_do_not() -> None:
    assert manifest.parse(EXEC).methods == methods.RESTART_ONLY
    assert manifest.parse(EXEC + "hot_swap = true\n").methods == methods.BOTH


BROKEN = [
    (FULL, '["db.password"]', '["db/password"]', "secrets"),
    (FULL, '["db.password"]', '["a", "a"]', "secrets"),
    (FULL, "ON_AGENT_STOP_STOP", "ON_AGENT_STOP_WAIT", "on_agent_stop"),
    (FULL, '"ON_AGENT_STOP_STOP"', "7", "on_agent_stop"),
    (FULL, '["python", "check.py"]', '[""]', "check_command"),
    (FULL, '["python", "check.py"]', '["python", "\\u0000"]', "check_command"),
    (FULL, ">=1.2.0,<3.0.0", "~1.2.0", "hot_swap_from"),
    (FULL, "[handover]\nlisten_fds_only = true", "[held]", "held"),
    (FULL, "[handover]\nlisten_fds_only = true", '[options]\ncolour = "red"', "options"),
    (FULL, '["python", "ready.py"] }', "[] }", "readiness.exec.command"),
    (FULL, '["python", "ready.py"] }', '["python"] }\nsocket = "http"', "readiness.socket"),
    (FULL, 'service = "billing.v1"', f'service = "{"a" * 5000}"', "health.grpc.service"),
    (FULL, 'grpc = { service = "billing.v1" }\nsocket = "http"', 'tcp = {}\nsocket = "admin"', "health.socket"),
    (FULL, 'path = "/metrics"\nsocket = "http"', 'path = "/metrics"\nsocket = "admin"', "metrics.socket"),
    (FULL, "schema = 3\nreads", "schema = 0\nreads", "state.schema"),
    (FULL, "reads = [2]", "reads = [0]", "state.reads"),
    (FULL, "reads = [2]", "reads = [2, 2]", "state.reads"),
    (FULL, "reads = [2]", "reads = [3]", "state.reads"),
    (FULL, "from_schema = 3\nto_schema = 2", "from_schema = 2\nto_schema = 3", "state.migrations"),
    (FULL, "from_schema = 3\nto_schema = 2", "from_schema = 0\nto_schema = 2", "state.migrations.from_schema"),
    (FULL, "from_schema = 3\nto_schema = 2", "from_schema = 2\nto_schema = 2", "state.migrations.to_schema"),
    (FULL, '["python", "down.py"]', "[]", "state.migrations.command"),
    (FULL, 'timeout = "10s"', 'timeout = "-10s"', "state.migrations.timeout"),
    (FULL, 'component = "db"', 'component = "DB"', "requirements.component"),
    (FULL, 'component = "db"', 'component = "billing"', "requirements.component"),
    (FULL, 'versions = ">=1.0.0"', 'versions = "new"', "requirements.versions"),
    (FULL, "[python]", '[[requirements]]\ncomponent = "db"\n[python]', "requirements.component"),
    (FULL, '"requirements.txt"', '"../requirements.txt"', "python.requirements"),
    (FULL, '"wheels"', '"/wheels"', "python.wheelhouse"),
    (MODULE, 'host = "billing"', 'host = "rules"', "module.host"),
    (MODULE, 'host = "billing"\n', "", "module.host"),
    (MODULE, '"rules.py"', '"a//rules.py"', "module.file"),
    (MODULE, 'driver = "module"', 'driver = "module"\ncommand = ["python"]', "command"),
    (MODULE, 'file = "rules.py"', 'file = "rules.py"\nsuspend_timeout = "0s"', "module.suspend_timeout"),
    (EXEC, 'activate = ["./activate"]', 'activate = [""]', "exec.activate"),
    (EXEC, 'driver = "exec"', 'driver = "exec"\ncommand = ["python"]', "command"),
    (RELOAD, "RELOAD_PROGRAM_NGINX", "RELOAD_PROGRAM_UNSPECIFIED", "reload.program"),
    (RELOAD, 'command = ["nginx"]', 'command = ["nginx"]\nhealth = { tcp = {} }', "health.socket"),
    (OTHER, 'colour = "red"', 'colour = "\\u0000"', "options.colour"),
    (AGENT, 'name = "instar-agent"', 'name = "web"', "driver"),
    (AGENT, 'driver = "agent"', 'driver = "handover"', "name"),
]


@pytest.mark.parametrize(("text", "old", "new", "field"), BROKEN)
def test_what_one_side_refuses_the_other_refuses_by_the_same_field(text: str, old: str, new: str, field: str) -> None:
    assert old in text
    broken = text.replace(old, new, 1)
    with pytest.raises(errors.InvalidRequestError, match=r"^cannot") as caught:
        manifest.parse(broken)
    assert caught.value.field == field
    with pytest.raises(agent_errors.ConfigError, match=r"^cannot") as theirs:
        agent_manifest.parse_toml(broken)
    assert re.sub(r"\[\d+\]", "", theirs.value.field) == field
