"""Changes of what decides who may do what, told to the audit log: register, authorities, configuration.

Theory of operation. The register and the authorities are files that commands on the controller's machine change, and no
call does; the configuration is read at the start. So a change is told by what was read of it: facts, which the engine
compares with those that it has stored, and in one transaction stores and writes a row of. What was changed while no
controller ran is told at the next start, and nothing is told twice.

Rules kept: all is told before anybody is answered, and then within a second of its being read; each register that
anybody was let in by is told, also one that was soon another; no token, and no hash of one, is in a fact. Left out:
secrets of the web side and keys of issuers, which are files of others.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Never

from cryptography.hazmat.primitives import hashes

from controller.config import settings
from controller.core import errors, roles
from controller.rpc import register
from controller.trust import authorities

LOOK_SECONDS = 0.25  # between two looks
WAITING_MAX = 256  # registers that were read and are not told yet; of more the oldest are left out
TOKEN_MARK_CHARS = 12  # of the hash of a token's hash: tells one token from the next, and is good for nothing else
REGISTER, AUTHORITIES, CONFIGURATION = "register", "authorities", "configuration"
_logger = logging.getLogger(__name__)

Facts = Mapping[str, str]
Note = Callable[[str, Facts], Awaitable[None]]


class Watch:
    """Tells of changes.

    Args:
        note: Stores facts about a subject, with a row of how they differ from those before.
        enrolled: The register; it is looked at, and heard.
        known: The authorities as they stand now; None where there is no TLS.
    """

    def __init__(
        self, note: Note, enrolled: register.Register, known: Callable[[], authorities.Authorities] | None
    ) -> None:
        self._note = note
        self._register = enrolled
        self._known = known
        self._told: authorities.Authorities | None = None
        self._waiting: deque[Facts] = deque(maxlen=WAITING_MAX)
        enrolled.heard = self._hear

    async def start(self, loaded: settings.Settings) -> None:
        """Tell how everything stands.

        Raises:
            InstarError: It cannot be stored.
        """
        await self._note(CONFIGURATION, of_configuration(loaded))
        if not self._waiting:
            self._hear(self._register.entries())
        await self._look()

    async def run(self) -> Never:
        """Look for changes for ever; what cannot be read or stored now is tried again."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                self._register.refresh()
                await self._look()
            except errors.InstarError as error:
                _logger.warning("cannot tell who may do what: %s", error)

    async def _look(self) -> None:
        while self._waiting:
            await self._note(REGISTER, self._waiting[0])
            self._waiting.popleft()
        known = None if self._known is None else self._known()
        if known is not None and known is not self._told:
            await self._note(AUTHORITIES, of_authorities(known))
            self._told = known

    def _hear(self, entries: Iterable[register.Entry]) -> None:
        self._waiting.append(of_register(entries))


def of_register(entries: Iterable[register.Entry]) -> Facts:
    """What the register says, by kind and name."""
    return {f"{each.principal.kind.value} {each.principal.name}": _entry(each) for each in entries}


def _entry(entry: register.Entry) -> str:
    parts = [*map(_grant, entry.principal.grants)]
    if entry.token_hash:
        mark = hashlib.sha256(entry.token_hash.encode()).hexdigest()
        parts.append(f"token {mark[:TOKEN_MARK_CHARS]}")
    if entry.denied_because:
        parts.append(f"denied ({entry.denied_because})")
    return ", ".join(parts) or "no roles"


def _grant(grant: roles.Grant) -> str:
    return f"{grant.role.value}:{grant.scope}" if grant.scope else grant.role.value


def of_authorities(known: authorities.Authorities) -> Facts:
    """Whose certificates are trusted, by the SHA-256 of the authority's own."""
    marks = {
        f"{kind.value} {each.certificate.fingerprint(hashes.SHA256()).hex()}": each.role.value
        for kind, all_of_kind in known.of.items()
        for each in all_of_kind
    }
    return {"domain": known.domain} | marks


def of_configuration(loaded: settings.Settings) -> Facts:
    """What the configuration says of who may do what."""
    facts = {"self_approval": "allow" if loaded.self_approval else "refuse", "tls": "on" if loaded.tls else "off"}
    for issuer in loaded.issuers:
        name = f"issuer {issuer.name}"
        keys = issuer.jwks_url or str(issuer.jwks_file)
        facts[name] = (
            f"{issuer.issuer}, audience {issuer.audience}, {' '.join(issuer.algorithms)}, keys {keys}, ca"
            f" {issuer.ca_file or 'of the system'}, claims {issuer.name_claim} and {issuer.roles_claim}, max_age"
            f" {issuer.age_max.total_seconds():g}s, leeway {issuer.leeway.total_seconds():g}s"
        )
        for each in issuer.grants:
            fact = facts.get(key := f"{name} grant {each.value!r}")
            facts[key] = ", ".join(filter(None, (fact, _grant(each.grant))))
    if loaded.web is not None:
        facts["web.events_secret_file"] = str(loaded.web.events_secret_file or "none")
        facts["web.alertmanager_token_file"] = str(loaded.web.alertmanager_token_file or "none")
    return facts
