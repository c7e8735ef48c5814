"""The web side over real HTTP on loopback, before an engine that notes what it is told, and a clock that stands."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import httpx

from controller import clock, engine
from controller.config import webs
from controller.core import errors, model
from controller.core import secret as core_secret
from controller.engine import occasions
from controller.rpc import attempts
from controller.trust import listening
from controller.web import secrets, serving

NOW = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
SECRET = b"correct horse battery staple"
TOKEN = "a token that an Alertmanager shows"  # noqa: S105  # of the tests


class StillClock(clock.SystemClock):
    def now(self) -> datetime:
        return NOW


@dataclass
class Engine:
    """Takes what it is told, unless it shall fail."""

    received: list[model.ReceivedEvent] = field(default_factory=list)
    batches: list[tuple[int, str]] = field(default_factory=list)
    kept: list[tuple[engine.Asked, errors.InstarError]] = field(default_factory=list)
    failure: Exception | None = None
    keeping: errors.InstarError | None = None
    waits: tuple[asyncio.Event, asyncio.Event] | None = None  # it says that it was reached, and waits to go on

    async def receive(self, sent: Sequence[model.ReceivedEvent], *, actor: str) -> occasions.Receipt:
        if self.failure is not None:
            raise self.failure
        if self.waits is not None:
            reached, go_on = self.waits
            reached.set()
            await go_on.wait()
        self.received += sent
        self.batches.append((len(sent), actor))
        return occasions.Receipt(len(sent), 1, tuple(model.FiringId(f"t-1.{number}") for number, _ in enumerate(sent)))

    async def keep_refusal(self, asked: engine.Asked, error: errors.InstarError) -> None:
        if self.keeping is not None:
            raise self.keeping
        self.kept.append((asked, error))


@dataclass
class Door:
    """Where it answers, and what the engine was told."""

    address: str
    engine: Engine
    secret_file: Path
    token_file: Path

    async def post(
        self, path: str, body: bytes | AsyncIterator[bytes], headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
            return await client.post(f"http://{self.address}{path}", content=body, headers=headers)

    async def events(self, found: object, headers: Mapping[str, str] | None = None, **more: Any) -> httpx.Response:  # noqa: ANN401  # as below
        """Post events as a sender that signs does."""
        body = found if isinstance(found, bytes) else json.dumps(found).encode()
        kind = {"content-type": "application/cloudevents+json"}
        return await self.post("/v1/events", body, signed(body, kind | dict(headers or {}), **more))

    async def alerts(self, found: object, token: str = TOKEN) -> httpx.Response:
        """Post a notification as an Alertmanager does."""
        body = found if isinstance(found, bytes) else json.dumps(found).encode()
        headers = {"content-type": "application/json", "authorization": f"Bearer {token}"}
        return await self.post("/v1/alertmanager", body, headers)


def signed(body: bytes, headers: Mapping[str, str], *, secret: bytes = SECRET, at: datetime = NOW) -> dict[str, str]:
    """The headers with timestamp and signature."""
    timestamp = str(int(at.timestamp()))
    signature = secrets.sign(core_secret.Secret(secret), timestamp, headers, body)
    return {**headers, secrets.TIMESTAMP: timestamp, secrets.SIGNATURE: signature}


@contextlib.asynccontextmanager
async def standing(
    folder: Path,
    listen: str = "127.0.0.1:0",
    time: clock.Clock | None = None,
    own: listening.Listening | None = None,
) -> AsyncIterator[Door]:
    """Serve while the block runs."""
    secret_file, token_file = folder / "secret", folder / "token"
    secret_file.write_bytes(SECRET + b"\n")
    token_file.write_text(TOKEN + "\n")
    machine = Engine()
    web = webs.Web(listen, secret_file, token_file)
    wrong = attempts.Attempts(clock.SystemClock().monotonic, serving.HELD_BACK_MAX)
    async with serving.serving(web, cast("engine.Engine", machine), time or StillClock(), wrong, own) as address:
        yield Door(address, machine, secret_file, token_file)
