"""Rules of the monitor in the configuration file: what is read, and what is refused by the name of its key."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from controller.config import rules, settings
from controller.core import errors, model

RULE = """[[monitor.rules]]
name = "errors"
component = "web"
measure = { kind = "ratio", series = "http_errors_total", per = 'http_requests_total{code="200"}' }
above = 0.05
"""


def load(tmp_path: Path, text: str) -> rules.Monitoring:
    path = tmp_path / "controller.toml"
    path.write_text(text)
    return settings.load({}, {}, path).monitor


def test_without_rules_nothing_is_watched(tmp_path: Path) -> None:
    assert load(tmp_path, "") == rules.NOTHING


def test_a_rule_has_defaults(tmp_path: Path) -> None:
    measure = model.Measure(model.MeasureKind.RATIO, "http_errors_total", 'http_requests_total{code="200"}')
    rule = model.Rule("errors", model.ComponentName("web"), measure, fire_at=0.05, clear_at=0.05)
    assert load(tmp_path, RULE) == rules.Monitoring((rule,))


def test_everything_of_a_rule_is_read(tmp_path: Path) -> None:
    text = """[monitor]
interval = "2s"
[[monitor.rules]]
name = "slow"
component = "web"
measure = { kind = "QUANTILE", series = "latency_seconds", quantile = 95 }
below = 1
clear = 2.5
scope = "node"
basis = "own_past"
window = "10m"
past = "2h"
for = "90s"
keep_firing_for = "5m"
least = 20
least_percent = 80
"""
    found = load(tmp_path, text)
    [rule] = found.rules
    assert found.interval == timedelta(seconds=2)
    assert rule == model.Rule(
        name="slow",
        component=model.ComponentName("web"),
        measure=model.Measure(model.MeasureKind.QUANTILE, "latency_seconds", quantile_percent=95),
        fire_at=1.0,
        clear_at=2.5,
        basis=model.RuleBasis.OWN_PAST,
        is_below=True,
        window=timedelta(minutes=10),
        past=timedelta(hours=2),
        pending_for=timedelta(seconds=90),
        keep_firing_for=timedelta(minutes=5),
        least_exposure=20.0,
        least_percent=80,
    )


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("monitor = 7", "monitor"),
        ("[monitor]\nperiod = 1", "monitor.period"),
        ('[monitor]\ninterval = "1h"', "monitor.interval"),
        ("[monitor]\nrules = 1", "monitor.rules"),
        (RULE + RULE, "monitor.rules.name"),
        ("".join(RULE.replace('errors"', f'e{number}"') for number in range(33)), "monitor.rules"),
        (RULE.replace("above = 0.05", ""), "monitor.rules[0].above"),
        (RULE.replace("0.05", "inf"), "monitor.rules[0].above"),
        (RULE.replace("0.05", "true"), "monitor.rules[0].above"),
        (RULE + "below = 1", "monitor.rules[0].above"),
        (RULE + "clear = 0.06", "monitor.rules[0].clear"),
        (RULE.replace("above", "below") + "clear = 0.04", "monitor.rules[0].clear"),
        (RULE + 'scope = "zone"', "monitor.rules[0].scope"),
        (RULE + 'basis = "peers"\nscope = "fleet"', "monitor.rules[0].basis"),
        (RULE.replace("0.05", "0") + 'basis = "peers"', "monitor.rules[0].above"),
        (RULE.replace("above = 0.05", "below = -1") + 'basis = "own_past"', "monitor.rules[0].below"),
        (RULE.replace("0.05", "0") + 'basis = "trendline"', "monitor.rules[0].above"),
        (RULE + 'basis = "trendline"\npast = "19s"', "monitor.rules[0].past"),
        (RULE + 'window = "20s"', "monitor.rules[0].window"),
        (RULE + 'past = "5h"', "monitor.rules[0].past"),
        (RULE + 'for = "-1s"', "monitor.rules[0].for"),
        (RULE + 'for = "2"', "monitor.rules[0].for"),
        (RULE + "least = 0", "monitor.rules[0].least"),
        (RULE + "least_percent = 0", "monitor.rules[0].least_percent"),
        (RULE + "colour = 1", "monitor.rules[0].colour"),
        (RULE.replace('kind = "ratio", ', ""), "monitor.rules[0].measure.kind"),
        (RULE.replace('"ratio"', '"sum"'), "monitor.rules[0].measure.kind"),
        (RULE.replace("http_errors_total", "a b"), "monitor.rules[0].measure.series"),
        (RULE.replace(", per", ", par"), "monitor.rules[0].measure.per"),
        (RULE.replace('"ratio"', '"rate"'), "monitor.rules[0].measure.per"),
        (RULE.replace('"ratio"', '"ratio", quantile = 9'), "monitor.rules[0].measure.quantile"),
        ('[[monitor.rules]]\nname = "a"\nabove = 1', "monitor.rules[0].measure"),
    ],
)
def test_what_breaks_a_rule_is_refused_by_the_name_of_the_key(tmp_path: Path, text: str, field: str) -> None:
    with pytest.raises(errors.InvalidRequestError, match=r"^cannot use ") as caught:
        load(tmp_path, text)
    assert (caught.value.field, caught.value.code) == (field, "setting_invalid")
