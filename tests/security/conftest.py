from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.security import judged, publishing, repository, warm


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder whose path leaves room for sockets, as tmp_path does not."""
    made = Path(tempfile.mkdtemp(prefix="in-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def memory_path() -> Iterator[Path]:
    """A folder in memory, where the host has one, for tests that wait for no disk."""
    memory = Path("/dev/shm")  # noqa: S108  # a folder of its own is made in it
    made = Path(tempfile.mkdtemp(prefix="in-", dir=memory if memory.is_dir() else None))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def signed() -> repository.Repository:
    """Metadata of two components, of which web has a release."""
    made = repository.Repository("web", "db")
    made.release("web", "1.0.0", judged.bundle(version="1.0.0"))
    return made


@pytest.fixture(scope="module")
def children() -> Iterator[warm.Verifiers]:
    """Forks the verifier's children of `client`."""
    with warm.Verifiers() as started:
        yield started


@pytest.fixture
def client(memory_path: Path, signed: repository.Repository, children: warm.Verifiers) -> warm.Client:
    """A node that pins the root of `signed`, and has a child for each judgement."""
    return warm.Client(memory_path, signed.root, children)


@pytest.fixture
def node(tmp_path: Path, signed: repository.Repository) -> judged.Node:
    """A node that pins the root of `signed`."""
    return judged.Node(tmp_path, signed.root)


@pytest.fixture
def shop(tmp_path: Path) -> publishing.Shop:
    """A publisher with a release."""
    made = publishing.Shop(tmp_path / "publisher")
    made.release("1.0.0")
    return made


@pytest.fixture
async def house(tmp_path: Path, shop: publishing.Shop) -> AsyncIterator[publishing.House]:
    """A controller that has what the shop has signed."""
    async with publishing.serving(tmp_path / "controller", shop.folder / "online") as serving:
        await serving.put(shop.files())
        yield serving


@pytest.fixture
def believer(shop: publishing.Shop) -> Iterator[judged.Node]:
    """A node that pins the root of `shop`."""
    with publishing.believing(shop.root) as believing:
        yield believing
