"""`promote`, `rollback`, `history`, `protect` and `gate`: what answers, since when and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .options import (
    alias_option,
    gate_options,
    json_option,
    locale_option,
    move_options,
    open_registry,
    read_intention,
    read_move_options,
    registry_option,
    task_option,
)
from .output import plain, print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .registry import AliasChange


@click.command()
@click.argument("version")
@alias_option
@move_options
@gate_options
@click.option("--base", help="Name or folder of its base; default: the one recorded.")
@registry_option
@json_option
def promote(
    version: str,
    alias: str,
    base: str | None,
    registry_folder: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Make an alias point to VERSION."""
    how = read_move_options(options)
    with open_registry(registry_folder) as registry:
        found = registry.version(version)
        registry.promote(found, alias=alias, base=base, **how)
    if as_json:
        print_json(plain(found) | {"name": found.name, "alias": alias})
        return
    click.echo(f"{found.name} is {alias}")


@click.command()
@locale_option
@task_option
@alias_option
@move_options
@registry_option
@json_option
def rollback(
    locale: str,
    task: str,
    alias: str,
    registry_folder: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Make an alias point to its previous version again."""
    intention = read_intention(options)
    with open_registry(registry_folder) as registry:
        version = registry.rollback(locale, task, alias=alias, **intention)
    if as_json:
        print_json(plain(version) | {"name": version.name, "alias": alias})
        return
    click.echo(f"{version.name} is {alias} again")


@click.command()
@locale_option
@task_option
@alias_option
@click.option("--at", help="Only what it pointed to at this time: 2026-11-20T12:00Z.")
@registry_option
@json_option
def history(
    locale: str,
    task: str,
    alias: str,
    at: str | None,
    registry_folder: Path | None,
    as_json: bool,
) -> None:
    """Show where an alias has pointed, newest first."""
    changes: Sequence[AliasChange]
    with open_registry(registry_folder) as registry:
        if at is None:
            changes = registry.history(locale, task, alias=alias)
        else:
            found = registry.live_at(locale, task, at, alias=alias)
            changes = [] if found is None else [found]
    if as_json:
        print_json(changes)
        return
    if not changes:
        click.echo(f"alias {alias} of {task}/{locale} didn't exist yet")
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


@click.group()
def protect() -> None:
    """Have an alias, such as production, move only by force and for a reason."""


@protect.command("set")
@click.argument("alias")
@registry_option
def set_protection(alias: str, registry_folder: Path | None) -> None:
    """Have ALIAS move only with --force and --reason, in every locale and task."""
    with open_registry(registry_folder) as registry:
        registry.rules.protect(alias)
    click.echo(f"{alias} is protected")


@protect.command("rm")
@click.argument("alias")
@registry_option
def remove_protection(alias: str, registry_folder: Path | None) -> None:
    """Have ALIAS move freely again."""
    with open_registry(registry_folder) as registry:
        registry.rules.unprotect(alias)
    click.echo(f"{alias} is not protected")


@protect.command("list")
@registry_option
@json_option
def list_protections(registry_folder: Path | None, as_json: bool) -> None:
    """List the protected aliases."""
    with open_registry(registry_folder) as registry:
        protected = registry.rules.protected()
    if as_json:
        print_json(protected)
        return
    print_table(["alias"], [[alias] for alias in protected])


@click.group()
def gate() -> None:
    """What versions must reach before an alias may point to them."""


@gate.command("set")
@click.argument("pattern")
@click.argument("requirement", nargs=-1, required=True)
@alias_option
@registry_option
def set_gate(
    pattern: str, requirement: tuple[str, ...], alias: str, registry_folder: Path | None
) -> None:
    """Have an alias of the tasks of PATTERN point only where each REQUIREMENT holds.

    PATTERN is a task's name, in which * stands for anything. Write requirements such as
    "macro_f1>=0.9*current", "accuracy>=0.8" or "macro_f1>=parent:macro_f1-0.02".
    """
    with open_registry(registry_folder) as registry:
        found = registry.rules.set_gate(pattern, requirement, alias=alias)
    click.echo(f"{alias} of {pattern} requires {' and '.join(found.requires)}")


@gate.command("rm")
@click.argument("pattern")
@alias_option
@registry_option
def remove_gate(pattern: str, alias: str, registry_folder: Path | None) -> None:
    """Take the gate of PATTERN away."""
    with open_registry(registry_folder) as registry:
        registry.rules.remove_gate(pattern, alias=alias)
    click.echo(f"{alias} of {pattern} has no gate")


@gate.command("list")
@registry_option
@json_option
def list_gates(registry_folder: Path | None, as_json: bool) -> None:
    """List the gates."""
    with open_registry(registry_folder) as registry:
        gates = registry.rules.gates()
    if as_json:
        print_json(gates)
        return
    print_table(
        ["tasks", "alias", "requires", "since", "by"],
        [
            [
                found.pattern,
                found.alias,
                ", ".join(found.requires),
                found.changed_at[:19],
                found.changed_by,
            ]
            for found in gates
        ],
    )
