"""What may be declared, what keeps it, and that a copy shares nothing that can change."""

import copy
import enum

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar_handover import module_schema

ORDERS = {
    "orders": {"*": {"total": "float", "lines": ["str"], "raw": "bytes"}},
    "last": ("int", "none", {"at": "int"}),
    "flags": ["bool"],
    "nested": [{"*": ["int"]}],
}
ORDER = st.fixed_dictionaries({"total": st.floats(allow_nan=False), "lines": st.lists(st.text()), "raw": st.binary()})
STATES = st.fixed_dictionaries(
    {
        "orders": st.dictionaries(st.text(), ORDER),
        "last": st.one_of(st.integers(), st.none(), st.fixed_dictionaries({"at": st.integers()})),
        "flags": st.lists(st.booleans()),
        "nested": st.lists(st.dictionaries(st.text(), st.lists(st.integers()))),
    }
)


class Shade(enum.IntEnum):
    """A number with behaviour."""

    DARK = 1


class Name(str):
    """A text with behaviour."""

    __slots__ = ()


@settings(max_examples=40)
@given(STATES)
def test_a_copy_is_equal_and_changing_it_deeply_leaves_the_original_alone(state: dict[str, object]) -> None:
    schema = module_schema.read(ORDERS)
    before = copy.deepcopy(state)
    [copied] = schema.copied([state])
    schema.check([state])
    assert copied == before
    _spoil(copied)
    assert state == before


@pytest.mark.parametrize(
    ("declared", "data"),
    [
        ("int", True),
        ("int", Shade.DARK),
        ("float", 1),
        ("str", b""),
        ("none", 0),
        (["int"], [1, "2"]),
        (["int"], (1, 2)),
        ({"*": "int"}, {1: 1}),
        ({"*": "int"}, {"a": "b"}),
        ({"a": "int"}, {}),
        ({"a": "int"}, {"a": 1, "b": 2}),
        ({"a": "int"}, {"b": 1}),
        ({"a": "int"}, {Name("a"): 1}),
        (["int"], [1, 2, Shade.DARK]),
        ([{"a": "int"}], [{"a": 1, "b": 2}, {}]),
        ([{"a": "int", "b": "int"}], [{"a": 1, "b": 2}, {"a": 1, "c": 2}]),
        ({"a": ["int"]}, {"a": [None]}),
        (("int", "none"), "x"),
        ([{"*": {"a": "int"}}], [{"x": {"a": 1}}, {"y": {"a": 1.0}}]),
    ],
)
def test_what_does_not_keep_the_declaration_is_refused_with_its_place(declared: object, data: object) -> None:
    schema = module_schema.read(declared)
    for take in (schema.check, schema.copied):
        with pytest.raises(module_schema.SchemaError, match=r"^cannot use state"):
            take([data])


@pytest.mark.parametrize(
    "declared", ["integer", int, [], ["int", "int"], (), ("int", "int"), ({"*": "int"}, {"a": "int"}), {1: "int"}, None]
)
def test_what_is_no_declaration_is_refused(declared: object) -> None:
    with pytest.raises(module_schema.SchemaError, match=r"^cannot use"):
        module_schema.read(declared)


def test_a_declaration_that_holds_itself_is_refused() -> None:
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(module_schema.SchemaError, match="levels deep"):
        module_schema.read(endless)


def _spoil(data: object) -> None:
    if isinstance(data, dict):
        for value in data.values():
            _spoil(value)
        data["spoiled"] = True
    elif isinstance(data, list):
        for value in data:
            _spoil(value)
        data.append("spoiled")


@pytest.mark.parametrize("declared", [ORDERS, "none", ["int"], ("str", "none"), {"*": ["bytes"]}])
def test_an_example_keeps_its_declaration_and_holds_one_of_everything(declared: object) -> None:
    schema = module_schema.read(declared)
    schema.check([schema.example()])
    assert schema.copied([schema.example()]) == [schema.example()]
    if declared is ORDERS:
        order = {"total": 0.0, "lines": [""], "raw": b""}
        assert schema.example() == {"orders": {"": order}, "last": 0, "flags": [False], "nested": [{"": [0]}]}


@pytest.mark.parametrize("declared", [{"*": {"total": "int"}}, [{"total": "int"}]])
@pytest.mark.parametrize("place", [0, module_schema.TOGETHER_MAX, 2 * module_schema.TOGETHER_MAX + 5])
def test_one_wrong_value_among_many_is_found_wherever_it_stands(declared: object, place: int) -> None:
    schema = module_schema.read(declared)
    entries: list[dict[str, object]] = [{"total": 1} for _ in range(2 * module_schema.TOGETHER_MAX + 6)]
    state = entries if isinstance(declared, list) else {str(number): each for number, each in enumerate(entries)}
    schema.check([state])
    entries[place]["total"] = "1"
    with pytest.raises(module_schema.SchemaError, match=r"total: a value or key is str, not int"):
        schema.check([state])
