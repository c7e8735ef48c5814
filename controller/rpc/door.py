"""The door of the controller: each call passes it, shows who it is, and leaves with a typed status.

Rules kept here: the policy is looked up by the name of the method, so that a service cannot forget it; an error of the
core becomes its status in one place; any other is logged whole and told as INTERNAL; what a known caller is refused is
kept on record, also where it is no request that the engine could be asked. Left out: what each kind of caller may do
(`principals`), what errors look like on the wire (`errors`), and a record of those who only read or whom nobody knows:
they could fill it.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Never, Protocol, TypeAlias

import grpc
from grpc import aio

from controller import engine
from controller.core import errors
from controller.rpc import errors as rpc_errors
from controller.rpc import principals

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
_READS = re.compile(r"/(Explain|Export|Get|List|Read|Verify|Watch)[A-Za-z]*$")
_NAMING = ("rollout", "node_id", "freeze_id", "firing_id", "name", "component")  # fields that name what is acted on
_WORD = re.compile(r"(?<=[a-z])(?=[A-Z])")


class Record(Protocol):
    """Where it is kept that a caller was refused."""

    def __call__(self, asked: engine.Asked, error: errors.InstarError) -> Awaitable[None]:
        """Keep it, unless it is kept already."""
        ...


class Door(aio.ServerInterceptor):
    """Lets callers in by the policy of the method, and turns errors into statuses on the way out."""

    def __init__(self, register: principals.Register, record: Record) -> None:
        self._register = register
        self._record = record

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
        wrap = self._streaming if inspect.isasyncgenfunction(behaviour) else self._answering
        make = _MAKERS[handler.request_streaming, handler.response_streaming]
        return make(wrap(behaviour, method), handler.request_deserializer, handler.response_serializer)

    def _answering(self, behaviour: _Behaviour, method: str) -> _Behaviour:
        async def call(request: object, context: _Context) -> object:
            try:
                self._admit(context, method)
                return await behaviour(request, context)
            except Exception as error:  # noqa: BLE001  # the edge: whatever it is, it leaves as a status
                await self._keep(error, request, context, method)
                await _leave(error, context, method)

        return call

    def _streaming(self, behaviour: _Behaviour, method: str) -> _Behaviour:
        async def call(request: object, context: _Context) -> AsyncIterator[object]:
            try:
                self._admit(context, method)
                async with contextlib.aclosing(behaviour(request, context)) as responses:
                    async for response in responses:
                        yield response
            except Exception as error:  # noqa: BLE001  # the edge: whatever it is, it leaves as a status
                await _leave(error, context, method)

        return call

    async def _keep(self, error: Exception, request: object, context: _Context, method: str) -> None:
        """Put a refusal of a known caller on the record; that it cannot be kept does not change the answer."""
        if not isinstance(error, errors.InstarError) or isinstance(error, errors.UnauthenticatedError):
            return
        if principals.POLICIES.get(method) is None or _READS.search(method):
            return
        try:
            await self._record(_asked(request, self._register.caller(context).name, method), error)
        except errors.InstarError:
            _logger.exception("cannot keep that %s was refused", method)

    def _admit(self, context: _Context, method: str) -> None:
        if method not in principals.POLICIES:
            raise _denied(method, "nobody, since it has no policy")
        kinds = principals.POLICIES[method]
        if kinds is None:
            return
        caller = self._register.caller(context)
        if caller.kind not in kinds:
            raise _denied(method, " or ".join(sorted(kind.value for kind in kinds)), caller)


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
    who = "the caller" if caller is None else f"{caller.kind.value} {caller.name!r}"
    return errors.RefusedError(
        f"cannot let {who} call {method}: it is for {rule}",
        code=rpc_errors.PERMISSION_DENIED,
        field="token",
        rule=f"{method} is for {rule}",
    )


async def _leave(error: Exception, context: _Context, method: str) -> Never:
    if isinstance(error, aio.AbortError):
        raise error
    if isinstance(error, errors.InstarError):
        await context.abort_with_status(rpc_errors.to_status(error))
    _logger.error("cannot answer %s", method, exc_info=error)
    await context.abort_with_status(rpc_errors.to_status(rpc_errors.unexpected()))
