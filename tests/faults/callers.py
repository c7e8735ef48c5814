"""Somebody who calls the API of a controller that dies, and never lets go of what was acknowledged.

Rules kept here: who gets no answer asks again: under the same identity where the call has one, else after a look into
the audit log whether it was done; each life of the controller is asked first for all that earlier ones acknowledged.
Whatever is not as it was told raises a Violation.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf import message
from grpc import aio

from controller.cli.demo import api
from instar.v1 import (
    audit_pb2,
    audit_service_pb2,
    audit_service_pb2_grpc,
    fleet_service_pb2_grpc,
    release_service_pb2_grpc,
    rollout_pb2,
    rollout_service_pb2,
    rollout_service_pb2_grpc,
    trigger_service_pb2_grpc,
)
from tests.faults import lives, stage

CALL_SECONDS = 20.0
PAGE_ROWS = 1000
LOST = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN})
Look = Callable[[], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class Mark:
    """What an act leaves in the audit log; what is empty may be anything."""

    action: str
    subject: str = ""
    reason: str = ""

    def fits(self, row: audit_pb2.AuditRow) -> bool:
        """Say whether a row is of it."""
        wanted = ((self.subject, row.subject), (self.reason, row.reason))
        return row.action == self.action and row.result == "done" and all(one in ("", other) for one, other in wanted)


@dataclass
class _Again:
    """A call with an identity, and what it was answered first."""

    method: str
    request: message.Message
    answer: Callable[[Any], object]
    first: object


class Link:
    """A connection to one life."""

    def __init__(self, address: str, token: str) -> None:
        self.channel = aio.insecure_channel(address, options=(("grpc.use_local_subchannel_pool", 1),))
        self.metadata = (("authorization", f"Bearer {token}"),)
        self._stubs: dict[str, Any] = {
            "audit": audit_service_pb2_grpc.AuditServiceStub(self.channel),
            "fleet": fleet_service_pb2_grpc.FleetServiceStub(self.channel),
            "releases": release_service_pb2_grpc.ReleaseServiceStub(self.channel),
            "rollouts": rollout_service_pb2_grpc.RolloutServiceStub(self.channel),
            "triggers": trigger_service_pb2_grpc.TriggerServiceStub(self.channel),
        }

    async def call(self, name: str, request: object) -> Any:  # noqa: ANN401  # any response
        """Call a method, named as in ``fleet.ListNodes``."""
        service, _, method = name.partition(".")
        called = getattr(self._stubs[service], method)
        return await called(request, metadata=self.metadata, timeout=CALL_SECONDS)


@dataclass
class Caller:
    """One caller."""

    house: lives.House
    asked: Counter[Mark] = field(default_factory=Counter)
    repeated: int = 0
    _links: dict[int, Link] = field(default_factory=dict)
    _again: list[_Again] = field(default_factory=list)
    _looks: dict[str, Look] = field(default_factory=dict)

    async def act(
        self,
        name: str,
        request: object,
        mark: Mark,
        about: str = "",
        look: Look | None = None,
    ) -> Any:  # noqa: ANN401  # any response
        """Have something done once; None where it turned out to be done, but the answer was lost.

        Args:
            request: What is asked; or what makes it, where it is a stream.
            mark: What it leaves in the audit log.
            about: What the look is of; a later act about the same takes its place.
            look: Whether it is so.
        """
        self._looks.pop(about, None)
        is_unsure, answer = False, None
        while True:
            link = await self._link()
            try:
                if is_unsure and await self._rows(link, mark) > self.asked[mark]:
                    break
                answer = await link.call(name, request() if callable(request) else request)
                break
            except aio.AioRpcError as error:
                await self._lost(error)
                is_unsure, self.repeated = True, self.repeated + 1
        self.asked[mark] += 1
        if look is not None:
            self._looks[about] = look
        return answer

    async def once(self, name: str, request: message.Message, answer: Callable[[Any], str], mark: Mark) -> Any:  # noqa: ANN401  # any response
        """Have something done that has an identity: it is asked again as often as it takes, and for ever the same.

        Args:
            answer: What counts of an answer.
            mark: What it leaves in the audit log, once; where it has no subject, that is what counts of the answer.
        """
        found = await self.read(name, request)
        self.asked[Mark(mark.action, mark.subject or answer(found), mark.reason)] += 1
        self._again.append(_Again(name, request, answer, answer(found)))
        try:
            await self._ask_all_again(await self._link())
        except aio.AioRpcError as error:
            await self._lost(error)  # the next life is asked for all of it, before anything else
        return found

    async def read(self, name: str, request: object) -> Any:  # noqa: ANN401  # any response
        """Ask until there is an answer."""
        while True:
            link = await self._link()
            try:
                return await link.call(name, request() if callable(request) else request)
            except aio.AioRpcError as error:
                await self._lost(error)
                self.repeated += 1

    async def rollout(self, rollout_id: str) -> rollout_pb2.Rollout:
        """A rollout as it is now."""
        answer = await self.read("rollouts.GetRollout", rollout_service_pb2.GetRolloutRequest(rollout=rollout_id))
        assert isinstance(answer, rollout_service_pb2.GetRolloutResponse)
        return answer.rollout

    async def until(self, rollout_id: str, condition: Callable[[rollout_pb2.Rollout], bool]) -> rollout_pb2.Rollout:
        """Wait until a rollout is as wanted."""
        found = await self.rollout(rollout_id)
        try:
            async with asyncio.timeout(lives.PATIENCE_SECONDS):
                while not condition(found):
                    await asyncio.sleep(stage.POLL_SECONDS)
                    found = await self.rollout(rollout_id)
        except TimeoutError:
            raise stage.Violation(f"rollout {rollout_id} came to nothing more: {found}") from None
        return found

    async def ended(self, rollout_id: str, state: str) -> rollout_pb2.Rollout:
        """Wait for the end of a rollout, which must be this one."""
        found = await self.until(rollout_id, lambda one: one.state in api.TERMINAL)
        said = rollout_pb2.RolloutState.Name(found.state).removeprefix("ROLLOUT_STATE_")
        if said != state:
            raise stage.Violation(f"rollout {found.name} ended in {said}, not {state}: {found.message}")
        return found

    async def come_true(self, what: str, look: Look) -> None:
        """Wait until something is so."""
        try:
            async with asyncio.timeout(lives.PATIENCE_SECONDS):
                while not await look():  # noqa: ASYNC110  # it lies in other processes
                    await asyncio.sleep(stage.POLL_SECONDS)
        except TimeoutError:
            raise stage.Violation(f"it never came true that {what}") from None

    async def audit(self) -> Sequence[audit_pb2.AuditRow]:
        """All rows of the log."""
        while True:
            link = await self._link()
            with contextlib.suppress(aio.AioRpcError):
                return await _audit(link)

    async def close(self) -> None:
        """Hang up."""
        for each in self._links.values():
            await each.channel.close()

    async def _link(self) -> Link:
        """A connection to the life of now, which has shown that it knows what was acknowledged."""
        while True:
            life = await self.house.listening()
            if life.number in self._links:
                return self._links[life.number]
            link = Link(self.house.address, self.house.operator_token)
            self._links[life.number] = link
            try:
                await self._check_kept(link)
            except aio.AioRpcError as error:
                del self._links[life.number]
                await link.channel.close()
                await self._lost(error)
                continue
            return link

    async def _check_kept(self, link: Link) -> None:
        rows = await _audit(link)
        for mark, count in self.asked.items():
            found = sum(mark.fits(row) for row in rows)
            if found < count:
                raise stage.Violation(f"{mark.action} {mark.subject} {mark.reason} was acknowledged, and is not there")
        await self._ask_all_again(link)
        for about, look in [*self._looks.items()]:
            if not await look():
                raise stage.Violation(f"what was acknowledged of {about} is not so")

    async def _ask_all_again(self, link: Link) -> None:
        for each in self._again:
            answered = each.answer(await link.call(each.method, each.request))
            if answered != each.first:
                raise stage.Violation(f"{each.method} was answered {each.first}, and is now {answered}")

    async def _rows(self, link: Link, mark: Mark) -> int:
        return sum(mark.fits(row) for row in await _audit(link))

    async def _lost(self, error: aio.AioRpcError) -> None:
        if error.code() not in LOST:
            raise stage.Violation(f"it was refused: {error.code().name}: {error.details()}") from error
        await asyncio.sleep(stage.POLL_SECONDS)


async def _audit(link: Link) -> Sequence[audit_pb2.AuditRow]:
    rows: list[audit_pb2.AuditRow] = []
    token = ""
    while True:
        asked = audit_service_pb2.ListAuditRequest(page_size=PAGE_ROWS, page_token=token)
        answer = await link.call("audit.ListAudit", asked)
        rows += answer.rows
        token = answer.next_page_token
        if not token:
            return rows
