"""Signed metadata for people and as JSON: who signs what, until when it is valid, and what it names.

Left out: whether it is signed, which whoever read it has seen to.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import typer

from controller.cli import document, options, tables
from controller.trust import keys, metadata, publisher


@dataclass(frozen=True, slots=True)
class Role:
    """One role; so many of its keys sign for it."""

    role: str
    version: int
    expire_time: str
    threshold: int
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Named:
    """One release that may exist."""

    version: str
    digest: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Component:
    """One component; nodes go to no version below its floor."""

    component: str
    floor: str | None
    releases: tuple[Named, ...]


@dataclass(frozen=True, slots=True)
class View:
    """All that there is to see of a repository.

    Args:
        drafts: Files that wait for signatures.
    """

    roles: tuple[Role, ...]
    components: tuple[Component, ...]
    drafts: tuple[str, ...] = ()


def view(files: Sequence[metadata.File], drafts: Sequence[metadata.File] = ()) -> View:
    """See the newest file of each role."""
    latest = {file.role: file for file in files}
    roles = [_role(file, latest) for file in latest.values()]
    components = [_component(file) for role, file in sorted(latest.items()) if role not in metadata.TOP_LEVEL]
    return View(tuple(roles), tuple(components), tuple(file.name for file in drafts))


def show(seen: View, output: options.Format) -> None:
    """Print what `view` has made."""
    if output is options.Format.JSON:
        document.write(dataclasses.asdict(seen))
        return
    columns = ("ROLE", "VERSION", "EXPIRES", "SIGNED BY", "KEYS")
    tables.show(tables.table(columns, [_role_row(role) for role in seen.roles]))
    if seen.components:
        rows = [_component_row(one) for one in seen.components]
        tables.show(tables.table(("COMPONENT", "FLOOR", "RELEASES"), rows))
    for name in seen.drafts:
        typer.echo(f"waits for signatures: {name}")


def outcome(made: publisher.Outcome, output: options.Format, told: Mapping[str, object] | None = None) -> None:
    """Print what became of a change."""
    if output is options.Format.JSON:
        drafts = [dataclasses.asdict(one) for one in made.standings]
        document.write({**(told or {}), "complete": not drafts, "stored": list(made.stored), "drafts": drafts})
        return
    if not made.standings:
        typer.echo(f"signed: {', '.join(made.stored) or 'all of it was signed already'}")
    for one in made.standings:
        typer.echo(f"draft {one.name}: {one.signatures} of {one.threshold} signatures")
    if made.standings:
        typer.echo("the next holder signs with: instar trust sign --trust DIR --key FILE")


def _role(file: metadata.File, latest: Mapping[str, metadata.File]) -> Role:
    delegator: metadata.Delegator = latest["root"].root
    if file.role not in metadata.TOP_LEVEL:
        delegator = latest["targets"].targets
    threshold = delegator.get_delegated_role(file.role).threshold
    ids = tuple(sorted(metadata.key_ids(delegator, file.role)))
    return Role(file.role, file.version, f"{file.expires_at:%Y-%m-%dT%H:%M:%SZ}", threshold, ids)


def _component(file: metadata.File) -> Component:
    named = [
        Named(path.partition("/")[2], f"sha256:{target.hashes['sha256']}", target.length)
        for path, target in sorted(file.targets.targets.items())
    ]
    return Component(file.role, metadata.floor_of(file.targets), tuple(named))


def _role_row(role: Role) -> tuple[str, ...]:
    short = " ".join(key[: keys.ID_CHARS] for key in role.keys)
    return role.role, str(role.version), role.expire_time, f"{role.threshold} of {len(role.keys)}", short


def _component_row(one: Component) -> tuple[str, ...]:
    return one.component, one.floor or "-", " ".join(each.version for each in one.releases) or "-"
