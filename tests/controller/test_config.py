"""The settings: where each value comes from, and what is refused."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from controller.config import settings
from controller.core import errors


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "controller.toml"
    path.write_text(text)
    return path


def test_without_anything_the_defaults_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    loaded = settings.load({}, {"XDG_STATE_HOME": "/xdg"}, None)
    assert loaded == settings.Settings(
        "127.0.0.1:7443", Path("/xdg/instar/controller"), timedelta(seconds=10), None, self_approval=False
    )


def test_how_much_is_kept_of_metrics_is_set_as_everything_else(tmp_path: Path) -> None:
    file = write(tmp_path, 'metrics_window = "60s"\nmetrics_step = "2s"')
    environment = {"INSTAR_METRICS_STEP": "5s", "INSTAR_METRICS_PAST": "600s", "INSTAR_METRICS_RETENTION": "86400s"}
    loaded = settings.load({}, environment, file)
    found = (loaded.metrics_window, loaded.metrics_past, loaded.metrics_step, loaded.metrics_retention)
    assert found == tuple(timedelta(seconds=seconds) for seconds in (60, 600, 5, 86_400))


def test_the_state_of_root_lies_where_the_system_keeps_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert settings.load({}, {}, None).state_dir == Path("/var/lib/instar/controller")


def test_a_flag_goes_before_the_environment_and_that_before_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, 'listen = "127.0.0.1:1"\nheartbeat_period = "1s"\nstate_dir = "/file"')
    environment = {"INSTAR_LISTEN": "127.0.0.1:2", "INSTAR_HEARTBEAT_PERIOD": "2s"}
    loaded = settings.load({"listen": "127.0.0.1:3", "state_dir": None}, environment, file)
    assert (loaded.listen, loaded.heartbeat_period, loaded.state_dir) == (
        "127.0.0.1:3",
        timedelta(seconds=2),
        Path("/file"),
    )


def test_who_asked_for_a_rollout_may_approve_it_where_that_is_said(tmp_path: Path) -> None:
    assert settings.load({}, {}, write(tmp_path, 'self_approval = "allow"')).self_approval is True
    assert settings.load({"self_approval": "refuse"}, {"INSTAR_SELF_APPROVAL": "allow"}, None).self_approval is False
    assert settings.load({}, {"INSTAR_SELF_APPROVAL": "allow"}, None).self_approval is True


@pytest.mark.parametrize("listen", ["0.0.0.0:7443", "192.0.2.1:7443", "[::]:7443", "example.org:7443", "unix:/x"])
def test_an_address_that_others_can_reach_is_refused(listen: str) -> None:
    with pytest.raises(errors.InvalidRequestError, match=r"^cannot use listen") as caught:
        settings.load({"listen": listen}, {}, None)
    assert (caught.value.field, caught.value.value) == ("listen", listen)


@pytest.mark.parametrize(
    ("listen", "meant"),
    [("127.0.0.9:0", "127.0.0.9:0"), ("[::1]:7443", "[::1]:7443"), ("localhost:80", "127.0.0.1:80")],
)
def test_a_loopback_address_is_accepted(listen: str, meant: str) -> None:
    assert settings.load({"listen": listen}, {}, None).listen == meant


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ('lisen = "127.0.0.1:1"', "lisen"),
        ("heartbeat_period = 10", "heartbeat_period"),
        ('heartbeat_period = "10"', "heartbeat_period"),
        ('heartbeat_period = "0s"', "heartbeat_period"),
        ('heartbeat_period = "301s"', "heartbeat_period"),
        ('self_approval = "yes"', "self_approval"),
        ('listen = "127.0.0.1:65536"', "listen"),
        ('listen = "127.0.0.1"', "listen"),
        ("listen = ", "config"),
        ('metrics_window = "30m"', "metrics_window"),
        ('metrics_past = "86401s"', "metrics_past"),
        ('metrics_step = "0.5s"', "metrics_step"),
        ('metrics_retention = "0s"', "metrics_retention"),
    ],
)
def test_what_breaks_a_rule_is_refused_by_the_name_of_the_field(tmp_path: Path, text: str, field: str) -> None:
    with pytest.raises(errors.InvalidRequestError) as caught:
        settings.load({}, {}, write(tmp_path, text))
    assert caught.value.field == field


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidRequestError, match=r"^cannot use config"):
        settings.load({}, {}, tmp_path / "none.toml")
