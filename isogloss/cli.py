"""The command line. Each command imports what it needs, so that `isogloss ls` is quick."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click
from click.exceptions import NoArgsIsHelpError

from . import __version__
from .core.errors import IsoglossError
from .locale_commands import alias_locale, resolve
from .machine_commands import bench, demo, doctor
from .maintenance_commands import export_archive, gc, import_archive, pull, push, verify
from .promotion_commands import gate, history, promote, protect, rollback
from .registry_commands import ls, publish, rm, show
from .serving_commands import embed, predict, rerank
from .signing_commands import keys
from .training_commands import evaluate, pretrain, train

if TYPE_CHECKING:
    from collections.abc import Sequence

USER_ERROR = 2
INTERRUPTED = 130


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="isogloss")
def cli() -> None:
    """One frozen multilingual encoder, and a small adapter for every locale."""


for command in (
    demo,
    pretrain,
    train,
    evaluate,
    publish,
    ls,
    show,
    resolve,
    alias_locale,
    promote,
    rollback,
    history,
    protect,
    gate,
    keys,
    rm,
    verify,
    gc,
    pull,
    push,
    export_archive,
    import_archive,
    predict,
    embed,
    rerank,
    bench,
    doctor,
):
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit: 0, or 2 with one line about a mistake, or 130 when interrupted."""
    try:
        cli.main(args=None if arguments is None else list(arguments), standalone_mode=False)
    except (click.Abort, KeyboardInterrupt):
        _fail("interrupted; train and pretrain go on with --resume", INTERRUPTED)
    except NoArgsIsHelpError as error:
        click.echo(error.format_message())
        sys.exit(USER_ERROR)
    except click.ClickException as error:
        _fail(error.format_message(), USER_ERROR)
    except IsoglossError as error:
        _fail(str(error), USER_ERROR)
    # The last resort, for files and text that no check has looked at.
    except UnicodeEncodeError as error:
        _fail(
            f"{error.object[error.start : error.end]!r} can't be written as {error.encoding}; give "
            "arguments in UTF-8, or set PYTHONUTF8=1",
            USER_ERROR,
        )
    except OSError as error:
        where = f" ({error.filename})" if error.filename is not None else ""
        _fail(
            f"{error.strerror or error}{where}; check the path, its permissions and the disk",
            USER_ERROR,
        )


def _fail(message: str, status: int) -> None:
    click.echo(f"isogloss: {' '.join(message.split())}", err=True)
    sys.exit(status)
