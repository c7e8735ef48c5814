"""Conditions over a node.

Theory of operation. A condition sees ``node`` and ``metrics``, both typed, so that a misspelt field and a comparison of
a double with an int are refused beforehand; what only a node can tell (a label, a component, a metric) is looked up by
its name, and is missing where the node lacks it. Then, or where the evaluation fails or is stopped, the condition is
unknown: neither true nor false. As CEL has it, ``true || missing`` is true; ``has(node.labels.zone)`` and
``"zone" in node.labels`` ask for presence.

Most of an evaluation is saying what the node is, so several conditions share a node that was prepared once.

Rules kept: fails closed. Left out: what follows from a condition that is unknown.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import cel_expr_python.cel as cel  # noqa: PLR0402 # mypy finds the stub of a folder that is no package only so
from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

from controller.conditions import environments, expressions
from controller.core import errors, model

_PACKAGE = "instar.condition"
_FIELD = descriptor_pb2.FieldDescriptorProto
_ROOTS = frozenset({"node", "metrics"})
_SIZES = {  # more than a node shows
    ("metrics",): 1_024,
    ("node", "labels"): 128,
    ("node", "capabilities"): 64,
    ("node", "components"): 64,
}


@dataclass(frozen=True, slots=True)
class Prepared:
    """A node as conditions see it, for as long as nothing of it changes."""

    _activation: cel.Activation


@dataclass(frozen=True, slots=True)
class Condition:
    """A compiled condition.

    Args:
        text: As it was written.
    """

    text: str
    _compiled: environments.Compiled

    @property
    def names(self) -> expressions.Names:
        """What it reads of a node."""
        return _names(self.text)

    def holds(self, node: model.Node, metrics: Mapping[str, float]) -> bool | None:
        """Tell whether it holds; None where that is unknown.

        Args:
            node: What is known of the node.
            metrics: By name; one that is not finite counts as missing.
        """
        return self.holds_on(prepare(node, metrics))

    def holds_on(self, prepared: Prepared) -> bool | None:
        """Tell whether it holds on a node that was prepared; None where that is unknown."""
        return self._compiled.truth(prepared._activation)  # noqa: SLF001 only this module says what a node is


def compile(text: str, field: str) -> Condition:  # noqa: A001 # as `re.compile`: never called without its module
    """Compile a condition.

    Args:
        text: In CEL.
        field: What the refusal calls the text.

    Raises:
        InvalidRequestError: It is too long or too costly, is no CEL, names what there is not, or gives no bool.
    """
    return Condition(text, environments.checked(text, field, "node and metrics", _compiled))


def holds(text: str, node: model.Node, metrics: Mapping[str, float]) -> bool | None:
    """Tell whether a stored condition holds; None where that is unknown, also where it no longer compiles."""
    try:
        return compile(text, "condition").holds(node, metrics)
    except errors.InvalidRequestError:  # it was stored under another schema
        return None


def names(text: str) -> expressions.Names:
    """Say what a condition reads, without evaluating it.

    Raises:
        InvalidRequestError: It is no condition.
    """
    return compile(text, "condition").names


def prepare(node: model.Node, metrics: Mapping[str, float], read: Iterable[str] | None = None) -> Prepared:
    """Say once what several conditions then look at.

    Args:
        node: What is known of the node.
        metrics: By name; one that is not finite counts as missing.
        read: Names of the series that the conditions read, since each costs a fifth of a microsecond; None for all.
    """
    known = metrics.items() if read is None else ((name, metrics[name]) for name in read if name in metrics)
    finite = {name: value for name, value in known if math.isfinite(value)}
    return Prepared(_environment().Activation({"node": _said(node), "metrics": finite}))


@functools.lru_cache(maxsize=environments.COMPILED_MAX)
def _compiled(text: str) -> environments.Compiled:
    return environments.compiled(_environment(), text, _SIZES)


@functools.lru_cache(maxsize=environments.COMPILED_MAX)
def _names(text: str) -> expressions.Names:
    metrics, labels, components, fields = set[str](), set[str](), set[str](), set[str]()
    is_whole = True
    for path in expressions.paths(_compiled(text).tree, _ROOTS):
        match path:
            case ("metrics", name, *_):
                metrics.add(name)
            case ("node", "labels", name, *_):
                labels.add(name)
            case ("node", "components", name, *_):
                components.add(name)
            case ("node", ("id" | "capabilities" | "agent_version" | "connected") as name, *_):
                fields.add(name)
            case _:
                is_whole = False
    return expressions.Names(frozenset(metrics), frozenset(labels), frozenset(components), is_whole, frozenset(fields))


@functools.cache
def _environment() -> cel.Env:
    pool, _ = _schema()
    variables = {
        "node": cel.Type(f"{_PACKAGE}.Node"),
        "metrics": cel.Type.Map(cel.Type.STRING, cel.Type.DOUBLE),
    }
    return environments.environment(variables, pool)


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
