"""`instar store`: copy what the controller knows, put it back, look whether it is whole, bring it to a newer form.

All of it works on the controller's own files, on its machine. `backup` and `check` may run beside the controller; what
changes the store needs it to itself.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from controller.cli import options

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from controller.config import settings

app = typer.Typer(no_args_is_help=True, help="What the controller knows: copy it, put it back, look at it, migrate it.")
_Config = Annotated[Path | None, typer.Option(envvar="INSTAR_CONFIG", help="TOML file of the controller's settings.")]


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="To write the copy to; nothing may be there yet.")],
    *,
    state_dir: options.StateDir = None,
    config: _Config = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Copy the store, whether or not the controller is running; bundles, keys and metadata lie beside it."""
    from controller.cli import document, files
    from controller.store import copies

    store = _file(_settings(state_dir, config), "backup")
    with files.local("file", file), _progress() as progress:
        made = copies.backup(store, file, lambda done, total: progress("pages", done, total))
    told = {"file": str(made.path), "size_bytes": made.size_bytes, "form": made.form, "as_of": _instant(made.taken_at)}
    if output is options.Format.JSON:
        document.write(told)
        return
    typer.echo(f"copy of {store} as of {told['as_of']} in {file}, {made.size_bytes} bytes")


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="A copy that `instar store backup` made.")],
    *,
    state_dir: options.StateDir = None,
    config: _Config = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Put a copy in the place of the store, which no controller may be using; what was there stays beside it."""
    from controller import clock
    from controller.cli import document, files
    from controller.store import copies

    loaded = _settings(state_dir, config)
    store = _file(loaded, "restore")
    with files.local("state_dir", loaded.state_dir), _progress() as progress:
        made = copies.restore(
            file,
            store,
            actor=f"local:{os.getuid()}",
            at=clock.SystemClock().now(),
            progress=lambda done, total: progress("pages", done, total),
        )
    if output is options.Format.JSON:
        document.write(
            {
                "file": str(file),
                "as_of": _instant(made.copy.taken_at),
                "replaced": None if made.replaced is None else str(made.replaced),
                "void_tokens": made.void_tokens,
            }
        )
        return
    typer.echo(f"{store} is as of {_instant(made.copy.taken_at)}; {made.void_tokens} open join tokens are void")
    if made.replaced is not None:
        typer.echo(f"what was there is {made.replaced}")
    typer.echo("whoever was locked out, removed or denied since has to be so again: see docs/store.md")


@app.command()
def check(
    *,
    with_bundles: Annotated[
        bool, typer.Option("--with-bundles", help="Read each bundle too, and see that it has its digest.")
    ] = False,
    state_dir: options.StateDir = None,
    config: _Config = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Look whether the store is whole, also while the controller is running; exit code 1 where something is wrong."""
    from dataclasses import asdict

    from controller import releases
    from controller.cli import document, failures, tables
    from controller.store import checking, database

    loaded = _settings(state_dir, config)
    known = releases.Shelf(loaded.bundles_dir)
    has_bundle = known.is_whole if with_bundles else known.has
    with _progress() as progress:
        looking = checking.Check(has_bundle, progress)
        with database.looked_at(loaded.store_place) as connection:
            found = list(looking.findings(connection))
    if output is options.Format.JSON:
        document.write({"findings": [asdict(each) for each in found], "looked_at": asdict(looking.counts)})
    else:
        counts = looking.counts
        if found:
            tables.show(tables.table(("WHAT", "IS WRONG"), [(each.place, each.message) for each in found]))
        typer.echo(
            f"{len(found) or 'nothing'} wrong; looked at {counts.rollouts} rollouts"
            f" ({counts.replayed} worked out anew, {counts.events} events) and {counts.audit_rows} audit rows"
        )
    raise typer.Exit(failures.Exit.FAILED if found else failures.Exit.OK)


@app.command()
def migrate(
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    state_dir: options.StateDir = None,
    config: _Config = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Bring the store to the form that this program needs, as each start does; whole or not at all."""
    from controller.cli import document
    from controller.store import database, executor, migration

    where = _settings(state_dir, config).store_place
    with database.looked_at(where) as connection:
        form = migration.form_of(connection)
    steps = migration.steps_from(form, str(where) if isinstance(where, Path) else where.shown)
    if steps and not dry_run:
        database.Store(where, executor.InlineExecutor()).close()
    if output is options.Format.JSON:
        rows = [{"form": name, "message": message} for name, message in steps]
        document.write({"from": form, "to": migration.newest(), "steps": rows, "done": bool(steps) and not dry_run})
        return
    for name, message in steps:
        typer.echo(f"{'would do' if dry_run else 'done'}: {name} {message}")
    typer.echo(f"the form is {form if dry_run else migration.newest()}{'' if steps else ', as it should be'}")


@app.command()
def journal(
    rollout: Annotated[str, typer.Argument(help="Identity of a rollout, or a name: then the newest of that name.")],
    file: Annotated[Path, typer.Argument(help="To write its history to, as JSON lines; nothing may be there yet.")],
    *,
    state_dir: options.StateDir = None,
    config: _Config = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Write down all that happened to a rollout, so that it can be worked out anew elsewhere."""
    from controller.cli import document, files
    from controller.store import database, histories

    with database.looked_at(_settings(state_dir, config).store_place) as connection:
        found = histories.of(connection, rollout)
    with files.local("file", file), file.open("x", encoding="utf-8") as out:
        out.writelines(histories.lines(found))
    if output is options.Format.JSON:
        document.write({"file": str(file), "rollout_id": found.ended.id, "events": len(found.happened)})
        return
    typer.echo(f"{len(found.happened)} events of rollout {found.ended.id} in {file}")


def _settings(state_dir: Path | None, config: Path | None) -> settings.Settings:
    from controller.config import settings

    return settings.load({"state_dir": str(state_dir) if state_dir else None}, os.environ, config)


def _file(loaded: settings.Settings, verb: str) -> Path:
    """The store, where it is a file; else it is copied by the tools of its own server."""
    from controller.cli import failures

    where = loaded.store_place
    if isinstance(where, Path):
        return where
    told = f"cannot {verb} a store on PostgreSQL with this: its own tools do (pg_dump, pg_restore; docs/store.md)"
    raise failures.CommandError(told, failures.Exit.USAGE)


def _instant(at: datetime | None) -> str | None:
    return None if at is None else f"{at:%Y-%m-%dT%H:%M:%SZ}"


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """Show how far it is, on a terminal."""
    import rich.console
    import rich.progress

    console = rich.console.Console(stderr=True)
    with rich.progress.Progress(console=console, transient=True, disable=not sys.stderr.isatty()) as shown:
        tasks: dict[str, rich.progress.TaskID] = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = shown.add_task(what, total=total)
            shown.update(tasks[what], completed=done, total=total)

        yield tell
