"""Brings a database to the form that this program needs; a migration happens whole or not at all."""

from __future__ import annotations

from pathlib import Path

import alembic.command
import alembic.config
import alembic.util
import sqlalchemy as sa
from alembic import script
from alembic.runtime import migration as migrations

from controller.core import errors

_VERSIONS = "alembic_version"
_SCRIPTS = Path(__file__).parent / "migrations"


def upgrade(connection: sa.Connection, path: str) -> None:
    """Run the migrations that the database lacks, inside the transaction that the caller began.

    Raises:
        RefusedError: A newer program has written the database.
    """
    settings = config()
    settings.attributes["connection"] = connection
    try:
        alembic.command.upgrade(settings, "head")
    except alembic.util.CommandError as error:
        raise _too_new(path, error) from error


def form_of(connection: sa.Connection) -> str:
    """Name the migration that a database had last; empty for one that had none."""
    return migrations.MigrationContext.configure(connection).get_current_revision() or ""


def newest() -> str:
    """Name the migration that this program needs."""
    return script.ScriptDirectory.from_config(config()).get_current_head() or ""


def steps_from(form: str, path: str) -> tuple[tuple[str, str], ...]:
    """Give the migrations that a database of some form lacks, in order: name, and what each is for.

    Raises:
        RefusedError: A newer program has written the database.
    """
    try:
        found = tuple(script.ScriptDirectory.from_config(config()).iterate_revisions("head", form or "base"))
    except alembic.util.CommandError as error:
        raise _too_new(path, error) from error
    return tuple((each.revision, each.doc) for each in reversed(found))


def check(connection: sa.Connection, path: str) -> None:
    """See that the database is none of a newer program, and change nothing.

    Raises:
        RefusedError: A newer program has written the database.
    """
    if not sa.inspect(connection).has_table(_VERSIONS):
        return
    known = script.ScriptDirectory.from_config(config())
    try:
        for each in connection.scalars(sa.text(f"SELECT version_num FROM {_VERSIONS}")):  # noqa: S608  # alembic's own
            known.get_revision(each)
    except alembic.util.CommandError as error:
        raise _too_new(path, error) from error


def config() -> alembic.config.Config:
    """Say where the migrations are."""
    settings = alembic.config.Config()
    settings.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    return settings


def _too_new(path: str, error: Exception) -> errors.RefusedError:
    return errors.RefusedError(
        f"cannot open the store {path}: {error}",
        code="store_too_new",
        field="store",
        value=path,
        rule="a store is opened by the version that wrote it or a later one",
    )
