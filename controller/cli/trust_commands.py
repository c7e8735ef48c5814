"""`instar trust`: the keys and metadata that say which releases may exist, in a folder of the publisher's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from controller.cli import options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from securesystemslib.signer import CryptoSigner

    from controller.cli import connection
    from controller.trust import publisher
    from instar.v1 import release_service_pb2

app = typer.Typer(no_args_is_help=True, help="Make, show, sign and rotate the keys and metadata of releases.")

Place = Annotated[
    Path, typer.Option("--trust", envvar="INSTAR_TRUST", metavar="DIR", help="Folder that `instar trust init` made.")
]
KeyFiles = Annotated[
    list[Path] | None,
    typer.Option("--key", help="Private key to sign with, any number; those in DIR/keys where it is left out."),
]
PassphraseFile = Annotated[
    Path | None, typer.Option("--passphrase-file", help="File whose first line is the passphrase of the keys.")
]


@app.command()
def init(  # noqa: PLR0913  # each is an option
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to make; on a machine of its own.")],
    *,
    root_keys: Annotated[int, typer.Option(help="Keys of the root.")] = 3,
    root_threshold: Annotated[int, typer.Option(help="So many of them must sign a root.")] = 2,
    targets_keys: Annotated[int, typer.Option(help="Keys of the targets.")] = 3,
    targets_threshold: Annotated[int, typer.Option(help="So many of them must sign a release.")] = 2,
    passphrase_file: PassphraseFile = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Make keys and the first metadata; DIR/online goes to the controller, DIR/root.json to the nodes."""
    from controller.cli import trust_link, trust_tables
    from controller.trust import publisher

    with trust_link.folder(directory, is_new=True) as place:
        made = place.init(
            publisher.Numbers(root_keys, root_threshold),
            publisher.Numbers(targets_keys, targets_threshold),
            passphrase(passphrase_file),
        )
    places = {
        "keys": str(directory / "keys"),
        "trust_dir": str(directory / "online"),
        "root": str(directory / "root.json"),
    }
    trust_tables.outcome(made, output, places)
    if output is options.Format.TABLE:
        typer.echo(f"give each holder a key of {places['keys']}, and keep none of them together")
        typer.echo(f"copy {places['trust_dir']} to the controller, and set trust_dir to it")
        typer.echo(f"copy {places['root']} to each node, and name it in trust.toml")


@app.command()
def show(
    *,
    trust: Annotated[
        Path | None,
        typer.Option("--trust", metavar="DIR", help="What this folder holds; else what the controller serves."),
    ] = None,
    controller: options.Controller = options.CONTROLLER_DEFAULT,
    token_file: options.TokenFile = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Show who signs what and what is named: of a folder, else as the controller serves it."""
    from controller.cli import connection, trust_link, trust_tables
    from controller.trust import metadata

    if trust is not None:
        with trust_link.folder(trust) as place:
            trust_tables.show(trust_tables.view(list(place.signed().signed_offline()), place.drafts()), output)
        return
    files = connection.with_controller(controller, token_file, trust_link.pull)
    read = [metadata.read(name if name[0].isdigit() else _numbered(name, content), content) for name, content in files]
    trust_tables.show(trust_tables.view(read), output)


@app.command()
def sign(
    *,
    trust: Place,
    key: KeyFiles = None,
    passphrase_file: PassphraseFile = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Sign the change that waits in DIR/drafts: one holder after another, each in a place of its own."""
    from controller.cli import trust_link, trust_tables

    with trust_link.folder(trust) as place:
        made = place.sign(signers(place, key, passphrase_file))
    trust_tables.outcome(made, output)


@app.command()
def renew(
    roles: Annotated[list[str] | None, typer.Argument(help="Roles; all where none is named.")] = None,
    *,
    trust: Place,
    key: KeyFiles = None,
    passphrase_file: PassphraseFile = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Let metadata expire later: a root in a year, targets and components in 90 days from now."""
    from controller.cli import trust_link, trust_tables

    with trust_link.folder(trust) as place:
        made = place.renew(roles or [], signers(place, key, passphrase_file))
    trust_tables.outcome(made, output)


@app.command()
def rotate(  # noqa: PLR0913  # each is an option
    role: Annotated[str, typer.Argument(metavar="root|targets|online|COMPONENT", help="Whose keys are replaced.")],
    *,
    trust: Place,
    keys: Annotated[int | None, typer.Option("--keys", help="Keys to make; as many as now where left out.")] = None,
    threshold: Annotated[int | None, typer.Option(help="So many of them must sign; with --keys.")] = None,
    key: KeyFiles = None,
    passphrase_file: PassphraseFile = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Make new keys for a role, and sign anew whatever hangs on them."""
    from controller.cli import failures, trust_link, trust_tables
    from controller.trust import publisher

    if (keys is None) is not (threshold is None):
        raise failures.usage("--threshold", str(threshold or ""), "given with --keys, and only with it")
    numbers = None if keys is None or threshold is None else publisher.Numbers(keys, threshold)
    with trust_link.folder(trust) as place:
        made = place.rotate(role, numbers, signers(place, key, passphrase_file), passphrase(passphrase_file))
    trust_tables.outcome(made, output)
    if role == publisher.ONLINE and output is options.Format.TABLE:
        typer.echo(f"copy the new keys of {trust / 'online'} to the controller before `instar trust push`")


@app.command()
def push(
    *,
    trust: Place,
    controller: options.Controller = options.CONTROLLER_DEFAULT,
    token_file: options.TokenFile = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Put what is signed onto the controller, which signs for its freshness; the same again changes nothing."""
    from controller.cli import connection, document, trust_link

    async def work(link: connection.Connection) -> release_service_pb2.PutTrustResponse:
        return await trust_link.push(link, trust)

    answer = connection.with_controller(controller, token_file, work)
    if output is options.Format.JSON:
        document.write(document.of(answer))
        return
    typer.echo(f"put: {', '.join(answer.stored) or 'all of it was there already'}")


@app.command()
def pull(
    *,
    trust: Place,
    controller: options.Controller = options.CONTROLLER_DEFAULT,
    token_file: options.TokenFile = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Take what others have signed from the controller; a new DIR needs root.json in it, and nothing more."""
    from controller.cli import connection, document, trust_link

    files = trust_link.signed_by_people(connection.with_controller(controller, token_file, trust_link.pull))
    with trust_link.folder(trust) as place:
        stored = place.take(files)
    if output is options.Format.JSON:
        document.write({"stored": list(stored)})
        return
    typer.echo(f"taken: {', '.join(stored) or 'all of it was here already'}")


def signers(
    place: publisher.Publisher, files: list[Path] | None, passphrase_file: Path | None
) -> Mapping[str, CryptoSigner]:
    """The keys to sign with: those that are named, else those in the folder."""
    from controller.trust import keys

    word = passphrase(passphrase_file)
    return keys.by_id(keys.read(file, word) for file in files) if files else place.signers(word)


def passphrase(file: Path | None) -> bytes | None:
    """The first line of a file; None for none.

    Raises:
        CommandError: It cannot be read, or is empty.
    """
    from controller.cli import failures

    if file is None:
        return None
    try:
        line = file.read_bytes().partition(b"\n")[0].rstrip(b"\r")
    except OSError as fault:
        raise failures.usage("--passphrase-file", str(file), f"a file that can be read ({fault.strerror})") from fault
    if not line:
        raise failures.usage("--passphrase-file", str(file), "a file whose first line is a passphrase")
    return line


def _numbered(name: str, content: bytes) -> str:
    """The name that says its version, of the one file that is served without."""
    from tuf.api.metadata import Metadata

    return f"{Metadata.from_bytes(content).signed.version}.{name}"
