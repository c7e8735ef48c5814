"""`instar release`: build bundles, publish them, look at what there is, and say who may go to which."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from controller.cli import graph_commands, options, trust_commands

if TYPE_CHECKING:
    from controller import releases
    from controller.cli import connection
    from controller.config import manifest
    from instar.v1 import release_service_pb2

app = typer.Typer(no_args_is_help=True, help="Build, publish and list releases, and lead who goes to which.")
app.add_typer(graph_commands.app, name="graph")
PUBLISH_SECONDS = 600.0  # the largest bundle over a slow disk


@app.command()
def build(
    directory: Annotated[Path, typer.Argument(help="Folder with instar.toml at its root.")],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write the bundle to.")],
    output: options.OutputOnly = options.Format.TABLE,
) -> None:
    """Make the bundle of a folder: the same files give the same bytes. __pycache__ is left out."""
    from controller import releases
    from controller.cli import document
    from controller.config import manifest

    bundle = releases.build(directory, out)
    try:
        with out.open("rb") as file:
            told = manifest.parse(releases.manifest_text(file))
    except Exception:
        out.unlink()
        raise
    if output is options.Format.JSON:
        document.write(
            {
                "component": told.name,
                "version": told.version,
                "digest": bundle.digest,
                "size_bytes": bundle.size_bytes,
                "file": str(out),
            }
        )
        return
    typer.echo(f"built {told.name} {told.version}: {out}, {bundle.size_bytes} bytes, {bundle.digest}")


@app.command()
def sign(
    file: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle made by `instar release build`.")],
    *,
    trust: trust_commands.Place,
    floor: Annotated[
        str | None, typer.Option(help="From this release on, nodes go to none below this version.")
    ] = None,
    key: trust_commands.KeyFiles = None,
    passphrase_file: trust_commands.PassphraseFile = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Name a bundle in the metadata of its component, and sign that; what lacks signatures waits as a draft."""
    from controller.cli import trust_link, trust_tables
    from controller.core import versions
    from controller.trust import drafting

    bundle, told = _read(file)
    if floor is not None:
        versions.parse(floor, "--floor")
    named = drafting.Named(told.name, told.version, bundle.digest, bundle.size_bytes, floor)
    with trust_link.folder(trust) as place:
        made = place.release(named, trust_commands.signers(place, key, passphrase_file))
    about = {"component": told.name, "version": told.version, "digest": bundle.digest, "floor": floor}
    trust_tables.outcome(made, output, about)


@app.command()
def withdraw(
    component: Annotated[str, typer.Argument(help="Name of the component.")],
    version: Annotated[str, typer.Argument(help="Version that shall not be installed any more.")],
    *,
    trust: trust_commands.Place,
    key: trust_commands.KeyFiles = None,
    passphrase_file: trust_commands.PassphraseFile = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Name a release no longer; it counts once the metadata are pushed (`instar trust push`)."""
    from controller.cli import trust_link, trust_tables

    with trust_link.folder(trust) as place:
        made = place.withdraw(component, version, trust_commands.signers(place, key, passphrase_file))
    trust_tables.outcome(made, output, {"component": component, "version": version})


@app.command()
def publish(
    file: Annotated[Path, typer.Argument(help="A bundle made by `instar release build`.")],
    *,
    trust: Annotated[
        Path | None,
        typer.Option("--trust", envvar="INSTAR_TRUST", metavar="DIR", help="Put the metadata of this folder first."),
    ] = None,
    controller: options.Controller = options.CONTROLLER_DEFAULT,
    token_file: options.TokenFile = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Publish a bundle, and the metadata that name it; publishing the same bytes again changes nothing."""
    from controller.cli import connection, document, trust_link

    bundle = _measured(file)

    async def work(link: connection.Connection) -> release_service_pb2.PublishReleaseResponse:
        if trust is not None:
            await trust_link.push(link, trust)
        return await link.call(link.releases.PublishRelease, _sent(bundle, file), seconds=PUBLISH_SECONDS)

    answer = connection.with_controller(controller, token_file, work)
    if output is options.Format.JSON:
        document.write(document.of(answer))
        return
    release = answer.release
    outcome = "published" if answer.created else "already published"
    typer.echo(f"{outcome}: {release.component} {release.version}, {release.digest}")


def _measured(file: Path) -> releases.Bundle:
    from controller import releases
    from controller.cli import failures

    try:
        return releases.measure(file)
    except OSError as fault:
        raise failures.usage("FILE", str(file), f"a bundle that can be read ({fault.strerror})") from fault


def _read(file: Path) -> tuple[releases.Bundle, manifest.Manifest]:
    """Digest and size of a bundle, and what its manifest says."""
    from controller import releases
    from controller.config import manifest

    bundle = _measured(file)
    with file.open("rb") as opened:
        return bundle, manifest.parse(releases.manifest_text(opened))


async def _sent(bundle: releases.Bundle, file: Path) -> AsyncIterator[release_service_pb2.PublishReleaseRequest]:
    from controller import releases
    from instar.v1 import release_service_pb2

    header = release_service_pb2.PublishReleaseHeader(digest=bundle.digest, size_bytes=bundle.size_bytes)
    yield release_service_pb2.PublishReleaseRequest(header=header)
    with file.open("rb") as source:  # one command, nothing else waits
        while chunk := source.read(releases.CHUNK_BYTES):
            yield release_service_pb2.PublishReleaseRequest(chunk=chunk)


@app.command("list")
def list_releases(
    component: Annotated[str, typer.Argument(help="Component; all where it is left out.")] = "",
    *,
    controller: options.Controller = options.CONTROLLER_DEFAULT,
    token_file: options.TokenFile = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """List the releases, newest version first."""
    from controller.cli import connection, document, tables
    from instar.v1 import release_service_pb2

    request = release_service_pb2.ListReleasesRequest(component=component)
    answer = connection.answer(controller, token_file, "releases.ListReleases", request)
    if output is options.Format.JSON:
        document.write(document.of(answer))
        return
    tables.show(tables.releases(answer.releases))


@app.command()
def show(
    component: Annotated[str, typer.Argument(help="Name of the component.")],
    version: Annotated[str, typer.Argument(help="Version that is published.")],
    *,
    controller: options.Controller = options.CONTROLLER_DEFAULT,
    token_file: options.TokenFile = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Show one release: its manifest, the channels and ways to it and from it, what closes it, and who left it."""
    from controller.cli import connection, document, release_tables
    from instar.v1 import release_service_pb2

    request = release_service_pb2.GetReleaseRequest(component=component, version=version)
    answer = connection.answer(controller, token_file, "releases.GetRelease", request)
    if output is options.Format.JSON:
        document.write(document.of(answer))
        return
    release_tables.show(answer)


@app.command()
def block(  # noqa: PLR0913  # each is an option
    component: Annotated[str, typer.Argument(help="Name of the component.")],
    version: Annotated[str, typer.Argument(help="Version that nobody may go to.")],
    *,
    reason: Annotated[str | None, typer.Option(help="Why, for whoever is refused.")] = None,
    lift: Annotated[bool, typer.Option("--lift", help="Open the ways again.")] = False,
    controller: options.Controller = options.CONTROLLER_DEFAULT,
    token_file: options.TokenFile = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Close every way to a version, or open them again; nodes that run it stay as they are."""
    from controller.cli import connection, failures
    from instar.v1 import release_service_pb2

    if bool(reason) is lift:
        raise failures.usage("--reason", reason or "", "given, or --lift instead of it")
    request = release_service_pb2.BlockReleaseRequest(component=component, version=version, reason=reason or "")
    answer = connection.answer(controller, token_file, "releases.BlockRelease", request)
    graph_commands.print_graph(answer.graph, output)


@app.command()
def promote(
    component: Annotated[str, typer.Argument(help="Name of the component.")],
    version: Annotated[str, typer.Argument(help="Version that is published.")],
    channel: Annotated[str, typer.Argument(help="Name of the channel, for example stable.")],
    *,
    controller: options.Controller = options.CONTROLLER_DEFAULT,
    token_file: options.TokenFile = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Move a channel to a release; who asks for the channel gets that version from then on."""
    from controller.cli import connection, document, tables
    from instar.v1 import release_service_pb2

    request = release_service_pb2.PromoteReleaseRequest(component=component, version=version, channel=channel)
    answer = connection.answer(controller, token_file, "releases.PromoteRelease", request)
    if output is options.Format.JSON:
        document.write(document.of(answer.channel))
        return
    tables.show(tables.channels([answer.channel]))
