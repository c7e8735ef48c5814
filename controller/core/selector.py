"""Label selectors in the form of Kubernetes: ``zone=a,tier!=test,kernel in (6, 7),!cordoned``.

Rules kept: the parts are joined by "and"; ``!=`` and ``notin`` take nodes that lack the label too; an empty selector
takes all. Left out: ``<`` and ``>``, which Kubernetes itself allows only for node affinity.

Source: Kubernetes, "Labels and Selectors".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from controller.core import errors

TEXT_LENGTH_MAX = 4096  # characters; more than any hand writes, little enough to keep in every rollout

_KEY = r"(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_VALUE = r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)?"
_SET = re.compile(rf"\s*({_KEY})\s+(in|notin)\s*\(([^()]*)\)\s*")
_EQUAL = re.compile(rf"\s*({_KEY})\s*(==?|!=)\s*({_VALUE})\s*")
_EXISTS = re.compile(rf"\s*(!?)\s*({_KEY})\s*")
_MEMBER = re.compile(rf"\s*({_VALUE})\s*")
_BORDER = re.compile(r",(?![^()]*\))")  # commas that are not inside of brackets


@dataclass(frozen=True, slots=True)
class Requirement:
    """One part of a selector.

    Args:
        values: What the label may be, or may not be; empty where only its presence counts.
        is_wanted: False where the part takes what does not match.
    """

    key: str
    values: frozenset[str]
    is_wanted: bool

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Tell whether a node with these labels is taken."""
        is_found = self.key in labels and (not self.values or labels[self.key] in self.values)
        return is_found is self.is_wanted

    def implies(self, other: Requirement) -> bool:
        """Tell whether every node that this part takes is taken by the other one; False also where it is not seen."""
        if self.key != other.key:
            return False
        if other.is_wanted:
            return self.is_wanted and (not other.values or (bool(self.values) and self.values <= other.values))
        if self.is_wanted:
            return bool(self.values) and bool(other.values) and not self.values & other.values
        return not self.values or (bool(other.values) and self.values >= other.values)


@dataclass(frozen=True, slots=True)
class Selector:
    """Which nodes are meant."""

    requirements: tuple[Requirement, ...]

    @property
    def keys(self) -> frozenset[str]:
        """The labels that it looks at."""
        return frozenset(each.key for each in self.requirements)

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Tell whether a node with these labels is meant."""
        return all(each.matches(labels) for each in self.requirements)

    def lies_within(self, other: Selector) -> bool:
        """Tell whether it takes no node, of any labels, that the other one does not take.

        Each part of the other one must follow from one part of this one: what holds for all nodes only by several parts
        together is not seen, and answered with False.
        """
        return all(any(each.implies(part) for each in self.requirements) for part in other.requirements)


def parse(text: str) -> Selector:
    """Read a selector.

    Raises:
        InvalidRequestError: The text is no selector.
    """
    if not text.strip():
        return Selector(())
    if len(text) > TEXT_LENGTH_MAX:
        raise _refusal(text[:TEXT_LENGTH_MAX], f"it is longer than {TEXT_LENGTH_MAX} characters")
    return Selector(tuple(_requirement(part, text) for part in _BORDER.split(text)))


def _requirement(part: str, text: str) -> Requirement:
    if found := _SET.fullmatch(part):
        return Requirement(found[1], _members(found[3], text), is_wanted=found[2] == "in")
    if found := _EQUAL.fullmatch(part):
        return Requirement(found[1], frozenset({found[3]}), is_wanted=found[2] != "!=")
    if found := _EXISTS.fullmatch(part):
        return Requirement(found[2], frozenset(), is_wanted=not found[1])
    raise _refusal(text, f"{part.strip()!r} is none of key=value, key!=value, key in (...), key notin (...), key, !key")


def _members(inside: str, text: str) -> frozenset[str]:
    found = [_MEMBER.fullmatch(each) for each in inside.split(",")]
    if any(each is None for each in found):
        raise _refusal(text, f"({inside}) holds something that is not the value of a label")
    return frozenset(each[1] for each in found if each is not None)


def _refusal(text: str, why: str) -> errors.InvalidRequestError:
    return errors.InvalidRequestError(
        f"cannot read selector {text!r}: {why}",
        code="invalid_selector",
        field="selector",
        value=text,
        rule="a label selector as Kubernetes writes it",
    )
