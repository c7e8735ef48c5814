"""Who makes a call: found from what it shows, each time anew.

Rules kept here: a token of the controller's own is looked up, one of an issuer is checked; whoever is denied in the
register is let in by neither; wrong tokens slow down the address that they come from. Left out: what a caller may do
(`policies`).
"""

from __future__ import annotations

from typing import Any

from grpc import aio

from controller import clock
from controller.core import errors, secret
from controller.rpc import attempts, issuers, principals, register

_SCHEME = "Bearer "
_Context = aio.ServicerContext[Any, Any]


class Callers:
    """The callers that are known."""

    def __init__(self, known: register.Register, issued: issuers.Issuers, time: clock.Clock) -> None:
        self._register = known
        self._issuers = issued
        self._attempts = attempts.Attempts(time.monotonic)

    async def admit(self, context: _Context) -> principals.Principal:
        """The principal that makes a call; who shows too much that is wrong waits for the answer.

        Raises:
            UnauthenticatedError: It shows no token, or nobody's.
            RefusedError: It is denied.
            UnavailableError: It cannot be found out now.
            ExhaustedError: Too many wrong tokens come.
        """
        token = _shown(context)
        try:
            if not issuers.Issuers.takes(token):
                return self._find(token)
            if not self._issuers.knows(token):
                await self._attempts.wait(context.peer())
                await self._issuers.ready(token)
            return self._find(token)
        except errors.UnauthenticatedError:
            if not issuers.Issuers.takes(token):  # what costs a signature has waited already
                await self._attempts.wait(context.peer())
            self._attempts.failed(context.peer())
            raise

    def caller(self, context: _Context) -> principals.Principal:
        """The principal that makes a call which was admitted, as long as it stands for somebody.

        Raises:
            UnauthenticatedError: It does no longer.
            RefusedError: It is denied by now.
            UnavailableError: It cannot be found out now.
        """
        return self._find(_shown(context))

    def _find(self, token: secret.Secret[str]) -> principals.Principal:
        if issuers.Issuers.takes(token):
            return self._register.checked(self._issuers.find(token))
        return self._register.find(token)

    def revision(self) -> int:
        """A number that is another one whenever others may be known.

        Raises:
            UnavailableError: It cannot be found out now.
        """
        self._register.refresh()
        return self._register.revision


def _shown(context: _Context) -> secret.Secret[str]:
    header = dict(context.invocation_metadata() or ()).get("authorization", "")
    if not isinstance(header, str) or not header.startswith(_SCHEME):
        raise errors.UnauthenticatedError(
            "cannot let the caller in: the call carries no token",
            code="token_missing",
            field="token",
            rule="metadata `authorization: Bearer TOKEN`",
        )
    return secret.Secret(header.removeprefix(_SCHEME))
