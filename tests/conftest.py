from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from controller.config import stores, tls
from tests import postgresql

# Some tests fork; what gRPC does in a child then is to poll descriptors that the child has closed.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
tls.pin_version()

# Tests share noisy machines: how long an example takes says nothing. A test run is the same each time; new examples are
# looked for by `make properties`.
hypothesis.settings.register_profile("instar", deadline=None, derandomize=True)
hypothesis.settings.register_profile("explore", deadline=None)
hypothesis.settings.load_profile("instar")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite",
        action="store_true",
        help="write what the code does now into the golden files and generated documents; then read the diff",
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    # CI has so many minutes on whatever machine: what takes long is not begun once most of them have passed, and named.
    until = float(os.environ.get("INSTAR_SLOW_UNTIL", "inf"))
    if time.time() > until and (item.get_closest_marker("slow") or item.get_closest_marker("alone")):  # noqa: TID251
        pytest.skip("no time is left for a slow test")


@pytest.fixture
def is_rewriting(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--rewrite"))


@pytest.fixture(scope="session")
def cluster() -> Iterator[postgresql.Cluster]:
    """A PostgreSQL server for all tests of a process."""
    made = postgresql.Cluster()
    yield made
    made.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Path | stores.PostgreSQL:
    """Where a store may be: a file that is not there yet, or a database of its own."""
    return tmp_path / "store" if request.param == "sqlite" else request.getfixturevalue("cluster").make()


@pytest.fixture(params=["sqlite", "postgresql"])
def bare(request: pytest.FixtureRequest, tmp_path: Path) -> Path | stores.PostgreSQL:
    """Where nobody has made a table yet."""
    return tmp_path / "store" if request.param == "sqlite" else request.getfixturevalue("cluster").make_bare()
