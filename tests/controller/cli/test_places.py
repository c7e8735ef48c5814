"""Where the keys of a document stand."""

from __future__ import annotations

import json
import tomllib

import pytest

from controller.cli import places

TOML = """# a comment with [brackets] and = signs
title = "x" # of the whole

[[triggers]]
name = "a # b"
"quoted.key" = 1
dotted.key = 2
[triggers.when.threshold]
condition = '''
[[not]]
a = "table"
'''
selector = 'zone="a"'
nodes_min = 2

[[triggers]]
name = \"\"\"b \\\"\"\" still
\"\"\"
guards = { windows = [
  "sat 00:00+24h", # one
  { opens = "1s" },
], approval.deadline = "1h" }
when = 1979-05-27 07:32:00
[triggers.action]
upgrade = {}
"""


def test_each_key_table_and_item_of_toml_has_its_line() -> None:
    tomllib.loads(TOML)
    assert places.of_toml(TOML) == {
        ("title",): 2,
        ("triggers",): 4,
        ("triggers", 0): 4,
        ("triggers", 0, "name"): 5,
        ("triggers", 0, "quoted.key"): 6,
        ("triggers", 0, "dotted"): 7,
        ("triggers", 0, "dotted", "key"): 7,
        ("triggers", 0, "when"): 8,
        ("triggers", 0, "when", "threshold"): 8,
        ("triggers", 0, "when", "threshold", "condition"): 9,
        ("triggers", 0, "when", "threshold", "selector"): 13,
        ("triggers", 0, "when", "threshold", "nodes_min"): 14,
        ("triggers", 1): 16,
        ("triggers", 1, "name"): 17,
        ("triggers", 1, "guards"): 19,
        ("triggers", 1, "guards", "windows"): 19,
        ("triggers", 1, "guards", "windows", 0): 20,
        ("triggers", 1, "guards", "windows", 1): 21,
        ("triggers", 1, "guards", "windows", 1, "opens"): 21,
        ("triggers", 1, "guards", "approval"): 22,
        ("triggers", 1, "guards", "approval", "deadline"): 22,
        ("triggers", 1, "when"): 23,
        ("triggers", 1, "action"): 24,
        ("triggers", 1, "action", "upgrade"): 25,
    }


def test_each_key_and_item_of_json_has_its_line() -> None:
    text = json.dumps({"a.b": [1, {"c": "}"}, [None, True]], "d": {}}, indent=1)
    assert places.of_json(text) == {
        ("a.b",): 2,
        ("a.b", 0): 3,
        ("a.b", 1): 4,
        ("a.b", 1, "c"): 5,
        ("a.b", 2): 7,
        ("a.b", 2, 0): 8,
        ("a.b", 2, 1): 9,
        ("d",): 12,
    }


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("triggers", 0, "when", "threshold", "clear"), 8),
        (("triggers", 1, "when", "schedule", "cron"), 23),
        (("triggers", 0, "guards", "cooldown"), 4),
        (("nothing",), 1),
    ],
)
def test_what_is_not_there_is_shown_at_what_it_would_be_in(path: places.Path, line: int) -> None:
    assert places.nearest(places.of_toml(TOML), path) == line
