"""A repository of signed metadata as one value: every root since the first, and the newest file of each other role.

Rules kept: it is never changed, only followed by another one, so that who reads it reads files that belong together.
Left out: how another one comes to be (`succession`, `online`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from tuf.api.metadata import Root, Targets

from controller.trust import metadata


@dataclass(frozen=True, slots=True)
class Repository:
    """All that is served.

    Args:
        roots: From the first that is trusted as it stands, one by one.
        targets: The top level; None before it was first put.
        components: By name.
        snapshot: What belongs together; None before anything was put.
        timestamp: That this is the newest.
    """

    roots: tuple[metadata.File, ...]
    targets: metadata.File | None = None
    components: Mapping[str, metadata.File] = field(default_factory=dict)
    snapshot: metadata.File | None = None
    timestamp: metadata.File | None = None

    @property
    def root(self) -> Root:
        """The newest root."""
        return self.roots[-1].root

    @property
    def top(self) -> Targets | None:
        """The top-level targets."""
        return None if self.targets is None else self.targets.targets

    def signed_offline(self) -> Iterator[metadata.File]:
        """Every file that people have signed."""
        yield from self.roots
        if self.targets is not None:
            yield self.targets
        yield from (self.components[name] for name in sorted(self.components))

    def files(self) -> Iterator[metadata.File]:
        """Every file."""
        yield from self.signed_offline()
        yield from (file for file in (self.snapshot, self.timestamp) if file is not None)

    def served(self, root_version: int, component: str = "") -> Iterator[tuple[str, bytes]]:
        """Names and bytes of what a reader needs, in the order in which it needs them.

        Args:
            root_version: The newest root that it has; later ones come first.
            component: Whose role comes last; all of them where it is empty.
        """
        yield from ((file.name, file.content) for file in self.roots if file.version > root_version)
        if self.timestamp is None or self.snapshot is None or self.targets is None:
            return
        yield "timestamp.json", self.timestamp.content
        names = [component] if component else sorted(self.components)
        roles = [self.components[name] for name in names if name in self.components]
        yield from ((file.name, file.content) for file in (self.snapshot, self.targets, *roles))
