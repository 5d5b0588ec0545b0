"""`publish`, `ls`, `show` and `rm`. They need no torch, but for the smoke forward of `publish`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .core.settings import Settings
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

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .registry import Registry, Version

# For more versions than this all aliases are read.
_MANY = 500


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--locale", help="Instead of the recorded locale; needed for plain PEFT.")
@click.option("--task", help="Instead of the recorded task; needed for plain PEFT.")
@alias_option
@click.option("--no-alias", is_flag=True, help="Only store it; promote it later.")
@labels_option
@click.option("--base", help="Name or folder of the base; default: the one recorded.")
@click.option("--trust-base", is_flag=True, help="Accept an adapter whose base can't be found.")
@click.option("--author", help="Who made it; default: the account that publishes it.")
@click.option(
    "--sign",
    type=click.Path(path_type=Path),
    metavar="KEYFILE",
    help="Sign it with a private Ed25519 key in PEM (`isogloss keys generate`).",
)
@move_options
@gate_options
@registry_option
@json_option
def publish(
    folder: Path,
    labels: str | None,
    alias: str,
    no_alias: bool,
    author: str | None,
    sign: Path | None,
    registry_folder: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Check an adapter folder and publish it."""
    from .adapters.files import read_adapter_folder
    from .registry.names import check_name

    # All checks first: a mistake makes no registry.
    check_name("alias", alias)
    how = read_move_options(options)
    checked = read_adapter_folder(folder, labels=split_labels(labels), **options)
    with open_registry(registry_folder, create=True) as registry:
        version = registry.publish_checked(
            checked, alias=None if no_alias else alias, author=author, sign=sign, **how
        )
    if as_json:
        about = {
            "name": version.name,
            "alias": None if no_alias else alias,
            "left_out": list(checked.left_out),
        }
        print_json(plain(version) | about)
        return
    if checked.left_out:
        click.echo(f"left out: {', '.join(checked.left_out)}", err=True)
    if version.labels[:1] == ("LABEL_0",):
        click.echo("no labels were given: they are LABEL_0, LABEL_1… (--labels)", err=True)
    where = registry_folder or Settings.from_environment().registry
    became = "published" if no_alias else alias
    click.echo(f"{version.name} ({format_bytes(version.bytes)}) is {became} in {where}")


@click.command()
@click.option("--locale", help="Only this locale.")
@click.option("--task", help="Only this task.")
@click.option("--limit", type=int, help="No more than so many: a page.")
@click.option("--after", metavar="VERSION", help="Only those after this one: the next page.")
@registry_option
@json_option
def ls(
    locale: str | None,
    task: str | None,
    limit: int | None,
    after: str | None,
    registry_folder: Path | None,
    as_json: bool,
) -> None:
    """List published versions, newest first."""
    with open_registry(registry_folder) as registry:
        versions = registry.versions(locale=locale, task=task, limit=limit, after=after)
        aliases = _aliases(registry, versions)
    if as_json:
        print_json([_describe(version, aliases) for version in versions])
        return
    print_table(
        ["version", "aliases", "kind", "rank", "macro-F1", "size", "published"],
        [
            [
                version.name,
                ",".join(aliases.get(version.digest, [])),
                version.kind,
                version.rank,
                version.metrics.get("macro_f1"),
                format_bytes(version.bytes),
                version.published_at[:19],
            ]
            for version in versions
        ],
    )


@click.command()
@click.argument("version")
@registry_option
@json_option
def show(version: str, registry_folder: Path | None, as_json: bool) -> None:
    """Show one VERSION, such as intent/gsw-CH@3f2c9a or 3f2c9a."""
    with open_registry(registry_folder) as registry:
        shown = registry.version(version)
        found = _describe(shown, _aliases(registry, [shown])) | {
            "signatures": [plain(signature) for signature in registry.rules.signatures(shown)]
        }
    if as_json:
        print_json(found)
        return
    print_table(["field", "value"], [[key, _one_line(value)] for key, value in found.items()])


@click.command()
@click.argument("version")
@click.option("--reason", help="Why; kept in the list of removals.")
@click.option(
    "--keep-days",
    type=float,
    default=30,
    show_default=True,
    help="Refuse where an alias came to it, or left it, in so many days.",
)
@registry_option
@json_option
def rm(
    version: str,
    reason: str | None,
    keep_days: float,
    registry_folder: Path | None,
    as_json: bool,
) -> None:
    """Remove a VERSION that nothing needs; `isogloss gc` then frees its content."""
    with open_registry(registry_folder) as registry:
        found = registry.version(version)
        removal = registry.remove_version(found, reason=reason, keep_days=keep_days)
    if as_json:
        print_json(plain(removal) | {"name": found.name})
        return
    click.echo(f"{found.name} is removed")


def _aliases(registry: Registry, versions: Sequence[Version]) -> dict[str, list[str]]:
    """The aliases of each of these versions that has any, by digest."""
    found: dict[str, list[str]] = {}
    for alias in registry.aliases(versions=versions if len(versions) <= _MANY else None):
        found.setdefault(alias.digest, []).append(alias.alias)
    return found


def _describe(version: Version, aliases: dict[str, list[str]]) -> dict[str, Any]:
    return {
        "name": version.name,
        "aliases": aliases.get(version.digest, []),
        **plain(version),
    }


def _one_line(value: Any) -> Any:
    if isinstance(value, list):
        return ", ".join(str(_one_line(item)) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {_one_line(item)}" for key, item in value.items())
    return value if isinstance(value, str | int | float) else None
