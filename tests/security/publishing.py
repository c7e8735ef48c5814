"""A publisher's folder, a controller that believes it, and callers of both kinds over real gRPC."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from grpc import aio
from tuf.api.metadata import Metadata

from controller import server
from controller.config import settings
from controller.core import errors, versions
from controller.rpc import errors as rpc_errors
from controller.rpc import principals, register, trust_pieces
from controller.trust import drafting, keys, metadata, publisher, repository
from instar.v1 import agent_service_pb2, agent_service_pb2_grpc, release_service_pb2, release_service_pb2_grpc
from tests.security import judged

NODE = "n1"
_Answer = TypeVar("_Answer")
Files = Sequence[tuple[str, bytes]]


def present() -> datetime:
    return datetime.now(UTC)  # noqa: TID251  # tests live at the present


def named(
    version: str, data: bytes | None = None, *, component: str = "web", floor: str | None = None
) -> drafting.Named:
    versions.parse(version)
    content = judged.bundle(component, version) if data is None else data
    return drafting.Named(component, version, f"sha256:{hashlib.sha256(content).hexdigest()}", len(content), floor)


class Shop:
    """A publisher's folder with all of its keys."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.at().init(publisher.Numbers(3, 2), publisher.Numbers(3, 2))

    def at(self, now: datetime | None = None) -> publisher.Publisher:
        return publisher.Publisher(self.folder, now or present())

    @property
    def signers(self) -> dict[str, Any]:
        return dict(self.at().signers())

    @property
    def root(self) -> bytes:
        return (self.folder / "root.json").read_bytes()

    def release(self, version: str, **about: Any) -> None:  # noqa: ANN401  # as `named` has it
        made = self.at().release(named(version, **about), self.signers)
        assert made.stored

    def rotate(self, role: str, keys: int = 0, threshold: int = 0) -> None:
        numbers = publisher.Numbers(keys, threshold) if keys else None
        made = self.at().rotate(role, numbers, self.signers, None)
        assert made.stored

    def signed(self) -> repository.Repository:
        return self.at().signed()

    def files(self) -> Files:
        return [(file.name, file.content) for file in self.signed().signed_offline()]

    def key(self, role: str, number: int = 0) -> Any:  # noqa: ANN401  # a signer
        """One of the keys of a role, by what its file is called."""
        folder = "online" if role in drafting.ONLINE else "keys"
        return keys.read(sorted((self.folder / folder).glob(f"{role}-*.pem"))[number])


def forged(file: metadata.File, change: Callable[[Any], None], signers: Iterable[Any]) -> tuple[str, bytes]:
    """What somebody makes of a file who has some keys, however it is called then."""
    made: Metadata[Any] = Metadata.from_bytes(file.content)
    change(made.signed)
    made.signatures.clear()
    for signer in signers:
        made.sign(signer, append=True)
    return metadata.file_name(file.role, made.signed.version), made.to_bytes()


@dataclasses.dataclass(frozen=True)
class House:
    """A controller that serves, and what is asked of it."""

    address: str
    loaded: settings.Settings
    releases: Any
    agents: Any
    token: tuple[tuple[str, str], ...]
    node_token: tuple[tuple[str, str], ...]

    async def put(self, files: Files, request_id: str = "") -> release_service_pb2.PutTrustResponse:
        pieces = [
            release_service_pb2.PutTrustRequest(name=name, content=content, is_last_piece=is_last)
            for name, content, is_last in trust_pieces.cut(files)
        ]
        pieces[0].request_id = request_id
        return await self.put_pieces(pieces)

    async def put_pieces(
        self, pieces: Iterable[release_service_pb2.PutTrustRequest]
    ) -> release_service_pb2.PutTrustResponse:
        async def sent() -> AsyncIterator[release_service_pb2.PutTrustRequest]:
            for piece in pieces:
                yield piece

        call = self.releases.PutTrust(sent(), metadata=self.token)
        answer: release_service_pb2.PutTrustResponse = await self._asked(call)
        return answer

    async def refused(self, files: Files) -> str:
        """Put what must be refused, and see that it changed nothing; the code."""
        before = await self.served()
        with pytest.raises(errors.InstarError, match=r"^cannot ") as caught:
            await self.put(files)
        assert await self.served() == before
        return caught.value.code

    async def served(self, component: str = "") -> list[tuple[str, bytes]]:
        """Everything, as a publisher reads it."""
        asked = release_service_pb2.GetTrustRequest(component=component)
        return await self._asked(trust_pieces.joined(self.releases.GetTrust(asked, metadata=self.token)))

    async def read(self, root_version: int = 1, component: str = "web") -> dict[str, bytes]:
        """What a node reads."""
        asked = agent_service_pb2.ReadTrustRequest(root_version=root_version, component=component)
        return dict(await self._asked(trust_pieces.joined(self.agents.ReadTrust(asked, metadata=self.node_token))))

    async def publish(self, data: bytes) -> release_service_pb2.PublishReleaseResponse:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"

        async def parts() -> AsyncIterator[release_service_pb2.PublishReleaseRequest]:
            header = release_service_pb2.PublishReleaseHeader(digest=digest, size_bytes=len(data))
            yield release_service_pb2.PublishReleaseRequest(header=header)
            yield release_service_pb2.PublishReleaseRequest(chunk=data)

        answer: release_service_pb2.PublishReleaseResponse = await self._asked(
            self.releases.PublishRelease(parts(), metadata=self.token)
        )
        return answer

    async def _asked(self, call: Awaitable[_Answer]) -> _Answer:
        try:
            return await call
        except aio.AioRpcError as failure:
            raise rpc_errors.from_rpc(failure) from failure


@contextlib.asynccontextmanager
async def serving(folder: Path, trust_dir: Path | None) -> AsyncIterator[House]:
    """A controller in this process."""
    loaded = settings.Settings("127.0.0.1:0", folder, timedelta(seconds=1), None, trust_dir=trust_dir)
    async with server.serving(loaded) as address, aio.insecure_channel(address) as channel:
        enrolled = register.Register(loaded.principals_file)
        node_token = enrolled.make_token(principals.Principal(principals.Kind.AGENT, NODE)).reveal()
        yield House(
            address,
            loaded,
            release_service_pb2_grpc.ReleaseServiceStub(channel),
            agent_service_pb2_grpc.AgentServiceStub(channel),
            (("authorization", f"Bearer {loaded.operator_token_file.read_text().strip()}"),),
            (("authorization", f"Bearer {node_token}"),),
        )


@contextlib.contextmanager
def believing(root: bytes) -> Iterator[judged.Node]:
    """A node's verifier that pins a root, in a folder whose name is short enough for a node."""
    with tempfile.TemporaryDirectory(prefix="ib-") as folder:
        yield judged.Node(Path(folder), root)
