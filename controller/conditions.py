"""Conditions over a node, in CEL: compiled and type-checked when they are stored, evaluated with a bound on their cost.

Theory of operation. A condition sees ``node`` and ``metrics``, both typed, so that a misspelt field and a comparison of
a double with an int are refused beforehand; what only a node can tell (a label, a component, a metric) is looked up by
its name, and is missing where the node lacks it. Then, or where the evaluation fails or is stopped, the condition is
unknown: neither true nor false. As CEL has it, ``true || missing`` is true; ``has(node.labels.zone)`` and
``"zone" in node.labels`` ask for presence.

Rules kept: fails closed; an evaluation is bounded by the library's 10,000 iterations, and nothing in it can grow with
them: ``map``, ``filter``, the joining of texts and lists, and regular expressions are left out of the language. Left
out: what follows from a condition that is unknown.

The library has traps. An error of an evaluation is a value whose text is true in Python, so the type is asked first;
the end of the iterations is raised all the same. A number in a comparison with a double has a point: ``1.0``.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import cel_expr_python.cel as cel  # noqa: PLR0402 # mypy finds the stub of a folder that is no package only so
from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

from controller.core import errors, model

TEXT_LENGTH_MAX = 1_000  # characters; the worst that fits in takes a fifth of a second and 120 MiB
COMPILED_MAX = 256  # texts that are kept compiled; a graph has fewer
_MESSAGE_LENGTH_MAX = 300  # characters of what the compiler says
_RULE = f"CEL of at most {TEXT_LENGTH_MAX} characters over node and metrics that gives a bool"

_PACKAGE = "instar.condition"
_FIELD = descriptor_pb2.FieldDescriptorProto
_LANGUAGE = """
stdlib:
  exclude_macros: [filter, map]
  exclude_functions:
    - name: _+_
      overloads: [{id: add_bytes}, {id: add_list}, {id: add_string}]
    - name: matches
"""


@dataclass(frozen=True, slots=True)
class Condition:
    """A compiled condition.

    Args:
        text: As it was written.
    """

    text: str
    _compiled: cel.Expression

    def holds(self, node: model.Node, metrics: Mapping[str, float]) -> bool | None:
        """Tell whether it holds; None where that is unknown.

        Args:
            node: What is known of the node.
            metrics: By name; one that is not finite counts as missing.
        """
        finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
        try:
            found = self._compiled.eval(data={"node": _said(node), "metrics": finite})
        except RuntimeError:  # its iterations are used up
            return None
        return found.value() is True if found.type() == cel.Type.BOOL else None


def compile(text: str, field: str) -> Condition:  # noqa: A001 # as `re.compile`: never called without its module
    """Compile a condition.

    Args:
        text: In CEL.
        field: What the refusal calls the text.

    Raises:
        InvalidRequestError: It is too long, is no CEL, names what there is not, or gives no bool.
    """
    if len(text) > TEXT_LENGTH_MAX:
        raise _refusal(text, field, f"it is longer than {TEXT_LENGTH_MAX} characters")
    try:
        text.encode()  # refuses here what the library could not read
        compiled = _compiled(text)
    except (RuntimeError, UnicodeError) as error:
        raise _refusal(text, field, _complaint(str(error))) from error
    if compiled.return_type() != cel.Type.BOOL:
        raise _refusal(text, field, f"it gives {compiled.return_type().name()}, and must give a bool")
    return Condition(text, compiled)


def holds(text: str, node: model.Node, metrics: Mapping[str, float]) -> bool | None:
    """Tell whether a stored condition holds; None where that is unknown, also where it no longer compiles."""
    try:
        return compile(text, "condition").holds(node, metrics)
    except errors.InvalidRequestError:  # it was stored under another schema
        return None


def _refusal(text: str, field: str, why: str) -> errors.InvalidRequestError:
    return errors.InvalidRequestError(
        f"cannot use {field} {text[:TEXT_LENGTH_MAX]!r}: {why}",
        code="invalid_condition",
        field=field,
        value=text[:TEXT_LENGTH_MAX],
        rule=_RULE,
    )


def _complaint(text: str) -> str:
    """Take what the compiler complains of first out of its text, without its own picture of the expression."""
    first = text.partition("\n")[0].partition("ERROR: <input>:")[2] or text.partition("\n")[0]
    return first.removesuffix(" [INVALID_ARGUMENT]")[:_MESSAGE_LENGTH_MAX]


@functools.lru_cache(maxsize=COMPILED_MAX)
def _compiled(text: str) -> cel.Expression:
    return _environment().compile(text)


@functools.cache
def _environment() -> cel.Env:
    pool, _ = _schema()
    return cel.NewEnv(
        descriptor_pool=pool,
        config=cel.NewEnvConfigFromYaml(_LANGUAGE),
        variables={
            "node": cel.Type(f"{_PACKAGE}.Node"),
            "metrics": cel.Type.Map(cel.Type.STRING, cel.Type.DOUBLE),
        },
    )


def _said(node: model.Node) -> message.Message:
    """Say a node in the words of the schema."""
    _, make = _schema()
    return make(
        id=node.id,
        labels=dict(node.labels),
        capabilities=sorted(node.capabilities),
        agent_version=node.agent_version,
        connected=node.is_connected,
        components={
            name: {
                "version": each.version,
                "digest": each.digest,
                "health": each.health.value,
                "stopped": each.is_stopped,
            }
            for name, each in node.components.items()
        },
    )


@functools.cache
def _schema() -> tuple[descriptor_pool.DescriptorPool, type[message.Message]]:
    """Declare what a condition sees of a node; a pool of its own keeps it off the wire's messages."""
    file = descriptor_pb2.FileDescriptorProto(name=f"{_PACKAGE}.proto", package=_PACKAGE, syntax="proto3")
    component = file.message_type.add(name="Component")
    for name in ("version", "digest", "health"):
        _add(component, name, _FIELD.TYPE_STRING)
    _add(component, "stopped", _FIELD.TYPE_BOOL)
    node = file.message_type.add(name="Node")
    _add(node, "id", _FIELD.TYPE_STRING)
    _add_map(node, "labels")
    _add(node, "capabilities", _FIELD.TYPE_STRING).label = _FIELD.LABEL_REPEATED
    _add(node, "agent_version", _FIELD.TYPE_STRING)
    _add(node, "connected", _FIELD.TYPE_BOOL)
    _add_map(node, "components", component.name)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool, message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Node"))


def _add(
    owner: descriptor_pb2.DescriptorProto, name: str, type_: _FIELD.Type.ValueType, message_name: str = ""
) -> descriptor_pb2.FieldDescriptorProto:
    added = owner.field.add(name=name, number=len(owner.field) + 1, type=type_, label=_FIELD.LABEL_OPTIONAL)
    if message_name:
        added.type_name = f".{_PACKAGE}.{message_name}"
    return added


def _add_map(owner: descriptor_pb2.DescriptorProto, name: str, message_name: str = "") -> None:
    """Add a map from text to text, or to a message."""
    entry = owner.nested_type.add(name=f"{name.capitalize()}Entry")
    entry.options.map_entry = True
    _add(entry, "key", _FIELD.TYPE_STRING)
    _add(entry, "value", _FIELD.TYPE_MESSAGE if message_name else _FIELD.TYPE_STRING, message_name)
    _add(owner, name, _FIELD.TYPE_MESSAGE, f"{owner.name}.{entry.name}").label = _FIELD.LABEL_REPEATED
