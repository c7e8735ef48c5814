"""What the state of a module looks like, declared as a literal, and the copy that proves it.

    STATE_SCHEMA = {"orders": {"*": {"total": "float", "lines": ["str"]}}, "last_id": ("int", "none")}

A word names a scalar (str, int, float, bool, bytes, none); a list of one holds such things; a dictionary with the one
key "*" has text keys of any name, any other has exactly its keys; a tuple holds alternatives of different types.

Rules kept here: exact types only, so that no object with behaviour travels; values that stand at the same place of the
declaration are checked and copied together, a processor's cache full at a time, for which a hundred thousand entries
take some milliseconds; nothing is ever pickled. Left out: what the data means.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from operator import itemgetter
from types import MappingProxyType, NoneType
from typing import Any

DEPTH_MAX = 32  # of a declaration; it also ends one that holds itself
NAMED_MAX = 8  # keys that an error names
TOGETHER_MAX = 1024  # values looked at together: with what they hold they stay in the cache from one look to the next
ANY_KEY = "*"
SCALARS: Mapping[str, type] = MappingProxyType(
    {"str": str, "int": int, "float": float, "bool": bool, "bytes": bytes, "none": NoneType}
)

Column = Collection[Any]
ONLY: Mapping[type, frozenset[type]] = MappingProxyType(
    {kind: frozenset({kind}) for kind in (*SCALARS.values(), list, dict)}
)


class SchemaError(Exception):
    """The declaration is none, or the data does not keep it."""


@dataclass(frozen=True, slots=True)
class Scalar:
    """A value that cannot change.

    Args:
        where: Its place in words, as for all others.
    """

    type: type
    where: str

    def check(self, values: Column) -> None:
        """Check values that all stand at this place; a whole state is a column of one.

        Raises:
            SchemaError: One is no such thing.
        """
        _check_type(values, self.type, self.where)

    def copied(self, values: Column) -> Column:
        """Check them, and give copies, so deep that nothing which can change is shared; see `check`."""
        _check_type(values, self.type, self.where)
        return values

    def example(self) -> object:
        """Give a small value of the kind, with one of everything that it may hold."""
        return self.type()


@dataclass(frozen=True, slots=True)
class ListOf:
    """Any number of one thing."""

    item: "Schema"
    where: str

    def check(self, values: Column) -> None:
        """Check values; see `Scalar.check`."""
        _check_type(values, list, self.where)
        for part in _parts(_joined(values)):
            self.item.check(part)

    def copied(self, values: Column) -> Column:
        """Check them, and give copies of them; see `Scalar.check`."""
        _check_type(values, list, self.where)
        items = self.item.copied(_joined(values))
        if isinstance(self.item, Scalar):
            return list(map(list.copy, values))
        taken = iter(items)
        return [list(islice(taken, len(value))) for value in values]

    def example(self) -> object:
        """Give a small value; see `Scalar.example`."""
        return [self.item.example()]


@dataclass(frozen=True, slots=True)
class MapOf:
    """Text keys, all with the same thing."""

    value: "Schema"
    where: str

    def check(self, values: Column) -> None:
        """Check values; see `Scalar.check`."""
        self._check_keys(values)
        for part in _parts(_joined(list(map(dict.values, values)))):
            self.value.check(part)

    def copied(self, values: Column) -> Column:
        """Check them, and give copies of them; see `Scalar.check`."""
        self._check_keys(values)
        held = self.value.copied(_joined(list(map(dict.values, values))))
        if isinstance(self.value, Scalar):
            return list(map(dict.copy, values))
        taken = iter(held)
        # The keys come first: zip takes no value too many when they are at their end.
        return [dict(zip(value, taken, strict=False)) for value in values]

    def example(self) -> object:
        """Give a small value; see `Scalar.example`."""
        return {"": self.value.example()}

    def _check_keys(self, values: Column) -> None:
        _check_type(values, dict, self.where)
        _check_type(_joined(values), str, self.where)


@dataclass(frozen=True, slots=True)
class Record:
    """Exactly these keys."""

    fields: Mapping[str, "Schema"]
    where: str

    def check(self, values: Column) -> None:
        """Check values; see `Scalar.check`."""
        for field, column in zip(self.fields.values(), self._columns(values), strict=True):
            field.check(column)

    def copied(self, values: Column) -> Column:
        """Check them, and give copies of them; see `Scalar.check`."""
        columns = self._columns(values)
        copies = list(map(dict.copy, values))
        for (name, field), column in zip(self.fields.items(), columns, strict=True):
            held = field.copied(column)
            if not isinstance(field, Scalar):
                for copy, child in zip(copies, held, strict=True):
                    copy[name] = child
        return copies

    def example(self) -> object:
        """Give a small value; see `Scalar.example`."""
        return {name: field.example() for name, field in self.fields.items()}

    def _columns(self, values: Column) -> Sequence[Column]:
        """Give the values of each field; where each is there, and no more keys than fields, no other key can be."""
        _check_type(values, dict, self.where)
        keys = _joined(values)
        _check_type(keys, str, self.where)
        if len(keys) != len(values) * len(self.fields):
            raise self._misnamed(values)
        try:
            return [list(map(itemgetter(name), values)) for name in self.fields]
        except KeyError:
            raise self._misnamed(values) from None

    def _misnamed(self, values: Column) -> SchemaError:
        names = self.fields.keys()
        culprit = next(value for value in values if value.keys() != names)
        return SchemaError(f"cannot use {self.where}: its keys are {_few(culprit)}, not {_few(names)}")


@dataclass(frozen=True, slots=True)
class OneOf:
    """Alternatives by the type of the value."""

    by_type: Mapping[type, "Schema"]
    where: str

    def check(self, values: Column) -> None:
        """Check values; see `Scalar.check`."""
        self._check_types(values)
        for kind, each in self.by_type.items():
            each.check([value for value in values if type(value) is kind])

    def copied(self, values: Column) -> Column:
        """Check them, and give copies of them; see `Scalar.check`."""
        self._check_types(values)
        taking: Mapping[type, Callable[[], Any]] = {
            kind: iter(each.copied([value for value in values if type(value) is kind])).__next__
            for kind, each in self.by_type.items()
        }
        return [taking[type(value)]() for value in values]

    def example(self) -> object:
        """Give a small value of the first alternative; see `Scalar.example`."""
        return next(iter(self.by_type.values())).example()

    def _check_types(self, values: Column) -> None:
        if not set(map(type, values)) <= self.by_type.keys():
            raise _broken(values, self.by_type, self.where)


Schema = Scalar | ListOf | MapOf | Record | OneOf


def read(declared: object, where: str = "state", *, depth: int = 0) -> Schema:
    """Read a declaration.

    Raises:
        SchemaError: It is none.
    """
    if depth > DEPTH_MAX:
        raise SchemaError(f"cannot use STATE_SCHEMA: it is more than {DEPTH_MAX} levels deep")
    match declared:
        case str() if declared in SCALARS:
            return Scalar(SCALARS[declared], where)
        case [item] if isinstance(declared, list):
            return ListOf(read(item, f"{where}[]", depth=depth + 1), where)
        case tuple() if declared:
            return _alternatives([read(each, where, depth=depth + 1) for each in declared], where)
        case dict() if list(declared) == [ANY_KEY]:
            return MapOf(read(declared[ANY_KEY], f"{where}.{ANY_KEY}", depth=depth + 1), where)
        case dict() if all(type(key) is str and key != ANY_KEY for key in declared):
            fields = {key: read(value, f"{where}.{key}", depth=depth + 1) for key, value in declared.items()}
            return Record(fields, where)
        case _:
            rule = f"it is one of {', '.join(SCALARS)}, a list of one, a tuple of some, or a dictionary with text keys"
            raise SchemaError(f"cannot use {declared!r} in STATE_SCHEMA: {rule}")


def _alternatives(schemas: Sequence[Schema], where: str) -> OneOf:
    by_type = {_type_of(schema): schema for schema in schemas}
    if len(by_type) < len(schemas) or tuple in by_type:
        raise SchemaError("cannot use a tuple in STATE_SCHEMA: its alternatives are of different types, none a tuple")
    return OneOf(by_type, where)


def _type_of(schema: Schema) -> type:
    match schema:
        case Scalar(kind):
            return kind
        case ListOf():
            return list
        case MapOf() | Record():
            return dict
        case OneOf():
            return tuple


def _check_type(values: Column, allowed: type, where: str) -> None:
    if not ONLY[allowed].issuperset(map(type, values)):
        raise _broken(values, ONLY[allowed], where)


def _joined(parts: Column) -> Column:
    """Give what all of them hold; of a single one nothing is copied."""
    if len(parts) == 1:
        (only,) = parts
        return only  # type: ignore[no-any-return]  # a list, a dictionary, or a view of one
    return list(chain.from_iterable(parts))


def _parts(values: Column) -> Iterator[Column]:
    if len(values) <= TOGETHER_MAX:
        yield values
        return
    left = iter(values)
    while part := list(islice(left, TOGETHER_MAX)):
        yield part


def _broken(values: Iterable[Any], allowed: Collection[type], where: str) -> SchemaError:
    culprit = next(value for value in values if type(value) not in allowed)
    wanted = " or ".join(sorted(kind.__name__ for kind in allowed))
    return SchemaError(f"cannot use {where}: a value or key is {type(culprit).__name__}, not {wanted}")


def _few(keys: Iterable[object]) -> str:
    return ", ".join(map(repr, islice(keys, NAMED_MAX))) or "none"
