"""What a request asks of each component that it names, found among what is published.

Rules kept: a target is a version, or the name of a channel, which stands for the version that it points to now; what
was never published is not found. Left out: what the nodes make of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from controller.core import errors, model, versions


@dataclass(frozen=True, slots=True)
class Aim:
    """What shall become of one component.

    Args:
        target: The release that nodes shall run, or the kind that is asked for instead.
        field: The field of the request that names it.
        value: What stands there, as text.
    """

    component: model.ComponentName
    target: model.Release | model.ChangeKind
    field: str
    value: str

    @property
    def version(self) -> str:
        """The version that nodes shall run; empty for a kind."""
        return self.target.version if isinstance(self.target, model.Release) else ""

    @property
    def name(self) -> str:
        """Component and version, for people."""
        return f"{self.component} {self.version}"

    @property
    def requirements(self) -> tuple[model.Requirement, ...]:
        """What the target requires."""
        return self.target.requirements if isinstance(self.target, model.Release) else ()


@dataclass(frozen=True, slots=True)
class Book:
    """All that is published."""

    by_digest: Mapping[model.Digest, model.Release]
    by_component: Mapping[model.ComponentName, tuple[model.Release, ...]]

    def of(self, component: model.ComponentName) -> tuple[model.Release, ...]:
        """Give the releases of a component, in any order."""
        return self.by_component.get(component, ())

    def find(self, component: model.ComponentName, digest: model.Digest) -> model.Release | None:
        """Find what a node runs; None where that was never published here."""
        found = self.by_digest.get(digest)
        return found if found is not None and found.component == component else None


def book(releases: Iterable[model.Release]) -> Book:
    """Put releases in their order."""
    by_component: dict[model.ComponentName, list[model.Release]] = defaultdict(list)
    by_digest = {}
    for each in releases:
        by_component[each.component].append(each)
        by_digest[each.digest] = each
    return Book(by_digest, {name: tuple(found) for name, found in by_component.items()})


def resolve(request: model.UpgradeRequest, known: Book, graph: model.VersionGraph) -> tuple[Aim, ...]:
    """Find the targets of a request: that of its own component first.

    Raises:
        InvalidRequestError: A target is neither a version nor a channel.
        NotFoundError: A component or its version was never published.
    """
    return tuple(_aims(request, known, graph))


def _aims(request: model.UpgradeRequest, known: Book, graph: model.VersionGraph) -> Iterator[Aim]:
    component, version = request.component, request.target_version
    if request.kind is not None:
        yield Aim(component, request.kind, "kind", request.kind.value)
        return
    yield Aim(component, _release(component, version, "target_version", known, graph), "target_version", version)
    for each in request.also:
        found = _release(each.component, each.version, "also", known, graph)
        yield Aim(each.component, found, "also", f"{each.component}={each.version}")


def _release(
    component: model.ComponentName, text: str, field: str, known: Book, graph: model.VersionGraph
) -> model.Release:
    channels = {each.name: each.version for each in graph.channels if each.component == component}
    version = channels.get(text, text)
    if text not in channels:
        _check_version(text, field, component)
    found = next((each for each in known.of(component) if each.version == version), None)
    if found is not None:
        return found
    wrong, value = (field, version) if known.of(component) else ("component", component)
    raise errors.NotFoundError(
        f"cannot find release {component} {version}: no such {wrong} was published",
        code="release_not_found",
        field=wrong,
        value=value,
        rule="a release must be published before it can be rolled out",
    )


def _check_version(text: str, field: str, component: model.ComponentName) -> None:
    try:
        versions.parse(text, field)
    except errors.InvalidRequestError as error:
        raise errors.InvalidRequestError(
            f"{error}, or the name of a channel of {component}",
            code=error.code,
            field=error.field,
            value=error.value,
            rule=f"{error.rule}, or the name of a channel",
        ) from error
