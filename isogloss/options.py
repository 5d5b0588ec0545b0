"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .registry import Intention, MoveOptions, Registry

Command = TypeVar("Command", bound="Callable[..., object]")

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

_NOTHING = "none"
_MOVE = (
    click.option("--reason", help="Why; kept in the history."),
    click.option("--force", is_flag=True, help="Move a protected alias; it needs --reason, too."),
    click.option(
        "--expect",
        metavar="VERSION",
        help="Only if the alias points to this version now; `none`: only if it is new.",
    ),
)
_GATE = (
    click.option(
        "--require",
        multiple=True,
        metavar="REQUIREMENT",
        help="Only if this holds, such as macro_f1>=0.9*current, accuracy>=0.8 or "
        "macro_f1>=parent-0.02; may be given several times.",
    ),
    click.option(
        "--data",
        type=click.Path(path_type=Path),
        help="Judge all versions on these labelled rows, not by their stored metrics.",
    ),
    click.option(
        "--no-smoke",
        is_flag=True,
        help="Don't try it out before it becomes production; the history will say so.",
    ),
)


def move_options(command: Command) -> Command:
    """How an alias may be moved."""
    return _with(command, _MOVE)


def gate_options(command: Command) -> Command:
    """What is checked before an alias is moved to a new version."""
    return _with(command, _GATE)


def read_intention(options: dict[str, Any]) -> Intention:
    """Take what `move_options` gave out of a command's options."""
    found: Intention = {"reason": options.pop("reason"), "force": options.pop("force")}
    expect = options.pop("expect")
    if expect is not None:
        found["expected"] = None if expect == _NOTHING else expect
    return found


def read_move_options(options: dict[str, Any]) -> MoveOptions:
    """Take what `move_options` and `gate_options` gave out of a command's options."""
    return {
        **read_intention(options),
        "require": options.pop("require"),
        "data": options.pop("data"),
        "smoke": not options.pop("no_smoke"),
    }


def _with(command: Command, options: Sequence[Callable[[Command], Command]]) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


def split_labels(labels: str | None) -> list[str] | None:
    """The names in `a,b,c`."""
    return None if labels is None else [name.strip() for name in labels.split(",")]


def open_registry(folder: Path | None, *, create: bool = False) -> Registry:
    """The registry at a folder, or the user's own."""
    from .registry import Registry

    return Registry.open(folder, create=create)
