"""Who makes a call: found from what it shows, each time anew.

Rules kept here: a certificate that the connection has shown counts, and no token beside it; over TLS without one, a
token of an issuer, and only where issuers are configured; without TLS a token of the controller's own as well; whoever
is denied in the register is let in by none of them; what is wrong slows down the address that it comes from. Left out:
which listener asks for certificates (`serving`), and what a caller may do (`policies`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from grpc import aio

from controller import clock
from controller.core import errors, secret
from controller.rpc import attempts, issuers, principals, register
from controller.trust import peers, spiffe

_SCHEME = "Bearer "
_KINDS: Mapping[spiffe.Kind, principals.Kind] = {
    spiffe.Kind.AGENT: principals.Kind.AGENT,
    spiffe.Kind.CLIENT: principals.Kind.API,
}
_Context = aio.ServicerContext[Any, Any]


class Callers:
    """The callers that are known.

    Args:
        shown: Who shows which certificate; None where there is no TLS.
    """

    def __init__(
        self,
        known: register.Register,
        issued: issuers.Issuers,
        time: clock.Clock,
        shown: peers.Peers | None = None,
    ) -> None:
        self._register = known
        self._issuers = issued
        self._peers = shown
        self._attempts = attempts.Attempts(time.monotonic)

    async def admit(self, context: _Context) -> principals.Principal:
        """The principal that makes a call; who shows too much that is wrong waits for the answer.

        Raises:
            UnauthenticatedError: It shows no certificate or token, or nobody's.
            RefusedError: It is denied.
            UnavailableError: It cannot be found out now.
            ExhaustedError: Too many wrong tokens or certificates come.
        """
        if self._shows_certificate(context):
            return await self._admit_holder(context)
        token = self._token(context)
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
        if self._peers is None or not self._shows_certificate(context):
            return self._find(self._token(context))
        return self._held(self._peers.find(context.auth_context()))

    def holder(self, context: _Context) -> peers.Peer | None:
        """Who has shown the certificate of a call's connection; None where there is no TLS.

        Raises:
            UnauthenticatedError: Nobody, or it cannot be believed.
        """
        return None if self._peers is None else self._peers.find(context.auth_context())

    def _shows_certificate(self, context: _Context) -> bool:
        """Tell whether a certificate is looked for: where there is TLS, unless a token may come in its place."""
        if self._peers is None:
            return False
        return not self._issuers.are_known or self._peers.shows(context.auth_context())

    async def _admit_holder(self, context: _Context) -> principals.Principal:
        try:
            return self.caller(context)
        except errors.UnauthenticatedError:
            await self._attempts.wait(context.peer())
            self._attempts.failed(context.peer())
            raise

    def _held(self, holder: peers.Peer) -> principals.Principal:
        until = holder.certificate.not_valid_after_utc
        shown = principals.Principal(_KINDS[holder.identity.kind], holder.identity.name, until=until)
        return self._register.checked(shown)

    def _token(self, context: _Context) -> secret.Secret[str]:
        if self._peers is None:
            return _shown(context, "the call carries no token", "metadata `authorization: Bearer TOKEN`")
        self._peers.check_version(context.auth_context())
        rule = (
            "a certificate of the clients' authority, or metadata `authorization: Bearer TOKEN` with one of an issuer"
        )
        return _shown(context, "it shows neither a certificate nor a token", rule)

    def _find(self, token: secret.Secret[str]) -> principals.Principal:
        if issuers.Issuers.takes(token):
            return self._register.checked(self._issuers.find(token))
        if self._peers is not None:
            raise errors.UnauthenticatedError(
                "cannot let the caller in: over TLS a token counts that an issuer has made, and no other",
                code="token_unknown",
                field="token",
                rule="a token of a configured issuer, or a certificate",
            )
        return self._register.find(token)

    def revision(self) -> int:
        """A number that is another one whenever others may be known.

        Raises:
            UnavailableError: It cannot be found out now.
        """
        self._register.refresh()
        return self._register.revision + (0 if self._peers is None else self._peers.revision())


def _shown(context: _Context, fault: str, rule: str) -> secret.Secret[str]:
    header = dict(context.invocation_metadata() or ()).get("authorization", "")
    if not isinstance(header, str) or not header.startswith(_SCHEME):
        raise errors.UnauthenticatedError(
            f"cannot let the caller in: {fault}", code="token_missing", field="token", rule=rule
        )
    return secret.Secret(header.removeprefix(_SCHEME))
