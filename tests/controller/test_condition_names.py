from __future__ import annotations

import pytest

from controller import conditions
from controller.core import errors


def test_what_a_condition_reads_is_told_by_its_names() -> None:
    found = conditions.names(
        'metrics["cpu"] > 0.5 && metrics.memory < 1.0 || node.labels.zone == "a" && has(node.labels.tier) '
        '&& node.components["web"].stopped || node.components.db.version == "1.0.0" && node.connected'
    )
    assert found == conditions.Names(
        metrics=frozenset({"cpu", "memory"}),
        labels=frozenset({"zone", "tier"}),
        components=frozenset({"web", "db"}),
        is_whole=True,
        fields=frozenset({"connected"}),
    )


@pytest.mark.parametrize(
    ("text", "metrics"),
    [
        ('"cpu" in metrics', {"cpu"}),
        ("!has(metrics.cpu) || metrics.cpu > 1.0", {"cpu"}),
        ('metrics["errors_total{code=\\"500\\"}"] > 1.0', {'errors_total{code="500"}'}),
        ("node.connected ? metrics.a > 1.0 : metrics.b > 2.0", {"a", "b"}),
        ("[metrics.a, metrics.b].exists(each, each > metrics.c)", {"a", "b", "c"}),
        ('{"x": metrics.a}["x"] > 1.0', {"a"}),
        ("[1.0].exists(node, node > metrics.a)", {"a"}),
        ("double(string(metrics.a)) > 1.0", {"a"}),
        ("true", set()),
    ],
)
def test_a_series_is_found_wherever_it_is_read(text: str, metrics: set[str]) -> None:
    assert conditions.names(text).metrics == metrics


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ('"tier" in node.labels', {"tier"}),
        ('["a"].exists(each, each == node.labels.zone)', {"zone"}),
        ('node.labels.zone in ["a", "b"]', {"zone"}),
    ],
)
def test_a_label_is_found_wherever_it_is_read(text: str, labels: set[str]) -> None:
    found = conditions.names(text)
    assert found.labels == labels
    assert found.is_whole


@pytest.mark.parametrize(
    "text",
    [
        "metrics[node.id] > 1.0",
        'metrics[node.connected ? "a" : "b"] > 1.0',
        "metrics.exists(name, metrics[name] > 0.4)",
        '["a", "b"].exists(name, metrics[name] > 0.4)',
        "metrics.size() > 1",
        "metrics == metrics",
        'node.labels.all(key, key != "a")',
        "size(node.labels) > 1",
        "node.components.exists(name, node.components[name].stopped)",
        "node == node",
        "[node].exists(each, each.connected)",
        '[{"a": 1.0}].exists(metrics, metrics.a > 0.5)',
    ],
)
def test_what_cannot_be_told_beforehand_is_said_to_be_more(text: str) -> None:
    assert not conditions.names(text).is_whole


def test_fields_of_a_node_are_told_also_within_a_macro() -> None:
    found = conditions.names('node.capabilities.exists(each, each == node.id) && node.agent_version != ""')
    assert found.fields == {"capabilities", "id", "agent_version"}
    assert found.is_whole


def test_names_of_what_is_no_condition_are_refused() -> None:
    with pytest.raises(errors.InvalidRequestError, match="undefined field"):
        conditions.names("node.gone")
