"""How much, and what, one message of an agent may hold: so that no node fills the memory or stops the others' work.

Rules kept: lists and texts are bounded; a number that the store has no room for, and a version that no plan could be
made with, are refused where they come in. An agent of ours stays far below all of it. Left out: what the words mean
(`agent_convert`), and how often messages come (`sessions`).
"""

from __future__ import annotations

from collections.abc import Sized
from typing import Never

from controller.core import errors, versions
from instar.v1 import agent_service_pb2, node_pb2, operation_pb2

LABELS_MAX = 64  # of one node's own configuration
LABEL_CHARS_MAX = 317  # a prefix of 253, a slash and a name of 63, as Kubernetes has it
CAPABILITIES_MAX = 256
WORD_CHARS_MAX = 253  # of a name, an identity, a version
OPERATION_CHARS_MAX = 1_024  # of its identity: those of a rollout, a node and a component together
METRIC_CHARS_MAX = 1_024  # of its name, with what tells its series apart
COMPONENTS_MAX = 256  # of one message, and of one node
INSTANCES_MAX = 16  # of one component: at most two live, and some are on their way out
OPERATIONS_MAX = 256  # of one message: those that nobody has acknowledged yet
STEPS_MAX = 4_096  # of these operations
METRICS_MAX = 20_000  # of one message: ten times as many as are kept
FENCE_MAX = 2**62  # what the store has room for, with room to count on


def check_hello(message: agent_service_pb2.Hello) -> None:
    """Refuse an introduction that is out of bounds.

    Raises:
        InvalidRequestError: It is.
    """
    _few("hello.labels", message.labels, LABELS_MAX)
    _few("hello.capabilities", message.capabilities, CAPABILITIES_MAX)
    for key, value in message.labels.items():
        _short("hello.labels", key, LABEL_CHARS_MAX)
        _short("hello.labels", value, LABEL_CHARS_MAX)
    for text in (message.boot_id, message.instance_token, message.agent_version, *message.capabilities):
        _short("hello", text, WORD_CHARS_MAX)
    _storable("hello.highest_fence", message.highest_fence)


def check_report(message: agent_service_pb2.Report) -> None:
    """Refuse a report that is out of bounds.

    Raises:
        InvalidRequestError: It is.
    """
    _few("components", message.components, COMPONENTS_MAX)
    _few("operations", message.operations, OPERATIONS_MAX)
    _few("steps", message.steps, STEPS_MAX)
    _few("metrics", message.metrics, METRICS_MAX)
    _few("gone_metrics", message.gone_metrics, METRICS_MAX)
    for component in message.components:
        _check_component(component)
    for operation in message.operations:
        _check_operation(operation)
    for step in message.steps:
        _short("steps.operation_id", step.operation_id, OPERATION_CHARS_MAX)
    for metric in message.metrics:
        _check_series("metrics", metric.name, metric.component)
    for gone in message.gone_metrics:
        _check_series("gone_metrics", gone.name, gone.component)


def _check_series(field: str, name: str, component: str) -> None:
    _short(f"{field}.name", name, METRIC_CHARS_MAX)
    _short(f"{field}.component", component, WORD_CHARS_MAX)


def _check_component(message: node_pb2.ComponentStatus) -> None:
    _short("components.name", message.name, WORD_CHARS_MAX)
    _few("components.instances", message.instances, INSTANCES_MAX)
    for text in (message.version, message.digest, message.permanent_digest):
        _short("components", text, WORD_CHARS_MAX)
    for instance in message.instances:
        _short("components.instances.instance_id", instance.instance_id, WORD_CHARS_MAX)
        _short("components.instances.digest", instance.digest, WORD_CHARS_MAX)
    if message.version:
        try:
            versions.order(message.version)  # it remembers those it has read
        except errors.InvalidRequestError as error:
            _refuse("components.version", message.version, error.rule)


def _check_operation(message: operation_pb2.OperationStatus) -> None:
    _short("operations.operation_id", message.operation_id, OPERATION_CHARS_MAX)
    _short("operations.component", message.component, WORD_CHARS_MAX)
    _storable("operations.fence", message.fence)


def _few(field: str, found: Sized, most: int) -> None:
    if len(found) > most:
        _refuse(field, str(len(found)), f"at most {most} entries")


def _short(field: str, text: str, most: int) -> None:
    if len(text) > most:
        _refuse(field, text[:most], f"at most {most} characters long")


def _storable(field: str, number: int) -> None:
    if number > FENCE_MAX:
        _refuse(field, str(number), f"at most {FENCE_MAX}")


def _refuse(field: str, value: str, rule: str) -> Never:
    raise errors.InvalidRequestError(
        f"cannot read {field} {value!r}: it must be {rule}", code="message_invalid", field=field, value=value, rule=rule
    )
