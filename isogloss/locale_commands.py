"""`resolve` and `alias-locale`: which adapter answers for a locale. They need no torch."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from .core.errors import InputError
from .options import alias_option, json_option, open_registry, registry_option
from .output import plain, print_json, print_table

if TYPE_CHECKING:
    from pathlib import Path

    from .registry import LocaleMatch, Resolution

NOTHING_ANSWERS = 1
"""Exit status of `resolve` where the bare base is left."""


@click.command()
@click.argument("locale")
@click.option("--task", help="The task, in a registry.")
@click.option("--among", metavar="TAGS", help="Look among these, such as es,es-419; no registry.")
@alias_option
@registry_option
@json_option
def resolve(
    locale: str,
    task: str | None,
    among: str | None,
    alias: str,
    registry_folder: Path | None,
    as_json: bool,
) -> None:
    """Say which adapter answers for LOCALE, and why.

    LOCALE is a tag or an Accept-Language header. Exit status 1 means that nothing answers.
    """
    if (task is None) == (among is None):
        raise InputError("give either --task, to look in a registry, or --among, with tags")
    found: LocaleMatch | Resolution
    if among is not None:
        from .registry import LocaleResolver

        tags = [tag.strip() for tag in among.split(",") if tag.strip()]
        found = LocaleResolver(tags).resolve(locale)
        name, about = found.locale, plain(found)
    else:
        assert task is not None
        with open_registry(registry_folder) as registry:
            found = registry.resolve(locale, task, alias=alias)
        name = found.version.name if found.version else None
        about = plain(found) | {"name": name}
    if as_json:
        print_json(about)
    else:
        _tell(found, name)
    if name is None:
        sys.exit(NOTHING_ANSWERS)


@click.group("alias-locale")
def alias_locale() -> None:
    """Have a locale answered as another, such as bar as de."""


@alias_locale.command("set")
@click.argument("locale")
@click.argument("instead")
@registry_option
def set_alias(locale: str, instead: str, registry_folder: Path | None) -> None:
    """Have LOCALE answered as INSTEAD, unless something is published under it."""
    with open_registry(registry_folder) as registry:
        registry.locale_alias(locale, instead)
    click.echo(f"{locale} is answered as {instead}")


@alias_locale.command("remove")
@click.argument("locale")
@registry_option
def remove_alias(locale: str, registry_folder: Path | None) -> None:
    """Have LOCALE answered as itself again."""
    with open_registry(registry_folder) as registry:
        registry.remove_locale_alias(locale)
    click.echo(f"{locale} is answered as itself again")


@alias_locale.command("list")
@registry_option
@json_option
def list_aliases(registry_folder: Path | None, as_json: bool) -> None:
    """List the locales that are answered as others."""
    with open_registry(registry_folder) as registry:
        aliases = registry.locale_aliases()
    if as_json:
        print_json(aliases)
        return
    print_table(
        ["locale", "answered as", "since", "by"],
        [
            [alias.locale, alias.instead, alias.changed_at[:19], alias.changed_by]
            for alias in aliases
        ],
    )


def _tell(found: LocaleMatch | Resolution, name: str | None) -> None:
    distance = "" if found.distance is None else f", distance {found.distance}"
    rows: list[Any] = [f"{found.requested}: {name or 'nothing answers'}"]
    rows.append(f"stage: {found.stage}{distance}")
    rows += [f"  {step}" for step in found.trace]
    rows += [f"blend: {weight:.3f} {part}" for part, weight in found.blend]
    click.echo("\n".join(rows))
