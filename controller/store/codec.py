"""Values of the core as JSON, and back: total over the types that the core uses, driven by their annotations.

Most of what a transaction costs is to write its values down. So the form of a type writes text, with no plain values in
between, and what writes the fields of a dataclass is written as code, once, as ``dataclasses`` writes constructors: all
that is constant in its text stands in one literal, and a text, a number or a None among its fields takes no call.

Rules kept: ``load(dump(value)) == value``; equal values give equal text (maps and sets are sorted); each text carries
the version of its form; a text of a known older form loads with the defaults of the fields that it lacks; an unknown
key, member or version is an error, never a guess. Left out: which table a text stands in.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Generic, TypeVar

import rpds

Key = TypeVar("Key")
Value = TypeVar("Value")

# The form of the JSON. Raise it when a stored value could no longer be read as it stands, and say how to read the old.
VERSION = 1
_TAG = "is"
_MICROSECOND = timedelta(microseconds=1)
# Instants and spans whose texts are kept: what is written together was mostly decided at once, by the same policy.
_TIMES_MAX = 256

Write = Callable[[Any], str]
Load = Callable[[Any], Any]

_quoted = json.encoder.encode_basestring_ascii


class PersistentMap(Generic[Key, Value]):
    """Stands for ``rpds.HashTrieMap`` in annotations, which has no type arguments when the program runs."""


class CodecError(Exception):
    """A text cannot be read as the wanted type, or a type cannot be stored at all."""


@dataclasses.dataclass(frozen=True, slots=True)
class Form:
    """How one type becomes JSON text, and is made again of plain JSON values.

    Args:
        code: What ``write`` does with the usual values, as an expression of ``{it}``; ``{write}`` is for all others.
    """

    write: Write
    load: Load
    code: str = "{write}({it})"


def encode(value: object, hint: object, *, without: frozenset[str] = frozenset()) -> str:
    """Write a value as versioned JSON text.

    The hint is the type that the value is stored as; a union stores which member it was. ``without`` names the fields
    of a dataclass that are stored elsewhere.
    """
    write = _fields_writer(hint, without) if without else form(hint).write
    return f'{{"v":{VERSION},"data":{write(value)}}}'


def decode(text: str, hint: object, **elsewhere: object) -> Any:  # noqa: ANN401 the hint is the type
    """Read what ``encode`` wrote.

    ``elsewhere`` gives the fields that ``encode`` was told to leave out.

    Raises:
        CodecError: The text is of another version or does not fit the hint.
    """
    envelope = json.loads(text)
    if envelope.get("v") != VERSION:
        raise CodecError(f"cannot read a value of form {envelope.get('v')!r}: this program reads form {VERSION}")
    load = _fields_loader(hint, elsewhere) if elsewhere else form(hint).load
    return load(envelope["data"])


@functools.cache
def form(hint: object) -> Form:
    """Derive the form of a type from its annotation.

    Raises:
        CodecError: No rule covers the type.
    """
    hint = getattr(hint, "__supertype__", hint)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _union_form(arguments)
    if origin is not None:
        return _generic_form(origin, arguments)
    if isinstance(hint, type):
        return _plain_form(hint)
    raise CodecError(f"cannot store {hint!r}: no rule says how")


def _plain_form(hint: type) -> Form:
    if dataclasses.is_dataclass(hint) or hasattr(hint, "_fields"):
        return Form(_fields_writer(hint, frozenset()), _fields_loader(hint, {}))
    if issubclass(hint, Enum):
        # The property takes ten times as long.
        return Form(lambda value: _quoted(value._value_), _checked(hint, hint), "quoted({it}._value_)")
    if hint is datetime:
        return Form(_write_instant, _checked(hint, datetime.fromisoformat))
    if hint is timedelta:
        return Form(_write_span, lambda data: timedelta(microseconds=data))
    if hint in _SCALARS:
        return _scalar_form(hint)
    raise CodecError(f"cannot store {hint!r}: no rule says how")


@functools.lru_cache(maxsize=_TIMES_MAX)
def _write_instant(value: datetime) -> str:
    if value.tzinfo is None:
        raise CodecError(f"cannot store {value!r}: an instant without a zone is ambiguous")
    return f'"{value.astimezone(UTC).isoformat()}"'


@functools.lru_cache(maxsize=_TIMES_MAX)
def _write_span(value: timedelta) -> str:
    return str(value // _MICROSECOND)


def _write_float(value: float) -> str:
    if not math.isfinite(value):
        raise CodecError(f"cannot store {value!r}: JSON has no such number")
    return repr(value)


_SCALARS: Mapping[type, Write] = {
    str: _quoted,
    int: str,
    float: _write_float,
    bool: lambda value: "true" if value else "false",
}


_SCALAR_CODES: Mapping[type, str] = {
    str: "(quoted({it}) if type({it}) is str else {write}({it}))",
    int: "(str({it}) if type({it}) is int else {write}({it}))",
    bool: "(true if {it} is True else false if {it} is False else {write}({it}))",
    float: "{write}({it})",
}


def _scalar_form(kind: type) -> Form:
    accepted, text = (float, int) if kind is float else (kind,), _SCALARS[kind]

    def check(value: object) -> object:
        if type(value) not in accepted:
            raise CodecError(f"cannot store or read {value!r} as {kind.__name__}")
        return value

    def write(value: object) -> str:
        return text(value) if type(value) is kind else text(check(value))

    return Form(write, check, _SCALAR_CODES[kind])


def _checked(kind: type, parse: Callable[[Any], Any]) -> Load:
    def load(data: object) -> object:
        try:
            return parse(data)
        except (TypeError, ValueError) as error:
            raise CodecError(f"cannot read {data!r} as {kind.__name__}") from error

    return load


def _generic_form(origin: Any, arguments: tuple[Any, ...]) -> Form:  # noqa: ANN401 what typing calls an origin
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:  # noqa: PLR2004 item and dots
        item = form(arguments[0])
        return Form(lambda value: _listed(map(item.write, value)), lambda data: tuple(map(item.load, data)))
    if origin is tuple:
        return _row_form(tuple(map(form, arguments)))
    if isinstance(origin, type) and issubclass(origin, AbstractSet):
        item = form(arguments[0])
        return Form(lambda value: _listed(sorted(map(item.write, value))), lambda data: frozenset(map(item.load, data)))
    if origin in (Mapping, dict, PersistentMap):
        return _map_form(form(arguments[0]), form(arguments[1]), rpds.HashTrieMap if origin is PersistentMap else dict)
    raise CodecError(f"cannot store {origin!r} of {arguments!r}: no rule says how")


def _listed(texts: Iterable[str]) -> str:
    return f"[{','.join(texts)}]"


def _row_form(items: tuple[Form, ...]) -> Form:
    """Derive the form of a tuple that has a type for each place."""
    return Form(
        lambda value: _listed(item.write(each) for item, each in zip(items, value, strict=True)),
        lambda data: tuple(item.load(each) for item, each in zip(items, data, strict=True)),
    )


def _map_form(key: Form, item: Form, make: Callable[[Any], Any]) -> Form:
    def write(value: Mapping[Any, Any]) -> str:
        pairs = sorted((key.write(each), item.write(value[each])) for each in value)
        return _listed(map(_listed, pairs))

    return Form(write, lambda data: make((key.load(each), item.load(value)) for each, value in data))


def _union_form(members: tuple[Any, ...]) -> Form:
    others = tuple(each for each in members if each is not type(None))
    inner = form(others[0]) if len(others) == 1 and len(members) == 2 else _tagged_form(others)  # noqa: PLR2004 X | None
    if len(others) == len(members):
        return inner
    return Form(
        lambda value: "null" if value is None else inner.write(value),
        lambda data: None if data is None else inner.load(data),
        f"(null if {{it}} is None else {inner.code})",
    )


def _tagged_form(members: tuple[Any, ...]) -> Form:
    forms = {member.__name__: form(member) for member in members}

    def write(value: object) -> str:
        name = type(value).__name__
        if name not in forms:
            raise CodecError(f"cannot store a {name}: it is none of {sorted(forms)}")
        fields = forms[name].write(value)[1:]
        return f'{{"{_TAG}":"{name}"{fields if fields == "}" else f",{fields}"}'

    def load(data: Mapping[str, Any]) -> object:
        if data.get(_TAG) not in forms:
            raise CodecError(f"cannot read a {data.get(_TAG)!r}: it is none of {sorted(forms)}")
        return forms[data[_TAG]].load({name: value for name, value in data.items() if name != _TAG})

    return Form(write, load)


@functools.cache
def _fields_writer(hint: Any, without: frozenset[str]) -> Write:  # noqa: ANN401 any class of named fields
    forms = {name: each for name, each in _field_forms(hint).items() if name not in without}
    fields = (f'"{name}":{{{each.code.format(it=f"value.{name}", write=f"_{name}")}}}' for name, each in forms.items())
    known = {"hint": hint, "refuse": _refuse, **_CODE_NAMES, **{f"_{name}": each.write for name, each in forms.items()}}
    check = "if type(value) is not hint: refuse(value, hint)"
    exec(f"def write(value):\n {check}\n return f'{{{{{','.join(fields)}}}}}'", known)  # noqa: S102 see above
    return typing.cast(Write, known["write"])


_CODE_NAMES = {"quoted": _quoted, "true": "true", "false": "false", "null": "null"}


def _refuse(value: object, kind: type) -> typing.NoReturn:
    raise CodecError(f"cannot store {value!r} as {kind.__name__}")


def _fields_loader(hint: Any, elsewhere: Mapping[str, object]) -> Load:  # noqa: ANN401 any class of named fields
    forms = {name: each for name, each in _field_forms(hint).items() if name not in elsewhere}

    def load(data: Mapping[str, Any]) -> object:
        if unknown := data.keys() - forms.keys():
            raise CodecError(f"cannot read {hint.__name__}: it has no field {min(unknown)!r}")
        try:
            return hint(**{name: forms[name].load(value) for name, value in data.items()}, **elsewhere)
        except TypeError as error:
            raise CodecError(f"cannot read {hint.__name__}: {error}") from error

    return load


@functools.cache
def _field_forms(hint: Any) -> dict[str, Form]:  # noqa: ANN401 any class of named fields
    hints = typing.get_type_hints(hint, localns={rpds.HashTrieMap.__name__: PersistentMap})
    return {name: form(hints[name]) for name in _field_names(hint)}


def _field_names(hint: Any) -> tuple[str, ...]:  # noqa: ANN401 any class of named fields
    """Name the arguments of a value; what else a dataclass has is derived from them."""
    if dataclasses.is_dataclass(hint):
        return tuple(each.name for each in dataclasses.fields(hint) if each.init)
    return tuple(hint._fields)
