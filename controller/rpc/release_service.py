"""Releases over gRPC: published by streaming the bundle, found, and the ways between them declared.

Rules kept here: nothing is kept before digest, form and manifest were checked, nor, where releases are signed, before
signed metadata name it; a version names one digest for ever; the disk is touched in a worker thread, never in the loop.
Left out: what signatures are worth (`trust`), and who may publish (`policies`).
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, Self

from grpc import aio

from controller import clock, engine, releases
from controller.config import manifest
from controller.core import errors, model
from controller.engine import repeating
from controller.rpc import answering, callers, convert, release_convert, trust_pieces
from instar.v1 import release_pb2, release_service_pb2, release_service_pb2_grpc

PUBLISHES_MAX = 4  # at the same time: more would only share the disk
_Context = aio.ServicerContext[Any, Any]
_Parts = AsyncIterator[release_service_pb2.PublishReleaseRequest]
_Pieces = AsyncIterator[release_service_pb2.PutTrustRequest]


class Trust(Protocol):
    """What the service needs of what vouches for releases."""

    async def put(self, files: Iterable[tuple[str, bytes]]) -> tuple[str, ...]:
        """Take metadata; return the names of what was new."""
        ...

    def read(self, root_version: int, component: str = "") -> Iterable[tuple[str, bytes]]:
        """Return the metadata that a reader needs."""
        ...

    def versions(self) -> Mapping[str, int]:
        """Return the versions of what is served, as PutTrustResponse names them."""
        ...

    def refuse_unsigned(self, component: model.ComponentName, version: str, digest: str, size_bytes: int) -> None:
        """Raise RefusedError where signed metadata do not name these bytes."""
        ...


class ReleaseService(release_service_pb2_grpc.ReleaseServiceServicer):
    """Keeps the releases."""

    def __init__(
        self,
        machine: engine.Engine,
        blobs: releases.Blobs,
        known: callers.Callers,
        time: clock.Clock,
        trust: Trust,
    ) -> None:
        self._engine = machine
        self._trust = trust
        self._blobs = blobs
        self._callers = known
        self._clock = time
        self._publishes = asyncio.Semaphore(PUBLISHES_MAX)

    async def PublishRelease(
        self, request_iterator: _Parts, context: _Context
    ) -> release_service_pb2.PublishReleaseResponse:
        """Take a bundle in, check it and keep it; the same bytes again change nothing."""
        header = await _header(request_iterator)
        content = answering.content_hash(header)
        act = functools.partial(self._publish, header, request_iterator, context)
        answer: release_service_pb2.PublishReleaseResponse = await self._once(
            "PublishRelease", answering.request_id(header), content, act, context
        )
        return answer

    async def _publish(
        self, header: release_service_pb2.PublishReleaseHeader, request_iterator: _Parts, context: _Context
    ) -> release_service_pb2.PublishReleaseResponse:
        bundle = releases.Bundle(model.Digest(header.digest), header.size_bytes)
        async with self._publishes:
            with await asyncio.to_thread(self._blobs.receive, bundle) as incoming:
                async for part in request_iterator:
                    await asyncio.to_thread(incoming.write, part.chunk)
                text = await asyncio.to_thread(incoming.checked_manifest)
                release = self._release(manifest.parse(text), bundle, self._callers.caller(context).name)
                self._refuse_other_bytes(release)
                self._trust.refuse_unsigned(release.component, release.version, release.digest, release.size_bytes)
                await asyncio.to_thread(incoming.keep)
                return await answering.keep(self._engine.publish(release), functools.partial(self._published, release))

    def _published(self, sent: model.Release, created: bool) -> release_service_pb2.PublishReleaseResponse:  # noqa: FBT001  # as the engine answers
        stored = sent if created else self._engine.release(sent.component, sent.version)
        return release_service_pb2.PublishReleaseResponse(release=release_convert.release(stored), created=created)

    async def GetRelease(
        self, request: release_service_pb2.GetReleaseRequest, context: _Context
    ) -> release_service_pb2.GetReleaseResponse:
        """Find one release, and say where it stands; of the nodes that left it, as far as the caller's scope goes."""
        found = self._engine.whereabouts(model.ComponentName(request.component), request.version)
        sight = self._callers.caller(context).sight
        if not sight.is_whole:
            seen = tuple(each for each in found.leavers if sight.takes(self._engine.labels(each.node_id) or {}))
            found = replace(found, leavers=seen, left_by=len(seen))
        return release_convert.whereabouts(found)

    async def ListReleases(
        self, request: release_service_pb2.ListReleasesRequest, context: _Context
    ) -> release_service_pb2.ListReleasesResponse:
        """List the releases of one component, or all."""
        del context
        found = self._engine.releases(model.ComponentName(request.component))
        return release_service_pb2.ListReleasesResponse(releases=map(release_convert.release, found))

    async def GetGraph(
        self, request: release_service_pb2.GetGraphRequest, context: _Context
    ) -> release_service_pb2.GetGraphResponse:
        """Show what is declared of the ways between the releases of a component."""
        del context
        return release_service_pb2.GetGraphResponse(graph=self._graph(request.component))

    async def PutGraph(
        self, request: release_service_pb2.PutGraphRequest, context: _Context
    ) -> release_service_pb2.PutGraphResponse:
        """Declare the edges and barriers of a component, in the place of those before."""
        edges, barriers = release_convert.from_graph(request.graph)
        component = model.ComponentName(request.graph.component)
        act = self._engine.put_graph(component, edges, barriers, actor=self._callers.caller(context).name)
        return await answering.keep(
            act, lambda graph: release_service_pb2.PutGraphResponse(graph=release_convert.graph(component, graph))
        )

    async def BlockRelease(
        self, request: release_service_pb2.BlockReleaseRequest, context: _Context
    ) -> release_service_pb2.BlockReleaseResponse:
        """Close every way to a version; without a reason, open them again."""
        reason = convert.reason(request.reason, "block the release") if request.reason else ""
        component = model.ComponentName(request.component)
        actor = self._callers.caller(context).name
        act = self._engine.block_release(component, request.version, reason=reason, actor=actor)
        return await answering.keep(
            act, lambda graph: release_service_pb2.BlockReleaseResponse(graph=release_convert.graph(component, graph))
        )

    async def PromoteRelease(
        self, request: release_service_pb2.PromoteReleaseRequest, context: _Context
    ) -> release_service_pb2.PromoteReleaseResponse:
        """Move a channel to a release."""
        act = self._engine.promote_release(
            model.ComponentName(request.component),
            request.version,
            request.channel,
            actor=self._callers.caller(context).name,
        )
        return await answering.keep(
            act, lambda channel: release_service_pb2.PromoteReleaseResponse(channel=release_convert.channel(channel))
        )

    async def PutTrust(self, request_iterator: _Pieces, context: _Context) -> release_service_pb2.PutTrustResponse:
        """Take metadata that people have signed, all of it or none."""
        named = _Named(request_iterator)
        async with self._publishes:
            files = await trust_pieces.joined(named)
            act = functools.partial(self._put_trust, files, self._callers.caller(context).name)
            answer: release_service_pb2.PutTrustResponse = await self._once(
                "PutTrust", named.request_id, answering.files_hash(files), act, context
            )
        return answer

    async def _put_trust(self, files: Sequence[tuple[str, bytes]], actor: str) -> release_service_pb2.PutTrustResponse:
        stored = await self._trust.put(files)
        told = release_service_pb2.PutTrustResponse(**self._trust.versions(), stored=stored)
        if not stored and repeating.current() is None:
            return told
        return await answering.keep(self._engine.note_trust(stored, actor=actor), lambda _: told)

    async def _once(
        self, method: str, request_id: str, content: str, act: Callable[[], Awaitable[Any]], context: _Context
    ) -> Any:  # noqa: ANN401  # a message, or the bytes of one
        """Carry out what came in pieces, which the door does not see, unless it was before."""
        if not request_id:
            return await act()
        caller = str(self._callers.caller(context))
        call = repeating.Call(request_id, f"/instar.v1.ReleaseService/{method}", caller, content)
        return await answering.once(self._engine.answered, call, act)

    async def GetTrust(
        self, request: release_service_pb2.GetTrustRequest, context: _Context
    ) -> AsyncIterator[release_service_pb2.GetTrustResponse]:
        """Send the metadata that is served now."""
        del context
        for name, content, is_last in trust_pieces.cut(self._trust.read(request.root_version, request.component)):
            yield release_service_pb2.GetTrustResponse(name=name, content=content, is_last_piece=is_last)

    def _graph(self, component: str) -> release_pb2.VersionGraph:
        name = model.ComponentName(component)
        return release_convert.graph(name, self._engine.graph(name))

    def _release(self, told: manifest.Manifest, bundle: releases.Bundle, publisher: str) -> model.Release:
        return model.Release(
            component=told.name,
            version=told.version,
            digest=bundle.digest,
            size_bytes=bundle.size_bytes,
            driver=told.driver,
            manifest_json=told.json,
            published_at=self._clock.now(),
            publisher=publisher,
            methods=told.methods,
            state=told.state,
            hot_swap_from=told.hot_swap_from,
            requirements=told.requirements,
        )

    def _refuse_other_bytes(self, release: model.Release) -> None:
        """Refuse before the bundle is kept what the engine would refuse afterwards."""
        try:
            there = self._engine.release(release.component, release.version)
        except errors.NotFoundError:
            return
        if there.digest != release.digest:
            raise errors.RefusedError(
                f"cannot publish {release.component} {release.version}: that version is {there.digest} already",
                code="release_exists",
                field="version",
                value=release.version,
                rule="a version names one digest for ever",
            )


class _Named:
    """Pieces of files, and the request identity of the first of them."""

    def __init__(self, pieces: _Pieces) -> None:
        self._pieces = pieces
        self._is_begun = False
        self.request_id = ""

    def __aiter__(self) -> Self:
        """Return itself."""
        return self

    async def __anext__(self) -> release_service_pb2.PutTrustRequest:
        """Give the next piece."""
        piece = await anext(self._pieces)
        if not self._is_begun:
            self._is_begun, self.request_id = True, answering.request_id(piece)
        return piece


async def _header(parts: _Parts) -> release_service_pb2.PublishReleaseHeader:
    """What the sender says that the bundle is."""
    async for part in parts:
        if part.HasField("header"):
            return part.header
        break
    raise errors.InvalidRequestError(
        "cannot accept the bundle: header must come before the first chunk",
        code="header_missing",
        field="header",
        rule="the first message of the stream",
    )
