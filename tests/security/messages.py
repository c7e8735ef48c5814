"""Any message of a type, as a strategy of hypothesis made from its descriptor.

Numbers are drawn at the ends of their ranges as often as between, texts also very long or of odd characters, enums also
beyond what they name, times beyond every calendar; lists also very long; and next to all of that what would be right.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from google.protobuf import descriptor, descriptor_pool, message, message_factory
from hypothesis import strategies as st

Strategy = st.SearchStrategy[Any]
_Kind = descriptor.FieldDescriptor
DEPTH_MAX = 12  # of messages within each other; no type of ours is nested more deeply by itself
LONG = 2_000  # entries of a list that is very long
LONG_BYTES_MAX = 512  # of one of them: a megabyte in all
_SIGNED = {_Kind.CPPTYPE_INT32: 32, _Kind.CPPTYPE_INT64: 64}
_UNSIGNED = {_Kind.CPPTYPE_UINT32: 32, _Kind.CPPTYPE_UINT64: 64}
_RIGHT = ("n-1", "web", "1.0.0", "boot", "web-1.1.0", "r/1", "team=web", "process", "sha256:" + "0" * 64, "zone", "a")
_ODD = (
    "",
    "\0",
    "a\nb",
    "../../etc/passwd",
    "é😀",
    "\u202e",
    "x" * 300,
    "😀" * 2_000,
    "x" * 100_000,
    "%s{}$(id)",
    "-" * 64,
)
_TEXTS = st.one_of(st.sampled_from(_RIGHT), st.sampled_from(_ODD), st.text(max_size=20))
_BYTES = st.one_of(st.binary(max_size=64), st.just(bytes(100_000)))
_FLOATS = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, float("nan"), float("inf"), float("-inf"), 1.7e308, 5e-324]), st.floats(width=32)
)


def messages(kind: type[message.Message]) -> Strategy:
    """Any message of a type."""
    return _messages(kind.DESCRIPTOR.full_name, DEPTH_MAX)


@functools.cache
def _messages(full_name: str, depth: int) -> Strategy:
    kind = _class(full_name)
    fields = {each.name: _field(each, depth) for each in kind.DESCRIPTOR.fields if depth or each.message_type is None}
    some = st.lists(st.sampled_from(sorted(fields)), max_size=4, unique=True) if fields else st.just([])
    chosen = some.flatmap(lambda names: st.fixed_dictionaries({name: fields[name] for name in names}))
    every = st.fixed_dictionaries(fields)
    return st.one_of(chosen, chosen, every).map(functools.partial(_made, kind))


def _class(full_name: str) -> type[message.Message]:
    return message_factory.GetMessageClass(descriptor_pool.Default().FindMessageTypeByName(full_name))


def _made(kind: type[message.Message], values: Mapping[str, Any]) -> message.Message:
    found = kind()
    for name, value in values.items():
        _put(found, kind.DESCRIPTOR.fields_by_name[name], value)
    return found


def _put(found: message.Message, field: Any, value: Any) -> None:  # noqa: ANN401  # whatever the field holds
    target = getattr(found, field.name)
    if _is_map(field):
        for key, one in value.items():
            if field.message_type.fields_by_name["value"].message_type is None:
                target[key] = one
            else:
                target[key].CopyFrom(one)
    elif field.is_repeated:
        target.extend(value)
    elif field.message_type is not None:
        target.CopyFrom(value)
    else:
        setattr(found, field.name, value)


def _field(field: Any, depth: int) -> Strategy:  # noqa: ANN401  # the stubs know two classes of this name
    if _is_map(field):
        pair = field.message_type.fields_by_name
        return st.dictionaries(_one(pair["key"], depth), _one(pair["value"], depth), max_size=4)
    one = _one(field, depth)
    if not field.is_repeated:
        return one
    return st.one_of(st.lists(one, max_size=3), st.lists(one, max_size=3), one.map(_long))


def _long(one: Any) -> list[Any]:  # noqa: ANN401  # whatever the list holds
    """Very many of one entry, where that is no more than messages may be long."""
    size = one.ByteSize() if isinstance(one, message.Message) else len(one) if isinstance(one, str | bytes) else 8
    return [one] * (LONG if size <= LONG_BYTES_MAX else 2)


def _one(field: Any, depth: int) -> Strategy:  # noqa: ANN401  # as above; one answer for each kind
    kind = field.cpp_type
    if kind in _SIGNED:
        return _numbers(-(2 ** (_SIGNED[kind] - 1)), 2 ** (_SIGNED[kind] - 1) - 1)
    if kind in _UNSIGNED:
        return _numbers(0, 2 ** _UNSIGNED[kind] - 1)
    if kind in (_Kind.CPPTYPE_DOUBLE, _Kind.CPPTYPE_FLOAT):
        return _FLOATS
    if kind == _Kind.CPPTYPE_BOOL:
        return st.booleans()
    if kind == _Kind.CPPTYPE_ENUM:
        known = [each.number for each in field.enum_type.values]
        return st.one_of(st.sampled_from(known), st.sampled_from(known), _numbers(-(2**31), 2**31 - 1))
    if kind == _Kind.CPPTYPE_MESSAGE:
        return _messages(field.message_type.full_name, max(0, depth - 1))
    return _BYTES if field.type == _Kind.TYPE_BYTES else _TEXTS


def _numbers(least: int, most: int) -> Strategy:
    ends = sorted({least, most, 0, 1, 2, max(least, -1), most // 2})
    return st.one_of(st.sampled_from(ends), st.integers(least, most), st.integers(0, 100))


def _is_map(field: Any) -> bool:  # noqa: ANN401  # as above
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def bodies(kind: type[message.Message]) -> Strategy:
    """Bytes that are nearly a message: cut off, with a byte changed, nested without end, or nothing of the kind."""
    whole = messages(kind).map(lambda one: one.SerializeToString()[:100_000])
    cut = st.tuples(whole, st.floats(0, 1)).map(lambda pair: pair[0][: int(len(pair[0]) * pair[1])])
    changed = st.tuples(whole, st.floats(0, 0.999), st.integers(0, 255)).map(_changed)
    nested = st.sampled_from([_nested(number, depth) for number in (1, 2, 3, 9) for depth in (50, 5_000)])
    return st.one_of(cut, changed, st.binary(max_size=200), nested)


def _changed(drawn: tuple[bytes, float, int]) -> bytes:
    body, at, value = drawn
    position = int(len(body) * at)
    return body[:position] + bytes([value]) + body[position + 1 :]


def _nested(number: int, depth: int) -> bytes:
    """A field within itself: as a message, or as a group that no longer exists."""
    if number == 9:
        return bytes([(number << 3) | 3]) * depth + bytes([(number << 3) | 4]) * depth
    body = b""
    for _ in range(min(depth, 1_000)):
        size = len(body)
        prefix = bytearray([(number << 3) | 2])
        while size > 127:  # seven bits of a varint
            prefix.append((size & 127) | 128)
            size >>= 7
        prefix.append(size)
        body = bytes(prefix) + body
    return body
