from __future__ import annotations

import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from isogloss.core.errors import (
    ConflictError,
    DamagedBlobError,
    GateError,
    InputError,
    ProtectedAliasError,
    SignatureError,
    UnknownVersionError,
)
from isogloss.registry import Registry
from isogloss.registry.signing import generate_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from .conftest import MakeAdapter

PUBLISH: dict[str, Any] = {"task": "intent", "smoke": False}


@pytest.fixture
def other(new_place: Callable[[str], Path]) -> Iterator[Registry]:
    with Registry.open(new_place("other")) as opened:
        yield opened


@pytest.fixture
def filled(registry: Registry, make_adapter: MakeAdapter) -> Registry:
    """Three locales and two tasks; one alias has moved, been rolled back, and moved again."""
    first, second, third = (make_adapter(seed) for seed in range(3))
    old = registry.publish(first, locale="gsw-CH", reason="the first", **PUBLISH)
    registry.publish(second, locale="gsw-CH", **PUBLISH)
    registry.rollback("gsw-CH", "intent", reason="too slow")
    registry.publish(third, locale="gsw-CH", author="Anna", **PUBLISH)
    registry.promote(old, alias="canary")
    registry.publish(first, locale="de", **PUBLISH)
    registry.publish(make_adapter(3), locale="es-MX", task="sentiment", smoke=False)
    registry.publish(make_adapter(4), locale="es-MX", alias=None, **PUBLISH)
    registry.locale_alias("bar", "de")
    return registry


def everything(registry: Registry) -> object:
    aliases = registry.aliases()
    return (
        {version.digest: version for version in registry.versions()},
        {version.digest: registry.read(version) for version in registry.versions()},
        aliases,
        [registry.history(alias.locale, alias.task, alias=alias.alias) for alias in aliases],
        [(alias.locale, alias.instead) for alias in registry.locale_aliases()],
    )


def test_all_of_a_registry_comes_along(filled: Registry, other: Registry, tmp_path: Path) -> None:
    exported = filled.export_archive(tmp_path / "all.tar")
    assert (exported.versions, exported.aliases) == (6, 4)
    imported = other.import_archive(tmp_path / "all.tar")
    assert (len(imported.versions), imported.known, len(imported.aliases)) == (6, 0, 4)
    assert everything(other) == everything(filled)
    assert other.verify().findings == ()
    # The history is one that can be gone on with.
    assert other.rollback("gsw-CH", "intent") == filled.rollback("gsw-CH", "intent")


def test_importing_twice_changes_nothing(filled: Registry, other: Registry, tmp_path: Path) -> None:
    filled.export_archive(tmp_path / "all.tar")
    other.import_archive(tmp_path / "all.tar")
    before, generation = everything(other), other._catalog.generation()
    for registry in (other, filled):
        again = registry.import_archive(tmp_path / "all.tar")
        assert (again.versions, again.known, again.aliases) == ((), 6, ())
    assert everything(other) == before
    assert other._catalog.generation() == generation


def test_equal_content_gives_equal_bytes(filled: Registry, other: Registry, tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("one.tar", "two.tar", "three.tar")]
    filled.export_archive(paths[0])
    filled.export_archive(paths[1])
    other.import_archive(paths[0])
    other.export_archive(paths[2])
    assert len({path.read_bytes() for path in paths}) == 1
    # Any tar reads it, and what versions have in common is there once.
    with tarfile.open(paths[0]) as archive:
        names = archive.getnames()
        assert all(member.isreg() for member in archive)
    assert len(names) == len(set(names))
    blobs = {file.sha256 for version in filled.versions() for file in version.files}
    assert {name for name in names if name.startswith("blobs/")} == {
        f"blobs/{digest}" for digest in blobs
    }


@pytest.mark.parametrize(
    ("only", "versions", "aliases"),
    [
        ({"locale": "GSW-ch"}, 3, 2),
        ({"task": "sentiment"}, 1, 1),
        ({"locale": "es-MX", "task": "intent"}, 1, 0),
    ],
)
def test_a_locale_or_a_task_alone(
    filled: Registry,
    other: Registry,
    tmp_path: Path,
    only: dict[str, Any],
    versions: int,
    aliases: int,
) -> None:
    filled.export_archive(tmp_path / "some.tar", **only)
    other.import_archive(tmp_path / "some.tar")
    assert len(other.versions()) == len(other.versions(**only)) == versions
    assert len(other.aliases()) == aliases
    assert other.locale_aliases() == []
    assert other.verify().findings == ()


def test_an_export_needs_something_and_a_free_place(filled: Registry, tmp_path: Path) -> None:
    path = tmp_path / "fr.tar"
    with pytest.raises(UnknownVersionError, match="any task/fr"):
        filled.export_archive(path, locale="fr")
    with pytest.raises(InputError, match="can't be written"):
        filled.export_archive(tmp_path / "no" / "such" / "folder.tar")
    version = filled.versions()[0]
    file = version.files[0]
    stored = tmp_path / "registry" / "blobs" / "sha256" / file.sha256[:2] / file.sha256
    content = stored.read_bytes()
    stored.write_bytes(b"damaged")
    with pytest.raises(DamagedBlobError, match=file.sha256):
        filled.export_archive(path)
    assert not [entry for entry in tmp_path.iterdir() if entry.suffix in (".tar", ".tmp")]
    stored.write_bytes(content)
    filled.export_archive(path)
    before = path.read_bytes()
    with pytest.raises(InputError, match="there already"):
        filled.export_archive(path)
    assert path.read_bytes() == before


def test_what_is_newer_there_follows(
    filled: Registry, other: Registry, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    filled.export_archive(tmp_path / "old.tar")
    other.import_archive(tmp_path / "old.tar")
    new = filled.publish(make_adapter(9), locale="gsw-CH", **PUBLISH)
    filled.export_archive(tmp_path / "new.tar")
    imported = other.import_archive(tmp_path / "new.tar")
    assert imported.versions == (new.name,)
    assert imported.aliases == ("production of intent/gsw-CH",)
    assert everything(other) == everything(filled)
    # What is older takes nothing back.
    assert other.import_archive(tmp_path / "old.tar").aliases == ()
    assert everything(other) == everything(filled)


def test_an_alias_that_moved_in_both_places_is_no_ones_to_move(
    filled: Registry, other: Registry, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    own = other.publish(make_adapter(9), locale="gsw-CH", **PUBLISH)
    filled.export_archive(tmp_path / "all.tar")
    with pytest.raises(ConflictError, match=r"production.*gsw-CH.*without aliases"):
        other.import_archive(tmp_path / "all.tar")
    assert other.resolve("gsw-CH", "intent").version == own
    assert len(other.history("gsw-CH", "intent")) == 1
    imported = other.import_archive(tmp_path / "all.tar", aliases=False)
    assert imported.known == 6
    assert other.resolve("gsw-CH", "intent").version == own
    assert other.locale_aliases() == []
    assert other.verify().findings == ()


def test_protected_aliases_and_gates_hold(
    filled: Registry, other: Registry, tmp_path: Path
) -> None:
    path = tmp_path / "all.tar"
    filled.export_archive(path, task="sentiment")
    other.protect("production")
    other.rules.set_gate("*", "macro_f1>=0.5")
    with pytest.raises(GateError, match="has a gate"):
        other.import_archive(path)
    with pytest.raises(ProtectedAliasError, match="reason"):
        other.import_archive(path, force=True)
    assert other.aliases() == []
    other.import_archive(path, force=True, reason="moved house")
    assert len(other.aliases()) == 1
    assert other.import_archive(path).aliases == ()


def test_signatures_come_along_and_are_demanded(
    filled: Registry, other: Registry, tmp_path: Path
) -> None:
    key, path = tmp_path / "key", tmp_path / "signed.tar"
    generate_key(key)
    filled.export_archive(tmp_path / "unsigned.tar")
    for version in filled.versions():
        filled.rules.sign(version, key)
    filled.export_archive(path)
    other.require_signatures()
    for archive in (path, tmp_path / "unsigned.tar"):
        with pytest.raises(SignatureError, match="no valid signature"):
            other.import_archive(archive)
    assert other.versions() == []
    assert other.verify().findings == (), "nothing was stored"
    other.rules.trust_key(tmp_path / "key.pub", name="release")
    other.import_archive(path)
    assert everything(other) == everything(filled)


def test_a_lost_store_is_filled_again(filled: Registry, tmp_path: Path) -> None:
    filled.export_archive(tmp_path / "backup.tar")
    before = everything(filled)
    for path in (tmp_path / "registry" / "blobs").rglob("*"):
        if path.is_file():
            path.unlink()
    assert not filled.verify().is_sound
    assert filled.import_archive(tmp_path / "backup.tar").known == 6
    assert everything(filled) == before
    assert filled.verify().findings == ()
