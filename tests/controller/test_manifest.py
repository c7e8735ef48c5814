"""The manifest edge: what a release may say of itself."""

from __future__ import annotations

import json

import pytest

from controller.config import manifest
from controller.core import errors

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
