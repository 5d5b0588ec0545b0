"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from .registry import Registry

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
registry_option = click.option(
    "--registry",
    "registry_folder",
    type=click.Path(path_type=Path),
    help="Folder of the registry; default: $ISOGLOSS_REGISTRY, else the user's data folder.",
)
device_option = click.option(
    "--device",
    default="auto",
    show_default=True,
    envvar="ISOGLOSS_DEVICE",
    help="auto, cpu, cuda, cuda:1…",
)
base_option = click.option(
    "--base",
    default="mini",
    show_default=True,
    envvar="ISOGLOSS_BASE",
    help="mini (embedded), a folder, or a Hub name such as xlm-roberta-base.",
)
locale_option = click.option("--locale", required=True, help="A BCP 47 tag, such as gsw-CH.")
task_option = click.option("--task", required=True, help="The task's name, such as intent.")
labels_option = click.option(
    "--labels",
    help="Labels in the order of the outputs, separated by commas; for a plain PEFT folder.",
)
alias_option = click.option("--alias", default="production", show_default=True)


def split_labels(labels: str | None) -> list[str] | None:
    """The names in `a,b,c`."""
    return None if labels is None else [name.strip() for name in labels.split(",")]


def open_registry(folder: Path | None, *, create: bool = False) -> Registry:
    """The registry at a folder, or the user's own."""
    from .registry import Registry

    return Registry.open(folder, create=create)
