"""Brings a database to the form that this program needs; a migration happens whole or not at all."""

from __future__ import annotations

from pathlib import Path

import alembic.command
import alembic.config
import alembic.util
import sqlalchemy as sa

from controller.core import errors

_SCRIPTS = Path(__file__).parent / "migrations"


def upgrade(connection: sa.Connection, path: str) -> None:
    """Run the migrations that the database lacks, inside the transaction that the caller began.

    Raises:
        RefusedError: A newer program has written the database.
    """
    config = alembic.config.Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        alembic.command.upgrade(config, "head")
    except alembic.util.CommandError as error:
        raise errors.RefusedError(
            f"cannot open the store {path}: {error}",
            code="store_too_new",
            field="store",
            value=path,
            rule="a store is opened by the version that wrote it or a later one",
        ) from error
