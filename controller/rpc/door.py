"""The door of the controller: each call passes it, shows who it is, and leaves with a typed status.

Rules kept here: the policy is looked up by the name of the method, so that a service cannot forget it; a stream is
authorised again before each message that goes down; an error of the core becomes its status in one place; any other is
logged whole and told as INTERNAL; reads are refused before anything is spent on them where the controller is
late; what a known caller is refused is kept on record, also where it is no request that
the engine could be asked. Left out: what each caller may do (`policies`, `bounds`), how much (`quotas`), what errors
look like on the wire (`errors`), and a record of those who only read, whom nobody knows, or who ask too much: they
could fill it.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Never, Protocol, TypeAlias

import grpc
from google.protobuf import message
from grpc import aio

from controller import clock, engine
from controller.config import quotas as configured
from controller.core import errors, roles
from controller.engine import repeating
from controller.rpc import answering, attempts, bounds, callers, policies, principals, quotas, streams
from controller.rpc import errors as rpc_errors

_logger = logging.getLogger(__name__)

_Context = aio.ServicerContext[Any, Any]
_Behaviour = Callable[[Any, _Context], Any]
_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"  # generic in the stubs only

_MAKERS: Mapping[tuple[bool, bool], Callable[..., _Handler]] = {  # by: does the request stream, does the response
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}
# Of people and services; what agents read belongs to an operation.
_READS = re.compile(r"/(Explain|Export|Get|List|Read|Verify|Watch)[A-Za-z]*$")
_NAMING = ("rollout", "node_id", "freeze_id", "firing_id", "name", "component")  # fields that name what is acted on
_WORD = re.compile(r"(?<=[a-z])(?=[A-Z])")
_UNREADABLE = object()  # stands for a message that is none


class Record(Protocol):
    """Where it is kept that a caller was refused."""

    def __call__(self, asked: engine.Asked, error: errors.InstarError) -> Awaitable[None]:
        """Keep it, unless it is kept already."""
        ...


@dataclass(frozen=True, slots=True)
class Guards:
    """What stands at the door, each for one question: who, of what, how much, for how long, and whether now."""

    callers: callers.Callers
    bounds: bounds.Bounds
    quotas: quotas.Quotas
    streams: streams.Streams
    pressure: engine.Pressure


def guards(
    known: callers.Callers,
    fleet: bounds.Fleet,
    allowed: configured.Quotas,
    time: clock.Clock,
    pressure: engine.Pressure,
) -> Guards:
    """Post the guards of one controller."""
    calls, live = quotas.Quotas(allowed, time.monotonic), streams.Streams(known, time)
    return Guards(known, bounds.Bounds(fleet), calls, live, pressure)


@dataclass(frozen=True, slots=True)
class _Call:
    """One call on its way through the door."""

    guards: Guards
    method: str
    context: _Context
    request: object
    is_stream: bool

    async def admit(self) -> principals.Principal | None:
        """Find out who calls, and whether they may; None for a call that is for everybody.

        Raises:
            InstarError: They may not.
        """
        policy = policies.POLICIES.get(self.method)
        if policy is None:
            raise _denied(self.method, "nobody, since it has no policy")
        if policy.kind is principals.Kind.API and _READS.search(self.method):
            self.guards.pressure.check_read()  # before anything that costs more
        caller = None if policy.kind is None else await self.guards.callers.admit(self.context)
        self.guards.quotas.take(self._name(caller))
        if caller is not None:
            self._allow(policy, caller)
        if self.request is _UNREADABLE:
            raise _unreadable(self.method)
        return caller

    def bound(self, caller: principals.Principal | None) -> None:
        """See that what the call is about lies within the scope of its caller.

        Raises:
            RefusedError: It does not.
        """
        if caller is None or caller.kind is principals.Kind.AGENT or self.request is _UNREADABLE:
            return
        policy = policies.POLICIES[self.method]
        self.guards.bounds.check(policy.reach, roles.scope(caller.grants, policy.roles), self.request)

    def again(self) -> principals.Principal:
        """Authorise a stream once more.

        Raises:
            InstarError: It may go on no longer.
        """
        caller = self.guards.callers.caller(self.context)
        self._allow(policies.POLICIES[self.method], caller)
        self.bound(caller)
        return caller

    @contextlib.contextmanager
    def held(self, caller: principals.Principal | None) -> Iterator[streams.Live | None]:
        """Hold what a call holds while it is answered.

        Raises:
            ExhaustedError: The caller has too many streams.
        """
        if not self.is_stream:
            yield None
            return
        with self.guards.quotas.stream(self._name(caller)):
            if caller is None:
                yield None
                return
            with self.guards.streams.open(caller, self.again) as live:
                yield live

    def _allow(self, policy: policies.Policy, caller: principals.Principal) -> None:
        if caller.kind is not policy.kind:
            raise _denied(self.method, policy.rule, caller)
        if caller.kind is principals.Kind.AGENT:
            return
        scope = roles.scope(caller.grants, policy.roles)
        if scope.is_empty:
            raise _denied(self.method, policy.rule, caller)

    def _name(self, caller: principals.Principal | None) -> str:
        return str(caller) if caller else f"somebody at {attempts.address_of(self.context.peer())}"


class Door(aio.ServerInterceptor):
    """Lets callers in by the policy of the method, and turns errors into statuses on the way out."""

    def __init__(self, posted: Guards, record: Record, find: answering.Find) -> None:
        self._guards = posted
        self._record = record
        self._find = find

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler | None:
        """Wrap the behaviour of a method."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        return self._wrapped(handler, handler_call_details.method)

    def _wrapped(self, handler: _Handler, method: str) -> _Handler:
        behaviour: Any = (
            handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
        )  # Any: the stubs know only the behaviours of the synchronous server
        is_stream = bool(handler.request_streaming or handler.response_streaming)

        def called(request: object, context: _Context) -> _Call:
            return _Call(self._guards, method, context, request, is_stream)

        wrap = self._streaming if inspect.isasyncgenfunction(behaviour) else self._answering
        make = _MAKERS[handler.request_streaming, handler.response_streaming]
        if handler.request_streaming:
            behaviour = _reading(behaviour, method)
        read = _forgiving(handler.request_deserializer)
        return make(wrap(behaviour, called), read, _sparing(handler.response_serializer))

    def _answering(self, behaviour: _Behaviour, called: Callable[[object, _Context], _Call]) -> _Behaviour:
        async def answer(request: object, context: _Context) -> object:
            call = called(request, context)
            live: streams.Live | None = None
            try:
                caller = await call.admit()
                with call.held(caller) as live:
                    return await self._once(behaviour, call, caller)
            except asyncio.CancelledError:
                await _leave_cut(live, call)
            except Exception as error:  # noqa: BLE001  # the edge: whatever it is, it leaves as a status
                await self._keep(error, call)
                await _leave(error, call)

        return answer

    def _streaming(self, behaviour: _Behaviour, called: Callable[[object, _Context], _Call]) -> _Behaviour:
        async def answer(request: object, context: _Context) -> AsyncIterator[object]:
            call = called(request, context)
            live: streams.Live | None = None
            try:
                caller = await call.admit()
                call.bound(caller)
                with call.held(caller) as live:
                    async with contextlib.aclosing(behaviour(request, context)) as responses:
                        async for response in responses:
                            if live is not None:
                                call.again()
                            yield response
            except asyncio.CancelledError:
                await _leave_cut(live, call)
            except Exception as error:  # noqa: BLE001  # the edge: whatever it is, it leaves as a status
                await _leave(error, call)

        return answer

    async def _once(self, behaviour: _Behaviour, call: _Call, caller: principals.Principal | None) -> object:
        """Answer a call; one that is there again, as the first time, also where what it was about is gone by now."""

        async def answer() -> object:
            call.bound(caller)
            return await behaviour(call.request, call.context)

        is_person = caller is not None and caller.kind is principals.Kind.API
        request_id = answering.request_id(call.request) if is_person else ""
        if not request_id or not isinstance(call.request, message.Message):
            return await answer()
        content = answering.content_hash(call.request)
        return await answering.once(self._find, repeating.Call(request_id, call.method, str(caller), content), answer)

    async def _keep(self, error: Exception, call: _Call) -> None:
        """Put a refusal of a known caller on the record; that it cannot be kept does not change the answer."""
        if not isinstance(error, errors.InstarError) or isinstance(error, errors.ExhaustedError):
            return
        policy = policies.POLICIES.get(call.method)
        if policy is None or policy.kind is None or _READS.search(call.method):
            return
        try:
            caller = self._guards.callers.caller(call.context)
        except errors.InstarError:
            return  # nobody who is known, or who is let in
        try:
            await self._record(_asked(call.request, caller.name, call.method), error)
        except errors.InstarError:
            _logger.exception("cannot keep that %s was refused", call.method)


def _forgiving(read: Callable[[bytes], object] | None) -> Callable[[bytes], object] | None:
    """Let what cannot be read come in as such: gRPC itself would log it as a fault of ours, whoever sent it."""
    if read is None:
        return None

    def found(body: bytes) -> object:
        try:
            return read(body)
        except message.DecodeError:
            return _UNREADABLE

    return found


def _sparing(write: Callable[[Any], bytes] | None) -> Callable[[Any], bytes] | None:
    """Let an answer out as it is that was written before."""
    if write is None:
        return None
    return lambda said: said if isinstance(said, bytes) else write(said)


def _reading(behaviour: _Behaviour, method: str) -> _Behaviour:
    """Have a behaviour that takes a stream see only what can be read."""

    async def readable(requests: AsyncIterator[object]) -> AsyncIterator[object]:
        async for request in requests:
            if request is _UNREADABLE:
                raise _unreadable(method)
            yield request

    if inspect.isasyncgenfunction(behaviour):

        async def stream(requests: AsyncIterator[object], context: _Context) -> AsyncIterator[object]:
            async with contextlib.aclosing(behaviour(readable(requests), context)) as responses:
                async for response in responses:
                    yield response

        return stream

    async def answer(requests: AsyncIterator[object], context: _Context) -> object:
        return await behaviour(readable(requests), context)

    return answer


def _unreadable(method: str) -> errors.InvalidRequestError:
    return errors.InvalidRequestError(
        f"cannot read what was sent to {method}: it is no message of its type",
        code="message_unreadable",
        field="message",
        rule="a message as protocol buffers write it",
    )


def _asked(request: object, actor: str, method: str) -> engine.Asked:
    upgrade = getattr(request, "upgrade", request)
    action = _WORD.sub("_", method.rpartition("/")[2]).lower()
    return engine.Asked(actor, action, request, str(getattr(upgrade, "component", "")), _subject(request))


def _subject(request: object) -> str:
    """What a request names, as the audit log would; empty where that is nothing but a component, or unknown."""
    for part in (request, getattr(request, "trigger", None), getattr(request, "graph", None)):
        for field in _NAMING:
            found = getattr(part, field, "")
            if isinstance(found, str) and found:
                return f"{found} {getattr(part, 'version', '')}".rstrip() if field == "component" else found
    return ""


def _denied(method: str, rule: str, caller: principals.Principal | None = None) -> errors.RefusedError:
    who = "the caller" if caller is None else str(caller)
    return errors.RefusedError(
        f"cannot let {who} call {method}: it is for {rule}",
        code=rpc_errors.PERMISSION_DENIED,
        field="token",
        rule=f"{method} is for {rule}",
    )


async def _leave_cut(live: streams.Live | None, call: _Call) -> Never:
    """End a call that was cancelled: with its reason, where it was cut here."""
    if live is None or live.ended is None:
        raise asyncio.CancelledError
    live.task.uncancel()
    await _leave(live.ended, call)


async def _leave(error: Exception, call: _Call) -> Never:
    if isinstance(error, aio.AbortError):
        raise error
    if isinstance(error, errors.InstarError):
        await call.context.abort_with_status(rpc_errors.to_status(error))
    _logger.error("cannot answer %s", call.method, exc_info=error)
    await call.context.abort_with_status(rpc_errors.to_status(rpc_errors.unexpected()))
