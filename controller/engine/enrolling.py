"""How nodes come in and stay: join tokens, certificates, and what is done about a key that two hosts have.

Rules kept: what is decided on a row is written in the transaction that has read it, with its audit entry; a node whose
key was copied is locked and put into quarantine, both holders alike, for nobody here can tell them apart. Left out: the
decisions (`controller.trust.enrolment`), and who may ask (`controller.rpc`).
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Protocol

import sqlalchemy as sa
from cryptography import x509

from controller import clock as clocks
from controller.config import tls
from controller.core import errors, model
from controller.core.audit import chain
from controller.engine import repeating, stepping
from controller.store import answers, database, identities, restorations
from controller.trust import authorities, certificates, enrolment, join_tokens, listening, spiffe

TOKENS_KEPT = timedelta(days=1)  # after their end: so long an answer that was lost can be asked for again
_Decision = Callable[[model.NodeIdentity | None], model.NodeIdentity]


class Quarantine(Protocol):
    """What leaves a node out of everything."""

    def __call__(self, node_id: model.NodeId, *, reason: str, actor: str) -> Awaitable[object]:
        """Do so; raises NotFoundError where it was never connected."""
        ...


class Enrolling:
    """The desk for nodes that come in.

    Args:
        own: The authorities.
        wanted: On what terms certificates are given.
    """

    def __init__(
        self,
        store: database.Store,
        own: listening.Listening,
        wanted: tls.Tls,
        clock: clocks.Clock,
        quarantine: Quarantine,
    ) -> None:
        self._store = store
        self._own = own
        self._wanted = wanted
        self._clock = clock
        self._quarantine = quarantine
        self._challenges = enrolment.Challenges(secrets.token_bytes(32))

    async def make_token(self, node_id: str, lifetime: timedelta, *, actor: str) -> tuple[join_tokens.Token, datetime]:
        """Make a join token; returns it, and until when it is good.

        Raises:
            InvalidRequestError: The name or the lifetime breaks its rule.
        """
        spiffe.identity(self._own.known.domain, spiffe.Kind.AGENT, node_id)
        _check_lifetime(lifetime)
        now, node = self._clock.now(), model.NodeId(node_id)
        token = join_tokens.make(self._own.known.trusted(authorities.Kind.SERVERS))
        stored = model.JoinToken(token.id, node, token.secret_hash, now + lifetime)

        made, call = (token, stored.expires_at), repeating.current()

        def work(connection: sa.Connection) -> None:
            _check_new(connection, call)
            identities.forget_tokens(connection, now - TOKENS_KEPT)
            identities.put_token(connection, stored)
            until = stored.expires_at.isoformat(timespec="seconds")
            self._note(connection, now, actor, "node.token", node, f"{token.id} until {until}")
            _keep(connection, call, made, now)

        await self._store.write(work)
        return made

    async def enrol(self, text: str, request: str) -> model.NodeIdentity:
        """Take a node in.

        Raises:
            UnauthenticatedError: The token lets nobody in, or not this key.
            InvalidRequestError: The certificate request is none.
        """
        shown, key, terms = join_tokens.parse(text), certificates.read_request(request), self._terms()

        def work(connection: sa.Connection) -> model.NodeIdentity | errors.UnauthenticatedError:
            stored = identities.token(connection, shown.id)
            known = None if stored is None else identities.identity(connection, stored.node_id)
            try:
                used, made = enrolment.enrol(stored, shown, known, key, terms)
            except errors.UnauthenticatedError as error:
                if stored is not None and join_tokens.is_secret(shown, stored.secret_hash):  # others could fill the log
                    told = (_agent(stored.node_id), "node.enrol", stored.node_id, str(error), error.code)
                    self._note(connection, terms.now, *told)
                return error
            if made != known:
                identities.put_token(connection, used)
                identities.put_identity(connection, made)
                reason = f"token {used.id}, certificate {made.serial}"
                self._note(connection, terms.now, _agent(made.node_id), "node.enrol", made.node_id, reason)
            return made

        found = await self._store.write(work)
        if isinstance(found, errors.UnauthenticatedError):
            raise found
        return found

    async def renew(self, node_id: str, shown_key_hash: str, request: str) -> model.NodeIdentity:
        """Give a node its next certificate.

        Raises:
            RefusedError: The node is not known, locked, or two hosts have its key.
            InvalidRequestError: The certificate request is none.
        """
        key, terms = certificates.read_request(request), self._terms()
        return await self._decide(
            node_id, "node.renew", lambda known: enrolment.renew(known, shown_key_hash, key, terms)
        )

    def challenge(self, node_id: str) -> str:
        """Something for a node to sign; of a node that is not known as well, which tells nobody anything."""
        return self._challenges.make(node_id, self._clock.now())

    async def recover(self, node_id: str, shown: enrolment.Recovery) -> model.NodeIdentity:
        """Give a node a new certificate whose last has run out.

        Raises:
            UnauthenticatedError: The challenge or the signature is wrong.
            RefusedError: The node is not known, locked, has a good certificate, or has come back too often.
            InvalidRequestError: The certificate request is none.
        """
        key, terms = certificates.read_request(shown.request), self._terms()
        self._challenges.check(node_id, shown.challenge, terms.now)
        return await self._decide(node_id, "node.recover", lambda known: enrolment.recover(known, shown, key, terms))

    async def permit_recovery(self, node_id: str, *, reason: str, actor: str) -> model.NodeIdentity:
        """Let a node come back by itself once more.

        Raises:
            NotFoundError: It has no certificate.
        """
        now, call = self._clock.now(), repeating.current()

        def work(connection: sa.Connection) -> model.NodeIdentity | None:
            _check_new(connection, call)
            known = identities.identity(connection, model.NodeId(node_id))
            if known is None:
                return None
            permitted = replace(known, recoveries_left=known.recoveries_left + 1)
            identities.put_identity(connection, permitted)
            self._note(connection, now, actor, "node.permit_recovery", known.node_id, reason)
            _keep(connection, call, permitted, now)
            return permitted

        found = await self._store.write(work)
        if found is None:
            raise errors.NotFoundError(
                f"cannot let node {node_id!r} come back: it has had no certificate",
                code="identity_unknown",
                field="node_id",
                value=node_id,
                rule="a node that was taken in by a join token",
            )
        return found

    async def vouch(self, node_id: str, shown: x509.Certificate) -> None:
        """See that a node shows its latest certificate, or the one before; else both holders are locked out.

        Raises:
            RefusedError: It does not.
        """
        shown_key_hash = certificates.key_hash_of(shown)
        known = self._store.read(lambda connection: identities.identity(connection, model.NodeId(node_id)))
        try:
            enrolment.vouch(known, shown_key_hash)
        except errors.RefusedError as error:
            if self._may_be_forgotten(shown):
                await self._decide(node_id, "node.adopt", lambda again: self._adopted(again, node_id, shown))
            elif isinstance(error, enrolment.CloneError):
                await self._decide(node_id, "node.renew", lambda again: enrolment.vouch(again, shown_key_hash))
            else:
                raise

    def _may_be_forgotten(self, shown: x509.Certificate) -> bool:
        """Tell whether a certificate was issued in a time of which the store knows nothing."""
        issued_at = certificates.issued_at(shown)
        return any(each.has(issued_at) for each in self._store.read(restorations.read))

    def _adopted(self, known: model.NodeIdentity | None, node_id: str, shown: x509.Certificate) -> model.NodeIdentity:
        found = enrolment.adopt(known, model.NodeId(node_id), shown, self._terms())
        return found or enrolment.vouch(known, certificates.key_hash_of(shown))

    @property
    def trusted(self) -> str:
        """Authorities of the listeners, as PEM."""
        return self._own.known.bundle(authorities.Kind.SERVERS)

    async def _decide(self, node_id: str, action: str, decide: _Decision) -> model.NodeIdentity:
        now, node = self._clock.now(), model.NodeId(node_id)

        def work(connection: sa.Connection) -> model.NodeIdentity | enrolment.CloneError:
            known = identities.identity(connection, node)
            try:
                made = decide(known)
            except enrolment.CloneError as error:
                return error
            if made != known:
                identities.put_identity(connection, made)
                self._note(connection, now, _agent(node), action, node, f"certificate {made.serial}")
            return made

        found = await self._store.write(work)
        if isinstance(found, enrolment.CloneError):
            await self._lock_out(node, decide)
            raise found
        return found

    async def _lock_out(self, node: model.NodeId, decide: _Decision) -> None:
        """Put a node into quarantine whose key was copied, then lock it.

        In this order, for who is killed in between finds the double again; of what is locked nobody finds that out.
        """

        def work(connection: sa.Connection) -> None:
            known = identities.identity(connection, node)
            try:
                decide(known)
            except enrolment.CloneError:
                assert known is not None  # noqa: S101  # only what is known can have a double
                identities.put_identity(connection, enrolment.lock(known, enrolment.CLONED))
                told = (stepping.CONTROLLER_ACTOR, "node.clone", node, enrolment.CLONED)
                self._note(connection, self._clock.now(), *told)
            except errors.RefusedError:
                pass  # somebody has locked or removed it meanwhile

        with contextlib.suppress(errors.NotFoundError):  # it was never connected
            await self._quarantine(node, reason=enrolment.CLONED, actor=stepping.CONTROLLER_ACTOR)
        await self._store.write(work)

    def _note(self, connection: sa.Connection, at: datetime, *told: str) -> None:
        """Put an entry into the audit log: actor, action, subject, reason, and the code of a refusal."""
        self._store.note(connection, chain.Entry(at, *told))

    def _terms(self) -> enrolment.Terms:
        known = self._own.known
        issuer = known.signing(authorities.Kind.AGENTS)
        return enrolment.Terms(
            issuer, known.domain, self._wanted.agent_lifetime, self._wanted.recoveries, self._clock.now()
        )


def _check_new(connection: sa.Connection, call: repeating.Call | None) -> None:
    if call is not None:
        call.check_new(answers.find(connection, call.request_id))


def _keep(connection: sa.Connection, call: repeating.Call | None, made: object, at: datetime) -> None:
    """Write what a call is answered that must not be carried out twice."""
    if call is not None:
        answers.put(connection, (call.answered(made, at),))


def _agent(node_id: model.NodeId) -> str:
    return f"agent:{node_id}"


def _check_lifetime(lifetime: timedelta) -> None:
    if not join_tokens.LIFETIME_MIN <= lifetime <= join_tokens.LIFETIME_MAX:
        rule = f"from {join_tokens.LIFETIME_MIN} to {join_tokens.LIFETIME_MAX}"
        raise errors.InvalidRequestError(
            f"cannot make a join token with a lifetime of {lifetime}: it must be {rule}",
            code="lifetime_invalid",
            field="lifetime",
            value=str(lifetime),
            rule=rule,
        )
