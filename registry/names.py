"""Names that the registry takes: of tasks, of aliases, of locales; and who is asking."""

from __future__ import annotations

import getpass
import os
import re

from ..core.errors import InputError
from ..core.locale import parse_locale

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def check_name(what: str, name: str) -> None:
    """Check the name of a task or an alias.

    Raises:
        InputError: it is none.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{what} {name!r} is no name; use up to 64 of a-z, 0-9, '.', '_' and '-', "
            "a letter or digit first"
        )


def check_names(**names: str | None) -> None:
    """Check names, what each is of → the name; None is none to be checked.

    Raises:
        InputError: one that is none.
    """
    for what, name in names.items():
        if name is not None:
            check_name(what, name)


def canonical(locale: str | None) -> str | None:
    """The canonical tag of a locale; None for None.

    Raises:
        InvalidLocaleError: not a BCP 47 tag.
    """
    return None if locale is None else str(parse_locale(locale))


def account() -> str:
    """The account that this process runs as, for the history."""
    try:
        return getpass.getuser()
    # A container may run as a user that has no name.
    except (OSError, KeyError, ImportError):
        return f"uid {os.getuid()}" if hasattr(os, "getuid") else "unknown"
