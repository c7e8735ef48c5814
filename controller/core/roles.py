"""What callers of the API may do: roles, each for the whole fleet or for the nodes that a label selector takes.

Rules kept: a role that is not granted is not held; several grants of one role reach as far as all of them together; a
grant without a selector reaches everywhere. Left out: which method needs which role (`controller.rpc.policies`), and
who is granted what (the register, and the issuers of tokens).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, unique

from controller.core import errors, selector

# Roles that only ever concern the whole fleet: limiting one would leave nothing of it.
_WHOLE_ONLY_RULE = "without a scope: a release is nobody's node"


@unique
class Role(Enum):
    """What somebody is there for; admin is everything."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    APPROVER = "approver"
    PUBLISHER = "publisher"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Grant:
    """A role that somebody holds.

    Args:
        scope: Label selector of the nodes for which it is held; empty for the whole fleet.
    """

    role: Role
    scope: str = ""


WHOLE_FLEET_ADMIN = (Grant(Role.ADMIN),)


@dataclass(frozen=True, slots=True)
class Scope:
    """The nodes for which somebody may do something: those that one of the selectors takes."""

    selectors: tuple[selector.Selector, ...]

    @property
    def is_empty(self) -> bool:
        """True where it is held for nothing at all."""
        return not self.selectors

    @property
    def is_whole(self) -> bool:
        """True where it is held for the whole fleet, nodes to come included."""
        return any(not each.requirements for each in self.selectors)

    def takes(self, labels: Mapping[str, str]) -> bool:
        """Tell whether it is held for a node with these labels."""
        return any(each.matches(labels) for each in self.selectors)

    def holds(self, wanted: selector.Selector) -> bool:
        """Tell whether it is held for every node, also to come, that a selector takes."""
        return any(wanted.lies_within(each) for each in self.selectors)


def grant(role: str, scope: str = "", field: str = "role") -> Grant:
    """Read a grant.

    Args:
        role: Its word.
        scope: Label selector; empty for the whole fleet.
        field: What a refusal calls the role.

    Raises:
        InvalidRequestError: There is no such role, the selector cannot be read, or the role takes none.
    """
    known = {each.value: each for each in Role}
    if role not in known:
        raise _refusal(field, role, f"one of {', '.join(known)}")
    is_limited = bool(selector.parse(scope).requirements)
    if is_limited and known[role] is Role.PUBLISHER:
        raise _refusal(field, role, _WHOLE_ONLY_RULE)
    return Grant(known[role], scope.strip())


def scope(grants: Iterable[Grant], wanted: Collection[Role]) -> Scope:
    """For which nodes somebody may do what one of some roles may."""
    return Scope(tuple(selector.parse(each.scope) for each in grants if each.role in wanted))


def _refusal(field: str, value: str, rule: str) -> errors.InvalidRequestError:
    return errors.InvalidRequestError(
        f"cannot grant {field} {value!r}: it must be {rule}", code="grant_invalid", field=field, value=value, rule=rule
    )
