"""`publish`, `ls`, `show`, `promote`, `rollback` and `history`. They need no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .core.settings import Settings
from .options import (
    alias_option,
    json_option,
    labels_option,
    locale_option,
    open_registry,
    registry_option,
    split_labels,
    task_option,
)
from .output import format_bytes, plain, print_json, print_table

if TYPE_CHECKING:
    from .registry import Registry, Version


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--locale", help="Instead of the recorded locale; needed for plain PEFT.")
@click.option("--task", help="Instead of the recorded task; needed for plain PEFT.")
@alias_option
@labels_option
@click.option("--base", help="Name or folder of the base; default: the one recorded.")
@click.option("--trust-base", is_flag=True, help="Accept an adapter whose base can't be found.")
@registry_option
@json_option
def publish(
    folder: Path,
    labels: str | None,
    alias: str,
    registry_folder: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Check an adapter folder and publish it."""
    from .adapters.files import read_adapter_folder
    from .registry.names import check_name

    # All checks first: a mistake makes no registry.
    check_name("alias", alias)
    checked = read_adapter_folder(folder, labels=split_labels(labels), **options)
    with open_registry(registry_folder, create=True) as registry:
        version = registry.publish_checked(checked, alias=alias)
    if as_json:
        about = {"name": version.name, "alias": alias, "left_out": list(checked.left_out)}
        print_json(plain(version) | about)
        return
    if checked.left_out:
        click.echo(f"left out: {', '.join(checked.left_out)}", err=True)
    if version.labels[:1] == ("LABEL_0",):
        click.echo("no labels were given: they are LABEL_0, LABEL_1… (--labels)", err=True)
    where = registry_folder or Settings.from_environment().registry
    click.echo(f"{version.name} ({format_bytes(version.bytes)}) is {alias} in {where}")


@click.command()
@click.option("--locale", help="Only this locale.")
@click.option("--task", help="Only this task.")
@registry_option
@json_option
def ls(locale: str | None, task: str | None, registry_folder: Path | None, as_json: bool) -> None:
    """List published versions, newest first."""
    with open_registry(registry_folder) as registry:
        versions = registry.versions(locale=locale, task=task)
        aliases = _aliases(registry)
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
        found = _describe(registry.version(version), _aliases(registry))
    if as_json:
        print_json(found)
        return
    print_table(["field", "value"], [[key, _one_line(value)] for key, value in found.items()])


@click.command()
@click.argument("version")
@alias_option
@click.option("--reason", help="Why; kept in the history.")
@registry_option
@json_option
def promote(
    version: str, alias: str, reason: str | None, registry_folder: Path | None, as_json: bool
) -> None:
    """Make an alias point to VERSION."""
    with open_registry(registry_folder) as registry:
        found = registry.version(version)
        registry.promote(found, alias=alias, reason=reason)
    if as_json:
        print_json(plain(found) | {"name": found.name, "alias": alias})
        return
    click.echo(f"{found.name} is {alias}")


@click.command()
@locale_option
@task_option
@alias_option
@click.option("--reason", help="Why; kept in the history.")
@registry_option
@json_option
def rollback(
    locale: str,
    task: str,
    alias: str,
    reason: str | None,
    registry_folder: Path | None,
    as_json: bool,
) -> None:
    """Make an alias point to its previous version again."""
    with open_registry(registry_folder) as registry:
        version = registry.rollback(locale, task, alias=alias, reason=reason)
    if as_json:
        print_json(plain(version) | {"name": version.name, "alias": alias})
        return
    click.echo(f"{version.name} is {alias} again")


@click.command()
@locale_option
@task_option
@alias_option
@registry_option
@json_option
def history(
    locale: str, task: str, alias: str, registry_folder: Path | None, as_json: bool
) -> None:
    """Show where an alias has pointed, newest first."""
    with open_registry(registry_folder) as registry:
        changes = registry.history(locale, task, alias=alias)
    if as_json:
        print_json(changes)
        return
    print_table(
        ["when", "what", "to", "from", "who", "why"],
        [
            [
                change.changed_at[:19],
                change.action,
                change.digest[:12],
                (change.previous or "")[:12],
                change.changed_by,
                change.reason,
            ]
            for change in changes
        ],
    )


def _aliases(registry: Registry) -> dict[str, list[str]]:
    """The aliases of each version that has any, by digest."""
    found: dict[str, list[str]] = {}
    for alias in registry.aliases():
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
