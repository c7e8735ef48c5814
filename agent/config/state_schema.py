"""What a manifest says of the state that its component keeps over its versions.

Rules kept here: schemas count from 1; no two commands lead the same way. Left out: which way is taken (`agent.state`).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from agent.config import values
from agent.core import model
from instar.v1 import manifest_pb2

DEFAULT_MIGRATION_TIMEOUT = timedelta(seconds=60)


def convert(message: manifest_pb2.State) -> model.StateSchema:
    """Check the state table and fill its defaults."""
    schema = _schema("state.schema", message.schema)
    return model.StateSchema(
        schema=schema,
        reads=_reads(schema, message.reads),
        has_snapshot=message.snapshot,
        migrations=_migrations(message.migrations),
    )


def _schema(name: str, number: int) -> int:
    if number < 1:
        raise values.broken(name, number, "schemas count from 1")
    return number


def _reads(schema: int, numbers: Iterable[int]) -> tuple[int, ...]:
    found = tuple(_schema("state.reads", number) for number in numbers)
    values.few("state.reads", found)
    values.once("state.reads", found, "each schema stands there once")
    for number in found:
        if number >= schema:
            raise values.broken("state.reads", number, f"it is older than the version's own schema, {schema}")
    return found


def _migrations(messages: Iterable[manifest_pb2.Migration]) -> tuple[model.Migration, ...]:
    found = tuple(_migration(f"state.migrations[{index}]", message) for index, message in enumerate(messages))
    values.few("state.migrations", found)
    ways = [f"{each.from_schema} to {each.to_schema}" for each in found]
    values.once("state.migrations", ways, "one command leads from one schema to another")
    return found


def _migration(name: str, message: manifest_pb2.Migration) -> model.Migration:
    start, end = _schema(f"{name}.from_schema", message.from_schema), _schema(f"{name}.to_schema", message.to_schema)
    if start == end:
        raise values.broken(f"{name}.to_schema", end, "it is another schema than from_schema")
    return model.Migration(
        from_schema=start,
        to_schema=end,
        command=values.words(f"{name}.command", message.command),
        timeout=values.duration(f"{name}.timeout", message, DEFAULT_MIGRATION_TIMEOUT),
    )
