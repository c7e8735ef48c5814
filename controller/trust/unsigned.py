"""A controller without `trust_dir`: it takes releases unsigned, and says so to whoever asks for metadata."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Never

from controller.core import errors, model

WARNING = "releases are not signed: trust_dir is not set, so whoever may publish decides alone what nodes run"


class Unsigned:
    """Stands where `keeping.Trust` would, and keeps nothing."""

    async def put(self, files: Iterable[tuple[str, bytes]]) -> tuple[str, ...]:
        """Refuse: there is no root to check them against."""
        del files
        _refuse()

    def read(self, root_version: int, component: str = "") -> Iterable[tuple[str, bytes]]:
        """Refuse: there is nothing to read."""
        del root_version, component
        _refuse()

    def versions(self) -> Mapping[str, int]:
        """Refuse: there is nothing that has one."""
        _refuse()

    def refuse_unsigned(self, component: model.ComponentName, version: str, digest: str, size_bytes: int) -> None:
        """Take any release."""


def _refuse() -> Never:
    raise errors.RefusedError(
        "cannot serve metadata of releases: this controller takes releases unsigned, since trust_dir is not set",
        code="trust_not_configured",
        field="trust_dir",
        rule="a folder made by `instar trust init`",
    )
