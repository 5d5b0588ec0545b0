"""Names that the registry takes: of tasks, of aliases, of locales; and who is asking."""

from __future__ import annotations

import getpass
import os
import re
from typing import TYPE_CHECKING

from ..core.errors import InputError, UnknownVersionError
from ..core.locale import parse_locale

if TYPE_CHECKING:
    from .catalog import Catalog
    from .records import Version

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_VERSION_NAME = re.compile(
    r"(?:(?P<task>[^/@]+)/(?P<locale>[^/@]+)@)?(?P<digest>[0-9a-fA-F]{6,64})"
)


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


def find_version(catalog: Catalog, name: str) -> Version:
    """The version of a name, `intent/gsw-CH@3f2c9a`, or of 6 or more digits of the digest alone.

    Raises:
        UnknownVersionError: no such version, several of them, or not a version's name.
        InvalidLocaleError: the name's locale is not a BCP 47 tag.
    """
    parts = _VERSION_NAME.fullmatch(name)
    if parts is None:
        raise UnknownVersionError(
            f"{name!r} is no version's name; write task/locale@digest, or the digest alone, "
            "with at least 6 of its digits"
        )
    prefix = parts["digest"].lower()
    found = catalog.versions(
        locale=canonical(parts["locale"]), task=parts["task"], prefix=prefix, limit=3
    )
    if not found:
        raise UnknownVersionError(
            f"no version {name!r} in this registry; `isogloss ls` shows those there are"
        )
    if len(found) > 1:
        names = ", ".join(f"{version.task}/{version.locale}@{version.digest}" for version in found)
        raise UnknownVersionError(
            f"{name!r} is ambiguous, it stands for {names}; write more digits of the digest"
        )
    return found[0]
