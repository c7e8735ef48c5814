"""pgbouncer between a store and its server, in the mode in which each transaction may have another session."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from controller.cli.demo import ports, postgresql
from tests.postgresql import Cluster

SESSIONS = 2  # of the server, shared by all transactions: fewer than the stores have connections
READY_SECONDS = 30.0
_CONFIGURATION = """\
[databases]
* = host=127.0.0.1 port={server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {sessions}
server_login_retry = 0
"""

needed = pytest.mark.skipif(shutil.which("pgbouncer") is None, reason="no pgbouncer is installed")


@contextlib.contextmanager
def before(cluster: Cluster) -> Iterator[int]:
    """Run one before a server; yields its port."""
    folder = Path(tempfile.mkdtemp(prefix="instar-pool-"))
    (port,) = ports.free(1)
    file = folder / "pgbouncer.ini"
    # Any user is whom the clients say they are; the server trusts the loopback too.
    file.write_text(
        _CONFIGURATION.format(server=f"{cluster.port} user={postgresql.USER}", port=port, sessions=SESSIONS)
    )
    if os.geteuid() == 0:
        os.chown(folder, postgresql.NOBODY, postgresql.NOBODY)
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["pgbouncer", str(file)],
            stdout=out,
            stderr=out,
            cwd=folder,
            start_new_session=True,
            **postgresql.somebody(),
        )
    try:
        deadline = time.monotonic() + READY_SECONDS
        while not _answers(port):
            if time.monotonic() > deadline or process.poll() is not None:
                raise AssertionError(log.read_text())
            time.sleep(0.02)
        yield port
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder)


def _answers(port: int) -> bool:
    try:
        with psycopg.connect(f"host=127.0.0.1 port={port} user={postgresql.USER} dbname=postgres connect_timeout=5"):
            return True
    except psycopg.OperationalError:
        return False
