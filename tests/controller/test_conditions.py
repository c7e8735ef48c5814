from __future__ import annotations

import math
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest

from controller import conditions
from controller.core import errors, model

NODE = model.Node(
    id=model.NodeId("web-1"),
    labels={"zone": "a"},
    capabilities=frozenset({"driver.handover"}),
    agent_version="0.1.0",
    fence=0,
    is_connected=True,
    last_seen_at=datetime(2026, 1, 1, tzinfo=UTC),
    components={
        model.ComponentName("web"): model.InstalledComponent(
            name=model.ComponentName("web"),
            version="1.0.0",
            digest=model.Digest("sha256:1"),
            permanent_digest=model.Digest("sha256:1"),
            health=model.Health.HEALTHY,
            healthy_for=timedelta(hours=1),
        )
    },
)
METRICS = {"cpu": 0.5, "broken": math.nan, "zero": 0.0}
HUNDRED = f"[{','.join(['1'] * 100)}]"
FIFTY = f"[{','.join(['1'] * 50)}]"
LOOPS = f"{HUNDRED}.all(x, {HUNDRED}.all(y, {HUNDRED}.all(z, x + y + z > 0)))"


def evaluate(text: str) -> bool | None:
    return conditions.compile(text, "condition").holds(NODE, METRICS)


@pytest.mark.parametrize(
    "text",
    [
        'node.id == "web-1"',
        'node.id.startsWith("web-")',
        'node.labels.zone == "a"',
        'node.labels["zone"] in ["a", "b"]',
        '"driver.handover" in node.capabilities',
        'node.agent_version == "0.1.0"',
        "node.connected",
        'node.components["web"].version == "1.0.0"',
        'node.components.web.digest == "sha256:1"',
        'node.components.web.health == "HEALTHY"',
        "!node.components.web.stopped",
        'metrics["cpu"] < 1.0',
        'metrics["cpu"] / metrics["cpu"] == 1.0 && 4 / 2 == 2 && 4u / 2u == 2u',
        "metrics.exists(name, metrics[name] > 0.4)",
        "!has(node.labels.tier)",
        '!("tier" in node.labels)',
        '"héllo".size() == 5',
    ],
)
def test_a_condition_sees_all_that_the_schema_names(text: str) -> None:
    assert evaluate(text) is True


@pytest.mark.parametrize("text", ['node.labels.zone == "b"', "!node.connected", 'metrics["cpu"] > 0.5', "false"])
def test_what_is_not_so_is_false_and_not_unknown(text: str) -> None:
    assert evaluate(text) is False


@pytest.mark.parametrize(
    "text",
    [
        'node.labels.tier == "x"',
        'node.labels.tier != "x"',
        'node.labels["tier"] == "x"',
        "node.components.db.stopped",
        'metrics["memory"] < 1.0',
        'metrics["broken"] < 1.0',
        'metrics["broken"] >= 0.0 || metrics["broken"] < 0.0',
        "1 / 0 == 1",
        'metrics["cpu"] / metrics["zero"] > 0.1',
        'metrics["cpu"] / (metrics["zero"] / metrics["cpu"]) > 0.1',
        'metrics["zero"] / metrics["zero"] != 1.0',
        '!(metrics["cpu"] / -metrics["zero"] > 0.1)',
        '[1.0].exists(each, each / metrics["zero"] > 0.1)',
        "9223372036854775807 + 1 > 0",
        "double(node.id) > 1.0",
        'node.connected && node.labels.tier == "x"',
    ],
)
def test_what_is_missing_or_fails_is_unknown_and_never_true(text: str) -> None:
    assert evaluate(text) is None


def test_what_is_decided_without_the_missing_part_is_known() -> None:
    assert evaluate('node.labels.tier == "x" || node.connected') is True
    assert evaluate('node.labels.tier == "x" && !node.connected') is False
    assert evaluate('metrics["zero"] > 0.0 && metrics["cpu"] / metrics["zero"] > 0.1') is False


def test_an_expression_that_only_the_evaluation_knows_to_be_no_bool_is_refused() -> None:
    with pytest.raises(errors.InvalidRequestError, match="must give a bool"):
        conditions.compile("dyn(true)", "condition")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "Syntax error"),
        ("node.connected &&", "Syntax error"),
        ("\0", "Syntax error"),
        ("nod.connected", "undeclared reference to 'nod.connected'"),
        ("node.conected", "undefined field 'conected'"),
        ('node.components.web.versoin == "1"', "undefined field 'versoin'"),
        ('metrics["cpu"] < 1', "no matching overload for '_<_' applied to '(double, int)'"),
        ("node.connected == 1", "no matching overload"),
        ('node.id < 1 ? true : "x"', "no matching overload"),
        ("node.id", "it gives STRING, and must give a bool"),
        ("node", "must give a bool"),
        ("1", "it gives INT, and must give a bool"),
        ("node.labels[?'zone'].hasValue()", "unsupported syntax"),
        ("\ud800", "surrogates"),
    ],
)
def test_what_cannot_be_a_condition_is_refused_when_it_is_made(text: str, why: str) -> None:
    with pytest.raises(errors.InvalidRequestError, match=r"cannot use edges\.condition") as refusal:
        conditions.compile(text, "edges.condition")
    assert why in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert (refusal.value.code, refusal.value.field) == ("invalid_condition", "edges.condition")
    assert refusal.value.value == text


@pytest.mark.parametrize(
    "text",
    [
        "(" * 400 + "true" + ")" * 400,
        "(" * 40 + "true" + ")" * 40,
        "[" * 300 + "]" * 300 + " == []",
        "+".join(["1"] * 100) + " > 0",
        "node.labels" + ".a" * 400 + ' == "x"',
        "true ? " * 100 + "true" + " : false" * 100,
        "true" + " && true" * 200,
        'node.id == "' + "a" * 100_000 + '"',
    ],
    ids=["deep", "brackets", "lists", "sum", "fields", "ternary", "long", "very long"],
)
def test_a_hostile_expression_is_refused_at_once(text: str) -> None:
    started = time.monotonic()
    with pytest.raises(errors.InvalidRequestError) as refusal:
        conditions.compile(text, "condition")
    assert time.monotonic() - started < 2
    assert len(str(refusal.value)) < 3 * conditions.TEXT_LENGTH_MAX


@pytest.mark.parametrize(
    "text",
    [
        '("a" + "b").size() > 0',
        'b"a" + b"b" == b"ab"',
        "([1] + [1]).size() > 0",
        '(dyn("a") + "b") == "ab"',
        "[1].map(x, [x, x]).size() > 0",
        "[1].filter(x, x > 0).size() > 0",
        'node.id.matches("((a{1,30}){1,30}){1,30}")',
    ],
)
def test_nothing_that_can_grow_or_go_wrong_slowly_is_in_the_language(text: str) -> None:
    with pytest.raises(errors.InvalidRequestError):
        conditions.compile(text, "condition")


def test_loops_without_end_are_stopped_and_leave_it_unknown() -> None:
    found = conditions.compile("metrics.all(name, metrics[name] > 0.0)", "condition")
    started = time.monotonic()
    assert found.holds(NODE, {f"series_{number}": 1.0 for number in range(9_000)}) is True
    assert found.holds(NODE, {f"series_{number}": 1.0 for number in range(20_000)}) is None
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    "text",
    [
        LOOPS,
        "metrics.all(a, metrics.all(b, a != b))",
        "node.labels.all(a, node.labels.all(b, node.labels.all(c, a == b || b == c)))",
        f"{HUNDRED}.all(x, x in {HUNDRED}{f' && x in {FIFTY}' * 5})",
        "metrics.all(name, metrics == metrics)",
        "[node.labels.a].all(x, [[x]].all(y, y.all(z, [z].all(a, [[a]].all(b, b.all(c, c != x))))))",
    ],
    ids=["lists", "metrics", "labels", "long lists", "whole maps", "unknown sizes"],
)
def test_an_expression_that_may_cost_too_much_is_refused_at_once(text: str) -> None:
    started = time.monotonic()
    with pytest.raises(errors.InvalidRequestError, match=r"it may take [0-9,]+ steps, and at most 50,000") as refusal:
        conditions.compile(text, "when.condition")
    assert time.monotonic() - started < 1
    assert (refusal.value.code, refusal.value.field) == ("invalid_condition", "when.condition")


@pytest.mark.parametrize(
    "text",
    [
        "metrics.exists(name, name.startsWith('c') && metrics[name] > 0.4)",
        '["a", "b"].exists(zone, node.capabilities.all(each, each != zone))',
        "node.capabilities.all(a, node.capabilities.all(b, a == b))",
        '{"a": 1, "b": 2}.all(key, key in ["a", "b"])',
        "!" * 200 + "true",
    ],
)
def test_an_expression_whose_cost_is_bounded_is_taken(text: str) -> None:
    assert evaluate(text) is True


def test_a_text_of_twenty_thousand_terms_is_refused_at_once() -> None:
    started = time.monotonic()
    with pytest.raises(errors.InvalidRequestError, match="longer than"):
        conditions.compile(" && ".join(['metrics["cpu"] < 1.0'] * 20_000), "when.condition")
    assert time.monotonic() - started < 0.5


def test_several_conditions_look_at_a_node_that_was_prepared_once() -> None:
    found = conditions.prepare(NODE, METRICS, ["cpu", "broken", "memory"])
    texts = ['metrics["cpu"] < 1.0', 'metrics["broken"] < 1.0', 'metrics["memory"] < 1.0', 'node.labels.zone == "b"']
    said = [conditions.compile(text, "condition").holds_on(found) for text in texts]
    assert said == [True, None, None, False]


def test_a_prepared_node_shows_the_series_that_were_named_and_no_others() -> None:
    found = conditions.prepare(NODE, METRICS | {"memory": 1.0}, ["memory"])
    assert conditions.compile('metrics["memory"] == 1.0', "condition").holds_on(found) is True
    assert conditions.compile('metrics["cpu"] < 1.0', "condition").holds_on(found) is None


def test_an_expression_at_the_bound_is_taken() -> None:
    text = "true".ljust(conditions.TEXT_LENGTH_MAX)
    assert evaluate(text) is True
    with pytest.raises(errors.InvalidRequestError, match=f"longer than {conditions.TEXT_LENGTH_MAX} characters"):
        conditions.compile(text + " ", "condition")


def test_a_text_is_compiled_once_whatever_it_is_called() -> None:
    first = conditions.compile("node.connected", "condition")
    assert conditions.compile("node.connected", "edges.condition") == first


def test_a_stored_condition_that_no_longer_compiles_is_unknown() -> None:
    assert conditions.holds("node.connected", NODE, {}) is True
    assert conditions.holds('metrics["cpu"] < 1.0', NODE, METRICS) is True
    assert conditions.holds('metrics["cpu"] < 1.0', NODE, {}) is None
    assert conditions.holds("node.gone", NODE, METRICS) is None


def test_the_command_line_does_not_load_the_compiler() -> None:
    code = "import sys; from controller.cli import application; sys.exit('cel_expr_python.cel' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
