"""Which rules keep a rollout where it is."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from rpds import HashTrieMap

from controller.core import events, model, rollout
from controller.core.monitoring import board as boards
from controller.core.monitoring import phrases
from tests.controller.core import rolling, scenario
from tests.controller.core.test_monitor import rule

pytestmark = pytest.mark.core

S = model.RuleState
SECOND = timedelta(seconds=1)
NODES = {name: model.NodeId(name) for name in "abc"}
AT = scenario.START + timedelta(minutes=1)


def watch(state: S, seconds: int = 0) -> model.Watch:
    return model.Watch(state, scenario.START + seconds * SECOND, AT)


def board(**watches: model.Watch) -> boards.Board:
    """Rules over nodes and the fleet; a name is that of a node, ``fleet`` the fleet's."""
    rules = {"queue": rule(), "all": rule(name="all", scope=model.RuleScope.FLEET)}
    keys: dict[boards.Key, model.Watch] = {
        ("all", None) if name == "fleet" else ("queue", NODES[name]): each for name, each in watches.items()
    }
    return boards.Board(AT, rules, HashTrieMap(keys), {rule().component: frozenset(NODES.values())})


def running(*rules: str) -> model.Rollout:
    """A rollout that has begun to change a, and not yet b and c."""
    asked = rolling.request({"canary": "1"})
    asked = replace(asked, policy=replace(asked.policy, hold_while_firing=rules))
    made = rollout.create(
        model.RolloutId("r1"), asked, rolling.planned({"nodes": "a,b,c", "canary": "1"}, ""), actor="ann", at=AT
    )
    return rollout.step(made, events.Began(AT)).rollout


def test_a_rule_holds_by_nodes_that_are_changed_and_by_no_others() -> None:
    assert boards.holds(board(b=watch(S.FIRING)), running("queue"), AT) == ()
    found = boards.holds(board(a=watch(S.FIRING)), running("queue"), AT)
    assert found == (model.RuleHold("queue", S.FIRING, scenario.START, NODES["a"]),)


def test_what_is_pending_holds_nothing() -> None:
    assert boards.holds(board(a=watch(S.PENDING)), running("queue"), AT) == ()


def test_only_the_rules_that_the_policy_names_hold() -> None:
    seen = board(a=watch(S.FIRING), fleet=watch(S.UNKNOWN))
    assert [each.rule for each in boards.holds(seen, running("all"), AT)] == ["all"]
    assert boards.holds(seen, running(), AT) == ()


def test_of_several_nodes_that_on_which_it_fires_for_the_longest_time_is_named() -> None:
    state = running("queue")
    for key, each in state.changes.items():
        state = replace(state, changes=state.changes.insert(key, replace(each, attempt=1)))
    seen = board(a=watch(S.UNKNOWN), b=watch(S.FIRING, 9), c=watch(S.FIRING, 3))
    assert [each.node_id for each in boards.holds(seen, state, AT)] == ["c"]
    for key, each in state.changes.items():
        state = replace(state, changes=state.changes.insert(key, replace(each, is_skipped=True)))
    assert boards.holds(seen, state, AT) == ()


def test_what_nobody_has_looked_at_is_unknown_from_the_first_time_on() -> None:
    state = running("queue", "gone")
    first = boards.holds(None, state, AT)
    assert [(each.rule, each.state, each.since) for each in first] == [
        ("gone", S.UNKNOWN, AT),
        ("queue", S.UNKNOWN, AT),
    ]
    state = replace(state, rule_holds=first)
    later = boards.holds(board(), state, AT + SECOND)
    assert later == (model.RuleHold("gone", S.UNKNOWN, AT, None),)


def keys(*names: str) -> list[model.ChangeKey]:
    return [model.ChangeKey(1 if name == "a" else 2, NODES[name], rule().component) for name in names]


def test_it_is_news_where_a_rule_that_held_by_nothing_does_so_by_a_node() -> None:
    state, seen = running("queue", "all", "gone"), board(a=watch(S.FIRING))
    assert boards.is_news(seen, state, keys("b", "a"))
    assert not boards.is_news(seen, state, keys("b"))
    assert not boards.is_news(seen, state, [model.ChangeKey(9, NODES["a"], rule().component)])
    assert not boards.is_news(None, state, keys("a"))
    assert not boards.is_news(board(), state, keys("a"))
    held = replace(running("queue"), rule_holds=boards.holds(seen, running("queue"), AT))
    assert not boards.is_news(seen, held, keys("a"))


def test_a_changed_node_at_which_nobody_has_looked_is_unknown_unless_the_component_goes() -> None:
    state, seen = running("queue"), replace(board(), looked={})
    assert boards.holds(seen, state, AT) == (model.RuleHold("queue", S.UNKNOWN, AT, NODES["a"]),)
    assert boards.is_news(seen, state, keys("a"))
    [key] = keys("a")
    each = state.changes[key]
    gone = replace(each, change=replace(each.change, kind=model.ChangeKind.REMOVE))
    assert boards.holds(seen, replace(state, changes=state.changes.insert(key, gone)), AT) == ()
    other = replace(each, change=replace(each.change, component=model.ComponentName("db")))
    assert boards.holds(seen, replace(state, changes=state.changes.insert(key, other)), AT) == ()


def test_of_what_fires_and_what_is_unknown_is_told() -> None:
    found = [
        model.Watched("queue", NODES["a"], watch(S.FIRING)),
        model.Watched("all", None, watch(S.UNKNOWN)),
        model.Watched("queue", NODES["b"], watch(S.PENDING)),
    ]
    assert [boards.is_held(each) for each in found] == [True, True, False]
    assert [(each.code, each.message) for each in map(boards.reason, found[:2])] == [
        ("rule_firing", "rule queue fires on a"),
        ("rule_unknown", "nobody can tell whether rule all fires on the fleet"),
    ]


def test_whether_a_rule_fires_is_told_of_each_place_where_it_is_not_at_rest() -> None:
    states: dict[boards.Key, S] = {
        ("queue", NODES["a"]): S.FIRING,
        ("queue", NODES["b"]): S.PENDING,
        ("all", None): S.UNKNOWN,
    }
    watches: HashTrieMap[boards.Key, model.Watch] = HashTrieMap({key: watch(state) for key, state in states.items()})
    rules = {"queue": rule(), "all": rule(name="all"), "calm": rule(name="calm")}
    assert boards.sights(boards.Board(AT, rules, watches, {})) == {
        "queue": {NODES["a"]: True, NODES["b"]: False},
        "all": {None: None},
        "calm": {},
    }


@pytest.mark.parametrize(
    ("looked", "words"),
    [
        (rule(), "queue above 5, over 0:00:30, until at most 3"),
        (
            rule(is_below=True, fire_at=0.5, clear_at=0.8, measure=model.Measure(model.MeasureKind.RATIO, "h", "r")),
            "h for each of r below 0.5, over 0:00:30, until at least 0.8",
        ),
        (
            rule(basis=model.RuleBasis.OWN_PAST, measure=model.Measure(model.MeasureKind.QUANTILE, "t")),
            "the 99 % quantile of t above 5 times what it was in the 1:00:00 before, over 0:00:30, until at most 3",
        ),
        (
            rule(basis=model.RuleBasis.TRENDLINE, fire_at=1.5, clear_at=1.2),
            "queue above 1.5 times what the line of the 1:00:00 before leads to, over 0:00:30, until at most 1.2",
        ),
    ],
)
def test_what_a_rule_watches_for_is_said_in_words(looked: model.Rule, words: str) -> None:
    assert phrases.condition(looked) == words
