"""`keys`: whose signatures count, and whether versions need one."""

from __future__ import annotations

from pathlib import Path

import click

from .options import json_option, open_registry, registry_option
from .output import print_json, print_table

_path = click.Path(path_type=Path)


@click.group()
def keys() -> None:
    """Keys that sign versions, and whose signatures count.

    To change keys: generate and trust a new one, sign with it what is in use, revoke the old one.
    """


@keys.command()
@click.argument("file", type=_path)
@json_option
def generate(file: Path, as_json: bool) -> None:
    """Make a key pair: FILE, to be kept secret, and FILE.pub."""
    from .registry.signing import generate_key

    made = generate_key(file)
    if as_json:
        print_json({"id": made, "private": str(file), "public": f"{file}.pub"})
        return
    click.echo(f"key {made}: sign with {file}, trust {file}.pub")


@keys.command()
@click.argument("file", type=_path)
@click.option("--name", required=True, help="Whose key it is.")
@registry_option
@json_option
def trust(file: Path, name: str, registry_folder: Path | None, as_json: bool) -> None:
    """Have the signatures of the public key in FILE count."""
    with open_registry(registry_folder, create=True) as registry:
        key = registry.rules.trust_key(file, name=name)
    if as_json:
        print_json(key)
        return
    click.echo(f"key {key.id} of {key.name} is trusted")


@keys.command()
@click.argument("key")
@click.option("--reason", help="Why; kept beside the key.")
@click.option("--force", is_flag=True, help="Though versions in use would no longer answer.")
@registry_option
def revoke(key: str, reason: str | None, force: bool, registry_folder: Path | None) -> None:
    """Void all signatures of KEY, for ever; KEY is its id."""
    with open_registry(registry_folder) as registry:
        registry.rules.revoke_key(key, reason=reason, force=force)
    click.echo(f"key {key} is revoked")


@keys.command("list")
@registry_option
@json_option
def list_keys(registry_folder: Path | None, as_json: bool) -> None:
    """List trusted and revoked keys, oldest first."""
    with open_registry(registry_folder) as registry:
        found = registry.rules.trusted_keys()
    if as_json:
        print_json(found)
        return
    print_table(
        ["key", "of", "trusted", "by", "revoked", "by", "why"],
        [
            [
                key.id,
                key.name,
                key.trusted_at[:19],
                key.trusted_by,
                (key.revoked_at or "")[:19],
                key.revoked_by,
                key.reason,
            ]
            for key in found
        ],
    )


@keys.command()
@click.argument("version", nargs=-1, required=True)
@click.option("--key", required=True, type=_path, help="File of the private key.")
@registry_option
def sign(version: tuple[str, ...], key: Path, registry_folder: Path | None) -> None:
    """Add a signature to each published VERSION."""
    with open_registry(registry_folder) as registry:
        for name in version:
            signature = registry.rules.sign(name, key)
            click.echo(f"{registry.version(name).name} is signed by {signature.key_id}")


@keys.command()
@click.argument("demand", type=click.Choice(["on", "off"]))
@registry_option
def require(demand: str, registry_folder: Path | None) -> None:
    """Refuse to publish, promote and read what no trusted key has signed: on or off."""
    with open_registry(registry_folder) as registry:
        registry.rules.require_signatures(demand == "on")
    click.echo(f"signatures are {'required' if demand == 'on' else 'not required'}")
