"""What an expression is made of: what it reads, what it may cost, and what it divides by.

Theory of operation. The library gives the checked expression as bytes of ``cel.expr.CheckedExpr``, of which the parts
that matter here are declared below, by their numbers. A name that a macro binds stands for what it goes through.

Rules kept: what is not understood counts as reading everything, and as costing more than is allowed. Left out: what the
names mean (`nodes`, `filters`).

Source: https://github.com/google/cel-spec/tree/master/proto/cel/expr (``syntax.proto``, ``checked.proto``).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

COST_MAX = 50_000  # steps of one evaluation; some 3 ms of a core
_SIZE_UNKNOWN = 1_024  # of what a macro goes through where nothing tells
DIVISOR = "@divisor"  # no name that a text can hold
_DIVISION = "_/_"
_PACKAGE = "instar.expression"

_FIELD = descriptor_pb2.FieldDescriptorProto
_MANY = _FIELD.LABEL_REPEATED
_ONE = _FIELD.LABEL_OPTIONAL
# Of each message its fields: name, number, label and type, which is the name of a message or a scalar.
_MESSAGES: Mapping[str, tuple[tuple[str, int, _FIELD.Label.ValueType, str | _FIELD.Type.ValueType], ...]] = {
    "Any": (("value", 2, _ONE, _FIELD.TYPE_BYTES),),
    "Checked": (("expression", 4, _ONE, "Expression"),),
    "Constant": (("text", 6, _ONE, _FIELD.TYPE_STRING),),
    "Identifier": (("name", 1, _ONE, _FIELD.TYPE_STRING),),
    "Selection": (("operand", 1, _ONE, "Expression"), ("field", 2, _ONE, _FIELD.TYPE_STRING)),
    "Call": (
        ("target", 1, _ONE, "Expression"),
        ("function", 2, _ONE, _FIELD.TYPE_STRING),
        ("arguments", 3, _MANY, "Expression"),
    ),
    "List": (("elements", 1, _MANY, "Expression"),),
    "Entry": (("key", 3, _ONE, "Expression"), ("value", 4, _ONE, "Expression")),
    "Structure": (("entries", 2, _MANY, "Entry"),),
    "Loop": (
        ("variable", 1, _ONE, _FIELD.TYPE_STRING),
        ("range", 2, _ONE, "Expression"),
        ("result_variable", 3, _ONE, _FIELD.TYPE_STRING),
        ("begin", 4, _ONE, "Expression"),
        ("condition", 5, _ONE, "Expression"),
        ("step", 6, _ONE, "Expression"),
        ("result", 7, _ONE, "Expression"),
        ("second_variable", 8, _ONE, _FIELD.TYPE_STRING),
    ),
    "Expression": (
        ("constant", 3, _ONE, "Constant"),
        ("identifier", 4, _ONE, "Identifier"),
        ("selection", 5, _ONE, "Selection"),
        ("call", 6, _ONE, "Call"),
        ("list", 7, _ONE, "List"),
        ("structure", 8, _ONE, "Structure"),
        ("loop", 9, _ONE, "Loop"),
    ),
}
_COMPARISONS = frozenset({"_==_", "_!=_", "@in"})  # what goes through a whole list or map

_CONDITION, _STEP = 2, 3  # which parts of a macro are evaluated each time

Path: TypeAlias = tuple[str, ...]
Sizes: TypeAlias = Mapping[Path, int]  # of the lists and maps that are spoken of, by the way to them


@dataclass(frozen=True, slots=True)
class Tree:
    """A parsed expression.

    Args:
        kind: Which of the fields of ``Expression`` it is; empty where that is not known.
        name: Of a variable, a field or a function; of a constant that is a text, that text.
        parts: What it is made of, in order; of a call the target first.
        variables: Those that a macro binds.
    """

    kind: str
    name: str | None = None
    parts: tuple[Tree, ...] = ()
    variables: frozenset[str] = frozenset()


_UNKNOWN = Tree("")


@dataclass(frozen=True, slots=True)
class Names:
    """What a condition over a node reads.

    Args:
        metrics: Names of series.
        labels: Keys of labels.
        components: Names of components.
        fields: Of the node, beside its labels and components.
        is_whole: Whether that is all; False where it cannot be told, and any change may matter.
    """

    metrics: frozenset[str]
    labels: frozenset[str]
    components: frozenset[str]
    is_whole: bool
    fields: frozenset[str] = frozenset()


def read(serialized: bytes) -> Tree:
    """Read what the library has serialized."""
    made = _messages()
    try:
        wrapped: Any = made["Any"].FromString(serialized)
        checked: Any = made["Checked"].FromString(wrapped.value)
    except message.DecodeError:  # deeper than a message may be
        return _UNKNOWN
    return _tree(checked.expression)


def guarded(serialized: bytes) -> bytes:
    """Put a call of ``DIVISOR`` around all that anything is divided by, in what the library has serialized."""
    made = _messages()
    wrapped: Any = made["Any"].FromString(serialized)
    checked: Any = made["Checked"].FromString(wrapped.value)
    _guard(checked.expression)
    wrapped.value = checked.SerializeToString()
    found: bytes = wrapped.SerializeToString()
    return found


def _guard(found: message.Message) -> None:
    for field, value in found.ListFields():
        if field.message_type is not None:
            for each in value if field.is_repeated else (value,):
                _guard(each)
    call: Any = found
    if found.DESCRIPTOR.name == "Call" and call.function == _DIVISION:
        divisor: Any = type(call.arguments[1])()
        divisor.call.function = DIVISOR
        divisor.call.arguments.add().CopyFrom(call.arguments[1])
        call.arguments[1].CopyFrom(divisor)


def paths(tree: Tree, roots: frozenset[str]) -> Iterator[Path | None]:
    """Give the longest ways that an expression goes from some variables, by constant names; None for what is not told.

    Args:
        tree: The expression.
        roots: The variables.
    """
    found = _path(tree)
    if found is not None:
        if found[0] in roots:
            yield found
        return
    if not tree.kind or tree.variables & roots:  # one that hides a variable behind its own is not understood
        yield None
    for each in tree.parts:
        yield from paths(each, roots)


def cost(tree: Tree, sizes: Sizes) -> int:
    """Say how many steps an evaluation may take.

    Args:
        tree: The expression.
        sizes: What the lists and maps that it speaks of may hold.
    """
    if not tree.kind:
        return COST_MAX + 1
    costs = [cost(each, sizes) for each in tree.parts]
    if tree.kind == "loop":
        size = _size(tree.parts[0], sizes)
        times = _SIZE_UNKNOWN if size is None else size
        return 1 + sum(costs) + times * (1 + costs[_CONDITION] + costs[_STEP])
    through = [_size(each, sizes) or 0 for each in tree.parts if tree.name in _COMPARISONS]
    return 1 + sum(costs) + max(through, default=0)


def _path(tree: Tree) -> Path | None:
    """Give the way from a variable to what an expression stands for; None where it is no such way."""
    match tree:
        case Tree("identifier", str(name)):
            return (name,)
        case (
            Tree("selection", str(name), (of,))
            | Tree("call", "_[_]", (of, Tree("constant", str(name))))
            | Tree("call", "@in", (Tree("constant", str(name)), of))
        ):
            before = _path(of)
            return None if before is None else (*before, name)
        case _:
            return None


def _size(tree: Tree, sizes: Sizes) -> int | None:
    """Say how much a list or map may hold; None where that is not known."""
    if tree.kind in ("list", "structure"):
        return len(tree.parts)
    return sizes.get(_path(tree) or ())


def _tree(found: Any) -> Tree:  # noqa: ANN401 a message of a class that is made here has no type of its own
    kind = next((field.name for field, _ in found.ListFields()), "")
    of: Any = getattr(found, kind) if kind else None
    match kind:
        case "constant":
            return Tree(kind, of.text if of.HasField("text") else None)
        case "identifier":
            return Tree(kind, of.name)
        case "selection":
            return Tree(kind, of.field, (_tree(of.operand),))
        case "call":
            target = (of.target,) if of.HasField("target") else ()
            return Tree(kind, of.function, tuple(map(_tree, (*target, *of.arguments))))
        case "list":
            return Tree(kind, None, tuple(map(_tree, of.elements)))
        case "structure":
            return Tree(kind, None, tuple(_tree(part) for each in of.entries for _, part in each.ListFields()))
        case "loop":
            parts = tuple(map(_tree, (of.range, of.begin, of.condition, of.step, of.result)))
            return Tree(kind, None, parts, frozenset({of.variable, of.second_variable, of.result_variable}))
        case _:
            return _UNKNOWN


@functools.cache
def _messages() -> Mapping[str, type[message.Message]]:
    """Declare the messages, in a pool of their own."""
    file = descriptor_pb2.FileDescriptorProto(name=f"{_PACKAGE}.proto", package=_PACKAGE, syntax="proto2")
    for name, fields in _MESSAGES.items():
        declared = file.message_type.add(name=name)
        for field, number, label, kind in fields:
            added = declared.field.add(name=field, number=number, label=label)
            if isinstance(kind, str):
                added.type, added.type_name = _FIELD.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
            else:
                added.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in _MESSAGES
    }
