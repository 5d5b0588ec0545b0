"""`verify`, `gc`, `export`, `import`, `pull` and `push`: looking after a registry, and carrying."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from .options import (
    alias_option,
    gate_options,
    json_option,
    labels_option,
    move_options,
    open_registry,
    read_move_options,
    registry_option,
    split_labels,
)
from .output import format_bytes, plain, print_json, print_table

DAMAGED = 1
"""Exit status of `verify` where something is damaged."""

_MAX_HOURS = 876_000


@click.command()
@registry_option
@json_option
def verify(registry_folder: Path | None, as_json: bool) -> None:
    """Hash all content again, and hold catalogue and store side by side.

    Exits with 1 where something is damaged, and names it.
    """
    with open_registry(registry_folder) as registry:
        report = registry.verify(show_progress=not as_json)
    if as_json:
        print_json(plain(report) | {"is_sound": report.is_sound})
    else:
        if report.findings:
            print_table(
                ["what", "of", "problem"],
                [[found.kind, found.subject, found.problem] for found in report.findings],
            )
        damaged = sum(found.is_damage for found in report.findings)
        click.echo(
            f"{report.versions:,} versions, {report.aliases:,} aliases, {report.blobs:,} blobs "
            f"({format_bytes(report.bytes)}): "
            + (f"{damaged:,} damaged" if damaged else "all sound")
        )
    if not report.is_sound:
        sys.exit(DAMAGED)


@click.command()
@click.option("--delete", is_flag=True, help="Delete it; without this it is only counted.")
@click.option(
    "--older-than",
    type=click.FloatRange(0, _MAX_HOURS),
    default=24,
    show_default=True,
    metavar="HOURS",
    help="Leave alone what was stored since.",
)
@click.option(
    "--versions",
    is_flag=True,
    help="Also versions that no alias, no mixture and no recent history needs.",
)
@click.option(
    "--keep-days",
    type=float,
    default=30,
    show_default=True,
    help="Versions that an alias came to, or left, in so many days stay.",
)
@registry_option
@json_option
def gc(
    delete: bool,
    older_than: float,
    versions: bool,
    keep_days: float,
    registry_folder: Path | None,
    as_json: bool,
) -> None:
    """Delete stored content that no version refers to; others may publish meanwhile."""
    with open_registry(registry_folder) as registry:
        found = registry.collect_garbage(
            dry_run=not delete,
            older_than=timedelta(hours=older_than),
            versions=versions,
            keep_days=keep_days,
        )
    if as_json:
        print_json(found)
        return
    for name in found.versions:
        click.echo(name)
    unfinished = f", {found.unfinished:,} unfinished files" if found.unfinished else ""
    click.echo(
        f"{len(found.versions):,} versions, {found.blobs:,} blobs "
        f"({format_bytes(found.bytes)}){unfinished} "
        + ("would be deleted (--delete)" if found.dry_run else "deleted")
    )


@click.command(name="export")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--locale", help="Only this locale.")
@click.option("--task", help="Only this task.")
@registry_option
@json_option
def export_archive(
    file: Path, locale: str | None, task: str | None, registry_folder: Path | None, as_json: bool
) -> None:
    """Write versions and aliases with their history to FILE, a tar.

    Gates, protected aliases and trusted keys stay behind.
    """
    with open_registry(registry_folder) as registry:
        done = registry.export_archive(file, locale=locale, task=task, show_progress=not as_json)
    if as_json:
        print_json(plain(done) | {"file": str(file)})
        return
    click.echo(
        f"{done.versions:,} versions ({format_bytes(done.bytes)}) and {done.aliases:,} aliases "
        f"are in {file}"
    )


@click.command(name="import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--no-aliases", is_flag=True, help="Only versions; promote them later.")
@click.option("--force", is_flag=True, help="Move aliases that are protected or have gates.")
@click.option("--reason", help="Why; needed for aliases that are protected.")
@registry_option
@json_option
def import_archive(
    file: Path,
    no_aliases: bool,
    force: bool,
    reason: str | None,
    registry_folder: Path | None,
    as_json: bool,
) -> None:
    """Bring in what `isogloss export` has written to FILE.

    All of it is checked; what is here already stays as it is.
    """
    with open_registry(registry_folder, create=True) as registry:
        done = registry.import_archive(
            file,
            aliases=not no_aliases,
            force=force,
            reason=reason,
            show_progress=not as_json,
        )
    if as_json:
        print_json(done)
        return
    click.echo(
        f"{len(done.versions):,} versions are new, {done.known:,} were here; "
        f"{len(done.aliases):,} aliases are new or have moved"
    )


@click.command()
@click.argument("url", metavar="hf://USER/REPO[@REVISION]")
@click.option("--locale", help="Instead of the recorded locale; needed for plain PEFT.")
@click.option("--task", help="Instead of the recorded task; needed for plain PEFT.")
@alias_option
@click.option("--no-alias", is_flag=True, help="Only store it; promote it later.")
@labels_option
@click.option("--base", help="Name or folder of the base; default: the one recorded.")
@click.option("--trust-base", is_flag=True, help="Accept an adapter whose base can't be found.")
@move_options
@gate_options
@registry_option
@json_option
def pull(
    url: str,
    alias: str,
    no_alias: bool,
    labels: str | None,
    locale: str | None,
    task: str | None,
    base: str | None,
    trust_base: bool,
    registry_folder: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Publish an adapter from the Hugging Face Hub.

    Only the files that an adapter needs are downloaded, and checked like any folder's.
    """
    from .registry.huggingface import parse_repository
    from .registry.huggingface import pull as pull_from_hub

    # First of all: a mistake makes no registry.
    parse_repository(url)
    how = read_move_options(options)
    with open_registry(registry_folder, create=True) as registry:
        pulled = pull_from_hub(
            registry,
            url,
            locale=locale,
            task=task,
            alias=None if no_alias else alias,
            labels=split_labels(labels),
            base=base,
            trust_base=trust_base,
            **how,
        )
    name = pulled.version.name
    if as_json:
        print_json(plain(pulled) | {"name": name, "alias": None if no_alias else alias})
        return
    became = "published" if no_alias else alias
    click.echo(f"{name} ({format_bytes(pulled.version.bytes)}), {pulled.source}, is {became}")


@click.command()
@click.argument("version")
@click.argument("url", metavar="hf://USER/REPO[@BRANCH]")
@click.option("--private/--public", default=None, help="Of a repository that is new.")
@click.option("--message", help="Of the commit.")
@registry_option
@json_option
def push(
    version: str,
    url: str,
    private: bool | None,
    message: str | None,
    registry_folder: Path | None,
    as_json: bool,
) -> None:
    """Put VERSION on the Hugging Face Hub, in PEFT's layout and with a card."""
    from .registry.huggingface import push as push_to_hub

    with open_registry(registry_folder) as registry:
        commit = push_to_hub(registry, version, url, private=private, message=message)
    if as_json:
        print_json({"version": version, "commit": commit})
        return
    click.echo(commit)
