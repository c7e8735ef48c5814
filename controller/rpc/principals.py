"""Who calls, and what they may call: bearer tokens in a file that only its owner reads, until certificates come.

Rules kept here: deny by default, a method without a policy answers nobody; only hashes of tokens are stored, so that a
stolen register opens no door and the time of a look-up tells nothing. A token that is made while the controller runs
counts from the next call on. Left out: what a caller may do to which node, beyond its kind.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, unique
from pathlib import Path
from typing import Any

from grpc import aio

from controller.core import errors, secret

TOKEN_BYTES = 32  # 256 bits: past guessing
NAME_RULE = "1 to 253 letters, digits, dots, dashes and underscores, beginning with a letter or digit"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")
_SCHEME = "Bearer "


@unique
class Kind(Enum):
    """What a caller is: a person or service that uses the API, or the agent of one node."""

    API = "api"
    AGENT = "agent"


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller that showed its token; the name of an agent is its node's identity."""

    kind: Kind
    name: str


_API = frozenset({Kind.API})
_AGENT = frozenset({Kind.AGENT})

# Who may call what. None is for everybody: load balancers ask for health without a token.
POLICIES: Mapping[str, frozenset[Kind] | None] = {
    "/grpc.health.v1.Health/Check": None,
    "/grpc.health.v1.Health/List": None,
    "/grpc.health.v1.Health/Watch": None,
    "/instar.v1.AgentService/Connect": _AGENT,
    "/instar.v1.AgentService/ReadBlob": _AGENT,
    "/instar.v1.AgentService/ReadTrust": _AGENT,
    "/instar.v1.AuditService/ExportAudit": _API,
    "/instar.v1.AuditService/GetAuditHead": _API,
    "/instar.v1.AuditService/ListAudit": _API,
    "/instar.v1.AuditService/VerifyAudit": _API,
    "/instar.v1.FleetService/AddFreeze": _API,
    "/instar.v1.FleetService/CordonNode": _API,
    "/instar.v1.FleetService/ExplainNode": _API,
    "/instar.v1.FleetService/GetNode": _API,
    "/instar.v1.FleetService/GetStatistics": _API,
    "/instar.v1.FleetService/ListRuleStates": _API,
    "/instar.v1.FleetService/LabelNode": _API,
    "/instar.v1.FleetService/ListFreezes": _API,
    "/instar.v1.FleetService/ListNodes": _API,
    "/instar.v1.FleetService/QuarantineNode": _API,
    "/instar.v1.FleetService/ReadLog": _API,
    "/instar.v1.FleetService/RemoveFreeze": _API,
    "/instar.v1.FleetService/RemoveNode": _API,
    "/instar.v1.FleetService/UncordonNode": _API,
    "/instar.v1.ReleaseService/BlockRelease": _API,
    "/instar.v1.ReleaseService/GetGraph": _API,
    "/instar.v1.ReleaseService/GetRelease": _API,
    "/instar.v1.ReleaseService/GetTrust": _API,
    "/instar.v1.ReleaseService/ListReleases": _API,
    "/instar.v1.ReleaseService/PromoteRelease": _API,
    "/instar.v1.ReleaseService/PublishRelease": _API,
    "/instar.v1.ReleaseService/PutGraph": _API,
    "/instar.v1.ReleaseService/PutTrust": _API,
    "/instar.v1.RolloutService/ApproveRollout": _API,
    "/instar.v1.RolloutService/CancelRollout": _API,
    "/instar.v1.RolloutService/DenyRollout": _API,
    "/instar.v1.RolloutService/ExplainRollout": _API,
    "/instar.v1.RolloutService/GetAnalysis": _API,
    "/instar.v1.RolloutService/GetRollout": _API,
    "/instar.v1.RolloutService/ListApprovals": _API,
    "/instar.v1.RolloutService/ListRollouts": _API,
    "/instar.v1.RolloutService/PauseRollout": _API,
    "/instar.v1.RolloutService/PlanUpgrade": _API,
    "/instar.v1.RolloutService/PromoteRollout": _API,
    "/instar.v1.RolloutService/ResumeRollout": _API,
    "/instar.v1.RolloutService/RetryRollout": _API,
    "/instar.v1.RolloutService/RevertRollout": _API,
    "/instar.v1.RolloutService/RollBackEmergency": _API,
    "/instar.v1.RolloutService/StartUpgrade": _API,
    "/instar.v1.RolloutService/WatchRollout": _API,
    "/instar.v1.TriggerService/ApplyTrigger": _API,
    "/instar.v1.TriggerService/ApproveFiring": _API,
    "/instar.v1.TriggerService/DenyFiring": _API,
    "/instar.v1.TriggerService/DisableTrigger": _API,
    "/instar.v1.TriggerService/EnableTrigger": _API,
    "/instar.v1.TriggerService/ExplainTrigger": _API,
    "/instar.v1.TriggerService/FireTrigger": _API,
    "/instar.v1.TriggerService/GetFiring": _API,
    "/instar.v1.TriggerService/GetTrigger": _API,
    "/instar.v1.TriggerService/ListFirings": _API,
    "/instar.v1.TriggerService/ListTriggers": _API,
    "/instar.v1.TriggerService/RemoveTrigger": _API,
    "/instar.v1.TriggerService/SendEvents": _API,
    "/instar.v1.TriggerService/TestTrigger": _API,
}


class Register:
    """The file of principals: one line each, ``<sha256 of the token> <kind> <name>``.

    A principal has one token at a time: making another one ends the one before.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._principals: Mapping[str, Principal] = {}

    def make_token(self, principal: Principal) -> secret.Secret[str]:
        """Make a token for a principal, durable before it is returned.

        Raises:
            InvalidRequestError: The name breaks NAME_RULE.
        """
        if not _NAME.fullmatch(principal.name):
            raise errors.InvalidRequestError(
                f"cannot make a token: name {principal.name!r} is not {NAME_RULE}",
                code="name_invalid",
                field="name",
                value=principal.name,
                rule=NAME_RULE,
            )
        token = secret.Secret(secrets.token_urlsafe(TOKEN_BYTES))
        with _locked(self._path):
            others = {key: one for key, one in self._read().items() if one != principal}
            self._write(others | {_hash(token): principal})
        return token

    def find(self, token: secret.Secret[str]) -> Principal:
        """The principal that a token belongs to.

        Raises:
            UnauthenticatedError: Nobody's.
        """
        self._refresh()
        wanted = _hash(token)  # the time of a look-up by hash tells nothing of the token
        if wanted not in self._principals:
            raise errors.UnauthenticatedError(
                "cannot let the caller in: the token is not one of this controller's",
                code="token_unknown",
                field="token",
                rule="a token that this controller made",
            )
        return self._principals[wanted]

    def caller(self, context: aio.ServicerContext[Any, Any]) -> Principal:
        """The principal that makes a call.

        Raises:
            UnauthenticatedError: It shows no token, or nobody's.
        """
        header = dict(context.invocation_metadata() or ()).get("authorization", "")
        if not isinstance(header, str) or not header.startswith(_SCHEME):
            raise errors.UnauthenticatedError(
                "cannot let the caller in: the call carries no token",
                code="token_missing",
                field="token",
                rule="metadata `authorization: Bearer TOKEN`",
            )
        return self.find(secret.Secret(header.removeprefix(_SCHEME)))

    def _refresh(self) -> None:
        seen = _fingerprint(self._path)
        if seen != self._seen:
            self._principals = self._read()
            self._seen = seen

    def _read(self) -> dict[str, Principal]:
        if not self._path.exists():
            return {}
        rows = (line.split() for line in self._path.read_text("utf-8").splitlines())
        return {key: Principal(Kind(kind), name) for key, kind, name in rows}

    def _write(self, principals: Mapping[str, Principal]) -> None:
        lines = [f"{key} {one.kind.value} {one.name}\n" for key, one in principals.items()]
        write_private(self._path, "".join(lines))


def write_private(path: Path, text: str) -> None:
    """Put a text into a file that only its owner reads: whole or not at all, and durable."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with path.with_name(f".{path.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fingerprint(path: Path) -> tuple[int, int, int] | None:
    try:
        seen = path.stat()
    except FileNotFoundError:
        return None
    return seen.st_ino, seen.st_mtime_ns, seen.st_size


def _hash(token: secret.Secret[str]) -> str:
    return hashlib.sha256(token.reveal().encode()).hexdigest()
