"""Where a registry is: a folder, a TOML file, or the URLs of a database and of a store of blobs.

    database = "postgresql://isogloss@db.example/adapters"
    blobs = "s3://bucket/adapters"

    [blob_options]                              # arguments of fsspec's file system, if any
    endpoint_url = "https://s3.example"

Paths in such a file start where it is. A password is better kept where libpq looks for one
(`PGPASSFILE`, `~/.pgpass`), and credentials where botocore does.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import sqlalchemy as sa

from ..core.errors import InputError, RegistryNotFoundError
from ..core.settings import Settings
from .blobs import FolderBlobs, make_folder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .blobs import BlobStore

_DATABASE_FILE, _BLOBS_FOLDER = "registry.db", "blobs"
_KEYS = {"database", "blobs", "blob_options"}

# Also `postgresql:/…`, which is left of a URL that was taken for a path. A drive is one letter.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


@dataclass(frozen=True, kw_only=True)
class Location:
    """Where a registry is. Its `repr` shows nothing secret."""

    database: Path | sa.URL = field(repr=False)
    """An SQLite file, or the URL of a PostgreSQL database."""
    blobs: Path | str = field(repr=False)
    """A folder, or a URL that fsspec knows."""
    blob_options: Mapping[str, Any] = field(default_factory=dict, repr=False, hash=False)
    """Arguments of fsspec's file system."""
    folder: Path | None = None
    """The folder that holds both; None: they are in places of their own."""

    def prepare(self, *, create: bool) -> None:
        """Look whether files and folders are there; make what is missing, if that is wanted.

        Raises:
            RegistryNotFoundError: there is no registry and `create` is False, or none can be made.
        """
        if not isinstance(self.database, Path):
            return
        place = self.folder or self.database
        folder = self.database.parent
        try:
            is_file = folder.exists() and not folder.is_dir()
            is_registry = self.database.is_file()
        except OSError as error:  # a name that is too long, a folder that may not be entered
            raise RegistryNotFoundError(
                f"no registry at {place}: {error.strerror}; give another folder"
            ) from None
        if is_file:
            raise RegistryNotFoundError(
                f"{folder} is a file, and a registry is a folder, or a file of settings whose "
                "name ends in .toml; give another path"
            )
        if not create and not is_registry:
            raise RegistryNotFoundError(
                f"no registry at {place}; publish an adapter there first, or give another folder"
            )
        try:
            make_folder(folder)
        except OSError as error:
            raise RegistryNotFoundError(
                f"no registry can be made at {place}: {error.strerror}; give another folder"
            ) from None

    def open_blobs(self) -> BlobStore:
        """The store of blobs; nothing is connected to yet.

        Raises:
            InputError: fsspec knows no such kind of URL, or lacks the package for it.
        """
        if isinstance(self.blobs, Path):
            return FolderBlobs(self.blobs)
        # fsspec and what it brings are not needed for a folder.
        from .object_store import ObjectBlobs

        return ObjectBlobs(self.blobs, self.blob_options)


def locate(
    place: str | Path | None, *, database: str | Path | None, blobs: str | Path | None
) -> Location:
    """Find out where a registry is, without looking there.

    Args:
        place: a folder or a TOML file; None: what ISOGLOSS_REGISTRY names, else a folder in the
            user's data folder.
        database: a file or URL, to be given together with `blobs` and without `place`.
        blobs: a folder or URL.

    Raises:
        RegistryNotFoundError: a TOML file that can't be read.
        InputError: arguments or settings that make no sense.
    """
    if database is not None or blobs is not None:
        if place is not None or database is None or blobs is None:
            raise InputError(
                "a registry is either in a folder, or has a database and blobs; "
                "give the folder alone, or both of the others"
            )
        return Location(database=_database(database, Path()), blobs=_blobs(blobs, Path()))
    path = Settings.from_environment().registry if place is None else Path(place).expanduser()
    if _URL.match(str(path)):
        raise InputError(
            "a registry's folder can't be a URL; give database= and blobs=, or a file of settings "
            "whose name ends in .toml"
        )
    if path.suffix == ".toml":
        return _read(path)
    return Location(database=path / _DATABASE_FILE, blobs=path / _BLOBS_FOLDER, folder=path)


def _read(path: Path) -> Location:
    try:
        settings = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise RegistryNotFoundError(
            f"the registry's settings {path} can't be read: {error.strerror}; "
            "write a database and blobs there, or give a folder"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        # The parser's own words may quote the line, and with it a password.
        raise InputError(
            f"the registry's settings {path} are not TOML; "
            'write database = "postgresql://…" and blobs = "s3://…"'
        ) from None
    unknown = sorted(settings.keys() - _KEYS)
    if unknown:
        raise InputError(
            f"the registry's settings {path} have an unknown key {unknown[0]!r}; "
            f"use {', '.join(sorted(_KEYS))}"
        )
    for name in ("database", "blobs"):
        if not isinstance(settings.get(name), str) or not settings[name]:
            raise InputError(f"the registry's settings {path} lack {name!r}; write a path or a URL")
    options = settings.get("blob_options", {})
    if not isinstance(options, dict):
        raise InputError(f"blob_options in {path} are no table; write [blob_options] above them")
    folder = path.absolute().parent
    return Location(
        database=_database(settings["database"], folder),
        blobs=_blobs(settings["blobs"], folder),
        blob_options=options,
    )


def _database(value: str | Path, folder: Path) -> Path | sa.URL:
    if isinstance(value, Path) or not _URL.match(value):
        return folder / Path(value).expanduser()
    try:
        url = sa.make_url(value)
    except (sa.exc.ArgumentError, ValueError):
        raise InputError(
            "the database's URL can't be read (it isn't shown, as it may hold a password); "
            "write postgresql://user@host:port/name, with %40 for an @ in a password"
        ) from None
    # As PostgreSQL's own tools write it, too.
    if url.drivername == "postgres":
        url = url.set(drivername="postgresql")
    if url.get_backend_name() != "sqlite":
        return url
    if not url.database or url.database == ":memory:":
        raise InputError("a registry can't be in memory; write sqlite:///path")
    return folder / url.database


def _blobs(value: str | Path, folder: Path) -> Path | str:
    if isinstance(value, Path) or not _URL.match(value):
        return folder / Path(value).expanduser()
    if value.startswith(("file://", "local://")):
        return Path(unquote(urlsplit(value).path))
    return value
